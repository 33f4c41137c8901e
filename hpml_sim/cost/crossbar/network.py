"""Energy and time of a whole network on crossbar tiles: its layers are the stages of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from hpml_sim.cost.breakdown import CostBreakdown
from hpml_sim.cost.crossbar.converter_bits import Mode, choose_mode
from hpml_sim.cost.crossbar.mapping import Block, Placement, place, replicate_greedily
from hpml_sim.cost.crossbar.periphery import Periphery
from hpml_sim.cost.crossbar.tile import PartCost, Tile, build_tile
from hpml_sim.counting import LayerCount
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import CrossbarCard
    from hpml_sim.cost.result import Estimate
    from hpml_sim.counting import Workload

SATURATED = 0.95
"""The best batch is the smallest that reaches this share of the pipelined throughput."""


def estimate_crossbar(
    workload: Workload,
    card: CrossbarCard,
    *,
    batch: int | Literal["best"] = 1,
    mode: Mode | None = None,
    replicate: bool = True,
    digital_layers: Collection[str] = (),
    input_bits: int | None = None,
    output_bits: int | None = None,
    chips: int | None = None,
) -> Estimate:
    """Energy and time of a network whose matrices lie on analog tiles.

    E = sum over layers of V sum_tiles E_MVM(tile) + digital operations + buffers + links + static power x time.
    A stage takes ceil(V / copies) t_MVM; throughput = 1 / slowest stage (pipelined); latency = sum of the stages, each
    waiting for the whole of the one before (low bound: perfectly overlapped).

    In preset mode, other bits than the card's scale the published total: by the ratio of the card's components, or else
    by the share of the MVM that its converters take.

    Args:
        workload: what there is to do.
        card: the machine.
        batch: inferences that follow each other through the pipeline; "best": 95 % of the pipelined throughput.
        mode: "preset" or "component"; None takes the preset where the card has one.
        replicate: copy slow layers onto tiles that would stay empty.
        digital_layers: names of layers with weights that stay digital.
        input_bits: resolution of the inputs, in component mode; None takes the card's.
        output_bits: resolution of a conversion; None takes the card's.
        chips: chips that are powered; None takes as few as hold the network.

    Raises:
        HpmlError: the card lacks the mode, bits that its figures cannot follow, or `chips` are too few.

    Source: docs/equations.md, section 2.
    """
    mode = choose_mode(card, mode, input_bits, output_bits)
    breakdown = CostBreakdown(card)
    rows, cols = int(card.array.rows), int(card.array.cols)
    per_weight, per_chip = int(card.array.cells_per_weight), int(card.array.tiles_per_chip)
    for quantity in (card.array.rows, card.array.cols, card.array.cells_per_weight, card.array.tiles_per_chip):
        breakdown.use(quantity)
    analog, digital = _split(workload, digital_layers)
    placements, chips = _lay_out(card, analog, chips, replicate)
    tile = build_tile(breakdown, card, mode, input_bits, output_bits)
    stages = [_charge_stage(breakdown, tile, p) for p in placements]
    around = Periphery(breakdown, card, mode, chips, per_chip)
    digital_s = around.surroundings(placements, digital, input_bits)

    latency, bottleneck = _pipelined(tile, placements, stages, digital_s)
    if batch == "best":
        batch = _best_batch(latency.nominal, bottleneck.nominal)
    latency = latency + bottleneck * float(batch - 1)
    throughput = bottleneck.inverse() if bottleneck.nominal > 0 else Band(0.0, 0.0, math.inf)
    around.static(latency / batch)
    tiles = sum(p.tiles * p.copies for p in placements)
    reported_separately = _beside(breakdown, card, _full_mvm(tile, rows, cols) * float(tiles * rows))
    programming = around.programming(placements, per_weight)
    if programming is not None:
        reported_separately["programming_j"] = programming
    for name in workload.not_counted:
        breakdown.exclude(f"{name}: a layer that the workload does not know")
    if not placements:
        breakdown.exclude("no layer of this network has weights that could lie on a crossbar")
    macs = sum(p.layer.macs for p in placements)
    mapping = {
        "tiles": float(sum(p.tiles for p in placements)),
        "tiles_with_copies": float(tiles),
        "chips": float(chips),
        "utilization": sum(p.cells * p.copies for p in placements) / max(tiles * rows * cols, 1),
        "chip_utilization": tiles / (chips * per_chip),
        "max_copies": float(max((p.copies for p in placements), default=0)),
        "analog_macs": macs,
        "digital_macs": sum(layer.macs for layer in digital),
    }
    if mode == "component":
        mapping["conversions_per_mac"] = _conversions(tile, placements) / macs if macs else 0.0
    return breakdown.close(
        batch=batch,
        latency_s=latency,
        throughput_hz=throughput,
        area_mm2=around.area(tiles),
        mapping=mapping,
        reported_separately=reported_separately,
    )


def _split(workload: Workload, digital_layers: Collection[str]) -> tuple[list[LayerCount], list[LayerCount]]:
    """The layers whose matrices lie on tiles, and all others."""
    unknown = set(digital_layers) - {layer.name for layer in workload.layers}
    if unknown:
        raise HpmlError(f"digital_layers={sorted(unknown)}: no such layers in the workload")
    on_tiles = [y.rows > 0 and y.cols > 0 and y.name not in digital_layers for y in workload.layers]
    analog = [y for y, on_tile in zip(workload.layers, on_tiles, strict=True) if on_tile]
    return analog, [y for y, on_tile in zip(workload.layers, on_tiles, strict=True) if not on_tile]


def _lay_out(
    card: CrossbarCard, layers: list[LayerCount], chips: int | None, replicate: bool
) -> tuple[list[Placement], int]:
    """Where the layers lie, and how many chips are powered."""
    array, per_chip = card.array, int(card.array.tiles_per_chip)
    placements = [place(y, int(array.rows), int(array.cols), int(array.cells_per_weight)) for y in layers]
    needed = sum(p.tiles for p in placements)
    fewest = max(1, math.ceil(needed / per_chip))
    if chips is not None and chips < fewest:
        raise HpmlError(f"chips={chips}: {needed} tiles need {fewest} chips of {per_chip} tiles")
    chips = chips or fewest
    if replicate:
        replicate_greedily(placements, chips * per_chip - needed)
    return placements, chips


def _charge_stage(breakdown: CostBreakdown, tile: Tile, placement: Placement) -> Band:
    """Charge the MVMs of one layer; returns the time of its stage of the pipeline."""
    for cost in _layer_costs(tile, placement):
        breakdown.add(placement.layer.name, cost.component, cost.energy, *cost.quantities)
    return tile.time(placement.layer) * float(placement.rounds())


def _pipelined(tile: Tile, placements: list[Placement], stages: list[Band], digital_s: Band) -> tuple[Band, Band]:
    """Latency of one inference, and the time of the slowest stage, which sets the pace of those that follow.

    Each stage waits for the whole of the one before; in the best case a stage starts as soon as the first vectors
    arrive, and what remains is one MVM of each stage to fill the pipeline, and the slowest stage's own time.
    """
    slowest = _maximum(stages)
    whole = sum(stages, ZERO) + digital_s
    fill = sum((tile.time(p.layer) for p in placements), ZERO) + digital_s
    overlapped = max(slowest.low, fill.low)
    return Band(min(overlapped, whole.low), whole.nominal, whole.high), slowest.maximum(digital_s)


def _conversions(tile: Tile, placements: list[Placement]) -> float:
    """Conversions of one inference; copies share them."""
    return float(
        sum(
            p.layer.vectors * tile.conversions(p.layer) * sum(block.count * block.cols for block in p.blocks)
            for p in placements
        )
    )


def _beside(breakdown: CostBreakdown, card: CrossbarCard, calibrated: Band) -> dict[str, Band]:
    """One drift calibration, which reads every row of every tile once as aihwkit does, and its mean power."""
    if card.recalibration_time is None:
        breakdown.exclude("how often drift is calibrated: the card has no figure; one calibration is beside the total")
        return {"recalibration_j": calibrated}
    power = calibrated / breakdown.use(card.recalibration_time).nominal
    return {"recalibration_j": calibrated, "recalibration_w": power}


def _layer_costs(tile: Tile, placement: Placement) -> list[PartCost]:
    """Joules of each component for all tiles and vectors of a layer, with every figure that any of them used."""
    sums: dict[str, PartCost] = {}
    for block in placement.blocks:
        for cost in tile.mvm(block, placement.layer):
            energy = cost.energy * (block.count * placement.layer.vectors)
            if before := sums.get(cost.component):
                # quantities are told apart by identity: two figures of a card may have the same value
                keys = tuple(dict.fromkeys(map(id, before.quantities + cost.quantities)))
                by_id = {id(q): q for q in before.quantities + cost.quantities}
                cost = PartCost(cost.component, before.energy + energy, tuple(by_id[key] for key in keys))
            else:
                cost = PartCost(cost.component, energy, cost.quantities)
            sums[cost.component] = cost
    return list(sums.values())


def _full_mvm(tile: Tile, rows: int, cols: int) -> Band:
    """Joules of one MVM of a tile without an empty cell."""
    any_layer = LayerCount("", "linear", rows=rows, cols=cols)
    return sum((cost.energy for cost in tile.mvm(Block(1, rows, cols), any_layer)), ZERO)


def _maximum(bands: list[Band]) -> Band:
    result = ZERO
    for band in bands:
        result = result.maximum(band)
    return result


def _best_batch(latency: float, bottleneck: float) -> int:
    batch = 1
    while bottleneck > 0 and batch * bottleneck < SATURATED * (latency + (batch - 1) * bottleneck):
        batch *= 2
    return batch
