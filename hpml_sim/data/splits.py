"""What a loader of a named data set gives."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset


class Splits(NamedTuple):
    """A data set before it has a name.

    Attributes:
        train: dataset of (input, label) items.
        test: dataset of (input, label) items, none of which is in `train`.
        input_shape: of one input.
        classes: one more than the largest label; of texts the size of the vocabulary; None where labels are numbers.
        task: name of the task; "" where it is classification.
    """

    train: Dataset[Any]
    test: Dataset[Any]
    input_shape: tuple[int, ...]
    classes: int | None
    task: str = ""


def of_arrays(x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Splits:
    """Splits of a classification.

    Args:
        x_train: inputs, (samples, ...), as float32.
        y_train: labels, (samples,), whole numbers.
        x_test: inputs, (samples, ...), as float32.
        y_test: labels, (samples,), whole numbers.
    """

    def split(x: np.ndarray, y: np.ndarray) -> TensorDataset:
        values = np.ascontiguousarray(x, dtype=np.float32)
        return TensorDataset(torch.from_numpy(values), torch.from_numpy(y.astype(np.int64)))

    return Splits(split(x_train, y_train), split(x_test, y_test), x_train.shape[1:], int(y_train.max()) + 1)
