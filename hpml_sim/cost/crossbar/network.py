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
    unknown = set(digital_layers) - {layer.name for layer in workload.layers}
    if unknown:
        raise HpmlError(f"digital_layers={sorted(unknown)}: no such layers in the workload")
    analog = [y for y in workload.layers if y.rows > 0 and y.cols > 0 and y.name not in digital_layers]
    digital = [y for y in workload.layers if not (y.rows > 0 and y.cols > 0) or y.name in digital_layers]

    placements = [place(layer, rows, cols, per_weight) for layer in analog]
    needed = sum(p.tiles for p in placements)
    fewest = max(1, math.ceil(needed / per_chip))
    if chips is not None and chips < fewest:
        raise HpmlError(f"chips={chips}: {needed} tiles need {fewest} chips of {per_chip} tiles")
    chips = chips or fewest
    if replicate:
        replicate_greedily(placements, chips * per_chip - needed)
    tile = build_tile(breakdown, card, mode, input_bits, output_bits)
    stages = []
    conversions = 0.0
    for p in placements:
        for cost in _layer_costs(tile, p):
            breakdown.add(p.layer.name, cost.component, cost.energy, *cost.quantities)
        stages.append(tile.time(p.layer) * float(p.rounds()))
        columns = sum(block.count * block.cols for block in p.blocks)
        conversions += p.layer.vectors * tile.conversions(p.layer) * columns
    around = Periphery(breakdown, card, mode, chips, per_chip)
    digital_s = around.surroundings(placements, digital, input_bits)

    slowest = _maximum(stages)
    # Each stage waits for the whole of the one before; in the best case a stage starts as soon as the first vectors
    # arrive, and what remains is one MVM of each stage to fill the pipeline and the slowest stage's own time.
    whole = sum(stages, ZERO) + digital_s
    fill = sum((tile.time(p.layer) for p in placements), ZERO) + digital_s
    overlapped = max(slowest.low, fill.low)
    latency = Band(min(overlapped, whole.low), whole.nominal, whole.high)
    bottleneck = slowest.maximum(digital_s)
    if batch == "best":
        batch = _best_batch(latency.nominal, bottleneck.nominal)
    latency = latency + bottleneck * float(batch - 1)
    throughput = bottleneck.inverse() if bottleneck.nominal > 0 else Band(0.0, 0.0, math.inf)
    around.static(latency / batch)

    tiles = sum(p.tiles * p.copies for p in placements)
    macs = sum(p.layer.macs for p in placements)
    # one drift calibration reads every row of every tile once, as aihwkit does
    calibrated = _full_mvm(tile, rows, cols) * float(tiles * rows)
    reported_separately = {"recalibration_j": calibrated}
    if card.recalibration_time is not None:
        reported_separately["recalibration_w"] = calibrated / breakdown.use(card.recalibration_time).nominal
    else:
        breakdown.exclude("how often drift is calibrated: the card has no figure; one calibration is beside the total")
    programming = around.programming(placements, per_weight)
    if programming is not None:
        reported_separately["programming_j"] = programming
    for name in workload.not_counted:
        breakdown.exclude(f"{name}: a layer that the workload does not know")
    if not placements:
        breakdown.exclude("no layer of this network has weights that could lie on a crossbar")
    mapping = {
        "tiles": float(needed),
        "tiles_with_copies": float(tiles),
        "chips": float(chips),
        "utilization": sum(p.cells * p.copies for p in placements) / max(tiles * rows * cols, 1),
        "chip_utilization": tiles / (chips * per_chip),
        "max_copies": float(max((p.copies for p in placements), default=0)),
        "analog_macs": macs,
        "digital_macs": sum(layer.macs for layer in digital),
    }
    if mode == "component":
        mapping["conversions_per_mac"] = conversions / macs if macs else 0.0
    return breakdown.close(
        batch=batch,
        latency_s=latency,
        throughput_hz=throughput,
        area_mm2=around.area(tiles),
        mapping=mapping,
        reported_separately=reported_separately,
    )


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
