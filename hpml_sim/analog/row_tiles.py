"""Which channels each row tile of a convolution sees, and the convolution of the library that multiplies them.

Every place of the kernel is an input vector, and its rows are (channel, place in the kernel). Whole channels of a row
tile are a slice of the channels; where a row tile begins or ends inside a channel, the kernel of its convolution is
zero at the places that belong to the tile beside it: zeros neither conduct nor are driven. So the products are those of
the tiles that `conversion/tiling.py` cuts, and nothing is unfolded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hpml_sim.conversion.tiling import Tiling

_PIECE = 1 << 19
"""Values before or after a tile that are worked on together: 2 MiB in float32, which caches like."""


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input, and what each row tile sees of it.

    Attributes:
        kernel: sizes of the kernel, 1 to 3 of them.
        stride: of each dimension.
        padding: zeros on both sides of each dimension.
        dilation: of each dimension.
        groups: independent convolutions.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def places(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """How many places the kernel has on an input, by dimension; below 1 where the input is too small.

        Args:
            sizes: of the input, without padding.
        """
        moves = zip(sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in moves)


@dataclass(frozen=True)
class RowTile:
    """Which channels the rows of one tile belong to.

    Attributes:
        first: the first channel of each group.
        channels: how many.
        lead: rows of the first channel that belong to the tile before.
        used: rows of the tile.
        trail: rows of the last channel that belong to the tile after.
    """

    first: int
    channels: int
    lead: int
    used: int
    trail: int

    def kernel(self, matrix: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """The weights of the tile as a convolution takes them.

        Args:
            matrix: shape (groups, cols, height).
            sizes: of the kernel.

        Returns:
            shape (groups * cols, channels, *sizes).
        """
        rows = matrix[..., : self.used].flatten(0, 1)
        if self.lead or self.trail:
            rows = torch.nn.functional.pad(rows, (self.lead, self.trail))
        return rows.reshape(len(rows), self.channels, *sizes)

    def rows(self, kernel: Tensor) -> Tensor:
        """The way back: the rows of the tile out of a kernel, shape (groups * cols, used).

        Args:
            kernel: shape (groups * cols, channels, *sizes).
        """
        return kernel.flatten(1)[:, self.lead : self.lead + self.used]


def row_tiles(tiling: Tiling, kernel: tuple[int, ...]) -> list[RowTile]:
    """The channels of each row tile.

    Args:
        tiling: of the layer; its rows are (channel, place in the kernel).
        kernel: sizes of the kernel.
    """
    found, taps, begin = [], math.prod(kernel), 0
    for used in tiling.used_rows:
        end = begin + used
        first, last = begin // taps, -(-end // taps)
        found.append(RowTile(first, last - first, begin - first * taps, used, last * taps - end))
        begin = end
    return found


def library_convolution(x: Tensor, kernel: Tensor, geometry: Geometry) -> Tensor:
    """One convolution of torch, without bias.

    Args:
        x: shape (images, groups * channels, *sizes).
        kernel: shape (groups * cols, channels, *sizes of the kernel).
        geometry: of the layer.
    """
    g = geometry
    none = [0] * len(g.kernel)
    # the same function for one, two and three dimensions
    return torch.convolution(x, kernel, None, g.stride, g.padding, g.dilation, False, none, g.groups)


def as_images(values: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Channels last in memory, as torch shows them, (images, channels, *sizes).

    Args:
        values: shape (images, places, channels).
        sizes: of the places.
    """
    return values.unflatten(1, sizes).movedim(-1, 1)


def as_channels_last(values: Tensor) -> Tensor:
    """The same values as (images, places, channels), contiguous.

    Args:
        values: shape (images, channels, *sizes).
    """
    return values.movedim(1, -1).contiguous().flatten(1, -2)


def in_pieces(images: int, values: int) -> list[slice]:
    """The images in pieces that cache.

    Args:
        images: how many.
        values: of one image, before or after a tile.
    """
    some = max(1, _PIECE // max(1, values))
    return [slice(begin, min(images, begin + some)) for begin in range(0, images, some)]
