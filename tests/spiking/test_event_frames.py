from __future__ import annotations

import h5py
import numpy as np
import pytest
import tonic
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.data import load_data, read_nmnist, read_shd
from hpml_sim.errors import HpmlError
from hpml_sim.spiking import EventFrames
from hpml_sim.targets import Spiking
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate


def test_a_spiking_network_learns_the_direction():
    bars = load_data("moving-bars")
    assert bars.input_shape == (12, 2, 16, 16)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    model = convert(net, Spiking("loihi", steps=12, encoder="frames"))
    fit(model, bars, epochs=4, lr=5e-3, show_progress=False)
    assert evaluate(model, bars).mean > 0.9


@pytest.fixture
def on_disk(monkeypatch):
    """tonic takes the few small files for the whole data set, and downloads nothing."""
    for kind in (tonic.datasets.NMNIST, tonic.datasets.SHD):
        monkeypatch.setattr(kind, "_check_exists", lambda self: True)
        monkeypatch.setattr(kind, "download", lambda self: pytest.fail("no network in tests"))


def nmnist_files(folder, rng, samples=3):
    """Small recordings: label 0 moves in the upper half, label 1 in the lower one."""
    for label in (0, 1):
        (folder / str(label)).mkdir(parents=True)
        for sample in range(samples):
            n = 60
            rows = np.zeros((n, 5), np.uint8)
            rows[:, 0], rows[:, 1] = rng.integers(0, 34, n), rng.integers(0, 17, n) + 17 * label
            time = np.sort(rng.integers(0, 300_000, n))
            rows[:, 2] = (rng.integers(0, 2, n) << 7) | (time >> 16)
            rows[:, 3], rows[:, 4] = (time >> 8) & 255, time & 255
            (folder / str(label) / f"{sample:05d}.bin").write_bytes(rows.tobytes())


def shd_file(path, rng, samples=12):
    """Label 0 in the lower channels, label 1 in the upper ones."""
    with h5py.File(path, "w") as file:
        group = file.create_group("spikes")
        times = group.create_dataset("times", (samples,), dtype=h5py.vlen_dtype(np.float16))
        units = group.create_dataset("units", (samples,), dtype=h5py.vlen_dtype(np.uint16))
        labels = np.arange(samples) % 2
        for i, label in enumerate(labels):
            times[i] = np.sort(rng.uniform(0, 0.9, 80)).astype(np.float16)
            units[i] = (rng.integers(0, 350, 80) + 350 * label).astype(np.uint16)
        file["labels"] = labels.astype(np.uint16)
        file["extra/keys"] = np.array([b"null", b"eins"])
        file["extra/speaker"] = np.zeros(samples, np.uint16)


def test_nmnist_through_tonic(tmp_path, on_disk):
    nmnist_files(tmp_path / "NMNIST" / "Test", np.random.default_rng(0))
    frames = EventFrames(tonic.datasets.NMNIST(str(tmp_path), train=False), steps=6, duration_s=0.3)
    assert len(frames) == 6
    for index, (x, label) in enumerate(frames[i] for i in range(6)):
        assert int(label) == index // 3
        assert x.shape == (6, 2, 34, 34)
        assert x[:, :, 17:].any() == bool(label)
        ours = read_nmnist(tmp_path / "NMNIST" / "Test" / str(int(label)) / f"{index % 3:05d}.bin")
        assert torch.equal(x, ours.frames(6, 0.3))


def test_shd_through_tonic_trains_a_network(tmp_path, on_disk):
    for name, seed in (("train", 0), ("test", 1)):
        folder = tmp_path / "SHD"
        folder.mkdir(exist_ok=True)
        shd_file(folder / f"shd_{name}.h5", np.random.default_rng(seed))
    train, test = (
        EventFrames(tonic.datasets.SHD(str(tmp_path), train=first), steps=8, duration_s=0.9) for first in (True, False)
    )
    x, label = train[1]
    assert x.shape == (8, 1, 1, 700)
    assert int(label) == 1
    assert x[..., :350].sum() == 0
    assert torch.equal(x, read_shd(tmp_path / "SHD" / "shd_train.h5")[0][1].frames(8, 0.9))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(700, 16), nn.ReLU(), nn.Linear(16, 2))
    model = convert(net, Spiking("loihi", steps=8, encoder="frames"))
    fit(model, (train, test), epochs=15, lr=5e-3, batch_size=4, show_progress=False)
    assert evaluate(model, (train, test)).mean == 1.0


class Recordings(list):
    sensor_size = (3, 2, 2)


def recorded(**columns):
    given = {"t": [0, 10, 20], "x": [0, 1, 2], "y": [0, 0, 1], "p": [0, 1, 1], **columns}
    given = {name: value for name, value in given.items() if value is not None}
    events = np.zeros(3, [(name, int) for name in given])
    for name, value in given.items():
        events[name] = value
    return Recordings([(events, 4)])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"t": [0, 20, 10]}, "recording 0: events: event 2 is earlier"),
        ({"x": [0, 3, 1]}, r"recording 0: events: event 1 has x=3, off the sensor \(0 ... 2\)"),
        ({"y": None}, "recording 0 has no field 'y', only t, x, p"),
    ],
)
def test_bad_recordings_are_named(columns, message):
    frames = EventFrames(recorded(**columns), 2)
    with pytest.raises(HpmlError, match=message):
        frames[0]


def test_bad_arguments_of_frames_are_named():
    with pytest.raises(HpmlError, match="steps=0"):
        EventFrames(recorded(), 0)
    with pytest.raises(HpmlError, match=r"duration_s=-1\.0"):
        EventFrames(recorded(), 2, duration_s=-1.0)
    with pytest.raises(HpmlError, match="give sensor_size="):
        EventFrames([], 2)
    assert EventFrames(recorded(), 2)[0][0].sum() == 3
