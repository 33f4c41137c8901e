"""Batches of samples, wherever they are: tensors in memory, a dataset item by item, or batches as somebody makes them.

What lies in memory is used where it lies. Of everything else no more than a batch is held at a time, so that a data set
may be larger than the memory. What labels mean is for the task to say (`hpml_sim/tasks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from hpml_sim.conversion.network_call import Inputs, Shared, map_tensors, samples_in, shapes_of, tensors_in
from hpml_sim.errors import HpmlError

Batch = tuple[Inputs, Any]
"""Inputs and labels, tensors (batch, ...), one or several each."""
Samples = Dataset[Any] | Iterable[Any]
"""(input, label) items in a `Dataset`, or (inputs, labels) batches in a `DataLoader` or another iterable."""
_LABELS = ("labels", "label")
"""Names of the labels in items and batches that are mappings, as Hugging Face's are."""
_ITEM = "an (input, label) pair, or a mapping with 'labels' or 'label'"


def resident_tensors(samples: Samples) -> tuple[Tensor, Tensor] | None:
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
    return not (len(samples) and _looks_like_batch(samples[0]))  # type: ignore[index]


def items(samples: Samples, chosen: Iterable[int]) -> Batch:
    """The batch of some items.

    Args:
        samples: what has items.
        chosen: their numbers, from 0.

    Raises:
        HpmlError: an item without a label, or items of different shapes.
    """
    return numbered_items([(f"item {i}", samples[i]) for i in chosen])  # type: ignore[index]


def first(samples: Samples, most: int) -> Batch:
    """The first samples in one batch.

    Args:
        samples: of any kind.
        most: how many at most, >= 1.

    Raises:
        HpmlError: there are none, or something is no (inputs, labels) batch or (input, label) item.
    """
    found: list[Batch] = []
    count = 0
    for x, y in in_order(samples, most):
        found.append((cut(x, most - count), cut(y, most - count)))
        count += samples_in(found[-1][1])
        if count == most:
            break
    return joined([x for x, _ in found]), joined([y for _, y in found])


def cut(value: Any, most: int) -> Any:
    """The first samples of a batch of inputs, or of labels.

    Args:
        value: tensors (batch, ...), one or several.
        most: how many at most.
    """
    return map_tensors(lambda tensor: tensor[:most], value)


def joined(parts: Sequence[Any]) -> Any:
    """Several batches of inputs, or of labels, as one.

    Args:
        parts: tensors (batch, ...), or tuples and mappings of such, all alike.
    """
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Shared):
        return _one_for_all(parts, "the batches")
    if isinstance(parts[0], Mapping):
        return {name: joined([part[name] for part in parts]) for name in parts[0]}
    if isinstance(parts[0], tuple):
        return tuple(joined(column) for column in zip(*parts, strict=True))
    return torch.cat(parts)  # type: ignore[arg-type]


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
    """A `batch` that somebody made: (inputs, labels), or a mapping with labels in it.

    Raises:
        HpmlError: it is neither, or inputs and labels have different lengths.
    """
    if not _is_batch(batch):
        raise HpmlError(
            f"data: each batch must be (inputs, labels), tensors (batch, ...) of the same length, or a mapping with "
            f"'labels', got {_kind(batch)}; a dataset of (input, label) items is made into batches here"
        )
    return _parts(batch)


def numbered_items(found: Sequence[tuple[str, Any]]) -> Batch:
    """Some items as a batch.

    Args:
        found: what to call each item in messages, such as "item 3", and the item.

    Raises:
        HpmlError: an item without a label, or items of different shapes.
    """
    pairs = [_pair(item, name) for name, item in found]
    names = [name for name, _ in found]
    return _collated([x for x, _ in pairs], names, "input"), _collated([y for _, y in pairs], names, "label")


def _parts(batch: Any) -> Batch:
    """Inputs and labels of a batch or an item that is known to have both."""
    if isinstance(batch, Mapping):
        name = next(name for name in _LABELS if name in batch)
        inputs = {key: part for key, part in batch.items() if key != name}
        return inputs, batch[name]
    x, y = batch
    return (tuple(x), y) if isinstance(x, list) and all(isinstance(part, (Tensor, Shared)) for part in x) else (x, y)


def _kind(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a mapping of {', '.join(map(repr, list(found)[:6]))}"
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {len(found)}, {shapes_of(found)[:120]}"
    return shapes_of(found)


def _has_label(found: Any) -> bool:
    if isinstance(found, Mapping):
        return sum(name in found for name in _LABELS) == 1 and len(found) > 1
    return isinstance(found, (tuple, list)) and len(found) == 2


def _is_batch(found: Any) -> bool:
    if not _has_label(found):
        return False
    inputs, labels = _parts(found)
    x, y = list(tensors_in(inputs)), list(tensors_in(labels))
    if not (x and y) or any(part.dim() < 1 for part in (*x, *y)):
        return False
    return len({len(part) for part in (*x, *y)}) == 1


def _looks_like_batch(found: Any) -> bool:
    """Of a list, which may hold items as well: a batch of samples that are single numbers is none that anybody has."""
    return _is_batch(found) and next(tensors_in(_parts(found)[0])).dim() > 1


def _pair(item: Any, which: str) -> Batch:
    if not _has_label(item):
        raise HpmlError(
            f"data: each item must be {_ITEM}, got {_kind(item)} as {which}; give inputs of several tensors as "
            "((a, b), label), and where the label is the input itself (x, x); `hpml-sim estimate MODEL "
            "--input-shape ...` needs no labels"
        )
    return _parts(item)


def _tensor(value: Any, which: str, role: str) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise HpmlError(
            f"data: the {role} of {which} is {shapes_of(value)[:120]}: must be a tensor, an array or numbers"
        ) from error


def _collated(values: Sequence[Any], names: Sequence[str], role: str) -> Any:
    """Items as a batch: tensors stacked, tuples and mappings part by part."""
    one = values[0]
    if isinstance(one, Shared):
        return _one_for_all(values, f"{names[0]} and others")
    if isinstance(one, Mapping):
        return {name: _collated([value[name] for value in values], names, role) for name in one}
    if isinstance(one, (tuple, list)) and any(_is_part(part) for part in one):
        return tuple(_collated(column, names, role) for column in zip(*values, strict=True))
    tensors = [_tensor(value, name, role) for name, value in zip(names, values, strict=True)]
    for name, x in zip(names, tensors, strict=True):
        if x.shape != tensors[0].shape:
            raise HpmlError(
                f"data: the {role} of {name} has shape {tuple(x.shape)}, that of {names[0]} "
                f"{tuple(tensors[0].shape)}; {role}s of one set must have the same shape: pad them (labels with -100), "
                "or give batches from a DataLoader with a collate_fn"
            )
    return torch.stack(tensors)


def _one_for_all(values: Sequence[Any], where: str) -> Shared:
    """What samples share, which must be the same for all of them."""
    first: Shared = values[0]
    for value in values[1:]:
        if not isinstance(value, Shared) or not (
            value.tensor is first.tensor
            or (value.tensor.shape == first.tensor.shape and torch.equal(value.tensor, first.tensor))
        ):
            raise HpmlError(
                f"data: hs.Shared of {where} differ: what is shared must be the same for all samples; what differs is "
                "an input of each sample"
            )
    return first


def _is_part(value: Any) -> bool:
    """Whether a part of a tuple is an input of its own, not one number of a vector."""
    return isinstance(value, (Mapping, Shared)) or (isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0)


def _grouped(found: Iterator[Any], batch_size: int) -> Iterator[Batch]:
    numbered = enumerate(found)
    while group := list(islice(numbered, batch_size)):
        yield numbered_items([(f"item {i}", item) for i, item in group])


def _started(samples: Iterable[Any], seed: int) -> Iterator[Any]:
    """An iterable from its beginning; loaders draw the seed of their order with the first batch."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        rest = iter(samples)
        begun = list(islice(rest, 1))
    yield from begun
    yield from rest
