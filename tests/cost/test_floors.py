"""No bound lies under a physical floor: from the figures of each card alone, by plain arithmetic.

Times of processors, of published reads and of time steps are strict. Other published figures are taken as good to 25 %,
energies of events and sums of components less (docs/equations.md, "Bands").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard, list_cards, load_card
from hpml_sim.cost import estimate
from hpml_sim.counting import Workload
from hpml_sim.errors import HpmlError
from hpml_sim.targets import EstimatedEngine

from .machines import linear, mlp, snn

if TYPE_CHECKING:
    from hpml_sim.cost import Estimate

SLACK = 1 - 1e-9
PUBLISHED = 0.75
"""What is left of a published energy or power where the measured part takes least."""
ROUGH = 0.25
"""The same of a sum of components; half of it for their times, and for energies of events that nobody measured."""
HALF = 0.5
STATIC = {
    "small": mlp(784, 300, 10),
    "wide": mlp(4096, 4096, 4096, 1000),
    "convolution": Workload((linear("conv", 576, 64, vectors=3136), linear("fc", 64, 10)), input_elements=200_704),
}
BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1, "fp4": 0.5}
"""Of one weight."""


def names(kind: str) -> list[str]:
    """The cards of a kind that describe a whole machine."""
    cards = [load_card(name) for name in list_cards()]
    return [card.name for card in cards if card.kind == kind and not _devices_only(card)]


def _devices_only(card: object) -> bool:
    return isinstance(card, CrossbarCard) and card.preset is None and card.component is None


def macs(workload: Workload) -> float:
    return sum(layer.macs for layer in workload.layers)


def low(quantity) -> float:
    return 0.0 if quantity is None else quantity.band().low


def asked(workload: Workload, card, **options) -> list[Estimate]:
    """At the card's own scope and at system scope."""
    return [estimate(workload, card, **options), estimate(workload, card, scope="system", **options)]


@pytest.mark.parametrize("network", STATIC)
@pytest.mark.parametrize("name", names("digital"))
def test_processors_stay_under_their_data_sheets(name: str, network: str) -> None:
    card, workload = load_card(name), STATIC[network]
    assert isinstance(card, DigitalCard)
    operations, weights = 2 * macs(workload), sum(layer.weight_count for layer in workload.layers)
    seen = 0
    for precision, peak in card.peak.items():
        for engine in get_args(EstimatedEngine):
            for batch in (1, 64):
                try:
                    found = asked(workload, card, precision=precision, engine=engine, batch=batch)
                except HpmlError:  # what the card does not have
                    continue
                for result in found:
                    seen += 1
                    devices = result.mapping.get("devices", 1)
                    flight = 1.0 if card.in_flight is None else card.in_flight.band().high
                    computed_s = operations * batch / (peak.band().high * devices)
                    held = 0.0 if card.cache is None else card.cache.band().high
                    stored = weights * BYTES[precision]
                    read_s = stored / (card.memory_bandwidth.band().high * devices) if stored > held else 0.0
                    floor_s = max(computed_s, read_s)
                    assert result.latency_s.low >= floor_s * SLACK, (precision, engine, batch, result.scope)
                    assert result.throughput_hz.high * floor_s / batch * SLACK <= flight
                    idle_j = devices * low(card.power_idle) / result.throughput_hz.high
                    assert result.energy_j.low >= idle_j * SLACK, (precision, engine, batch, result.scope)
                own, system = found
                most_w = card.power_max.band().high * own.mapping.get("devices", 1)
                assert own.energy_j.nominal * own.throughput_hz.nominal * SLACK <= most_w
                assert system.energy_j.low >= own.energy_j.low * SLACK
                assert system.latency_s.low >= own.latency_s.low * SLACK
    assert seen


@pytest.mark.parametrize("network", STATIC)
@pytest.mark.parametrize("name", names("crossbar"))
def test_crossbars_pay_for_every_cell_and_every_read(name: str, network: str) -> None:
    card, workload = load_card(name), STATIC[network]
    assert isinstance(card, CrossbarCard)
    cells = card.array.rows.si * card.array.cols.si / card.array.cells_per_weight.si
    columns = sum(layer.cols * layer.vectors for layer in workload.layers)
    floor_j, read_s = 0.0, 0.0
    if card.preset is not None:  # full tiles alone: no array is used better
        floor_j = PUBLISHED * macs(workload) / cells * low(card.preset.energy_per_mvm)
        read_s = low(card.preset.time_per_mvm)
    elif (part := card.component) is not None:  # each cell once and each column converted once
        floor_j = ROUGH * macs(workload) * low(part.cell_energy) * (part.mean_input is None)
        floor_j += ROUGH * columns * low(part.conversion_energy)
        read_s = HALF * low(part.cycle_time)
    assert read_s > 0
    for result in asked(workload, card):
        assert result.energy_j.low >= floor_j * SLACK, result.scope
        assert result.latency_s.low >= len(workload.layers) * read_s * SLACK, result.scope
        assert result.throughput_hz.high * read_s * SLACK <= card.array.tiles_per_chip.si * result.mapping["chips"]
        static_j = PUBLISHED * low(card.digital.power_static) * result.mapping["chips"] / result.throughput_hz.high
        assert result.energy_j.low >= static_j * SLACK, result.scope
    own, system = asked(workload, card)
    assert system.energy_j.low >= own.energy_j.low * SLACK
    assert system.latency_s.low >= own.latency_s.low * SLACK


@pytest.mark.parametrize("sizes", [(64, 128, 10), (784, 300, 300, 10)], ids=["small", "wide"])
@pytest.mark.parametrize("name", names("neuromorphic"))
def test_spiking_machines_pay_for_every_event_and_for_being_on(name: str, sizes: tuple[int, ...]) -> None:
    card, steps = load_card(name), 20
    assert isinstance(card, NeuromorphicCard)
    workload, events = snn(*sizes, steps=steps), card.events
    sops, updates = (sum(getattr(layer, what) for layer in workload.layers) for what in ("sops", "updates"))
    update_j = low(events.update_energy)
    if events.idle_update_energy is not None:
        update_j = min(update_j, low(events.idle_update_energy))
    events_j = HALF * sops * low(events.sop_energy) + HALF * updates * update_j
    for result in asked(workload, card):
        chips = result.mapping["chips"]
        step_s = max(low(events.tick_time), low(events.barrier_time))
        cores = chips * card.core.cores_per_chip.si
        event_s = PUBLISHED * sops * low(events.sop_time) / cores
        assert result.latency_s.low >= max(steps * step_s, event_s) * SLACK, result.scope
        static_j = PUBLISHED * chips * low(card.power_static) / result.throughput_hz.high
        assert result.energy_j.low >= (events_j + static_j) * SLACK, result.scope
    own, system = asked(workload, card)
    assert system.energy_j.low >= own.energy_j.low * SLACK
    assert system.latency_s.low >= own.latency_s.low * SLACK
