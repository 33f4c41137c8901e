"""The tensors in what a layer takes and gives, however nested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors in an input or output, in order, however nested."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, PackedSequence):
        yield values.data
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))


def first_tensor(values: Any) -> Tensor:
    """The first tensor of an input or output: neurons give (spikes, membrane, ...)."""
    return next(tensors_in(values))
