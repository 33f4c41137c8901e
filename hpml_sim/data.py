"""Data sets by name. Everything here loads without a network."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from hpml_sim.errors import HpmlError, UnknownNameError

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts the files; `HPML_SIM_FASHION_MNIST` overrides it."""


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

    Raises:
        UnknownNameError: no data set has this name. HpmlError: files missing, or a dataset without labels.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, str):
        if data not in _LOADERS:
            raise UnknownNameError("data", data, _LOADERS)
        return _LOADERS[data]()
    train, test = data
    first = test[0]
    if not (isinstance(first, (tuple, list)) and len(first) == 2):
        raise HpmlError(f"data: each item must be an (input, label) pair, got {type(first).__name__} from the test set")
    labels = [int(label) for split in (train, test) for _, label in _items(split)]
    return Data("custom", train, test, tuple(first[0].shape), max(labels) + 1)


def stacked(split: Dataset) -> tuple[Tensor, Tensor]:
    """All inputs (n, ...) and labels (n,) of a split as two tensors."""
    if isinstance(split, TensorDataset):
        return split.tensors[0], split.tensors[1]
    inputs, labels = zip(*_items(split), strict=True)
    return torch.stack([torch.as_tensor(x) for x in inputs]), torch.as_tensor([int(y) for y in labels])


def _items(split: Dataset) -> Iterator[tuple[Tensor, ...]]:
    return (split[i] for i in range(len(split)))  # type: ignore[arg-type]


def _digits() -> Data:
    """scikit-learn's 8x8 digits: 1,797 images, four fifths for training, split once and for all."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    x = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    rows = np.arange(len(x))
    train, test = map(np.asarray, train_test_split(rows, test_size=0.2, random_state=0, stratify=labels))
    return _pack("digits", x[train], labels[train], x[test], labels[test])


def _fashion_mnist() -> Data:
    folder = Path(os.environ.get("HPML_SIM_FASHION_MNIST", FASHION_MNIST_FOLDER))
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        raise HpmlError(
            f"data 'fashion-mnist': no files in {folder}; install Debian's package dataset-fashion-mnist "
            "(apt-get install dataset-fashion-mnist) or set HPML_SIM_FASHION_MNIST to a folder with the four .gz files"
        )
    x_train, y_train = _idx(folder / "train-images-idx3-ubyte.gz"), _idx(folder / "train-labels-idx1-ubyte.gz")
    x_test, y_test = _idx(folder / "t10k-images-idx3-ubyte.gz"), _idx(folder / "t10k-labels-idx1-ubyte.gz")
    scale = np.float32(1 / 255)
    return _pack("fashion-mnist", x_train[:, None] * scale, y_train, x_test[:, None] * scale, y_test)


def _idx(path: Path) -> np.ndarray:
    """An IDX file (LeCun's format: two zero bytes, type 8 = uint8, number of dimensions, sizes, data)."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise HpmlError(f"{path}: not an IDX file of unsigned bytes")
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def _pack(name: str, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Data:
    def split(x: np.ndarray, y: np.ndarray) -> TensorDataset:
        return TensorDataset(torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(y.astype(np.int64)))

    return Data(name, split(x_train, y_train), split(x_test, y_test), x_train.shape[1:], int(y_train.max()) + 1)


_LOADERS = {"digits": _digits, "fashion-mnist": _fashion_mnist}
