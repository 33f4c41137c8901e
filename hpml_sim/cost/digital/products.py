"""`Products`: how long a GPU takes for a matrix product, by a model of the machine.

A product of (m, k) with (k, n) is cut into tiles of the output, each computed by one multiprocessor; where there are
too few tiles, the sum over k is split as well. All multiprocessors together work through the tiles in waves. The
library picks the tile and the split that are fastest, and so does the model.

    tiles   = ceil(m / t_m) ceil(n / t_n) splits groups
    waves   = w ceil(tiles / SMs) + (1 - w) max(tiles / SMs, 1)
    size    = t_m t_n / (t_m + t_n)
    compute = waves 2 t_m t_n (k / splits + k_fill) / (peak / SMs x eta size / (size + half))
    memory  = (inputs + weights + outputs + partial sums) / (eta_m bandwidth)
    seconds = t_start + (compute^p + memory^p)^(1/p)

Source: tile and wave quantization: NVIDIA, "Matrix Multiplication Background User's Guide" (DU-09799-001), sections 2
and 3. The size of a tile is its products for each operand read; the constants are fitted to measured products:
docs/equations.md, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision

TILES = ((128, 256), (128, 128), (64, 128), (128, 64))
"""Rows and columns of the output that one multiprocessor computes. Libraries have more; more of them fit no better."""
SMALL_TILE = (16, 128)
"""One more where ordinary fp32 arithmetic multiplies few rows; tensor cores have no use for it."""
SPLITS = (1, 2, 3, 4, 6, 8)
"""Into how many parts the sum may be split."""
DEPTH = 64
"""A tile's sum advances in steps of so many elements."""
SUM_BYTES = 8
"""A partial sum in fp32, written and read."""


@dataclass(frozen=True)
class Products:
    """Matrix products on one GPU in one precision. All seconds are those of the GPU, once a product was launched.

    Attributes:
        rate: operations a second, the peak of the precision.
        bandwidth: bytes a second of the memory, by data sheet.
        multiprocessors: how many there are.
        tile_efficiency: share of the peak that a very large tile would reach.
        tile_half: size t_m t_n / (t_m + t_n) of the tile that reaches half of that.
        start_s: seconds from the launch of a product to its first useful operation.
        overlap: exponent of the sum of compute and memory time.
        wave_share: how much of a last, partly filled wave is waited for, 0 to 1.
        fill_depth: elements of the sum that filling and draining a tile costs.
        split_traffic: traffic of partial sums over that of writing and reading each once.
        product_bandwidth: share of the bandwidth that a product reaches.
        weight_bytes: bytes of one weight.
        activation_bytes: bytes of one activation.
        stream_rate: bytes a second of a kernel that only streams.
        launch_s: seconds of the smallest kernel of a recorded graph.
        tiles: rows and columns of the tiles that there are.

    Example:
        >>> from hpml_sim.cards import load_card
        >>> product = Products.of(load_card("a100"), "fp16")
        >>> print(f"{1e6 * float(product.time_s(512, 4096, 4096)):.0f} us")
        90 us
    """

    rate: float
    bandwidth: float
    multiprocessors: int
    tile_efficiency: float
    tile_half: float
    start_s: float
    overlap: float
    wave_share: float
    fill_depth: float
    split_traffic: float
    product_bandwidth: float
    weight_bytes: float
    activation_bytes: float
    stream_rate: float
    launch_s: float
    tiles: tuple[tuple[int, int], ...] = TILES

    @classmethod
    def of(cls, card: DigitalCard, precision: Precision, weights: float | None = None) -> Products:
        """The products of a card that has a table `[kernels]`.

        Args:
            card: the GPU.
            precision: of activations and arithmetic; the card has a peak for it.
            weights: bytes of a weight where it is stored in fewer than an activation; None: as an activation.
        """
        kernels = card.kernels
        assert kernels is not None, card.name
        width = BYTES[precision]
        return cls(
            rate=card.peak[precision].si,
            bandwidth=card.memory_bandwidth.si,
            multiprocessors=int(kernels.multiprocessors),
            tile_efficiency=kernels.tile_efficiency.si,
            tile_half=kernels.tile_half.si,
            start_s=kernels.start_time.si,
            overlap=kernels.overlap.si,
            wave_share=kernels.wave_share.si,
            fill_depth=kernels.fill_depth.si,
            split_traffic=kernels.split_traffic.si,
            product_bandwidth=kernels.product_bandwidth.si,
            weight_bytes=width if weights is None else weights,
            activation_bytes=width,
            stream_rate=card.memory_bandwidth.si * card.memory_efficiency.si,
            launch_s=(card.replay_time or card.launch_time).si,
            tiles=(*TILES, SMALL_TILE) if precision == "fp32" else TILES,
        )

    def time_s(
        self,
        m: ArrayLike,
        k: ArrayLike,
        n: ArrayLike,
        groups: ArrayLike = 1,
        moved: ArrayLike | None = None,
        splits: tuple[int, ...] = SPLITS,
        weight_bytes: ArrayLike | None = None,
        speedup: ArrayLike = 1.0,
    ) -> np.ndarray:
        """Seconds of each product, of the fastest tile and split.

        Args:
            m: rows of the input: tokens, or positions of all images.
            k: length of the sum.
            n: columns of the output.
            groups: products of this size that one kernel computes.
            moved: bytes of inputs and outputs where they are not m (k + n) a group: a convolution reads its image once.
            splits: into how many parts the sum may be split.
            weight_bytes: of one weight of each product; None: as of all.
            speedup: rate of each over that of dense products.
        """
        m, k, n, groups = np.broadcast_arrays(*(np.asarray(x, float) for x in (m, k, n, groups)))
        activations = self.activation_bytes * groups * m * (k + n) if moved is None else np.asarray(moved, float)
        stored = self.weight_bytes if weight_bytes is None else np.asarray(weight_bytes, float)
        traffic = stored * groups * k * n + activations
        tiles = np.array(self.tiles, float).reshape(-1, 2, *([1] * (m.ndim + 1)))
        rows, cols = tiles[:, 0], tiles[:, 1]
        parts = np.array(splits, float).reshape(-1, *([1] * m.ndim))
        filled = np.ceil(m / rows) * np.ceil(n / cols) * parts * groups / self.multiprocessors
        waves = self.wave_share * np.ceil(filled) + (1 - self.wave_share) * np.maximum(filled, 1)
        size = rows * cols / (rows + cols)
        rate = (
            self.rate
            * np.asarray(speedup, float)
            / self.multiprocessors
            * self.tile_efficiency
            * size
            / (size + self.tile_half)
        )
        depth = DEPTH * np.ceil(k / parts / DEPTH) + self.fill_depth
        compute = waves * 2 * rows * cols * depth / rate
        split = parts > 1
        partial = split * SUM_BYTES * self.split_traffic * parts * groups * m * n
        memory = (traffic + partial) / (self.bandwidth * self.product_bandwidth)
        seconds = self.start_s + (compute**self.overlap + memory**self.overlap) ** (1 / self.overlap)
        return seconds.min(axis=(0, 1))

    def stream_s(self, moved_bytes: ArrayLike) -> np.ndarray:
        """Seconds of kernels that only read and write: norms, activations, sums, copies.

        Args:
            moved_bytes: read and written by each.
        """
        return self.launch_s + np.asarray(moved_bytes, float) / self.stream_rate


BYTES: dict[str, float] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1, "fp4": 0.5}
"""Bytes of a weight or activation in each precision."""
