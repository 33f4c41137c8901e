"""WikiText-2, SHD, SSC, N-MNIST and DVS Gesture, from their authors' files, which are put in place by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hpml_sim.data.events import Events, read_nmnist, read_shd
from hpml_sim.data.gesture_files import gestures_of
from hpml_sim.data.image_files import data_folder
from hpml_sim.data.splits import Splits
from hpml_sim.data.text import windows
from hpml_sim.errors import HpmlError
from hpml_sim.networks.pretrained.entries import load_tokenizer
from hpml_sim.networks.pretrained.language_model import TextTokenizer

FILES = {
    "wikitext-2": ("wiki.train.tokens", "wiki.test.tokens"),
    "shd": ("shd_train.h5", "shd_test.h5"),
    "ssc": ("ssc_train.h5", "ssc_test.h5"),
    "nmnist": ("Train", "Test"),
    "dvs-gesture": ("trials_to_train.txt", "trials_to_test.txt"),
}
"""Set -> names in its folder below `data_folder()`."""
_STEPS, _SHD_S, _SSC_S, _NMNIST_S = 100, 1.4, 1.0, 0.3


def is_here(name: str) -> bool:
    """Whether all files of the set of this `name` are in place."""
    return all((data_folder() / name / file).exists() for file in FILES[name])


def _folder(name: str) -> Path:
    if not is_here(name):
        raise HpmlError(
            f"data {name!r}: {' and '.join(FILES[name])} are not in {data_folder() / name}; put its authors' files "
            "there (`hpml-sim data` says whose), or set HPML_SIM_DATA"
        )
    return data_folder() / name


def wikitext(*, tokenizer: TextTokenizer | None = None, length: int = 512, test_windows: int | None = None) -> Splits:
    """WikiText-2 as windows of token ids.

    Args:
        tokenizer: of the language model, with `encode(text)`; None takes SmolLM2's.
        length: tokens of a window, >= 1.
        test_windows: how many of the test text's first windows, >= 1; None: all.

    Raises:
        HpmlError: the files are not in place.
    """
    folder = _folder("wikitext-2")
    chosen = load_tokenizer("smollm2-135m") if tokenizer is None else tokenizer
    train, test = (
        torch.tensor(list(chosen.encode((folder / file).read_text(encoding="utf-8")))) for file in FILES["wikitext-2"]
    )
    size = int(max(train.max(), test.max())) + 1
    return Splits(windows(train, length), windows(test, length, test_windows), (length,), size, "language_model")


class Frames(Dataset[tuple[Tensor, int]]):
    """Recordings of events as frames, made when they are asked for.

    Args:
        recordings: events, or what reads them.
        labels: of each.
        duration_s: length of a recording, seconds, > 0; None: each one's own.
    """

    def __init__(
        self, recordings: Sequence[Events | Callable[[], Events]], labels: Sequence[int], duration_s: float | None
    ):
        self.recordings, self.labels, self.duration_s = recordings, labels, duration_s

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        found = self.recordings[number]
        events = found if isinstance(found, Events) else found()
        return events.frames(_STEPS, self.duration_s).squeeze(), int(self.labels[number])


def shd() -> Splits:
    """Spiking Heidelberg Digits: 100 frames of 14 ms of 700 channels, (100, 700), -> 20 spoken digits.

    Raises:
        HpmlError: the files are not in place or have another layout, or h5py is missing.
    """
    return _cochlea("shd", _SHD_S, 20)


def ssc() -> Splits:
    """Spiking Speech Commands: 100 frames of 10 ms of 700 channels, (100, 700), -> 35 spoken words.

    The authors' third file, for validation, is left out.

    Raises:
        HpmlError: the files are not in place or have another layout, or h5py is missing.
    """
    return _cochlea("ssc", _SSC_S, 35)


def _cochlea(name: str, duration_s: float, classes: int) -> Splits:
    folder = _folder(name)
    train, test = (Frames(*_labelled(read_shd(folder / file)), duration_s) for file in FILES[name])
    return Splits(train, test, (_STEPS, 700), classes)


def _labelled(read: tuple[list[Events], np.ndarray]) -> tuple[list[Events], list[int]]:
    return read[0], read[1].tolist()


def nmnist() -> Splits:
    """N-MNIST: 100 frames of 3 ms of a 34 x 34 camera with two polarities, (100, 2, 34, 34), -> 10 digits.

    Raises:
        HpmlError: the folders Train and Test are not in place, or hold no recordings.
    """
    folder = _folder("nmnist")
    splits = []
    for name in FILES["nmnist"]:
        files = sorted((folder / name).glob("[0-9]/*.bin"))
        if not files:
            raise HpmlError(f"data 'nmnist': {folder / name} has no recordings; they are in 0/*.bin to 9/*.bin")
        readers = [partial(read_nmnist, file) for file in files]
        splits.append(Frames(readers, [int(file.parent.name) for file in files], _NMNIST_S))
    train, test = splits
    return Splits(train, test, (_STEPS, 2, 34, 34), 10)


def dvs_gesture() -> Splits:
    """DVS Gesture: 100 frames of a 128 x 128 event camera with two polarities, (100, 2, 128, 128), -> 11 gestures.

    A gesture lasts some 6 s, and each is cut into as many frames, however long it is.

    Raises:
        HpmlError: the authors' lists, recordings or tables are not in place, or have another layout.
    """
    folder = _folder("dvs-gesture")
    splits = []
    for listed in FILES["dvs-gesture"]:
        gestures = gestures_of(folder, listed)
        splits.append(Frames([one.events for one in gestures], [one.label for one in gestures], None))
    train, test = splits
    return Splits(train, test, (_STEPS, 2, 128, 128), 11)
