"""Input vectors of one layer that calibration collects, to try ranges on and to measure what converters lose."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_SPREAD, _EXTREME = 256, 16
"""Vectors that are kept: spread over all, and those of the largest magnitudes."""
_TRIED = 48
"""Of those spread over all, so many are enough to tell good ranges from bad ones."""
_GOLDEN = 0.6180339887498949


@dataclass
class Vectors:
    """Some vectors of a layer.

    Attributes:
        x: shape (groups, n, rows).
        peaks: the largest magnitude that each was scaled by, shape (groups, n, 1).
        number: of each among all vectors that were seen, shape (n,).
    """

    x: Tensor
    peaks: Tensor
    number: Tensor

    def __getitem__(self, which: Tensor) -> Vectors:
        """Some of them.

        Args:
            which: numbers or truth values, shape (n,).
        """
        return Vectors(self.x[:, which], self.peaks[:, which], self.number[which])

    def __add__(self, other: Vectors) -> Vectors:
        """All of both."""
        return Vectors(
            torch.cat([self.x, other.x], 1),
            torch.cat([self.peaks, other.peaks], 1),
            torch.cat([self.number, other.number]),
        )


@dataclass
class VectorSamples:
    """Some of the vectors that a layer was given.

    A single vector in thousands may be a hundred times larger than all others, and a network may hang on it: such
    vectors are always kept, beside some that stand for all others.

    Attributes:
        spread: vectors spread over all: up to 256, all where there were no more.
        extreme: vectors of the largest magnitudes.
        vectors: how many were seen.
        share: of all vectors, those that `spread` keeps.
        largest_input: of all of them.
        largest_product: of all of them, in units of a full-scale weight.
        largest_scaled_product: the same, where each vector is scaled by its own largest magnitude.
    """

    spread: list[Vectors] = field(default_factory=list)
    extreme: Vectors | None = None
    vectors: int = 0
    share: float = 1.0
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
        if not x.numel():
            return
        given = Vectors(
            x.detach(), peaks.detach(), torch.arange(self.vectors, self.vectors + x.shape[1], device=x.device)
        )
        self.vectors += x.shape[1]
        self.largest_input = max(self.largest_input, float(given.x.abs().amax()))
        products = products.detach()
        by_vector = torch.maximum(products.amax((1, 3)), -products.amin((1, 3))).unsqueeze(-1)  # (groups, vectors, 1)
        self.largest_product = max(self.largest_product, float(by_vector.amax()))
        self.largest_scaled_product = max(self.largest_scaled_product, float((by_vector / given.peaks).amax()))
        self._spread_over(given)
        top = _largest(given)
        self.extreme = top if self.extreme is None else _largest(self.extreme + top)

    def _spread_over(self, given: Vectors) -> None:
        self.spread.append(_floats(given[_order(given.number) < self.share]))
        while sum(len(each.number) for each in self.spread) > _SPREAD:
            self.share /= 2
            self.spread = [each[_order(each.number) < self.share] for each in self.spread]

    def chosen(self, *, few: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The vectors, what each was scaled by, and how many of all vectors each stands for.

        Args:
            few: so many as tell good ranges from bad ones, instead of all that are kept.

        Returns:
            shapes (groups, n, rows), (groups, n, 1) and (n,).
        """
        assert self.extreme is not None
        others = self.spread[0]
        for each in self.spread[1:]:
            others = others + each
        # an extreme vector stands for itself alone, so it must not be among those that stand for the others
        others = others[~torch.isin(others.number, self.extreme.number)]
        if few:
            others = others[_order(others.number).argsort()[:_TRIED]]
        n, extreme = len(others.number), len(self.extreme.number)
        both = others + self.extreme
        weights = torch.ones(n + extreme, dtype=torch.float32, device=both.x.device)
        weights[:n] = (self.vectors - extreme) / max(n, 1)
        return both.x, both.peaks, weights


def _order(number: Tensor) -> Tensor:
    """Numbers in [0, 1) whose smallest share is spread evenly over all vectors, out of step with any period of them."""
    return (number.double() * _GOLDEN) % 1


def _floats(vectors: Vectors) -> Vectors:
    return Vectors(vectors.x.float(), vectors.peaks.float(), vectors.number)


def _largest(vectors: Vectors) -> Vectors:
    top = vectors.x.abs().amax((0, 2)).topk(min(_EXTREME, len(vectors.number))).indices
    return _floats(vectors[top])
