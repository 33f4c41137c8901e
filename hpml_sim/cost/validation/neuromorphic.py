"""Spiking machines against our equations."""

from __future__ import annotations

from collections.abc import Iterator

from hpml_sim.cost import Estimate, estimate
from hpml_sim.cost.validation.point import BELOW, Point, cite, matrix_count, neuromorphic_card, within
from hpml_sim.counting import LayerCount, Workload


def truenorth() -> Iterator[Point]:
    """TrueNorth's power sweep: fitted to its ends, held against its middle and against another paper's points."""
    card = neuromorphic_card("truenorth")
    neurons, synapses, steps = 1_048_576, 128, 1000

    def milliwatts(rate_hz: float) -> float:
        matrix = matrix_count(
            "recurrent", synapses, neurons, steps, binary_input=True, steps=steps, sops=neurons * rate_hz * synapses
        )
        fires = LayerCount(
            "neurons", "neuron", neurons=neurons, updates=neurons * steps, spikes=neurons * rate_hz, steps=steps
        )
        result = estimate(Workload((matrix, fires), samples=1, kind="spiking"), card)
        return 1e3 * result.energy_j.nominal / result.latency_s.nominal

    figure = cite(card, "AK15", "Fig. 17, 0.8 V")
    other = "the card is for 0.8 V; other voltages are not modeled"
    yield Point("TrueNorth at 11.58 Hz", 68, milliwatts(11.58), "mW", *within(0.03), "calibrated", figure)
    yield Point("TrueNorth at 20.07 Hz", 71, milliwatts(20.07), "mW", *within(0.03), "held out", figure)
    yield Point("TrueNorth at 95.93 Hz", 94, milliwatts(95.93), "mW", *within(0.03), "calibrated", figure)
    paper = cite(card, "ME14", "20 Hz, 0.775 V")
    yield Point("TrueNorth at 20 Hz, 0.775 V", 72, milliwatts(20), "mW", *within(0.1), "prediction", paper, other)
    section = cite(card, "AK15", "section VII, 20 Hz, 0.75 V")
    yield Point("TrueNorth at 20 Hz, 0.75 V", 65, milliwatts(20), "mW", *within(0.1), "prediction", section, other)


def odin() -> Iterator[Point]:
    """ODIN at its full rate and at a biological one: two measured powers, 13.6 times apart."""
    card, slow = neuromorphic_card("odin"), neuromorphic_card("odin-1.3mhz")
    for machine, rate, published, where in ((card, 37.5e6, 477, "75 MHz"), (slow, 650e3, 35, "1.3 MHz")):
        matrix = matrix_count("core", 256, 256, binary_input=True, sops=rate)
        fires = LayerCount("neurons", "neuron", neurons=256, updates=256, spikes=256)
        result = estimate(Workload((matrix, fires), samples=1, kind="spiking"), machine)
        yield Point(
            f"ODIN at {where}",
            published,
            1e6 * result.energy_j.nominal / result.latency_s.nominal,
            "uW",
            *within(0.03),
            basis="identity",
            source=cite(card, "FK19", "section IV-A"),
            note="the paper's own power model through our equations; its terms were measured on this chip",
        )


def loihi() -> Iterator[Point]:
    """Nearest-neighbor search on 32 Loihi chips: pre-silicon event energies against an independent measurement."""
    card = neuromorphic_card("loihi")
    patterns, steps, spikes = 76_800, 60, (667 + 750) / 2

    def search(patterns: int, chips: int) -> Estimate:
        matrix = matrix_count("patterns", 1000, patterns, steps, binary_input=True, steps=steps, sops=spikes * patterns)
        fires = LayerCount("matches", "neuron", neurons=patterns, updates=patterns * steps, steps=steps)
        return estimate(Workload((matrix, fires), samples=1, kind="spiking"), card, chips=chips)

    result = search(patterns, 32)
    parts = result.by_component()
    dynamic = result.reported_separately["dynamic_j"].nominal
    yield Point(
        "Loihi kNN: dynamic energy of a query",
        1.33,
        dynamic * 1e3,
        "mJ",
        *within(0.25),
        basis="prediction",
        source=cite(card, "FD20", "Table 2"),
        note="708 spikes, the middle of 667 to 750, to 76,800 neurons; 60 time steps",
    )
    yield Point(
        "Loihi kNN: static power of 32 chips",
        3.34,
        parts["static"].nominal / result.latency_s.nominal,
        "W",
        *within(0.25),
        basis="identity",
        source=cite(card, "FD20", "Table 1"),
        note="regression test",
    )
    yield Point(
        "Loihi kNN: reset of 32 chips",
        0.19,
        parts["reset"].nominal * 1e3,
        "mJ",
        *within(0.25),
        basis="identity",
        source=cite(card, "FD20", "Table 2"),
        note="regression test",
    )
    yield Point(
        "Loihi kNN: management processors of 32 chips",
        2.115,
        parts["host"].nominal / result.latency_s.nominal,
        "W",
        *within(0.25),
        basis="identity",
        source=cite(card, "FD20", "Table 1: 2.09 to 2.14 W"),
        note="regression test",
    )
    steps_at = cite(card, "FD20", "section 5.1")
    yield Point(
        "Loihi kNN: time step, 76,800 patterns",
        5.8,
        result.mapping["step_time_s"] * 1e6,
        "us",
        *within(0.35),
        basis="prediction",
        source=steps_at,
        note="the barrier of 256 chips, scaled to 32 by the side of the mesh",
    )
    million = search(1_000_000, 512)
    yield Point(
        "Loihi kNN: time step, 1 M patterns",
        13.0,
        million.mapping["step_time_s"] * 1e6,
        "us",
        *within(0.35),
        basis="prediction",
        source=steps_at,
        note="on 512 chips, which follow from the published static power",
    )
    yield Point(
        "Loihi kNN: latency of a query, 1 M patterns",
        3.03,
        million.latency_s.nominal * 1e3,
        "ms",
        *BELOW,
        basis="lower bound",
        source=cite(card, "FD20", "Table 3"),
        note="the window of 60 steps alone; getting the query in and the answer out is not counted",
    )
