"""Recordings of events, such as tonic's data sets give, as frames that a spiking network takes."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hpml_sim.data import Events
from hpml_sim.errors import HpmlError

_MICROSECOND_S = 1e-6


class EventFrames(Dataset):
    """A data set of event recordings as (frames, label), made when an item is asked for.

    Each recording is cut into equal slices of time; a pixel (or channel) of a frame is 1 where it had an event, so that
    `Spiking(encoder="frames")` runs it as it is.

    Example:
        train = EventFrames(tonic.datasets.SHD("data", train=True), steps=50, duration_s=1.0)
        test = EventFrames(tonic.datasets.SHD("data", train=False), steps=50, duration_s=1.0)
        hs.fit(hs.convert(net, hs.Spiking("loihi", steps=50, encoder="frames")), (train, test))

    Args:
        recordings: items are (events, label); events a structured array with fields t (microseconds) and x, and y and p
            where the sensor has them, as tonic gives. It has `sensor_size` (width, height, polarities).
        steps: frames of a recording, >= 1.
        duration_s: length of all frames together; later events are left out. None: each recording's own length.
        sensor_size: in place of `recordings.sensor_size`.

    Raises:
        HpmlError: steps < 1, a duration that is not positive, no sensor size; and when an item is asked for: a field is
            missing, events out of order or off the sensor, with the number of the recording.
    """

    def __init__(
        self,
        recordings: Any,
        steps: int,
        *,
        duration_s: float | None = None,
        sensor_size: tuple[int, int, int] | None = None,
    ):
        if steps < 1 or (duration_s is not None and not duration_s > 0):
            raise HpmlError(f"EventFrames: steps={steps!r}, duration_s={duration_s!r}: both must be positive")
        size = sensor_size if sensor_size is not None else getattr(recordings, "sensor_size", None)
        if size is None or len(size) != 3:
            raise HpmlError(f"EventFrames: sensor_size={size!r}; give sensor_size=(width, height, polarities)")
        width, height, polarities = (int(part) for part in size)
        self.recordings = recordings
        self.steps = steps
        self.duration_s = duration_s
        self.sensor = (polarities, height, width)

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Frames (steps, polarities, height, width) of 0 and 1, and the label."""
        events, label = self.recordings[index]
        names = cast("np.ndarray", events).dtype.names or ()
        polarities, height, _ = self.sensor
        needed = {"t", "x"} | ({"y"} if height > 1 else set()) | ({"p"} if polarities > 1 else set())
        missing = needed - set(names)
        if missing:
            raise HpmlError(f"EventFrames: recording {index} has no field {min(missing)!r}, only {', '.join(names)}")

        def column(name: str, size: int) -> np.ndarray:
            # tonic gives polarity 1 where the sensor has only one
            return np.asarray(events[name]).astype(np.int64) if size > 1 else np.zeros(len(events), np.int64)

        time_s = np.asarray(events["t"], np.float64) * _MICROSECOND_S
        x = np.asarray(events["x"]).astype(np.int64)
        try:
            checked = Events(time_s, x, column("y", height), column("p", polarities), self.sensor)
        except HpmlError as error:
            raise HpmlError(f"EventFrames: recording {index}: {error}") from error
        return checked.frames(self.steps, self.duration_s), torch.as_tensor(int(label))
