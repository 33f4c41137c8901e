import gzip
import hashlib
import http.server
import io
import random
import shutil
import struct
import tarfile
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from hpml_sim.data import Data, image_files, load_data
from hpml_sim.data.batches import first
from hpml_sim.data.entries import download_data
from hpml_sim.data.image_files import ImageSet
from hpml_sim.errors import HpmlError, UnknownNameError


def write_idx(path, array):
    """An IDX file of unsigned bytes as its authors describe it, written by hand."""
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}i", *array.shape)
    path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def test_digits_have_every_class_and_no_overlap():
    digits = load_data("digits")
    (x_train, y_train), (x_test, y_test) = first(digits.train, 10_000), first(digits.test, 10_000)
    assert (len(x_train), len(x_test)) == (1437, 360)
    assert digits.input_shape == (1, 8, 8)
    assert x_train.dtype == torch.float32
    assert 0 <= float(x_train.min()) <= float(x_train.max()) <= 1
    assert set(y_test.tolist()) == set(y_train.tolist()) == set(range(10))
    train = {x.numpy().tobytes() for x in x_train}
    assert sum(x.numpy().tobytes() in train for x in x_test) <= 1  # the set itself holds a duplicate or none


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder, and no package of the system's."""
    monkeypatch.setenv("HPML_SIM_DATA", str(tmp_path))
    own = {name: replace(known, installed=None) for name, known in image_files.IMAGE_SETS.items()}
    monkeypatch.setattr(image_files, "IMAGE_SETS", own)
    return tmp_path


def write_idx_set(folder, images, labels):
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "t10k"):
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", labels)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_read_as_they_are_written(folder, name):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, 28, 28)), np.array([0, 9, 3, 3, 1])
    write_idx_set(folder / name, images, labels)
    data = load_data(name)
    x, y = first(data.test, 10_000)
    assert (data.name, data.input_shape, data.classes) == (name, (1, 28, 28), 10)
    assert y.tolist() == labels.tolist()
    np.testing.assert_allclose(x.numpy()[:, 0], images / 255, atol=1e-7)


def write_cifar(path, batches):
    """CIFAR-10's binary archive: a label byte, then the red, the green and the blue plane of each image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, (images, labels) in batches.items():
            raw = b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


def cifar_batches(rng):
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return {name: (rng.integers(0, 256, (2, 3, 32, 32), np.uint8), rng.integers(0, 10, 2).tolist()) for name in names}


def test_cifar10_is_read_as_it_is_written(folder):
    batches = cifar_batches(np.random.default_rng(0))
    write_cifar(folder / "cifar10" / "cifar-10-binary.tar.gz", batches)
    data = load_data("cifar10")
    x, y = first(data.train, 10_000)
    assert (data.input_shape, len(x), len(first(data.test, 10_000)[0])) == ((3, 32, 32), 10, 2)
    np.testing.assert_allclose(x[2:4].numpy(), batches["data_batch_2"][0] / 255, atol=1e-7)
    assert y[2:4].tolist() == batches["data_batch_2"][1]


def test_a_broken_cifar10_archive_is_refused(folder):
    path = folder / "cifar10" / "cifar-10-binary.tar.gz"
    batches = cifar_batches(np.random.default_rng(0))
    del batches["data_batch_3"]
    write_cifar(path, batches)
    with pytest.raises(HpmlError, match="no data_batch_3 in it"):
        load_data("cifar10")
    write_cifar(path, {**cifar_batches(np.random.default_rng(0)), "test_batch": (np.zeros((1, 10), np.uint8), [0])})
    with pytest.raises(HpmlError, match="3,073 bytes"):
        load_data("cifar10")


def test_files_that_are_no_idx_or_do_not_match_are_refused(folder):
    write_idx_set(folder / "mnist", np.zeros((5, 28, 28)), np.zeros(4))
    with pytest.raises(HpmlError, match="4 labels for 5 images"):
        load_data("mnist")
    for file in (folder / "mnist").iterdir():
        file.write_bytes(gzip.compress(b"nonsense"))
    with pytest.raises(HpmlError, match="not an IDX file"):
        load_data("mnist")


def damaged(good, draw):
    """A file with a bit flipped, bytes cut out, written twice, or written over."""
    raw, place, length = bytearray(good), draw.randrange(len(good)), draw.choice([1, 4, 50])
    kind = draw.randrange(5)
    if kind == 0:
        raw[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del raw[place:]
    elif kind == 2:
        del raw[place : place + length]
    elif kind == 3:
        raw[place:place] = raw[place : place + length]
    else:
        raw[place : place + length] = draw.randbytes(length)
    return bytes(raw)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_damaged_files_are_one_line_or_harmless(folder, name, inside):
    """Inside the packed file damage can hit pictures alone, of which nothing is known; all else is named."""
    rng, draw = np.random.default_rng(0), random.Random(0)
    if name == "mnist":
        write_idx_set(folder / name, rng.integers(0, 256, (3, 28, 28)), np.array([0, 9, 3]))
    else:
        write_cifar(folder / name / "cifar-10-binary.tar.gz", cifar_batches(rng))
    want = first(load_data(name).train, 100)
    named, files = 0, sorted((folder / name).iterdir())
    for number in range(150):
        file = files[number % len(files)]
        good = file.read_bytes()
        file.write_bytes(gzip.compress(damaged(gzip.decompress(good), draw), 1) if inside else damaged(good, draw))
        try:
            data = load_data(name)
        except HpmlError as error:
            named += str(file) in str(error) and "\n" not in str(error)
        else:
            named += 1  # gzip's own header has a time and a name, and blanks may follow
            assert inside or all(torch.equal(a, b) for a, b in zip(first(data.train, 100), want, strict=True))
            assert int(first(data.test, 100)[1].max()) < 10
        file.write_bytes(good)
    assert named == 150


def test_missing_files_name_the_folder_and_the_ways_to_get_them(folder):
    with pytest.raises(HpmlError, match=r"download_data\('fashion-mnist'\).*dataset-fashion-mnist.*HPML_SIM_DATA"):
        load_data("fashion-mnist")
    with pytest.raises(HpmlError, match="cifar-10-binary"):
        load_data("cifar10")


@pytest.fixture
def published(tmp_path_factory, monkeypatch, folder):
    """The four files of an MNIST of two images, served from this machine."""
    root = tmp_path_factory.mktemp("web")
    write_idx_set(root, np.full((2, 28, 28), 7), np.array([1, 2]))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        files = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in root.iterdir()}
        url = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(image_files, "IMAGE_SETS", {"mnist": ImageSet(url=url, files=files)})
        yield root
        server.shutdown()


def test_a_download_is_checked_and_then_read(published, folder):
    assert download_data("mnist") == folder / "mnist"
    assert first(load_data("mnist").test, 10_000)[1].tolist() == [1, 2]
    shutil.rmtree(published)
    download_data("mnist")  # what is there is not fetched again


def test_a_file_that_is_not_the_published_one_is_refused(published, folder):
    write_idx(published / "t10k-labels-idx1-ubyte.gz", np.array([3, 4]))
    with pytest.raises(HpmlError, match=r"hash.*Put the files into"):
        download_data("mnist")
    assert image_files.find_files("mnist") is None


def test_a_set_that_cannot_be_downloaded_is_named(folder):
    with pytest.raises(UnknownNameError, match="Did you mean 'cifar10'"):
        download_data("cifar")


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
    x, y = first(data.test, 10_000)
    assert x.shape == (6, 3)
    assert y.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_dataset_without_labels_is_refused():
    split = TensorDataset(torch.zeros(4, 3))
    with pytest.raises(HpmlError, match="pair"):
        load_data((split, split))


def test_data_is_short_when_it_is_shown():
    digits = load_data("digits")
    assert repr(digits) == "<Data digits: 1,437 + 360 samples of (1, 8, 8), 10 classes>"
    assert "1,437" in digits._repr_html_()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": torch.zeros(3)}, "Data: train=<Tensor>: must be a dataset"),
        ({"test": None}, "Data: test=None: must be a dataset"),
        ({"test": {"x": 1}}, "Data: test=.*: must be a dataset"),
        ({"input_shape": 6}, r"input_shape=6: must be a tuple, such as \(1, 28, 28\)"),
        ({"input_shape": (6.0,)}, r"input_shape=6\.0: must be a whole number >= 1"),
        ({"classes": 0}, "classes=0: must be a whole number >= 1"),
        ({"classes": True}, "classes=True: must be a whole number >= 1"),
    ],
)
def test_data_that_cannot_be(options, said):
    split = TensorDataset(torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(HpmlError, match=said):
        Data(**({"name": "x", "train": split, "test": split, "input_shape": (6,), "classes": 2} | options))
