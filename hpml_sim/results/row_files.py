"""Rows on disk, safe against crashes: append-only JSON Lines, one row a (target, seed, time).

A row is written whole or not at all: one `write` of one line under a file lock, then flushed to the disk. When the file
is opened again, a last line that a crash left incomplete is dropped, and the log says so. Several processes may append
to one file: their lines never mix, and a row that another process has written is not written twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpml_sim.errors import HpmlError
from hpml_sim.errors.files import CHECKSUM_DIGITS, checksum
from hpml_sim.results.rows import SCHEMA, Key, Row, first_fault

try:
    import fcntl
except ImportError:  # Windows has no fcntl; a single writer needs no lock
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

_REPAIR = "delete the line and run again with --resume, which computes that row again"


_SUM = re.compile(rb',"sha256":"([0-9a-f]{%d})"\}$' % CHECKSUM_DIGITS)


def line_of(row: Row) -> bytes:
    """A row as the file has it, without the line's end: JSON whose last entry is a checksum of all before it.

    Args:
        row: any.
    """
    text = row.model_dump_json().encode()
    return text[:-1] + f',"sha256":"{checksum(text)}"}}'.encode()


class ResultFile:
    """The rows of one run on disk: `append` is safe against a crash and against several writers at the same time.

    Args:
        path: the `results.jsonl`; it is made when the first row is written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._keys: set[Key] = set()
        self._read_to = 0

    def append(self, row: Row) -> bool:
        """Write one row, whole or not at all, and wait until it is on the disk.

        Returns:
            False if the file has this row already; it then keeps the one it has.

        Raises:
            HpmlError: the disk is full or the folder cannot be written; rows already there are safe.
        """
        line = line_of(row) + b"\n"
        try:
            with self._locked() as descriptor:
                cut_torn_end(descriptor, self.path)
                end = self._catch_up(descriptor)
                if row.key in self._keys:
                    _log.warning("%s: %s is there already and is not written again", self.path, row.key)
                    return False
                try:
                    written = os.write(descriptor, line)
                    if written != len(line):
                        raise OSError(f"only {written} of {len(line)} bytes were written")
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, end)
                    raise
                self._keys.add(row.key)
                self._read_to = end + written
                return True
        except OSError as error:
            raise HpmlError(
                f"{self.path}: the row {row.key} could not be written ({error}); the rows before it are safe. "
                "Free some space or choose another --out, then run again with --resume"
            ) from error

    def _catch_up(self, descriptor: int) -> int:
        """Learn the keys of rows that were appended since the last look; return the position of the file's end."""
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end < self._read_to:  # somebody replaced the run
            self._keys, self._read_to = set(), 0
        if end > self._read_to:
            for line in os.pread(descriptor, end - self._read_to, self._read_to).splitlines():
                with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):  # `read` reports it
                    raw = json.loads(line)
                    self._keys.add((raw["target"], raw["seed"], raw["time_s"]))
        return end

    def read(self) -> list[Row]:
        """All rows, in the order they were written; an incomplete last line is left out, and the log says so.

        Raises:
            HpmlError: a row of another format, a line that is no row, or rows of more than one run.
        """
        if not self.path.exists():
            return []
        *lines, rest = self.path.read_bytes().split(b"\n")
        if rest:
            _log.warning(
                "%s: the last line was torn by a crash and is dropped; its row will be computed again", self.path
            )
        rows = [self._parse(number, line) for number, line in enumerate(lines, start=1) if line]
        if len(runs := {row.run for row in rows}) > 1:
            raise HpmlError(
                f"{self.path}: rows of several runs ({', '.join(sorted(runs))}), which are never mixed; "
                "keep the lines of one of them"
            )
        places: dict[Key, int] = {}
        for number, row in enumerate(rows, start=1):
            if (first := places.setdefault(row.key, number)) != number:
                raise HpmlError(f"{self.path}: rows {first} and {number} are of the same {row.key}; delete one of them")
        return rows

    def _parse(self, number: int, line: bytes) -> Row:
        place = f"{self.path}, line {number}"
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, nested or a number beyond all measure
            raise HpmlError(f"{place}: not a result row: {type(error).__name__}: {error}; {_REPAIR}") from error
        if not isinstance(raw, dict) or "schema_version" not in raw:
            raise HpmlError(f"{place}: not a result row: schema_version is missing; {_REPAIR}")
        if raw["schema_version"] != SCHEMA:
            raise _another_format(place, raw)
        if (found := _SUM.search(line)) is None or found[1].decode() != checksum(line[: found.start()] + b"}"):
            raise HpmlError(f"{place}: not a result row: its checksum does not fit; {_REPAIR}")
        del raw["sha256"]
        try:
            return Row.model_validate(raw)
        except ValidationError as error:
            raise HpmlError(f"{place}: not a result row: {first_fault(error)}; {_REPAIR}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)  # closing releases the lock


def cut_torn_end(descriptor: int, path: Path) -> None:
    """Cut the bytes after the last line end, so that the next row starts on a line of its own.

    Args:
        descriptor: of the file, open for reading and writing.
        path: of the file, for the log.
    """
    size = os.lseek(descriptor, 0, os.SEEK_END)
    position, block = size, 1 << 16
    while position > 0:
        start = max(0, position - block)
        chunk = os.pread(descriptor, position - start, start)
        end = chunk.rfind(b"\n")
        if end >= 0:
            position = start + end + 1
            break
        position = start
    if position < size:
        _log.warning("%s: dropped %d bytes of a line that a crash had torn", path, size - position)
        os.ftruncate(descriptor, position)


def _another_format(place: str, raw: dict[str, Any]) -> HpmlError:
    """Which version wrote a row that this one does not read, and what to do."""
    versions = raw.get("versions")
    wrote = versions.get("hpml_sim", "of unknown version") if isinstance(versions, dict) else "of unknown version"
    return HpmlError(
        f"{place}: hpml_sim {wrote} wrote this file in row format {raw['schema_version']!r}; this version reads "
        f"format {SCHEMA} only. Read it with the version that wrote it, or compute it again in a new --out folder"
    )
