"""Where the matrices of a network lie: cut into tiles, small groups packed together, slow layers stored twice."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """

    layer: LayerCount
    blocks: tuple[Block, ...]
    row_blocks: int
    copies: int = 1

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

    tiles = groups ceil(R / rows) ceil(C S / cols), or ceil(groups / g) where g >= 2 whole groups fit on one diagonal.

    Args:
        layer: counts of a layer with a matrix.
        rows: of a tile.
        cols: physical columns of a tile.
        cells_per_weight: columns that one weight takes.

    Source: docs/equations.md, section 2 (mapping).
    """
    height, width = layer.rows, layer.cols * cells_per_weight
    together = min(rows // height, cols // width) if height <= rows and width <= cols else 1
    if together > 1 and layer.groups > 1:
        full, rest = divmod(layer.groups, together)
        blocks = [Block(full, height * together, width * together), Block(min(rest, 1), height * rest, width * rest)]
        return Placement(layer, tuple(block for block in blocks if block.count), 1)
    down, across = _cuts(height, rows), _cuts(width, cols)
    blocks = [Block(layer.groups * n * m, r, c) for n, r in down for m, c in across]
    return Placement(layer, tuple(blocks), sum(n for n, _ in down))


def _cuts(length: int, tile: int) -> list[tuple[int, int]]:
    """`length` in pieces of `tile` and what is left: (how many, how long)."""
    full, rest = divmod(length, tile)
    return [(count, size) for count, size in ((full, tile), (min(rest, 1), rest)) if count]


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
