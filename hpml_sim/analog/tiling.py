"""The mapping to tiles: how the weight matrix of a layer is cut into pieces that fit the crossbar tiles of a card."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Tiling:
    """How the matrices of one layer lie on tiles.

    A matrix has `rows` inputs and `cols` outputs. Its rows are cut evenly into `row_tiles` pieces of at most `height`
    rows, its columns into pieces of at most `tile_cols`.

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
    """

    groups: int
    rows: int
    cols: int
    tile_rows: int
    tile_cols: int

    @property
    def row_tiles(self) -> int:
        """Pieces that the rows of one matrix are cut into; their products are added in digital."""
        return math.ceil(self.rows / self.tile_rows)

    @property
    def col_tiles(self) -> int:
        """Pieces that the columns of one matrix are cut into."""
        return math.ceil(self.cols / self.tile_cols)

    @property
    def height(self) -> int:
        """Rows of one piece (the last may have fewer)."""
        return math.ceil(self.rows / self.row_tiles)

    @property
    def used_rows(self) -> list[int]:
        """Rows that are in use, for each row tile."""
        return [self.height] * (self.row_tiles - 1) + [self.rows - (self.row_tiles - 1) * self.height]

    @property
    def tiles(self) -> int:
        """Tiles of the whole layer."""
        return self.groups * self.row_tiles * self.col_tiles

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
