"""What crosses from chip to chip: inputs that are broadcast, partial sums, outputs on their way to the next layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpml_sim.cost.crossbar.mapping import Placement

SUM_BITS = 32
"""Bits of a partial sum on its way to be added up."""


@dataclass(frozen=True)
class Crossing:
    """Bits of one inference that leave a chip.

    Attributes:
        outputs: of layers at or across the border of two chips, to the next layer.
        broadcasts: inputs that more than one chip needs, beyond the first.
        partial_sums: outputs whose sums are spread over chips.
    """

    outputs: float = 0.0
    broadcasts: float = 0.0
    partial_sums: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.outputs + self.broadcasts + self.partial_sums

    def __add__(self, other: Crossing) -> Crossing:
        return Crossing(
            self.outputs + other.outputs,
            self.broadcasts + other.broadcasts,
            self.partial_sums + other.partial_sums,
        )


def crossings(placements: Sequence[Placement], per_chip: int, bits: Sequence[int]) -> list[Crossing]:
    """Bits that each layer sends from chip to chip, layers laid one after the other, column strip by column strip.

    A layer of T tiles, R of them in a strip whose outputs are added up, lies on n chips. Where a chip holds whole
    strips, every chip needs all inputs; where a strip is cut over s = ceil(R n / T) chips, s - 1 of them send partial
    sums and an input reaches only the chips that hold its rows.

    Args:
        placements: layers on tiles, in order of execution.
        per_chip: tiles of one chip.
        bits: of an activation of each layer.
    """
    found, first = [], 0
    after: list[Placement | None] = [*placements[1:], None]
    for p, following, own in zip(placements, after[: len(placements)], bits, strict=True):
        last = first + p.tiles  # the first tile of the next layer
        chips = (max(last, first + 1) - 1) // per_chip - first // per_chip + 1
        leaves = first // per_chip != (last - (following is None)) // per_chip
        outputs = p.layer.output_elements * own if leaves else 0.0
        broadcasts = partial_sums = 0.0
        if chips > 1:
            strips = max(1, round(p.tiles / max(p.row_blocks, 1)))
            cut = math.ceil(p.row_blocks * chips / p.tiles)
            # inputs in one, one-bit spikes in a bit
            width = 1 if p.layer.binary_input else own
            broadcasts = p.layer.input_elements * width * (min(chips, strips) - 1)
            partial_sums = p.layer.output_elements * SUM_BITS * (cut - 1)
        found.append(Crossing(outputs, broadcasts, partial_sums))
        first = last
    return found
