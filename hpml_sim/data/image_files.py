"""MNIST, Fashion-MNIST and CIFAR-10 from the files their authors publish, and how to get those files.

The files of a set lie in a folder of its name below `data_folder()`. Debian's package `dataset-fashion-mnist` is found
where it puts its own. Nothing is ever downloaded unless `download_images` is called.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpml_sim.errors import HpmlError, needs

_IDX_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")

_CLASSES = 10
_LARGEST = 1 << 30
"""Bytes that a file of a set unpacks to at most; the largest published one has 184 million."""


@dataclass(frozen=True)
class ImageSet:
    """Where a set of images comes from.

    Attributes:
        url: folder of the files on the web.
        files: name -> MD5, as its authors publish them.
        installed: folder where a system's package puts the files; None where there is no such package.
        hint: how to install that package.
    """

    url: str
    files: Mapping[str, str]
    installed: Path | None = None
    hint: str = ""


IMAGE_SETS: Mapping[str, ImageSet] = {
    "mnist": ImageSet(
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        files={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion-mnist": ImageSet(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        installed=Path("/usr/share/datasets/fashion-mnist"),
        hint="or install Debian's package: sudo apt-get install dataset-fashion-mnist",
    ),
    "cifar10": ImageSet(
        url="https://www.cs.toronto.edu/~kriz/",
        files={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
}

Split = tuple[np.ndarray, np.ndarray]
"""Images uint8 (n, channels, height, width) and labels uint8 (n,)."""


def data_folder() -> Path:
    """Below it each set has a folder of its own: `HPML_SIM_DATA`, or `~/.cache/hpml_sim/data`."""
    return Path(os.environ.get("HPML_SIM_DATA", Path.home() / ".cache" / "hpml_sim" / "data"))


def find_files(name: str) -> Path | None:
    """The folder that holds all files of the set of this `name`; None if there is none."""
    known = IMAGE_SETS[name]
    places = [data_folder() / name, *([known.installed] if known.installed else [])]
    return next((place for place in places if all((place / file).is_file() for file in known.files)), None)


def download_images(name: str) -> Path:
    """Fetch a set's files into `data_folder()`, check their MD5, and return their folder.

    Args:
        name: one of `IMAGE_SETS`.

    Raises:
        HpmlError: pooch is missing, the network did not give the files, or they are not the published ones; what was
            fetched whole before is kept.
    """
    with needs(f"download_data({name!r})", "hpml_sim[data]"):
        import pooch
    known, folder = IMAGE_SETS[name], data_folder() / name
    for file, md5 in known.files.items():
        try:
            pooch.retrieve(known.url + file, known_hash=f"md5:{md5}", fname=file, path=folder)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
            raise HpmlError(
                f"download_data({name!r}): {known.url}{file} could not be fetched: {error}. "
                f"Put the files into {folder} by hand: {', '.join(known.files)}"
            ) from error
    return folder


def read_images(name: str) -> tuple[Split, Split]:
    """Training and test split of a set.

    Args:
        name: "mnist", "fashion-mnist" or "cifar10".

    Raises:
        HpmlError: its files are not there, or are not of the published format.
    """
    folder = find_files(name)
    if folder is None:
        known = IMAGE_SETS[name]
        raise HpmlError(
            f"data {name!r}: its files ({', '.join(known.files)}) are not in {data_folder() / name}; fetch them with "
            f"hs.download_data({name!r})" + (f", {known.hint}," if known.hint else "") + " or set HPML_SIM_DATA to the "
            "folder that holds them in a folder of the set's name"
        )
    again = f"delete it and fetch it again with hs.download_data({name!r})"
    if name == "cifar10":
        return _cifar10(folder / "cifar-10-binary.tar.gz", again)
    train_x, train_y, test_x, test_y = (
        _idx(folder / f"{file}-ubyte.gz", 3 if "images" in file else 1, again) for file in _IDX_FILES
    )
    for part, images, labels in (("train", train_x, train_y), ("t10k", test_x, test_y)):
        if images.shape[1:] != (28, 28):
            size = " x ".join(map(str, images.shape[1:]))
            raise HpmlError(
                f"{folder / f'{part}-images-idx3-ubyte.gz'}: images of {size}, and they have 28 x 28; {again}"
            )
        _check_labels(folder / f"{part}-labels-idx1-ubyte.gz", labels, len(images), again)
    return (train_x[:, None], train_y), (test_x[:, None], test_y)


def _check_labels(path: Path, labels: np.ndarray, images: int, again: str) -> None:
    if len(labels) != images:
        raise HpmlError(f"{path}: {len(labels):,} labels for {images:,} images; {again}")
    if (largest := int(labels.max())) >= _CLASSES:
        raise HpmlError(f"{path}: a label {largest}, and the classes are 0 to {_CLASSES - 1}; {again}")


def _unpacked(path: Path, again: str) -> bytes:
    """What a gzip file holds; its own checksum finds what changed in it."""
    try:
        with gzip.open(path) as file:
            raw = file.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise HpmlError(f"{path}: cannot be unpacked ({error}); {again}") from error
    if len(raw) > _LARGEST:
        raise HpmlError(f"{path}: holds more than {_LARGEST:,} bytes; {again}")
    return raw


def _idx(path: Path, dimensions: int, again: str) -> np.ndarray:
    """An IDX file (LeCun's format: two zero bytes, type 8 = uint8, number of dimensions, sizes, data)."""
    raw = _unpacked(path, again)
    start = 4 + 4 * dimensions
    if len(raw) < start or raw[:4] != bytes((0, 0, 8, dimensions)):
        raise HpmlError(f"{path}: not an IDX file of unsigned bytes in {dimensions} dimensions; {again}")
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    if 0 in shape or math.prod(shape) != len(raw) - start:
        raise HpmlError(f"{path}: says {' x '.join(map(str, shape))} bytes and has {len(raw) - start:,}; {again}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _cifar10(path: Path, again: str) -> tuple[Split, Split]:
    """The binary version: records of one byte of label and 3 x 32 x 32 bytes of red, green, blue, row by row.

    Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009), and the page of the data set.
    """
    batches: dict[str, np.ndarray] = {}
    raw = _unpacked(path, again)
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name.endswith(".bin") else None
                if file is not None:
                    batches[Path(member.name).stem] = np.frombuffer(file.read(), np.uint8)
    # a damaged header leads tarfile to places and numbers that are not there
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, KeyError) as error:
        raise HpmlError(f"{path}: not a tar archive ({error}); {again}") from error
    wanted = [f"data_batch_{i}" for i in range(1, 6)]
    if missing := [batch for batch in (*wanted, "test_batch") if batch not in batches]:
        raise HpmlError(f"{path}: no {', '.join(missing)} in it; is it the binary version?")
    for name, records in batches.items():
        if records.size == 0 or records.size % 3073:
            raise HpmlError(f"{path}: {name} is not made of CIFAR-10 records of 3,073 bytes; {again}")
        batches[name] = records.reshape(-1, 3073)
        _check_labels(path, batches[name][:, 0], len(batches[name]), again)

    def split(records: np.ndarray) -> Split:
        return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]

    return split(np.concatenate([batches[batch] for batch in wanted])), split(batches["test_batch"])
