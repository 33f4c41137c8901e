"""Events of cameras and cochleas: frames, files of the published formats, and the synthetic set."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from hpml_sim.data import Events, moving_bars, read_nmnist, read_shd
from hpml_sim.errors import HpmlError


def events(**columns):
    given = {"time_s": [0.0, 0.1, 0.3], "x": [0, 1, 2], "y": [0, 0, 1], "polarity": [0, 1, 1], **columns}
    return Events(*(np.asarray(given[key]) for key in ("time_s", "x", "y", "polarity")), (2, 2, 3))


def test_frames_put_each_event_in_its_slice():
    frames = events().frames(3)
    want = torch.zeros(3, 2, 2, 3)
    want[0, 0, 0, 0] = want[1, 1, 0, 1] = want[2, 1, 1, 2] = 1
    assert torch.equal(frames, want)  # 0.1 s of 0.3 s is the start of the second slice
    early = events().frames(2, duration_s=0.2)
    assert early.sum() == 2  # the last event is too late
    assert events(time_s=[], x=[], y=[], polarity=[]).frames(4).sum() == 0
    assert events(time_s=[1.0] * 3).frames(4).sum() == 3  # all at once


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time_s": [0.0, 0.3, 0.2]}, "event 2 is earlier than the one before it"),
        ({"x": [0, 3, 1]}, r"event 1 has x=3, off the sensor \(0 ... 2\)"),
        ({"y": [0, 1, -1]}, "event 2 has y=-1"),
        ({"polarity": [2, 0, 0]}, "event 0 has polarity=2"),
        ({"x": [0, 1]}, "different length"),
        ({"time_s": [0.0, np.nan, 1.0]}, "not finite"),
    ],
)
def test_bad_events_are_named(columns, message):
    with pytest.raises(HpmlError, match=message):
        events(**columns)


def test_bad_slices_are_named():
    with pytest.raises(HpmlError, match="steps=0"):
        events().frames(0)
    with pytest.raises(HpmlError, match="duration_s=0"):
        events().frames(3, duration_s=0)


def test_an_nmnist_file(tmp_path):
    file = tmp_path / "00001.bin"
    file.write_bytes(bytes([3, 33, 0x80 | 0x01, 0x02, 0x03]) + bytes([10, 0, 0x01, 0x02, 0x04]))
    read = read_nmnist(file)
    assert read.sensor == (2, 34, 34)
    np.testing.assert_allclose(read.time_s, [0x010203 * 1e-6, 0x010204 * 1e-6])
    assert (read.x.tolist(), read.y.tolist(), read.polarity.tolist()) == ([3, 10], [33, 0], [1, 0])
    file.write_bytes(bytes([34, 0, 0, 0, 1]))
    with pytest.raises(HpmlError, match="x=34, off the sensor"):
        read_nmnist(file)
    file.write_bytes(b"1234")
    with pytest.raises(HpmlError, match="4 bytes are not whole"):
        read_nmnist(file)


def test_an_shd_file(tmp_path):
    path = tmp_path / "shd.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("spikes")
        times = group.create_dataset("times", (2,), dtype=h5py.vlen_dtype(np.float16))
        units = group.create_dataset("units", (2,), dtype=h5py.vlen_dtype(np.uint16))
        times[0], units[0] = np.array([0.0, 0.5], np.float16), np.array([699, 3], np.uint16)
        times[1], units[1] = np.array([0.25], np.float16), np.array([7], np.uint16)
        file["labels"] = np.array([4, 19], np.uint16)
    recordings, labels = read_shd(path)
    assert labels.tolist() == [4, 19]
    assert recordings[0].x.tolist() == [699, 3]
    assert recordings[1].frames(4, duration_s=1.0)[1, 0, 0, 7] == 1
    with h5py.File(path, "a") as file:
        del file["labels"]
    with pytest.raises(HpmlError, match="no SHD file"):
        read_shd(path)


def test_bars_move_as_their_label_says():
    x, labels = moving_bars(60, noise=0, seed=3).tensors
    assert x.shape == (60, 12, 2, 16, 16)
    assert set(labels.tolist()) == {0, 1, 2, 3}
    pixel = torch.arange(16.0)
    for sample, label in zip(x, labels.tolist(), strict=True):
        arrives = sample[:, 1].sum(dim=1 if label < 2 else 2)  # (steps, along)
        at = [(float((frame * pixel).sum() / frame.sum())) for frame in arrives if frame.sum() > 0]
        moved = at[-1] - at[0]
        assert (moved > 0) == (label in (0, 2)), (label, at)
    again = moving_bars(60, noise=0, seed=3)
    assert torch.equal(again.tensors[0], x)
    assert not torch.equal(moving_bars(60, noise=0, seed=4).tensors[0], x)
    with pytest.raises(HpmlError, match="size=4"):
        moving_bars(5, size=4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "moving_bars: samples=0: must be a whole number >= 1"),
        ({"samples": "5"}, "samples='5': must be a whole number >= 1"),
        ({"steps": 1}, "steps=1: must be a whole number >= 2"),
        ({"noise": 1}, "noise=1: must be a finite number >= 0 and < 1"),
        ({"noise": float("nan")}, "noise=nan: must be a finite number"),
        ({"seed": -1}, "seed=-1: must be a whole number >= 0"),
    ],
)
def test_bars_that_cannot_be(options, said):
    with pytest.raises(HpmlError, match=said):
        moving_bars(**({"samples": 5} | options))
