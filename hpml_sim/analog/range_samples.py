"""Input vectors of one layer that calibration collects, to try ranges on."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_EVEN, _EXTREME = 48, 16
"""Vectors that are kept: spread evenly over all, and those of the largest magnitudes."""


@dataclass
class VectorSamples:
    """Some of the vectors that a layer was given.

    A single vector in thousands may be a hundred times larger than all others, and a network may hang on it: such
    vectors are always kept, beside some that stand for all others.

    Attributes:
        even: vectors spread evenly over all, shape (groups, n, rows).
        even_peaks: the largest magnitude that each was scaled by, shape (groups, n, 1).
        extreme: vectors of the largest magnitudes.
        extreme_peaks: as `even_peaks`.
        vectors: how many were seen.
        largest_input: of all of them.
        largest_product: of all of them, in units of a full-scale weight.
        largest_scaled_product: the same, where each vector is scaled by its own largest magnitude.
    """

    even: list[Tensor] = field(default_factory=list)
    even_peaks: list[Tensor] = field(default_factory=list)
    extreme: Tensor | None = None
    extreme_peaks: Tensor | None = None
    vectors: int = 0
    largest_input: float = 0.0
    largest_product: float = 0.0
    largest_scaled_product: float = 0.0

    @torch.no_grad()
    def add(self, x: Tensor, peaks: Tensor, products: Tensor) -> None:
        """Take down what one product was of.

        Args:
            x: input vectors, shape (groups, vectors, rows).
            peaks: the largest magnitude of each vector or sample, shape (groups, vectors, 1).
            products: exact products on each row tile, in units of a full-scale weight, (groups, row tiles, vectors,
                columns).
        """
        vectors = x.shape[1]
        if not x.numel():
            return
        x, peaks = x.detach(), peaks.detach()
        self.vectors += vectors
        self.largest_input = max(self.largest_input, float(x.abs().amax()))
        products = products.detach()
        by_vector = torch.maximum(products.amax((1, 3)), -products.amin((1, 3))).unsqueeze(-1)  # (groups, vectors, 1)
        self.largest_product = max(self.largest_product, float(by_vector.amax()))
        self.largest_scaled_product = max(self.largest_scaled_product, float((by_vector / peaks).amax()))
        step = max(1, vectors // _EVEN)
        self.even.append(x[:, step // 2 :: step][:, :_EVEN].float().clone())
        self.even_peaks.append(peaks[:, step // 2 :: step][:, :_EVEN].float().clone())
        if len(self.even) * _EVEN > 4 * _EVEN:  # of many batches every other one stays
            self.even, self.even_peaks = self.even[::2], self.even_peaks[::2]
        top = x.abs().amax((0, 2)).topk(min(_EXTREME, vectors)).indices
        extreme, extreme_peaks = x[:, top].float(), peaks[:, top].float()
        if self.extreme is not None and self.extreme_peaks is not None:
            extreme = torch.cat([self.extreme, extreme], 1)
            extreme_peaks = torch.cat([self.extreme_peaks, extreme_peaks], 1)
        top = extreme.abs().amax((0, 2)).topk(min(_EXTREME, extreme.shape[1])).indices
        self.extreme, self.extreme_peaks = extreme[:, top], extreme_peaks[:, top]

    def chosen(self) -> tuple[Tensor, Tensor, Tensor]:
        """The vectors, what each was scaled by, and how many of all vectors each stands for.

        Returns:
            shapes (groups, n, rows), (groups, n, 1) and (n,).
        """
        assert self.extreme is not None
        assert self.extreme_peaks is not None
        even, even_peaks = torch.cat(self.even, 1), torch.cat(self.even_peaks, 1)
        step = -(-even.shape[1] // (2 * _EVEN))
        even, even_peaks = even[:, ::step], even_peaks[:, ::step]
        few = self.extreme.shape[1]
        rest = max(self.vectors - few, 0) / even.shape[1]
        weights = torch.cat([torch.full((even.shape[1],), rest), torch.ones(few)]).to(even.device)
        return torch.cat([even, self.extreme], 1), torch.cat([even_peaks, self.extreme_peaks], 1), weights
