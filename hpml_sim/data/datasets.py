"""Data sets by name. Nothing here touches the network; `download_data` fetches files when it is asked to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from hpml_sim.conversion.network_call import tensors_in
from hpml_sim.data.batches import Samples, has_items, numbered_items, resident_tensors
from hpml_sim.data.entries import NAMED
from hpml_sim.data.events import moving_bars
from hpml_sim.data.image_files import IMAGE_SETS, read_images
from hpml_sim.errors import HpmlError, UnknownNameError, check_whole, shown
from hpml_sim.networks.importing import called, check_not_a_file, names_code
from hpml_sim.units.display import html_table


@dataclass(frozen=True)
class Data:
    """Samples for training and test, and what is to be learned from them.

    Attributes:
        name: for tables.
        train: dataset of (input, label) for training; an input of several tensors is a tuple or a mapping.
        test: dataset of (input, label) for the test, as `train`.
        input_shape: of one input; of several tensors the first one's.
        classes: number of classes, >= 1, where labels are classes in [0, classes); None for other labels.
        task: name of the task, such as "language_model", one of `hs.tasks`; None: inferred from data and network.

    Raises:
        HpmlError: train or test is no data, or the shape or the number of classes is none.

    Example:
        >>> import hpml_sim as hs, torch
        >>> from torch.utils.data import TensorDataset
        >>> split = TensorDataset(torch.rand(20, 6), torch.arange(20) % 2)
        >>> hs.Data("mine", split, split, input_shape=(6,), classes=2)
        <Data mine: 20 + 20 samples of (6,), 2 classes>
    """

    name: str
    train: Dataset[tuple[Tensor, ...]]
    test: Dataset[tuple[Tensor, ...]]
    input_shape: tuple[int, ...]
    classes: int | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise HpmlError(f"Data: name={shown(self.name)}: must be text")
        for which, split in (("train", self.train), ("test", self.test)):
            if not _is_samples(split):
                raise HpmlError(
                    f"Data: {which}={shown(split)}: must be a dataset of (input, label) items; of tensors, "
                    "torch.utils.data.TensorDataset(x, y)"
                )
        if not isinstance(self.input_shape, tuple):
            raise HpmlError(f"Data: input_shape={shown(self.input_shape)}: must be a tuple, such as (1, 28, 28)")
        for size in self.input_shape:
            check_whole("Data: input_shape", size, low=1)
        if self.classes is not None:
            check_whole("Data: classes", self.classes, low=1)
        if not isinstance(self.task, (str, type(None))):
            raise HpmlError(f"Data: task={shown(self.task)}: must be the name of a task, such as 'regression', or None")

    def __repr__(self) -> str:
        counts = " + ".join(_count(split) for split in (self.train, self.test))
        return f"<Data {self.name}: {counts} samples of {tuple(self.input_shape)}{self._for()}>"

    def _for(self) -> str:
        return f", {self.classes} classes" if self.classes is not None else f", {self.task}" if self.task else ""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [
            ("training samples", _count(self.train)),
            ("test samples", _count(self.test)),
            ("input shape", str(tuple(self.input_shape))),
            *([("classes", self.classes)] if self.classes is not None else []),
            *([("task", self.task)] if self.task is not None else []),
        ]
        return html_table(f"Data: {self.name}", rows)


def _is_samples(given: Any) -> bool:
    """Whether something can be gone through for samples; what comes out of it is checked when it does."""
    if isinstance(given, (str, bytes, Mapping, Tensor, np.ndarray)):
        return False
    return isinstance(given, (Dataset, Iterable)) or has_items(given)


def _count(split: Any) -> str:
    return f"{len(split):,}" if has_items(split) else "?"


def load_data(data: str | Data | tuple[Dataset, Dataset], **options: Any) -> Data:
    """A `Data` from a name, or from a (train, test) pair of datasets of (input, label).

    Args:
        data: a name; "package.module:callable" or "file.py:callable", called without arguments, that gives one of the
            following; a `Data`; or a pair of datasets with a length. `hpml-sim data` lists the names.
        options: of a set by name: `tokenizer`, `length` and `test_windows` of texts, `channels` and `steps` of
            spoken-digit-spikes, `window`, `offset`, `tau` and `lyapunov_time` of mackey-glass.

    Raises:
        UnknownNameError: no data set has this name.
        HpmlError: files missing, code that fails, or a dataset that is empty or without labels.

    Example:
        >>> import hpml_sim as hs
        >>> hs.load_data("digits")
        <Data digits: 1,437 + 360 samples of (1, 8, 8), 10 classes>
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> x, y = torch.rand(20, 6), torch.arange(20) % 2
        >>> hs.load_data((TensorDataset(x[:15], y[:15]), TensorDataset(x[15:], y[15:]))).classes
        2
    """
    if options and not (isinstance(data, str) and not names_code(data)):
        raise HpmlError(f"load_data: {next(iter(options))!r} is an option of data sets by name")
    if isinstance(data, Data):
        return data
    if isinstance(data, str) and names_code(data):
        made = called("data", data)
        return made if isinstance(made, Data) else _of_pair(made, data)
    if isinstance(data, str):
        check_not_a_file("data", data)
        if data not in _LOADERS:
            raise UnknownNameError(
                "data",
                data,
                _LOADERS,
                hint="`hpml-sim data` lists all; or give package.module:callable or file.py:callable.",
            )
        if options and (data not in NAMED or NAMED[data].load is None):
            raise HpmlError(f"load_data: {data!r} takes no options, and {next(iter(options))!r} was given")
        return _LOADERS[data](**options)
    return _of_pair(data, "custom")


def samples_of(data: str | Data | Samples | tuple[Samples, Samples], which: Literal["train", "test"]) -> Samples:
    """The training or the test samples that are meant; only data sets by name are loaded, and nothing is gone through.

    Args:
        data: a name or a `Data`; a (train, test) pair, which is any tuple or list of two; or the samples themselves.
        which: of the two.

    Raises:
        UnknownNameError: no data set has this name.
        HpmlError: neither name, `Data`, pair nor samples.
    """
    if isinstance(data, (str, Data)):
        return getattr(load_data(data), which)
    _refuse_bare_tensors(data)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        data = data[which == "test"]
    if _is_samples(data):
        return data  # type: ignore[return-value]
    raise HpmlError(
        f"data={shown(data)}: is neither a name, a Data, a (train, test) pair, a dataset of (input, label) items nor "
        "an iterable of (inputs, labels) batches"
    )


def _refuse_bare_tensors(data: Any) -> None:
    """Inputs and labels that nobody put together: taken for (train, test) or for items, they would mean nonsense."""
    parts = data if isinstance(data, (tuple, list)) else (data,)
    if len(parts) <= 2 and any(isinstance(part, (Tensor, np.ndarray)) for part in parts):
        shapes = ", ".join(f"{type(part).__name__}{list(getattr(part, 'shape', ''))}" for part in parts)
        if len(parts) == 1:
            raise HpmlError(f"data=({shapes}): inputs without labels; give torch.utils.data.TensorDataset(x, y)")
        raise HpmlError(
            f"data=({shapes}): a pair is (train, test), each a dataset of (input, label) items; make inputs and labels "
            "one: torch.utils.data.TensorDataset(x, y)"
        )


def _of_pair(pair: Any, name: str) -> Data:
    """A (train, test) pair, every item looked at."""
    _refuse_bare_tensors(pair)
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
        given = f"data {name!r} gave {shown(pair)}; it" if names_code(name) else f"data={shown(pair)}:"
        raise HpmlError(
            f"{given} must be a (train, test) pair of datasets or a Data; names of data sets are "
            f"{', '.join(list_data())}"
        )
    for split, which in zip(pair, ("training", "test"), strict=True):
        if not _is_samples(split):
            raise HpmlError(f"data: the {which} set, {shown(split)}, must be a dataset of (input, label) items")
    splits = list(zip(pair, ("training", "test"), strict=True))
    for split, which in splits:
        _check_split(split, which)
    train, test = (_input_shape(split[0], which) for split, which in splits)
    if train != test:
        raise HpmlError(f"data: training inputs have shape {train}, test inputs {test}; both must have the same shape")
    return Data(name, pair[0], pair[1], train, _classes(splits))


def _check_split(split: Any, which: str) -> None:
    if not has_items(split):
        raise HpmlError(
            f"data: the {which} set, a {type(split).__name__}, has no items by number; a comparison "
            "needs datasets with __len__ and __getitem__ (of a DataLoader its .dataset); hs.fit and hs.evaluate take "
            "batches as well"
        )
    if len(split) == 0:
        raise HpmlError(f"data: the {which} set is empty")


def _input_shape(item: Any, which: str) -> tuple[int, ...]:
    """Of the first tensor of an input, for built-in networks."""
    inputs, _ = numbered_items([(f"item 0 of the {which} set", item)])
    return tuple(next(tensors_in(inputs)).shape[1:])


def _classes(splits: Sequence[tuple[Any, str]]) -> int | None:
    """One more than the largest label where labels are single whole numbers, every item looked at; otherwise None."""
    most = 0
    for split, which in splits:
        for label in _labels(split, which):
            if not isinstance(label, Tensor) or label.dim() != 1 or label.is_floating_point() or label.is_complex():
                return None
            if label.dtype == torch.bool:
                return None
            if int(label.min()) < 0:
                raise HpmlError(
                    f"data: a label of the {which} set is {int(label.min())}: labels must be whole numbers >= 0; "
                    "number the classes from 0"
                )
            most = max(most, int(label.max()))
    return most + 1


def _labels(split: Any, which: str) -> Iterator[Any]:
    if (whole := resident_tensors(split)) is not None:
        yield whole[1]
        return
    for i in range(len(split)):
        yield numbered_items([(f"item {i} of the {which} set", split[i])])[1]


def _digits() -> Data:
    """scikit-learn's 8x8 digits: 1,797 images, four fifths for training, split once and for all."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    x = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    rows = np.arange(len(x))
    train, test = map(np.asarray, train_test_split(rows, test_size=0.2, random_state=0, stratify=labels))
    return _pack("digits", x[train], labels[train], x[test], labels[test])


def _images(name: str) -> Data:
    """A set of images from its authors' files."""
    (x_train, y_train), (x_test, y_test) = read_images(name)
    scale = np.float32(1 / 255)
    return _pack(name, x_train * scale, y_train, x_test * scale, y_test)


def _pack(name: str, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Data:
    def split(x: np.ndarray, y: np.ndarray) -> TensorDataset:
        return TensorDataset(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64)))

    return Data(name, split(x_train, y_train), split(x_test, y_test), x_train.shape[1:], int(y_train.max()) + 1)


def _named(name: str, **options: Any) -> Data:
    """A set whose loader stands in its entry."""
    load = NAMED[name].load
    assert load is not None
    unknown = [option for option in options if option not in inspect.signature(load).parameters]
    if unknown:
        known = ", ".join(inspect.signature(load).parameters) or "none"
        raise HpmlError(f"load_data: {name!r} has no option {unknown[0]!r}; it has: {known}")
    splits = load(**options)
    return Data(name, splits.train, splits.test, splits.input_shape, splits.classes, task=splits.task or None)


def _moving_bars() -> Data:
    """Synthetic events: 1,000 recordings for training, 400 for the test."""
    return Data("moving-bars", moving_bars(1000, seed=0), moving_bars(400, seed=1), (12, 2, 16, 16), 4)


_LOADERS: Mapping[str, Callable[..., Data]] = {
    "digits": _digits,
    "moving-bars": _moving_bars,
    **{name: partial(_images, name) for name in IMAGE_SETS},
    **{name: partial(_named, name) for name, entry in NAMED.items() if entry.load is not None},
}


def list_data() -> list[str]:
    """Names of the data sets that `load_data` knows.

    Example:
        >>> import hpml_sim as hs
        >>> "digits" in hs.list_data()
        True
    """
    return sorted(_LOADERS)
