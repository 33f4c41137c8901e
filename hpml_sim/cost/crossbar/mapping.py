"""What an estimate charges for a mapping: the tiles of each matrix, and copies of slow layers on tiles left empty."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_sim.conversion.tiling import Tiling

if TYPE_CHECKING:
    from hpml_sim.counting import LayerCount


@dataclass(frozen=True)
class Block:
    """Tiles of one layer that are filled alike.

    Attributes:
        count: how many there are.
        rows: physical rows in use in each.
        cols: physical columns in use in each.
    """

    count: int
    rows: int
    cols: int


@dataclass
class Placement:
    """How one matrix lies on the tiles.

    Attributes:
        layer: its counts.
        blocks: the tiles of one copy.
        row_blocks: tiles whose outputs are added up for one output.
        copies: how often the whole matrix is stored, to work on several input vectors at once.
        cells_per_weight: columns that one weight takes, slices included.
        input_bits: resolution of the inputs; None takes the card's.
        output_bits: resolution of a conversion; None takes the card's.
        dynamic: whether each input vector is, or may be, scaled by its own largest value.
        by_channel: whether each input channel is scaled by a factor of its own.
    """

    layer: LayerCount
    blocks: tuple[Block, ...]
    row_blocks: int
    copies: int = 1
    cells_per_weight: int = 1
    input_bits: int | None = None
    output_bits: int | None = None
    dynamic: bool = False
    by_channel: bool = False

    @property
    def bits(self) -> tuple[int | None, int | None]:
        """Resolution of inputs and conversions."""
        return self.input_bits, self.output_bits

    @property
    def tiles(self) -> int:
        """Tiles of one copy."""
        return sum(block.count for block in self.blocks)

    @property
    def cells(self) -> int:
        """Cells in use in one copy (zeros between packed groups not among them)."""
        return sum(block.count * block.rows * block.cols for block in self.blocks)

    def rounds(self) -> int:
        """MVMs that one copy does after another in one inference."""
        return math.ceil(self.layer.vectors / self.copies)


def place(layer: LayerCount, rows: int, cols: int, cells_per_weight: int) -> Placement:
    """Cut a layer's matrix into tiles of `rows` x `cols` cells; small groups share a tile block-diagonally.

    tiles = groups ceil(R / rows) ceil(C / floor(cols / S)), or ceil(groups / g) where g >= 2 whole groups fit on one
    diagonal.

    Args:
        layer: counts of a layer with a matrix.
        rows: of a tile.
        cols: physical columns of a tile.
        cells_per_weight: columns that one weight takes; they lie on one tile.

    Source: docs/equations.md, section 2 (mapping).
    """
    width = max(1, cols // cells_per_weight)
    return place_tiling(layer, Tiling(layer.groups, layer.rows, layer.cols, rows, width), cells_per_weight)


def place_tiling(layer: LayerCount, tiling: Tiling, cells_per_weight: int) -> Placement:
    """The tiles of a matrix, as the simulation cuts it.

    Args:
        layer: its counts.
        tiling: how it lies on tiles.
        cells_per_weight: columns that one weight takes, slices included.
    """
    blocks = tuple(Block(piece.count, piece.rows, piece.cols * cells_per_weight) for piece in tiling.pieces)
    return Placement(layer, blocks, tiling.row_tiles, cells_per_weight=cells_per_weight)


def replicate_greedily(placements: list[Placement], free_tiles: int) -> None:
    """Give free tiles to the slowest stage, again and again, until it cannot be copied once more.

    A stage's time is its rounds (MVMs in a row). Copies beyond the vectors of one time step would wait for it, and
    those of a recurrent layer for its state, so there are none.

    Args:
        placements: the stages; their `copies` are raised in place.
        free_tiles: tiles of the powered chips that hold no weights yet.

    Source: the weight duplication of ISAAC and NeuroSim; docs/equations.md, section 2.
    """
    # the slowest stage stands first; only its own entry changes with a copy, so that a heap finds the next in log time
    heap = [(-p.rounds(), index) for index, p in enumerate(placements)]
    heapq.heapify(heap)
    while heap:
        _, index = heap[0]
        slowest = placements[index]
        most = 1 if slowest.layer.op == "recurrent" else max(1, int(slowest.layer.vectors // slowest.layer.steps))
        # no other stage is worth a copy now: the pipeline is no faster than its slowest stage
        if slowest.tiles > free_tiles or slowest.copies >= most:
            return
        slowest.copies += 1
        free_tiles -= slowest.tiles
        heapq.heapreplace(heap, (-slowest.rounds(), index))
