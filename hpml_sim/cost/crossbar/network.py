"""Energy and time of a whole network on crossbar tiles: its layers are the stages of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from hpml_sim.cost.crossbar.converter_bits import Mode
from hpml_sim.cost.crossbar.delays import Delays, dependent_batch, pipelined
from hpml_sim.cost.crossbar.layout import Layout
from hpml_sim.cost.crossbar.machine import Machine
from hpml_sim.cost.result import Estimate
from hpml_sim.cost.system.work import generates
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import CrossbarCard
    from hpml_sim.cost.crossbar.mapping import Placement
    from hpml_sim.counting import Workload

SATURATED = 0.95
"""The best batch is the smallest that reaches this share of the pipelined throughput."""


def estimate_crossbar(
    workload: Workload,
    layout: Layout,
    card: CrossbarCard,
    *,
    batch: int | Literal["best"] = 1,
    mode: Mode | None = None,
    replicate: bool = True,
    chips: int | None = None,
    system: bool = False,
) -> Estimate:
    """Energy and time of a network whose matrices lie on analog tiles.

    E = sum over layers of V sum_tiles E_MVM(tile) + digital operations + buffers + links + static power x time.
    A stage takes ceil(V / copies) t_MVM; throughput = 1 / slowest stage (pipelined); latency = sum of the stages, each
    waiting for the whole of the one before (low bound: perfectly overlapped). Of a network that generates text, a token
    waits for the one before it: b sequences get b tokens in max(latency, b x slowest stage).

    In preset mode, other bits than the card's scale the published total: by the ratio of the card's components, or else
    by the share of the MVM that its converters take.

    Args:
        workload: what there is to do.
        layout: which of it lies on which tiles; where layers lie on several cards, all of the same scope.
        card: the machine, where the layout has no product on tiles.
        batch: inferences that follow each other through the pipeline; "best": 95 % of the pipelined throughput.
        mode: "preset" or "component"; None takes the preset where the card has one.
        replicate: copy slow layers onto tiles that would stay empty.
        chips: chips that are powered, of a single card; None takes as few as hold the network.
        system: whether components stand in for what the card has no figure for.

    Raises:
        HpmlError: the card lacks the mode, bits that its figures cannot follow, `chips` are too few, or cards of
            different scope.

    Source: docs/equations.md, section 2.
    """
    cards = layout.cards or (card,)
    _check_cards(cards, chips)
    machines = [
        Machine(
            each,
            [p for own, p in layout.placements if own.name == each.name],
            mode=mode,
            chips=chips,
            replicate=replicate,
            system=system,
        )
        for each in cards
    ]
    # digital layers run beside the tiles; of several cards, on the first that knows what they take
    host = next((m for m in machines if m.card.digital.energy_per_op is not None), machines[0])
    found = [m.around.surroundings(m.placements, layout.digital if m is host else ()) for m in machines]
    latency, bottleneck = pipelined(
        [stage for machine in machines for stage in machine.stages],
        [first for machine in machines for first in machine.first_products()],
        _joined([known for known, _ in found]),
        _joined([unknown for _, unknown in found]),
    )
    for machine in machines:
        bottleneck = bottleneck.maximum(machine.stacked())
    # one sequence fills no pipeline, be it read or continued; of other networks inferences follow each other
    chained = generates(workload) or workload.extra.get("tokens", 0.0) > 0
    if batch == "best":
        batch = _best_batch(latency.nominal, bottleneck.nominal, chained=chained)
    if chained:
        latency = dependent_batch(latency, bottleneck, batch)
        throughput = latency.inverse() * float(batch)
    else:
        latency = latency + bottleneck * float(batch - 1)
        throughput = bottleneck.inverse() if bottleneck.nominal > 0 else Band(0.0, 0.0, math.inf)
    for machine in machines:
        machine.around.static(latency / batch, machine.busy(latency.nominal / batch))
    beside = [{**machine.beside(), "idle_w": machine.around.idle()} for machine in machines]
    first = machines[0].breakdown
    for name in workload.not_counted:
        first.exclude(f"{name}: a layer that the workload does not know")
    if not layout.placements:
        first.exclude("no layer of this network has weights that could lie on a crossbar")
    for remark in layout.remarks:
        first.assume(remark)
    areas = [machine.around.area(machine.used_tiles) for machine in machines]
    figures = _figures(machines, [p for _, p in layout.placements], sum(layer.macs for layer in layout.digital))
    parts = [
        machine.breakdown.close(
            batch=batch,
            latency_s=latency,
            throughput_hz=throughput,
            area_mm2=area,
            mapping=figures,
            reported_separately=separately,
        )
        for machine, area, separately in zip(machines, areas, beside, strict=True)
    ]
    return parts[0] if len(parts) == 1 else _together(parts)


def _check_cards(cards: Sequence[CrossbarCard], chips: int | None) -> None:
    if len(cards) > 1 and chips is not None:
        names = ", ".join(card.name for card in cards)
        raise HpmlError(f"chips={chips}: layers lie on chips of several cards ({names}); leave it out")
    if len({card.scope for card in cards}) > 1:
        scopes = ", ".join(f"{card.name}: {card.scope}" for card in cards)
        raise HpmlError(
            f"layers lie on cards of different scope ({scopes}), whose figures cannot be added; take cards of one scope"
        )


def _figures(machines: list[Machine], placements: list[Placement], digital_macs: float) -> dict[str, float]:
    """How the network lies on its machines, numbers by name."""
    tiles = sum(machine.used_tiles for machine in machines)
    macs = sum(p.layer.macs for p in placements)
    figures = {
        "tiles": float(sum(p.tiles for p in placements)),
        "tiles_with_copies": float(tiles),
        "chips": float(sum(machine.chips for machine in machines)),
        "utilization": sum(p.cells * p.copies for p in placements) / max(sum(m.cells for m in machines), 1),
        "chip_utilization": tiles / sum(machine.chips * machine.per_chip for machine in machines),
        "max_copies": float(max((p.copies for p in placements), default=0)),
        "analog_macs": macs,
        "digital_macs": digital_macs,
    }
    if all(machine.mode == "component" for machine in machines):
        figures["conversions_per_mac"] = sum(machine.conversions() for machine in machines) / macs if macs else 0.0
    return figures


def _joined(parts: list[Delays]) -> Delays:
    shared = ZERO
    for part in parts:
        shared = shared.maximum(part.shared)
    return Delays(
        tuple(stage for part in parts for stage in part.stages), sum((part.serial for part in parts), ZERO), shared
    )


def _best_batch(latency: float, bottleneck: float, *, chained: bool) -> int:
    batch = 1
    while bottleneck > 0:
        whole = max(latency, batch * bottleneck) if chained else latency + (batch - 1) * bottleneck
        if batch * bottleneck >= SATURATED * whole:
            break
        batch *= 2
    return batch


def _together(parts: list[Estimate]) -> Estimate:
    """One estimate of a network on several cards: their energies and areas added, each sentence with its card."""
    areas = [part.area_mm2 for part in parts if part.area_mm2 is not None]
    separately: dict[str, Band] = {}
    for part in parts:
        for name, band in part.reported_separately.items():
            separately[name] = separately.get(name, ZERO) + band
    terms = tuple(
        replace(term, sources=tuple(f"{part.card}:{key}" for key in term.sources))
        for part in parts
        for term in part.terms
    )
    return replace(
        parts[0],
        card="+".join(part.card for part in parts),
        energy_j=sum((part.energy_j for part in parts), ZERO),
        area_mm2=sum(areas, ZERO) if len(areas) == len(parts) else None,
        terms=terms,
        excluded=tuple(f"{part.card}: {sentence}" for part in parts for sentence in part.excluded),
        sources={f"{part.card}:{key}": cited for part in parts for key, cited in part.sources.items()},
        assumptions=tuple(f"{part.card}: {sentence}" for part in parts for sentence in part.assumptions),
        reported_separately={
            # a sum of what some cards do not tell would be too low
            name: band
            for name, band in separately.items()
            if all(name in part.reported_separately for part in parts)
        },
    )
