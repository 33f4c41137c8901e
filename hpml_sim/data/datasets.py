"""Data sets by name. Nothing here touches a network; `download_data` fetches files when it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from hpml_sim.data.batches import Samples, has_items, label_of
from hpml_sim.data.image_files import IMAGE_SETS, read_images
from hpml_sim.errors import HpmlError, UnknownNameError, needs
from hpml_sim.networks.importing import called, names_code


@dataclass(frozen=True)
class Data:
    """A classification task.

    Attributes:
        name: for tables. train, test: datasets of (input, label); inputs float32 of shape `input_shape` in [0, 1],
            labels int64 in [0, classes).
    """

    name: str
    train: Dataset[tuple[Tensor, ...]]
    test: Dataset[tuple[Tensor, ...]]
    input_shape: tuple[int, ...]
    classes: int


def load_data(data: str | Data | tuple[Dataset, Dataset]) -> Data:
    """A `Data` from a name, or from a (train, test) pair of datasets of (input, label).

    Args:
        data: a name; "package.module:callable" or "file.py:callable", called without arguments, that gives one of the
            following; a `Data`; or a pair of datasets with a length.

    Raises:
        UnknownNameError: no data set has this name. HpmlError: files missing, code that fails, or a dataset that is
            empty or without labels.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, str) and names_code(data):
        made = called("data", data)
        return made if isinstance(made, Data) else _of_pair(made, data)
    if isinstance(data, str):
        if data not in _LOADERS:
            raise UnknownNameError("data", data, _LOADERS, hint="Or give package.module:callable or file.py:callable.")
        return _LOADERS[data]()
    return _of_pair(data, "custom")


def samples_of(data: str | Data | Samples | tuple[Samples, Samples], which: Literal["train", "test"]) -> Samples:
    """The training or the test samples that are meant; only data sets by name are loaded, and nothing is gone through.

    Args:
        data: a name or a `Data`; a (train, test) pair, which is any tuple or list of two; or the samples themselves.
        which: of the two.

    Raises:
        UnknownNameError: no data set has this name. HpmlError: neither name, `Data`, pair nor samples.
    """
    if isinstance(data, (str, Data)):
        return getattr(load_data(data), which)
    if isinstance(data, (tuple, list)) and len(data) == 2:
        data = data[which == "test"]
    if isinstance(data, Dataset) or has_items(data) or isinstance(data, Iterable):
        return data
    raise HpmlError(
        f"data: {type(data).__name__} is neither a name, a Data, a (train, test) pair, a dataset of (input, label) "
        "items nor an iterable of (inputs, labels) batches"
    )


def _of_pair(pair: Any, name: str) -> Data:
    """A (train, test) pair, every item looked at."""
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
        raise HpmlError(f"data {name!r}: must be a (train, test) pair of datasets or a Data, got {type(pair).__name__}")
    labels = [label for split, which in zip(pair, ("training", "test"), strict=True) for label in _labels(split, which)]
    return Data(name, pair[0], pair[1], tuple(pair[0][0][0].shape), max(labels) + 1)


def _labels(split: Any, which: str) -> Iterator[int]:
    if not has_items(split):
        raise HpmlError(
            f"data: the {which} set, a {type(split).__name__}, has no items to be asked for by number; a comparison "
            "needs datasets with __len__ and __getitem__ (of a DataLoader its .dataset); hs.fit and hs.evaluate take "
            "batches as well"
        )
    if len(split) == 0:
        raise HpmlError(f"data: the {which} set is empty")
    for i in range(len(split)):
        yield label_of(split[i], f"item {i} of the {which} set")


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


# -------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True)
class Events:
    """What an event camera or a silicon cochlea gives: one row an event, in the order of time.

    Attributes:
        time_s: seconds, (n,), never falling. x, y: pixel or channel, (n,) int. polarity: 0 (darker) or 1 (brighter).
        sensor: (polarities, height, width).

    Raises:
        HpmlError: columns of different length, events out of order, or off the sensor; the first one is named.
    """

    time_s: np.ndarray
    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray
    sensor: tuple[int, int, int]

    def __post_init__(self) -> None:
        columns = {"time_s": self.time_s, "x": self.x, "y": self.y, "polarity": self.polarity}
        if len({len(column) for column in columns.values()}) != 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
            raise HpmlError(f"events: columns of different length ({lengths})")
        if not np.all(np.isfinite(self.time_s)):
            raise HpmlError("events: a time that is not finite")
        late = np.flatnonzero(np.diff(self.time_s) < 0)
        if late.size:
            raise HpmlError(f"events: event {int(late[0]) + 1} is earlier than the one before it; sort them by time")
        for name, size in zip(("polarity", "y", "x"), self.sensor, strict=True):
            off = np.flatnonzero((columns[name] < 0) | (columns[name] >= size))
            if off.size:
                at = int(off[0])
                raise HpmlError(
                    f"events: event {at} has {name}={int(columns[name][at])}, off the sensor (0 ... {size - 1})"
                )

    def frames(self, steps: int, duration_s: float | None = None) -> Tensor:
        """Events in equal slices of time: (steps, polarities, height, width), 1 where a pixel had one or more.

        Args:
            steps: slices, >= 1. duration_s: length of all of them; later events are left out. None: up to the last.

        Raises:
            HpmlError: steps < 1 or a duration that is not positive.
        """
        if steps < 1 or (duration_s is not None and not duration_s > 0):
            raise HpmlError(f"events: steps={steps!r}, duration_s={duration_s!r}: both must be positive")
        frames = torch.zeros(steps, *self.sensor)
        if len(self.time_s) == 0:
            return frames
        start = 0.0 if duration_s is not None else float(self.time_s[0])
        length = duration_s if duration_s is not None else float(self.time_s[-1]) - start
        at = np.floor((self.time_s - start) / length * steps) if length > 0 else np.zeros(len(self.time_s))
        at = np.where((duration_s is None) & (at == steps), steps - 1, at).astype(np.int64)
        kept = (at >= 0) & (at < steps)
        columns = (at, self.polarity, self.y, self.x)
        frames[tuple(torch.as_tensor(column[kept].astype(np.int64)) for column in columns)] = 1
        return frames


def read_nmnist(path: str | Path) -> Events:
    """One N-MNIST recording (.bin): 5 bytes an event: x, y, then 1 bit of polarity and 23 bits of microseconds.

    Source: G. Orchard et al., Front. Neurosci. 9:437 (2015), and the files' own description.

    Raises:
        HpmlError: the length is no multiple of 5, or events off the 34 x 34 sensor or out of order.
    """
    raw = np.fromfile(path, np.uint8)
    if raw.size % 5:
        raise HpmlError(f"{path}: {raw.size} bytes are not whole N-MNIST events of 5 bytes")
    rows = raw.reshape(-1, 5).astype(np.int64)
    time = ((rows[:, 2] & 0x7F) << 16) | (rows[:, 3] << 8) | rows[:, 4]
    return Events(time * 1e-6, rows[:, 0], rows[:, 1], rows[:, 2] >> 7, (2, 34, 34))


def read_shd(path: str | Path) -> tuple[list[Events], np.ndarray]:
    """Recordings and labels of an SHD file (HDF5: spikes/times in seconds, spikes/units of 700 channels, labels).

    Source: B. Cramer et al., IEEE Trans. Neural Netw. Learn. Syst. 33:2744 (2022).

    Raises:
        HpmlError: h5py is missing, the file has another layout, or events are off the 700 channels or out of order.
    """
    with needs(f"reading {path}", "h5py"):
        import h5py
    with h5py.File(path, "r") as file:
        try:
            times, units, labels = (np.asarray(file[key]) for key in ("spikes/times", "spikes/units", "labels"))
        except KeyError as error:
            raise HpmlError(f"{path}: no SHD file: {error}") from error
    recordings = []
    for time, unit in zip(times, units, strict=True):
        nothing = np.zeros(len(unit), np.int64)
        time = np.asarray(time, np.float64)
        recordings.append(Events(time, np.asarray(unit, np.int64), nothing, nothing, (1, 1, 700)))
    return recordings, labels.astype(np.int64)


def moving_bars(samples: int, *, size: int = 16, steps: int = 12, noise: float = 0.01, seed: int = 0) -> TensorDataset:
    """A synthetic event camera before a bar that moves right, left, down or up (labels 0 ... 3).

    Polarity 1 is where the bar arrives, 0 where it leaves. Position, width and speed vary, and each pixel fires by
    itself with probability `noise` a step. No single frame tells the direction from the position: the polarities do.

    Args:
        samples: how many, >= 1. size: pixels of a side, >= 8. steps: frames, >= 2. noise: in [0, 1).
        seed: of the draws.

    Returns:
        (samples, steps, 2, size, size) of 0 and 1, and labels.
    """
    if samples < 1 or size < 8 or steps < 2 or not 0 <= noise < 1:
        raise HpmlError(
            f"moving_bars: samples={samples!r}, size={size!r}, steps={steps!r}, noise={noise!r}; at least 1, 8 and "
            "2, and noise in [0, 1)"
        )
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, samples)
    width, speed = rng.integers(2, 5, samples), rng.uniform(0.5, 1.5, samples)
    start, phase = rng.uniform(-2, size / 2, samples), np.arange(steps + 1)
    front = np.floor(start[:, None] + speed[:, None] * phase)  # (samples, steps + 1)
    pixel = np.arange(size)
    covered = (pixel <= front[..., None]) & (pixel > (front - width[:, None])[..., None])
    change = covered[:, 1:].astype(np.int8) - covered[:, :-1]  # (samples, steps, size), along the way of the bar
    events = np.stack([change < 0, change > 0], axis=2)
    reverse = np.isin(labels, (1, 3))
    events[reverse] = events[reverse][..., ::-1]
    frames = np.repeat(events[..., None, :], size, axis=3)  # the bar stands across its way
    vertical = labels >= 2
    frames[vertical] = frames[vertical].swapaxes(-1, -2)
    frames = frames | (rng.random(frames.shape) < noise)
    return TensorDataset(torch.from_numpy(frames.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)))


def _moving_bars() -> Data:
    """Synthetic events: 1,000 recordings for training, 400 for the test."""
    return Data("moving-bars", moving_bars(1000, seed=0), moving_bars(400, seed=1), (12, 2, 16, 16), 4)


_LOADERS: Mapping[str, Callable[[], Data]] = {
    "digits": _digits,
    "moving-bars": _moving_bars,
    **{name: partial(_images, name) for name in IMAGE_SETS},
}
