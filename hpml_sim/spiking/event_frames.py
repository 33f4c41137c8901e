"""Recordings of events, such as tonic's data sets give, as frames that a spiking network takes."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hpml_sim.data import Events
from hpml_sim.errors import HpmlError, check_real, check_whole, shown

_MICROSECOND_S = 1e-6


class EventFrames(Dataset):
    """A data set of event recordings as (frames, label), made when an item is asked for.

    Each recording is cut into equal slices of time; a pixel (or channel) of a frame is 1 where it had an event, so that
    `hs.Spiking(..., encoder="frames")` runs it as it is.

    Args:
        recordings: a data set whose items are (events, label), as tonic's are: events a structured array with the
            fields t (microseconds) and x, and y and p where the sensor has them. It has `sensor_size` (width, height,
            polarities).
        steps: frames of a recording, >= 1.
        duration_s: length of all frames together in seconds, > 0; later events are left out. None: each recording's own
            length.
        sensor_size: (width, height, polarities) in place of `recordings.sensor_size`.

    Raises:
        HpmlError: an argument of the wrong type or out of its range, or no sensor size; and when an item is asked for:
            a field is missing, events out of order or off the sensor, with the number of the recording.

    Example:
        >>> import numpy as np, hpml_sim as hs
        >>> events = np.array([(0, 1), (10, 0), (40, 1)], dtype=[("t", "i8"), ("x", "i8")])
        >>> frames, label = hs.spiking.EventFrames([(events, 3)], steps=2, sensor_size=(2, 1, 1))[0]
        >>> frames.shape, frames.flatten(1).tolist(), int(label)  # (steps, polarities, height, width)
        (torch.Size([2, 1, 1, 2]), [[1.0, 1.0], [0.0, 1.0]], 3)
    """

    def __init__(
        self,
        recordings: Any,
        steps: int,
        *,
        duration_s: float | None = None,
        sensor_size: tuple[int, int, int] | None = None,
    ):
        if not hasattr(recordings, "__getitem__") or not hasattr(recordings, "__len__") or isinstance(recordings, str):
            raise HpmlError(
                f"EventFrames: recordings={shown(recordings)}: must be a data set whose items are (events, label), "
                "such as tonic's"
            )
        self.steps = check_whole("EventFrames: steps", steps, low=1)
        self.duration_s = None if duration_s is None else check_real("EventFrames: duration_s", duration_s, above=0)
        size = sensor_size if sensor_size is not None else getattr(recordings, "sensor_size", None)
        if not isinstance(size, (tuple, list)) or len(size) != 3:
            raise HpmlError(f"EventFrames: sensor_size={shown(size)}; give sensor_size=(width, height, polarities)")
        width, height, polarities = (check_whole("EventFrames: sensor_size", part, low=1) for part in size)
        self.recordings = recordings
        self.sensor = (polarities, height, width)

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Frames (steps, polarities, height, width) of 0 and 1, and the label, of the recording `index`."""
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
