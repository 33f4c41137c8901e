"""Networks that stand for several chips: what they give has the chips in front."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from torch import Tensor, nn

Shapes = tuple[tuple[int, ...], ...]
"""Of the inputs of one sample, in order."""


class SampleStreams(Protocol):
    """The random numbers of one evaluation, drawn by sample and not by call."""

    def batch(
        self, first: int, count: int, shapes: Shapes, run: Callable[[Tensor], object]
    ) -> AbstractContextManager[None]:
        """Within the block, what is random is that of the samples of one batch.

        Args:
            first: number of the batch's first sample.
            count: samples in the batch.
            shapes: of the inputs of one sample.
            run: runs the model on some samples of the batch, of which it gets the numbers; the same may stand twice.
        """
        ...


class _NothingRandom:
    """The streams of a model in which nothing is drawn."""

    def batch(
        self, first: int, count: int, shapes: Shapes, run: Callable[[Tensor], object]
    ) -> AbstractContextManager[None]:
        """Changes nothing.

        Args:
            first: number of the batch's first sample.
            count: samples in the batch.
            shapes: of the inputs of one sample.
            run: not called.
        """
        return nullcontext()


class ChipsInFront(nn.Module):
    """A network of several chips: it takes (batch, ...), and all that it gives is (chips, batch, ...).

    Attributes:
        n_chips: how many chips.
    """

    n_chips: int

    def parts(self) -> Iterator[ChipsInFront]:
        """Networks of as many of the chips as fit into the memory together, one after another: here all of them."""
        yield self

    def sample_streams(self, model: nn.Module) -> SampleStreams:
        """For one evaluation: what the chips of a model draw by sample; here nothing.

        Args:
            model: what is evaluated: this network, or one that it is a part of.
        """
        return _NothingRandom()


def sample_streams(model: nn.Module) -> SampleStreams:
    """For one evaluation of a model: what its chips draw, by sample.

    Args:
        model: a network of several chips, one that holds some, or any other, in which nothing is drawn so.
    """
    chips = next((module for module in model.modules() if isinstance(module, ChipsInFront)), None)
    return _NothingRandom() if chips is None else chips.sample_streams(model)
