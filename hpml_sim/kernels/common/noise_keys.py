"""What the streams of noise of one product are numbered by; without numba, which takes long to import."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NoiseKeys:
    """What the streams of one product are numbered by.

    The rows of a product (vectors, or images of a convolution) lie as (outer, samples, inner); which of a sample's rows
    one is, is its position.

    Attributes:
        base: what all streams of this product have in common.
        first: number of the first sample.
        samples: how many samples lie in the rows; 0: each row is one of its own.
        inner: rows of a sample that lie one behind the other, >= 1.
        row: number of the first row, where a product goes in pieces.
        quiet: whether all numbers are 0 instead.
    """

    base: int
    first: int = 0
    samples: int = 0
    inner: int = 1
    row: int = 0
    quiet: bool = False

    def array(self, streams: int) -> np.ndarray:
        """The numbers for the kernels, uint64: base, first, samples, inner, streams, row.

        Args:
            streams: streams of one position: groups x tiles.
        """
        return np.array([self.base % 2**64, self.first, self.samples, self.inner, streams, self.row], np.uint64)
