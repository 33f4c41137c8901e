"""Batches of samples, wherever they are: tensors in memory, a dataset item by item, or batches as somebody makes them.

What lies in memory is used where it lies. Of everything else no more than a batch is held at a time, so that a data set
may be larger than the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from hpml_sim.errors import HpmlError

Batch = tuple[Tensor, Tensor]
"""Inputs (batch, ...) and labels (batch,), whole numbers >= 0."""
Samples = Dataset[Any] | Iterable[Sequence[Any]]
"""(input, label) items in a `Dataset`, or (inputs, labels) batches in a `DataLoader` or another iterable."""


def resident_tensors(samples: Samples) -> Batch | None:
    """Inputs and labels of `samples` that are tensors in memory already; None of all others."""
    if isinstance(samples, TensorDataset) and len(samples.tensors) == 2:
        return samples.tensors[0], samples.tensors[1]
    if isinstance(samples, Subset) and (whole := resident_tensors(samples.dataset)) is not None:
        chosen = torch.as_tensor(samples.indices, dtype=torch.int64)
        return whole[0][chosen], whole[1][chosen]
    return None


def has_items(samples: Samples) -> bool:
    """Whether a sample of `samples` has a number to ask for it; others come in batches and an order of their own."""
    if isinstance(samples, Dataset):
        return not isinstance(samples, IterableDataset)
    if not isinstance(samples, Sized) or getattr(type(samples), "__getitem__", None) is None:
        return False
    return not (len(samples) and _is_batch(samples[0]))  # type: ignore[index]


def items(samples: Samples, chosen: Iterable[int]) -> Batch:
    """The batch of some items.

    Args:
        samples: what has items.
        chosen: their numbers, from 0.

    Raises:
        HpmlError: an item that is no (input, label) pair, or inputs of different shapes.
    """
    return _stacked([(i, samples[i]) for i in chosen])  # type: ignore[index]


def first(samples: Samples, most: int) -> Batch:
    """The first samples in one batch.

    Args:
        samples: of any kind.
        most: how many at most, >= 1.

    Raises:
        HpmlError: there are none, or something is no (inputs, labels) batch or (input, label) item.
    """
    inputs, labels, found = [], [], 0
    for x, y in in_order(samples, most):
        inputs.append(x[: most - found])
        labels.append(y[: most - found])
        found += len(labels[-1])
        if found == most:
            break
    return torch.cat(inputs), torch.cat(labels)


def in_order(samples: Samples, batch_size: int, *, seed: int = 0) -> Iterator[Batch]:
    """All samples, once.

    Args:
        samples: what makes its own batches gives them in its own size and order.
        batch_size: samples in a batch of all others, >= 1.
        seed: of a loader that shuffles; the caller's random state is left alone.

    Raises:
        HpmlError: there are none, a batch is no (inputs, labels) pair, or an item no (input, label) pair.
    """
    whole = resident_tensors(samples)
    if whole is not None:
        batches = zip(*(part.split(batch_size) for part in whole), strict=True) if len(whole[1]) else iter(())
    elif has_items(samples):
        count = len(samples)  # type: ignore[arg-type]
        batches = (items(samples, range(i, min(i + batch_size, count))) for i in range(0, count, batch_size))
    elif isinstance(samples, IterableDataset):
        batches = _grouped(_started(samples, seed), batch_size)
    else:
        batches = map(as_batch, _started(cast(Iterable[Any], samples), seed))
    empty = True
    for batch in batches:
        empty = False
        yield batch
    if empty:
        raise HpmlError("data: there are no samples; an iterator that was gone through before has none left")


def batches_in(samples: Samples, batch_size: int) -> int:
    """How many batches `in_order` gives; an iterable that does not know is gone through once.

    Args:
        samples: of any kind.
        batch_size: samples in a batch of what does not make its own, >= 1.

    Raises:
        HpmlError: an iterator, which could not be gone through again, or something that is no batch or item.
    """
    if has_items(samples):
        return -(-len(samples) // batch_size)  # type: ignore[arg-type]
    if isinstance(samples, Iterator):
        raise HpmlError(
            f"data: a {type(samples).__name__} can be gone through only once, and training does so for each epoch; "
            "give a DataLoader, a list of batches, or an object whose __iter__ begins anew"
        )
    if not isinstance(samples, IterableDataset):
        try:
            return len(samples)  # type: ignore[arg-type]
        except TypeError:  # a loader of a dataset without a length
            pass
    return sum(1 for _ in in_order(samples, batch_size))


def as_batch(batch: Any) -> Batch:
    """A `batch` that somebody made, its labels as int64.

    Raises:
        HpmlError: it is no (inputs, labels) pair.
    """
    if not _is_batch(batch):
        given = f"a {type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else repr(type(batch))
        raise HpmlError(
            f"data: each batch must be (inputs, labels), tensors (batch, ...) and (batch,) of the same length, got "
            f"{given}; a dataset of (input, label) items is made into batches here"
        )
    x, y = batch
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or (len(y) and int(y.min()) < 0):
        raise HpmlError(f"data: labels must be whole numbers >= 0, got {y.dtype} such as {y[0].item()!r}")
    return x, y.long()


def _is_batch(found: Any) -> bool:
    return (
        isinstance(found, (tuple, list))
        and len(found) == 2
        and all(isinstance(part, Tensor) and part.dim() >= 1 for part in found)
        and found[1].dim() == 1
        and len(found[0]) == len(found[1])
    )


def check_labels(where: str, labels: Tensor, inputs: int, outputs: int | None = None) -> Tensor:
    """The labels of a batch as int64.

    Args:
        where: the function that the caller called, which begins the message, such as "fit".
        labels: what was given.
        inputs: how many inputs they belong to.
        outputs: of the network; None where they are not known yet.

    Raises:
        HpmlError: not one whole number for each input, or one that is no output of the network.
    """
    if labels.dim() != 1 or len(labels) != inputs:
        raise HpmlError(
            f"{where}: labels of shape {tuple(labels.shape)} for {inputs} inputs: must be one whole number for each "
            "input, shape (batch,); of one-hot labels take labels.argmax(dim=1)"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise HpmlError(f"{where}: labels are {labels.dtype}: must be whole numbers from 0; give labels.long()")
    if len(labels):
        low, high = (int(bound) for bound in torch.aminmax(labels))
        if low < 0:
            raise HpmlError(f"{where}: label {low}: labels must be whole numbers >= 0; number the classes from 0")
        if outputs is not None and high >= outputs:
            raise HpmlError(
                f"{where}: label {high}, but the model has {outputs} outputs, for labels 0 to {outputs - 1}"
            )
    return labels.long()


def label_of(item: Any, which: str) -> int:
    """The label of an (input, label) item.

    Args:
        item: what a dataset gave.
        which: names the item in the message, such as "item 3".

    Raises:
        HpmlError: it is no such pair, or the label is no whole number >= 0.
    """
    if not (isinstance(item, (tuple, list)) and len(item) == 2):
        raise HpmlError(
            f"data: each item must be an (input, label) pair, got {type(item).__name__} as {which}; accuracy needs "
            "labels, `hpml-sim estimate MODEL --input-shape ...` does not"
        )
    try:
        label = int(item[1])
        whole = label == item[1] and label >= 0
    except (TypeError, ValueError, RuntimeError):  # of torch, for a tensor of several numbers
        whole = False
    if not whole:
        raise HpmlError(f"data: label {item[1]!r} of {which} must be a whole number >= 0")
    return int(item[1])


def _stacked(found: Sequence[tuple[int, Any]]) -> Batch:
    labels = torch.as_tensor([label_of(item, f"item {i}") for i, item in found])
    inputs = [torch.as_tensor(item[0]) for _, item in found]
    for (i, _), x in zip(found, inputs, strict=True):
        if x.shape != inputs[0].shape:
            raise HpmlError(
                f"data: item {i} has shape {tuple(x.shape)}, item {found[0][0]} {tuple(inputs[0].shape)}; inputs of "
                "one set must have the same shape (or come in batches from a DataLoader with a collate_fn)"
            )
    return torch.stack(inputs), labels


def _grouped(found: Iterator[Any], batch_size: int) -> Iterator[Batch]:
    numbered = enumerate(found)
    while group := list(islice(numbered, batch_size)):
        yield _stacked(group)


def _started(samples: Iterable[Any], seed: int) -> Iterator[Any]:
    """An iterable from its beginning; loaders draw the seed of their order with the first batch."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        rest = iter(samples)
        begun = list(islice(rest, 1))
    yield from begun
    yield from rest
