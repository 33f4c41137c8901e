"""Events of cameras and silicon cochleas: their files, frames of them, and a synthetic set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from hpml_sim.errors import HpmlError, check_real, check_whole, needs


@dataclass(frozen=True)
class Events:
    """What an event camera or a silicon cochlea gives: one row an event, in the order of time.

    Attributes:
        time_s: time of each event, seconds, (n,), never falling.
        x: column of the pixel, or channel, (n,) int, from 0.
        y: row of the pixel, (n,) int, from 0.
        polarity: 0 (darker) or 1 (brighter), (n,).
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
        """Events in equal slices of time.

        Args:
            steps: slices, >= 1.
            duration_s: length of all slices together, seconds, > 0; later events are left out. None: up to the last
                event, from the first.

        Returns:
            (steps, polarities, height, width): 1 where a pixel had one or more events, else 0.

        Raises:
            HpmlError: a number out of range.
        """
        steps = check_whole("events: steps", steps, low=1)
        if duration_s is not None:
            duration_s = check_real("events: duration_s", duration_s, above=0)
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

    Args:
        path: of the file.

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

    Args:
        path: of the file.

    Returns:
        Events of each recording, and labels int64 (recordings,).

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
        samples: how many, >= 1.
        size: pixels of a side, >= 8.
        steps: frames, >= 2.
        noise: probability that a pixel fires by itself in a step, in [0, 1).
        seed: of the draws, >= 0.

    Returns:
        Frames (samples, steps, 2, size, size) of 0 and 1, and labels (samples,).

    Raises:
        HpmlError: a number out of range.
    """
    samples = check_whole("moving_bars: samples", samples, low=1)
    size = check_whole("moving_bars: size", size, low=8)
    steps = check_whole("moving_bars: steps", steps, low=2)
    noise = check_real("moving_bars: noise", noise, low=0, below=1)
    seed = check_whole("moving_bars: seed", seed, low=0)
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
