"""Whole systems, components and machines that wait, against our equations."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hpml_sim.cards import load_component
from hpml_sim.cost import Estimate, estimate
from hpml_sim.cost.breakdown import CostBreakdown
from hpml_sim.cost.named import Asked, counted
from hpml_sim.cost.system.lent import Lent
from hpml_sim.cost.system.scaling import at_node
from hpml_sim.cost.validation.crossbar import neurosim_machines
from hpml_sim.cost.validation.point import (
    Basis,
    Point,
    cite,
    crossbar_card,
    digital_card,
    factor,
    full_chip,
    matrix_count,
    neuromorphic_card,
    operations,
    tera_ops,
    tera_ops_per_watt,
    within,
)
from hpml_sim.counting import LayerCount, Workload
from hpml_sim.units.bands import Band

BRUSCHI = (
    "N. Bruschi et al., End-to-End DNN Inference on a Massively Parallel Analog In Memory Computing Architecture, "
    "DATE 2023; arXiv 2211.12877: abstract"
)
DAVIDSON = "S. Davidson, S. Furber, Frontiers in Neuroscience 15:651141 (2021): energies of operations in 22FDX"


def held(band: Band) -> tuple[float, float]:
    """Allowed model / published where the published figure must lie between the bounds of the estimate.

    Args:
        band: of the estimate.
    """
    return band.nominal / band.high, math.inf if band.low == 0 else band.nominal / band.low


def analog_systems() -> Iterator[Point]:
    """Systems around analog chips, as their authors have them, against chips with components around them."""
    chip = crossbar_card("pcm-34tile-chip")
    workload = full_chip(chip)
    whole = estimate(workload, chip, scope="system")
    yield Point(
        "34-tile PCM: efficiency of the system from the chip and components",
        6.94,
        tera_ops_per_watt(workload, whole),
        "TOPS/W",
        *factor(1.5),
        basis="prediction",
        source=cite(chip, "AM23", "text"),
        note="the authors' own projection of the digital parts, against components for all that surrounds the chip",
    )
    card = crossbar_card("pcm-hermes-1phase")
    resnet = estimate(counted("resnet18", Asked()), card, batch=16, chips=8, scope="system")
    band = resnet.throughput_hz * (operations(counted("resnet18", Asked())) / 1e12)
    yield Point(
        "ResNet-18 on 512 clusters of 256 x 256: throughput in the band",
        20.2,
        band.nominal,
        "TOPS",
        *held(band),
        basis="calibrated",
        source=BRUSCHI,
        note="eight chips of 64 cores stand for the clusters, whose digital units are RISC-V cores; the low bound of "
        "our units' rate is another chip's, but was chosen with this figure in sight",
    )
    card = crossbar_card("pcm-hermes")
    source = cite(card, "LG23", "Table I")
    activation = LayerCount("act", "activation", output_elements=7304, module="ReLU")
    nine = estimate(Workload((matrix_count("resnet-9", 256, round(1.87e6 / 256)), activation)), card)
    yield _in_band("HERMES ResNet-9: time of a step in the band", 1.52, nine.latency_s * 1e6, "us", source)
    gates = LayerCount("cell", "activation", output_elements=5 * 2048, module="LSTM")
    steps = Workload((matrix_count("gates", 256, 256 * 32), gates, matrix_count("output", 256, 256)))
    lstm = estimate(steps, card)
    yield _in_band("HERMES LSTM: time of a time step in the band", 1.43, lstm.latency_s * 1e6, "us", source)
    filled = estimate(full_chip(card), card, scope="system")
    yield _in_band("HERMES LSTM: energy of a time step in the band", 5.24, filled.energy_j * 1e6, "uJ", source)


def _in_band(name: str, published: float, band: Band, unit: str, source: str) -> Point:
    note = "the published figure lies between the bounds of the estimate"
    return Point(name, published, band.nominal, unit, *held(band), basis="prediction", source=source, note=note)


def simulators() -> Iterator[Point]:
    """NeuroSim's and RAELLA's own totals."""
    card, wider, workload = neurosim_machines()
    source = cite(card, "NS14", "Table VII, RRAM, 22 nm")
    for machine, rows, published in ((card, 32, 6.25), (wider, 64, 8.16)):
        yield Point(
            f"NeuroSim VGG-8, {rows} rows at once: throughput",
            published,
            tera_ops(workload, estimate(workload, machine)),
            "TOPS",
            *factor(2),
            basis="prediction",
            source=source,
            note="from the time of a read and the columns that share a converter; NeuroSim copies layers otherwise",
        )
    area = estimate(workload, card).area_mm2
    assert area is not None
    yield Point(
        "NeuroSim VGG-8: area", 381.9, area.nominal, "mm2", *within(0.02), "identity", source, "regression test"
    )
    eight, raella = crossbar_card("isaac-8bit"), crossbar_card("raella")
    ratio = [tera_ops_per_watt(full_chip(c), estimate(full_chip(c), c)) for c in (eight, raella)]
    source = cite(raella, "RA23", "comparison with an 8-bit ISAAC")
    note, times = "component energies of both; published: mean over seven networks, 2.9 to 4.9", ratio[1] / ratio[0]
    yield Point("RAELLA over 8-bit ISAAC: energy", 3.9, times, "1", *factor(1.5), "prediction", source, note)
    found = estimate(full_chip(raella), raella).mapping["conversions_per_mac"]
    note = "conversions a MAC = cells a weight x input bits / rows"
    yield Point("RAELLA: conversions a MAC", 0.063, found, "1", *within(0.02), "prediction", source, note)


def components() -> Iterator[Point]:
    """Arithmetic between the two tables, against measurements at other nodes; and a node of eight GPUs."""
    old, young = load_component("logic-45nm"), load_component("logic-7nm")
    note = "between published tables at 45 and 7 nm"
    add = at_node(old, young, "operations.add_int32", 22).nominal * 1e12
    yield Point("32-bit addition at 22 nm", 0.060, add, "pJ", *within(0.25), "prediction", DAVIDSON, note)
    multiply = at_node(old, young, "operations.mult_int8", 40).nominal * 1e12
    library = "accelergy-library-plug-in: 8 x 8 multiplication of RAELLA, 40 nm"
    yield Point("8-bit multiplication at 40 nm", 0.25, multiply, "pJ", *factor(2), "prediction", library, note)
    lent = Lent(CostBreakdown(crossbar_card("pcm-34tile-chip")), 14.0)
    efficiency = lent.multiply_add().inverse() * 2e-12
    chen = f"{load_component('datapath').figure('ratio').note}; A. Chen et al., Nat. Commun. 16:8661 (2025)"
    yield _in_band("Digital units at 14 nm in the band", 6.0, efficiency, "TOPS/W", chen)
    h100 = digital_card("h100")
    square = Workload((matrix_count("product", 8192, 8192, 8192),))
    one = estimate(square, h100, precision="bf16", engine="cuda-graph", scope="system")
    joules = sum(t.energy_j.nominal for t in one.terms if t.component != "cooling")
    latif = load_component("host-server").sources["LA25"].cite
    yield Point(
        "Eight H100 in a node: power at full load",
        8.4,
        8e-3 * joules * one.throughput_hz.nominal,
        "kW",
        *within(0.15),
        basis="calibrated",
        source=latif,
        note="boards at their limit, hosts, fans and supplies; the host is from this figure",
    )


def northpole() -> Iterator[Point]:
    """NorthPole on ResNet-50, by itself and against GPUs; and a rack of it that generates text."""
    card = digital_card("northpole")
    counts = counted("resnet50", Asked())
    # the published network computes in 8 and 4 bits; the estimate in 4
    ours = estimate(counts, card, precision="fp4", batch="best")
    source = f"{cite(card, 'MO23', 'Table 1')}, as F. Ottati quotes it, open-neuromorphic.org (2023)"
    note = "the share of the peak is that of this run; layers in 8 and 4 bits there, all in 4 here"
    yield Point(
        "NorthPole: images a second of ResNet-50", 42460, ours.throughput_hz.nominal, "1/s", *factor(1.5),
        basis="calibrated", source=source, note=note,
    )  # fmt: skip
    joules = ours.energy_j.nominal * 1e3
    note = "power and time are those of this run"
    yield Point("NorthPole: energy of ResNet-50", 74e3 / 42460, joules, "mJ", *factor(1.5), "calibrated", source, note)
    a100 = estimate(counts, "a100", precision="int8", engine="fused", batch="best")
    note = "a GPU with the constants of its products in 16 bits"
    yield Point(
        "A100: images a second of ResNet-50 in int8", 30814, a100.throughput_hz.nominal, "1/s", *factor(1.4),
        basis="prediction", source=source, note=note,
    )  # fmt: skip
    watts = load_component("host-server").figure("power_active").si * 0.5 + 672 / 16
    for name in ("fans", "power-supply"):
        watts *= load_component(name).figure("ratio").si
    yield Point(
        "NorthPole: a rack of 288 cards that generates text", 30, 288e-3 * watts, "kW", *within(0.35),
        basis="prediction", source=cite(card, "DB25", "abstract"),
        note="672 W of 16 cards from another measurement (AP24); half of an eighth of a server a card, fans, supplies",
    )  # fmt: skip


def edge_accelerators() -> Iterator[Point]:
    """Hailo-8 on the maker's own networks: its rate is that of ResNet-50, the others are held out."""
    card = digital_card("hailo-8")
    cases: tuple[tuple[str, float, Basis], ...] = (
        ("resnet50", 1331.76, "calibrated"),
        ("resnet18", 2533.72, "held out"),
        ("resnet34", 1346.63, "held out"),
    )
    for name, published, basis in cases:
        found = estimate(counted(name, Asked()), card, batch="best")
        note = "the maker's ResNet-50 has 6.98 G operations, ours 8.2 G" if name == "resnet50" else ""
        yield Point(
            f"Hailo-8: images a second of {name}", published, found.throughput_hz.nominal, "1/s", *factor(1.4),
            basis=basis, source=cite(card, "ZOO", "Classification"), note=note,
        )  # fmt: skip
        if name == "resnet50":
            source = cite(card, "BENCH", "example output")
            watts = found.mapping["mean_power_w"]
            note = "regression test"
            yield Point("Hailo-8: power on ResNet-50", 3.194, watts, "W", *within(0.1), "identity", source, note)
            one = estimate(counted(name, Asked()), card)
            held_ms = one.latency_s * 1e3
            yield Point(
                "Hailo-8: latency of ResNet-50", 2.936, held_ms.nominal, "ms", *factor(1.4),
                basis="calibrated", source=source, note="inferences in the pipeline at once are from this figure",
            )  # fmt: skip


def always_on() -> Iterator[Point]:
    """Speck at six measured operating points: rest power and spikes in windows of 540 ms."""
    card = neuromorphic_card("speck")
    source = cite(card, "YA24", "Table 1")
    cases = (
        ("gesture, vanilla", 9.5, 1.0e6),
        ("gesture, dynamic", 3.8, 0.4e6),
        ("gait by day, vanilla", 16.1, 2.9e6),
        ("gait by day, dynamic", 7.3, 1.2e6),
        ("gait by night, vanilla", 46.8, 3.3e6),
        ("gait by night, dynamic", 12.3, 1.5e6),
    )
    for name, published, spikes in cases:
        matrix = matrix_count("core", 103, 328_000, binary_input=True, sops=103 * spikes)
        fires = LayerCount("neurons", "neuron", neurons=328_000, updates=0.0, spikes=spikes)
        found = estimate(Workload((matrix, fires), samples=1, kind="spiking"), card, rate_hz=1 / 0.54)
        fitted = name.startswith("gesture")
        yield Point(
            f"Speck, {name}: power",
            published,
            1e3 * found.reported_separately["average_power_w"].nominal,
            "mW",
            *factor(2),
            basis="calibrated" if fitted else "held out",
            source=source,
            note="rest power and spikes; the energy of a spike is that of the gestures",
        )


def spinnaker() -> Iterator[Point]:
    """SpiNNaker on MNIST, 784-500-500-10: the published energy lies in the band of what is powered."""
    card = neuromorphic_card("spinnaker-1")
    layers: list[LayerCount] = []
    for k, (rows, cols) in enumerate(((784, 500), (500, 500), (500, 10))):
        layers.append(matrix_count(f"w{k}", rows, cols, 11, binary_input=True, steps=11, sops=0.02 * rows * cols * 11))
        layers.append(LayerCount(f"n{k}", "neuron", neurons=cols, updates=11.0 * cols, spikes=0.22 * cols, steps=11))
    found: Estimate = estimate(Workload(tuple(layers), samples=1, kind="spiking"), card)
    band = found.energy_j * 1e3
    yield Point(
        "SpiNNaker on MNIST: energy in the band",
        3.3,
        band.nominal,
        "mJ",
        *held(band),
        basis="calibrated",
        source=cite(card, "RE24", "Table 1: 3.3 mJ, 11 ms"),
        note="the low bound of the static power is from this very figure; 2 % of the inputs spike in a step: assumed",
    )
