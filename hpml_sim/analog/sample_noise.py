"""Noise by sample: within an evaluation, what a sample draws does not depend on the batch that it comes in.

Each product numbers its noise by sample and by position within the sample (`kernels/crossbar_product/noise.py`). Which
rows of a layer's input belong to which sample, only the network knows: it may put time first, cut images into windows,
or fold steps into the batch. So the network runs once on two samples and once on the first of them, without noise, and
the rows of the two runs are held against each other. In a batch of one sample all rows are its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hpml_sim.conversion.chips_in_front import Shapes
from hpml_sim.kernels.common.noise_keys import NoiseKeys

_LOG = logging.getLogger(__name__)
_MORE, _FEWER = 2, 1
"""Samples of the two runs that are compared."""
_SEEN = 64
"""Values of each row that are compared."""
_ALIKE = 0.9
"""Share of the values that must agree: a rounding may tip over a converter's step, and that those of later layers."""


@dataclass(frozen=True)
class RowOrder:
    """How the rows of a layer's input lie: (outer, samples, inner).

    Attributes:
        kind: "sample": each row belongs to one sample; "same": the rows are the same for every batch; "mixed": neither.
        inner: rows of a sample that lie one behind the other.
    """

    kind: str
    inner: int = 1


Orders = dict[tuple[int, int], RowOrder]
"""By layer and use, how its rows lie."""


@dataclass
class SampleNoise:
    """The noise of one evaluation.

    Attributes:
        orders: by layer and use, how its rows lie; None until a batch of more than one sample.
        known: by the shapes of a sample, the orders that other evaluations of the same chips found, where every product
            had one; gets those that this one finds.
        call: number of the run that the evaluation counts as, whatever number of batches it has.
        first: number of the first sample of the batch that runs.
        count: samples of this batch.
        recorded: rows that layers got in a run that is compared; None: no such run.
    """

    orders: Orders | None = None
    known: dict[Shapes, Orders] = field(default_factory=dict)
    call: int = 0
    first: int = 0
    count: int = 0
    recorded: dict[tuple[int, int], Tensor] | None = field(default=None, repr=False)

    @contextmanager
    def batch(self, first: int, count: int, shapes: Shapes, run: Callable[[Tensor], object]) -> Iterator[None]:
        """Within the block, noise is that of the samples of one batch.

        Args:
            first: number of the batch's first sample.
            count: samples in the batch.
            shapes: of the inputs of one sample.
            run: runs the model on some samples of the batch, of which it gets the numbers; the same may stand twice.
        """
        token = _CURRENT.set(self)
        try:
            if self.orders is None and count > 1:
                self.orders = self.known.get(shapes) or self._found(run, count)
                if not any(order.kind == "mixed" for order in self.orders.values()):
                    # else the next chips, or another time, may route rows otherwise
                    self.known[shapes] = self.orders
            self.first, self.count = first, count
            yield
        finally:
            _CURRENT.reset(token)

    def keys(self, product: tuple[int, int], rows: int, keys: NoiseKeys) -> NoiseKeys:
        """What the noise of one product is numbered by.

        Args:
            product: layer and use.
            rows: of its input.
            keys: of the product.
        """
        if self.recorded is not None:
            return replace(keys, quiet=True)
        if self.orders is None:
            return replace(keys, first=self.first, samples=1)
        order = self.orders.get(product, RowOrder("mixed"))
        if order.kind == "same":
            return keys
        if order.kind == "sample" and self.count and rows % (self.count * order.inner) == 0:
            return replace(keys, first=self.first, samples=self.count, inner=order.inner)
        return replace(keys, base=keys.base + self.first + 1)  # the rows of another batch are others

    def _found(self, run: Callable[[Tensor], object], count: int) -> dict[tuple[int, int], RowOrder]:
        seen = []
        for samples in (_MORE, _FEWER):
            self.recorded = {}
            try:
                run(torch.arange(samples) % count)
                seen.append(self.recorded)
            finally:
                self.recorded = None
        more, fewer = seen
        found = {product: _row_order(rows, fewer.get(product)) for product, rows in more.items()}
        mixed = sum(order.kind == "mixed" for order in found.values())
        if mixed:
            _LOG.warning(
                "%d of %d analog products mix samples, or order them in a way that was not recognized: their noise is "
                "drawn by call, and depends on batch_size",
                mixed,
                len(found),
            )
        return found


_CURRENT: ContextVar[SampleNoise | None] = ContextVar("sample_noise", default=None)


def current_samples() -> SampleNoise | None:
    """The evaluation that runs, if noise is drawn by sample."""
    return _CURRENT.get()


def _row_order(more: Tensor, fewer: Tensor | None) -> RowOrder:
    """How rows lie, from the inputs for two samples and for the first of them, each (rows, values)."""
    if fewer is None:
        return RowOrder("mixed")
    if len(more) == len(fewer):  # as many rows may still be other ones, such as means over the batch
        return RowOrder("same" if _alike(more, fewer) else "mixed")
    each = len(more) // _MORE
    if len(more) != each * _MORE or len(fewer) != each * _FEWER:
        return RowOrder("mixed")
    # sample by sample, sample fastest, and whatever lies between
    for inner in dict.fromkeys((each, 1, *(n for n in range(2, each) if each % n == 0))):
        first = more.view(each // inner, _MORE, inner, -1)[:, :_FEWER]
        if _alike(first, fewer.view(each // inner, _FEWER, inner, -1)):
            return RowOrder("sample", inner)
    return RowOrder("mixed")


def _alike(a: Tensor, b: Tensor) -> bool:
    scale = float(b.abs().max()) if b.numel() else 0.0
    return bool(((a - b).abs() <= 1e-3 * scale).float().mean() >= _ALIKE) if b.numel() else True


def some_values(x: Tensor) -> Tensor:
    """What is recorded of a layer's input, (rows, values).

    Args:
        x: shape (groups, rows, values).
    """
    stride = max(1, x.shape[-1] // _SEEN)
    return x.detach()[0, :, ::stride].clone()
