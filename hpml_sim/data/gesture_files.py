"""DVS Gesture's files: recordings of an event camera in AEDAT 3.1, and tables of when each gesture begins and ends."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpml_sim.data.events import Events
from hpml_sim.errors import HpmlError

_END = b"#!END-HEADER"
_POLARITY = 1
_SENSOR = (2, 128, 128)


@dataclass(frozen=True)
class Gesture:
    """One gesture of a recording.

    Attributes:
        path: of the .aedat file.
        start_us: when it begins, microseconds of the recording.
        end_us: when it ends.
        label: which of the 11 it is, from 0.
    """

    path: Path
    start_us: int
    end_us: int
    label: int

    def events(self) -> Events:
        """Its events, the time counted from its beginning.

        Raises:
            HpmlError: the file is no AEDAT 3.1, or its events are off the sensor or out of order.
        """
        time, x, y, polarity = read_aedat3(self.path)
        inside = (time >= self.start_us) & (time < self.end_us)
        return Events((time[inside] - self.start_us) * 1e-6, x[inside], y[inside], polarity[inside], _SENSOR)


def gestures_of(folder: Path, listed: str) -> list[Gesture]:
    """The gestures of the recordings that a list of the authors names.

    Args:
        folder: with the recordings `NAME.aedat` and their tables `NAME_labels.csv`.
        listed: "trials_to_train.txt" or "trials_to_test.txt".

    Raises:
        HpmlError: a recording or its table is not there, or the table has other columns.
    """
    found = []
    for name in (folder / listed).read_text(encoding="utf-8").split():
        path, table = folder / name, folder / f"{Path(name).stem}_labels.csv"
        for file in (path, table):
            if not file.is_file():
                raise HpmlError(f"data 'dvs-gesture': {listed} names {name}, and {file} is not there")
        with table.open(encoding="utf-8", newline="") as lines:
            try:
                for row in csv.DictReader(lines):
                    begin, end = int(row["startTime_usec"]), int(row["endTime_usec"])
                    found.append(Gesture(path, begin, end, int(row["class"]) - 1))
            except (KeyError, ValueError, TypeError) as error:
                raise HpmlError(f"{table}: must have class, startTime_usec and endTime_usec in each row") from error
    return found


def read_aedat3(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Time in microseconds, x, y and polarity of the valid polarity events of an AEDAT 3.1 file, each int64 (n,).

    Args:
        path: of the file.

    Source: iniVation, "AEDAT 3.1 file format": header lines up to #!END-HEADER; packets of a header of 28 bytes (type
    and source of 2 bytes, then six numbers of 4 bytes: size of an event, offset of its time, overflows, capacity,
    events, valid events) and events; a polarity event has 8 bytes, bit 0 valid, bit 1 polarity, 15 bits y, 15 bits x,
    and 31 bits of microseconds.

    Raises:
        HpmlError: the file does not begin or end as the format says.
    """
    raw = path.read_bytes()
    end = raw.find(_END)
    at = raw.find(b"\n", end) + 1
    if not raw.startswith(b"#!AER-DAT3.1") or end < 0 or at == 0:
        raise HpmlError(f"{path}: is no AEDAT 3.1 file")
    words, times = [], []
    while at < len(raw):
        if at + 28 > len(raw):
            raise HpmlError(f"{path}: ends within the header of a packet")
        kind = int(np.frombuffer(raw, "<i2", 1, at)[0])
        size, _, overflow, _, events, _ = (int(number) for number in np.frombuffer(raw, "<i4", 6, at + 4))
        at += 28
        if size < 1 or events < 0 or at + size * events > len(raw):
            raise HpmlError(f"{path}: ends within a packet")
        if kind == _POLARITY:
            pairs = np.frombuffer(raw, "<u4", 2 * events, at).reshape(-1, 2).astype(np.int64)
            valid = pairs[:, 0] & 1 == 1
            words.append(pairs[valid, 0])
            times.append(pairs[valid, 1] + (overflow << 31))
        at += size * events
    word, time = (np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in (words, times))
    return time, word >> 17 & 0x7FFF, word >> 2 & 0x7FFF, word >> 1 & 1
