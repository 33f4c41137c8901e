import gzip
import struct

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from hpml_sim.data import load_data, stacked
from hpml_sim.errors import HpmlError, UnknownNameError


def write_idx(path, array):
    """An IDX file of unsigned bytes as its authors describe it, written by hand."""
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def test_digits_have_every_class_and_no_overlap():
    digits = load_data("digits")
    (x_train, y_train), (x_test, y_test) = stacked(digits.train), stacked(digits.test)
    assert (len(x_train), len(x_test)) == (1437, 360)
    assert digits.input_shape == (1, 8, 8)
    assert x_train.dtype == torch.float32
    assert 0 <= float(x_train.min()) <= float(x_train.max()) <= 1
    assert set(y_test.tolist()) == set(y_train.tolist()) == set(range(10))
    train = {x.numpy().tobytes() for x in x_train}
    assert sum(x.numpy().tobytes() in train for x in x_test) <= 1  # the set itself holds a duplicate or none


def test_fashion_mnist_files_are_read_as_they_are_written(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, 28, 28)), np.array([0, 9, 3, 3, 1])
    for split in ("train", "t10k"):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels)
    monkeypatch.setenv("HPML_SIM_FASHION_MNIST", str(tmp_path))
    fashion = load_data("fashion-mnist")
    x, y = stacked(fashion.test)
    assert fashion.input_shape == (1, 28, 28)
    assert y.tolist() == labels.tolist()
    np.testing.assert_allclose(x.numpy()[:, 0], images / 255, atol=1e-7)


def test_a_file_that_is_no_idx_is_refused(tmp_path, monkeypatch):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(gzip.compress(b"nonsense"))
    monkeypatch.setenv("HPML_SIM_FASHION_MNIST", str(tmp_path))
    with pytest.raises(HpmlError, match="not an IDX file"):
        load_data("fashion-mnist")


def test_missing_files_name_the_folder_and_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_FASHION_MNIST", str(tmp_path))
    with pytest.raises(HpmlError, match="dataset-fashion-mnist"):
        load_data("fashion-mnist")


def test_a_misspelt_name_is_guessed():
    with pytest.raises(UnknownNameError, match="Did you mean 'digits'"):
        load_data("digitz")


def test_a_pair_of_datasets_is_taken():
    class Own(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return torch.full((3,), float(i)), i % 3

    data = load_data((Own(), Own()))
    assert (data.input_shape, data.classes) == ((3,), 3)
    x, y = stacked(data.test)
    assert x.shape == (6, 3)
    assert y.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_dataset_without_labels_is_refused():
    split = TensorDataset(torch.zeros(4, 3))
    with pytest.raises(HpmlError, match="pair"):
        load_data((split, split))
