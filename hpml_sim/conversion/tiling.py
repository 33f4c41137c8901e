"""The mapping to tiles: how the weight matrix of a layer is cut into pieces that fit the crossbar tiles of a card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn


@dataclass(frozen=True)
class Piece:
    """Tiles of one layer that are filled alike.

    Attributes:
        count: how many there are, >= 1.
        rows: rows in use in each.
        cols: columns in use in each, in weights.
    """

    count: int
    rows: int
    cols: int


@dataclass(frozen=True)
class Tiling:
    """How the matrices of one layer lie on tiles.

    A matrix has `rows` inputs and `cols` outputs. Its rows are cut evenly into `row_tiles` pieces of at most `height`
    rows, its columns into pieces of at most `tile_cols`. Groups that are small enough share a tile block-diagonally:
    each has rows and columns of its own, and the cells between them hold nothing.

    Attributes:
        groups: independent matrices of the layer; more than 1 only for convolutions with `groups`.
        rows: inputs of one matrix.
        cols: outputs of one matrix.
        tile_rows: rows of a tile, in weights.
        tile_cols: columns of a tile, in weights (a weight may take several cells beside each other).

    Example:
        >>> tiling = Tiling(groups=1, rows=300, cols=20, tile_rows=256, tile_cols=256)
        >>> tiling.row_tiles, tiling.height, tiling.tiles
        (2, 150, 2)
        >>> Tiling(groups=32, rows=9, cols=1, tile_rows=100, tile_cols=100).tiles  # 11 groups a tile
        3
    """

    groups: int
    rows: int
    cols: int
    tile_rows: int
    tile_cols: int

    @cached_property
    def row_tiles(self) -> int:
        """Pieces that the rows of one matrix are cut into; their products are added in digital."""
        return math.ceil(self.rows / self.tile_rows)

    @property
    def col_tiles(self) -> int:
        """Pieces that the columns of one matrix are cut into."""
        return math.ceil(self.cols / self.tile_cols)

    @cached_property
    def height(self) -> int:
        """Rows of one piece (the last may have fewer)."""
        return math.ceil(self.rows / self.row_tiles)

    @property
    def used_rows(self) -> list[int]:
        """Rows that are in use, for each row tile."""
        return [self.height] * (self.row_tiles - 1) + [self.rows - (self.row_tiles - 1) * self.height]

    @property
    def groups_per_tile(self) -> int:
        """Whole groups that lie on the diagonal of one tile; 1 where a tile has no room for two."""
        if self.rows > self.tile_rows or self.cols > self.tile_cols:
            return 1
        return min(self.groups, self.tile_rows // self.rows, self.tile_cols // self.cols)

    @property
    def tiles(self) -> int:
        """Tiles of the whole layer."""
        return math.ceil(self.groups / self.groups_per_tile) * self.row_tiles * self.col_tiles

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The tiles of the whole layer, those that are filled alike together."""
        together = self.groups_per_tile
        if together > 1:
            full, rest = divmod(self.groups, together)
            packed = ((full, together), (min(rest, 1), rest))
            return tuple(Piece(count, n * self.rows, n * self.cols) for count, n in packed if count)
        *whole, last = self.used_rows
        down = [(len(whole), self.height), (1, last)] if whole and last < self.height else [(self.row_tiles, last)]
        full, rest = divmod(self.cols, self.tile_cols)
        across = [(count, cols) for count, cols in ((full, self.tile_cols), (min(rest, 1), rest)) if count]
        return tuple(Piece(self.groups * n * m, rows, cols) for n, rows in down for m, cols in across)

    @property
    def utilization(self) -> float:
        """Share of the cells in use, in (0, 1]."""
        return self.groups * self.rows * self.cols / (self.tiles * self.tile_rows * self.tile_cols)

    def cut_weights(self, weight: Tensor) -> Tensor:
        """Cut weights along the rows. Columns stay together: how they lie on tiles changes no product.

        Args:
            weight: shape (groups * cols, rows).

        Returns:
            shape (groups, row tiles, cols, height), zero-padded.
        """
        # zeros neither conduct nor are driven: a padded row changes no sum
        return self._padded(weight).reshape(self.groups, self.cols, self.row_tiles, self.height).transpose(1, 2)

    def cut_inputs(self, x: Tensor) -> Tensor:
        """Cut input vectors as the rows of the weights.

        Args:
            x: shape (..., rows).

        Returns:
            shape (..., row tiles, height), zero-padded.
        """
        return self._padded(x).unflatten(-1, (self.row_tiles, self.height))

    def _padded(self, values: Tensor) -> Tensor:
        missing = self.row_tiles * self.height - self.rows
        return nn.functional.pad(values, (0, missing)) if missing else values
