"""The tiles of one card that a network lies on: what they and their surroundings spend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hpml_sim.cost.breakdown import CostBreakdown
from hpml_sim.cost.crossbar.converter_bits import Mode, choose_mode
from hpml_sim.cost.crossbar.mapping import Block, Placement, replicate_greedily
from hpml_sim.cost.crossbar.periphery import Periphery
from hpml_sim.cost.crossbar.tile import PartCost, Tile, build_tile
from hpml_sim.counting import LayerCount
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import CrossbarCard


class Machine:
    """The chips of one card, the layers on them, and the cost breakdown of both.

    Args:
        card: the machine.
        placements: the layers on its tiles, in order of execution; their copies are set here.
        mode: "preset" or "component"; None takes the preset where the card has one.
        chips: chips that are powered; None takes as few as hold the layers.
        replicate: copy slow layers onto tiles that would stay empty.
        system: whether components stand in for what the card has no figure for.

    Attributes:
        card: the machine.
        placements: the layers on its tiles.
        mode: "preset" or "component".
        chips: chips that are powered.
        breakdown: its energy so far.
        around: what surrounds its tiles.

    Raises:
        HpmlError: the card lacks the mode, bits that its figures cannot follow, or `chips` are too few.
    """

    def __init__(
        self,
        card: CrossbarCard,
        placements: list[Placement],
        *,
        mode: Mode | None,
        chips: int | None,
        replicate: bool,
        system: bool = False,
    ):
        self.card, self.placements = card, placements
        self.mode: Mode = choose_mode(card, mode, None, None)
        for p in placements:
            choose_mode(card, mode, p.input_bits, p.output_bits)
        self.breakdown = CostBreakdown(card)
        array = card.array
        for quantity in (array.rows, array.cols, array.cells_per_weight, array.tiles_per_chip):
            self.breakdown.use(quantity)
        self.per_chip = int(array.tiles_per_chip)
        needed = sum(p.tiles for p in placements)
        fewest = max(1, math.ceil(needed / self.per_chip))
        if chips is not None and chips < fewest:
            raise HpmlError(f"chips={chips}: {needed} tiles need {fewest} chips of {self.per_chip} tiles")
        self.chips = chips or fewest
        if replicate:
            replicate_greedily(placements, self.chips * self.per_chip - needed)
        # layers whose converters have the same bits share what is known of a tile, and say it once
        self._tiles: dict[tuple[int | None, int | None], Tile] = {}
        for p in placements:
            if p.bits not in self._tiles:
                self._tiles[p.bits] = build_tile(self.breakdown, card, self.mode, *p.bits)
        self._any_tile = next(iter(self._tiles.values()), None) or build_tile(
            self.breakdown, card, self.mode, None, None
        )
        self.stages = [self._charge(p) for p in placements]
        self.around = Periphery(self.breakdown, card, self.mode, self.chips, self.per_chip, system=system)

    @property
    def used_tiles(self) -> int:
        """Tiles in use, copies among them."""
        return sum(p.tiles * p.copies for p in self.placements)

    @property
    def cells(self) -> int:
        """Cells of those tiles, used or not."""
        return self.used_tiles * int(self.card.array.rows) * int(self.card.array.cols)

    def busy(self, seconds: float) -> float:
        """Share of all tiles and of some seconds in which tiles do the products of one inference.

        Args:
            seconds: that one inference bears.
        """
        spent = sum(stage.nominal * p.tiles * p.copies for stage, p in zip(self.stages, self.placements, strict=True))
        return spent / (self.chips * self.per_chip * seconds) if seconds else 0.0

    def stacked(self) -> Band:
        """Seconds in which all stacks of tiers do the products of one inference: one tier of a stack works at a time.

        Of a machine without stacks, nothing: its tiles work side by side.
        """
        tiers = 1 if self.card.array.tiers is None else int(self.card.array.tiers)
        if tiers == 1:
            return ZERO
        spent = sum((stage * float(p.tiles) for stage, p in zip(self.stages, self.placements, strict=True)), ZERO)
        return spent / max(1.0, self.used_tiles / tiers)

    def first_products(self) -> list[Band]:
        """Seconds of one MVM of each layer that does any."""
        return [self._tile(p).time(p.layer) for p in self.placements if p.layer.vectors]

    def conversions(self) -> float:
        """Conversions of one inference; copies share them."""
        return float(
            sum(
                p.layer.vectors * self._tile(p).conversions(p.layer) * sum(b.count * b.cols for b in p.blocks)
                for p in self.placements
            )
        )

    def beside(self) -> dict[str, Band]:
        """What does not belong to an inference: calibrating the drift, and writing the weights.

        One calibration reads every row of every tile once, as aihwkit does.
        """
        breakdown, card = self.breakdown, self.card
        rows, cols = int(card.array.rows), int(card.array.cols)
        calibrated = _full_mvm(self._any_tile, rows, cols) * float(self.used_tiles * rows)
        found = {"recalibration_j": calibrated}
        if card.recalibration_time is None:
            breakdown.exclude(
                "how often drift is calibrated: the card has no figure; one calibration is beside the total"
            )
        else:
            found["recalibration_w"] = calibrated / breakdown.use(card.recalibration_time).nominal
        programming = self.around.programming(self.placements)
        if programming is not None:
            found["programming_j"] = programming
        return found

    def _tile(self, placement: Placement) -> Tile:
        return self._tiles[placement.bits]

    def _charge(self, placement: Placement) -> Band:
        """Charge the MVMs of one layer; returns the time of its stage of the pipeline."""
        if not placement.layer.vectors:
            return ZERO
        tile = self._tile(placement)
        for cost in _layer_costs(tile, placement):
            self.breakdown.add(placement.layer.name, cost.component, cost.energy, *cost.quantities)
        return tile.time(placement.layer) * float(placement.rounds())


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
