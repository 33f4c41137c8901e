"""Results on disk: append-only JSON Lines, one row a (target, seed, time), each telling how its figures came about.

A row is written whole or not at all: one `write` of one line under a file lock, then flushed to the disk. A last line
that a crash tore is dropped when the file is opened again, and said. Several processes may append to one file: their
lines never mix, and a row that another has written meanwhile is not written twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hpml_sim.errors import HpmlError

if TYPE_CHECKING:
    import pandas as pd

try:
    import fcntl
except ImportError:  # Windows has no fcntl; a single writer needs no lock
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

SCHEMA = 2
"""Version of the row's format. Older rows are brought up to it when they are read; newer ones are refused."""

Finite = Annotated[float, Field(allow_inf_nan=False)]


def _from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """Format 1 knew no sweeps."""
    return {**raw, "schema_version": 2, "options": {}}


_MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""Format -> what makes a row of the next one."""


class _Model(BaseModel):
    # strings: JSON has no infinity, and null would not come back as a number
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class CardInfo(_Model):
    """Which card, in which version, the row rests on."""

    name: str
    title: str
    kind: str
    version: int
    scope: str


class AccuracyRow(_Model):
    """Accuracy with its spread; shares in [0, 1]. `over` says what `values` and the interval run over."""

    values: list[Finite]
    mean: Finite
    std: Finite
    n: int
    samples: int
    ci95: tuple[Finite, Finite]
    over: str = Field(description='"chips", or "test samples" where there is one value')


class BandRow(_Model):
    """A figure with its bounds, SI units: low <= nominal <= high, and so never NaN."""

    low: float
    nominal: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> BandRow:
        if not self.low <= self.nominal <= self.high:
            raise ValueError(f"low={self.low}, nominal={self.nominal}, high={self.high} are not in order")
        return self


class TermRow(_Model):
    """Joules an inference spent by one component in one layer ("" = the whole machine)."""

    layer: str
    component: str
    energy_j: BandRow
    sources: list[str] = []


class LayerWorkRow(_Model):
    """A layer under the ceilings of a processor, for the whole batch: see `hpml_sim.cost.LayerWork`."""

    layer: str
    operations: float
    traffic_bytes: float
    time_s: float
    limit: str


class RoofRow(_Model):
    """Ceilings (operations and bytes a second) and layers: see `hpml_sim.cost.Roof`."""

    operations_hz: BandRow
    bandwidth: BandRow
    layers: list[LayerWorkRow]


class EstimateRow(_Model):
    """What the equations gave: see `hpml_sim.cost.Estimate`. `provenance` is `estimated:<card>`."""

    provenance: str
    scope: str
    batch: int
    energy_j: BandRow | None
    latency_s: BandRow
    throughput_hz: BandRow
    area_mm2: BandRow | None
    terms: list[TermRow]
    mapping: dict[str, float]
    excluded: list[str]
    sources: dict[str, str]
    assumptions: list[str] = []
    reported_separately: dict[str, BandRow] = {}
    roof: RoofRow | None = None


class MeasurementRow(_Model):
    """What a clock and a power meter said on this machine: see `hpml_sim.measurement.Measurement`.

    `energy_j` is None where there is no meter; `energy_reason` says why.
    """

    provenance: str
    device: str
    batch: int
    latency_s: Finite
    latency_p10_s: Finite
    latency_p90_s: Finite
    throughput_hz: Finite
    calls: int
    energy_j: Finite | None
    energy_provenance: str | None
    energy_reason: str
    idle_power_w: float | None = None
    energy_without_idle_j: float | None = None


Key = tuple[str, int, float | None]
"""(target, seed, time_s)."""


class Row(_Model):
    """One (target, seed, time): accuracy, estimates and measurements, kept apart, and where they come from.

    Attributes:
        target: label of the target in this run (the card's name, or what the caller called it).
        config: the target's configuration with its class. options: those that a sweep or a search gave it, by name.
        seed: of everything random in this row.
        time_s: seconds since programming; None for machines that do not drift.
        accuracy: None where the device model supports no such time, or where training or the outputs were not finite
            (`notes` says so).
        accuracy_model: what was simulated to get the accuracy, and where it comes from.
        estimates: one a batch size (batch 1 first). measurements: likewise, on the machine at hand.
        layers: the conversion report. notes: why a figure is missing, and what to keep in mind.
        run: hash of what was asked. versions, machine: of the program that wrote the row.
    """

    schema_version: int = SCHEMA
    run: str
    model: str
    data: str
    target: str
    config: dict[str, Any]
    options: dict[str, Any] = {}
    card: CardInfo
    seed: int
    time_s: float | None
    accuracy: AccuracyRow | None
    accuracy_model: str = ""
    estimates: list[EstimateRow]
    measurements: list[MeasurementRow]
    layers: list[dict[str, Any]]
    notes: list[str]
    versions: dict[str, str]
    machine: dict[str, str]

    @property
    def key(self) -> Key:
        """What makes a row the same row: (target, seed, time_s)."""
        return (self.target, self.seed, self.time_s)


class ResultFile:
    """The rows of one run on disk: `append` is safe against a crash and against several writers.

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
        line = (row.model_dump_json() + "\n").encode()
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
        """Learn the keys that were written since the last look; the place where the file ends."""
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end < self._read_to:  # somebody replaced the run
            self._keys, self._read_to = set(), 0
        if end > self._read_to:
            for line in os.pread(descriptor, end - self._read_to, self._read_to).splitlines():
                with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):  # `read` will say so
                    raw = json.loads(line)
                    self._keys.add((raw["target"], raw["seed"], raw["time_s"]))
        return end

    def read(self) -> list[Row]:
        """All rows, in the order they were written; a torn last line is left out and said in the log.

        Raises:
            HpmlError: a row of a newer format, a line that is no row, or rows of more than one run.
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
        return rows

    def _parse(self, number: int, line: bytes) -> Row:
        try:
            raw = json.loads(line)
            while (found := raw["schema_version"]) in _MIGRATIONS:
                raw = _MIGRATIONS[found](raw)
            if found != SCHEMA:
                raise HpmlError(
                    f"{self.path}, line {number}: format {found!r}, this program knows 1 to {SCHEMA}; "
                    "read it with the version that wrote it, or start a new --out folder"
                )
            return Row.model_validate(raw)
        except (json.JSONDecodeError, ValidationError, KeyError, TypeError) as error:
            raise HpmlError(f"{self.path}, line {number}: not a result row: {error}") from error

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
    """Cut the bytes after the last line end, so that the next row starts on a line of its own."""
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


def load_results(path: str | Path) -> pd.DataFrame:
    """The rows of a run as a table with units in the column names.

    Args:
        path: a run's folder or its `results.jsonl`.

    Returns:
        One row a (target, seed, time, batch); `frame.attrs["units"]` has the unit of each column that has one,
        `frame.attrs["rows"]` the full rows.

    Raises:
        HpmlError: no results there, or a file of another version.
    """
    path = Path(path)
    file = path / "results.jsonl" if path.is_dir() else path
    if not file.exists():
        raise HpmlError(f"{file}: no results there; give the folder of a run or its results.jsonl")
    return to_frame(ResultFile(file).read())


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows flattened for tables: one line a (row, batch), shares, joules, seconds; options of a sweep as columns."""
    import pandas as pd

    frame = pd.DataFrame([line for row in rows for line in _flat(row)])
    frame.attrs["rows"] = list(rows)
    frame.attrs["units"] = {name: unit for name in frame.columns if (unit := _unit(name))}
    return frame


_UNITS = {"accuracy": "1", "_j": "J", "_s": "s", "_hz": "1/s", "_mm2": "mm\u00b2"}
"""Unit of a column whose name, without the bound, begins or ends like this. Accuracies are shares."""


def _unit(column: str) -> str | None:
    name = column
    for bound in ("_low", "_nominal", "_high"):
        name = name.removesuffix(bound)
    if name in ("accuracy_n", "accuracy_over"):
        return None
    return next((unit for end, unit in _UNITS.items() if name.startswith(end) or name.endswith(end)), None)


def _flat(row: Row) -> Iterator[dict[str, Any]]:
    accuracy = row.accuracy
    head = {
        "target": row.target,
        "kind": row.card.kind,
        "card": row.card.name,
        "card_version": row.card.version,
        "seed": row.seed,
        "time_s": row.time_s,
        **{name: value for name, value in row.options.items() if name not in ("card", "seed")},
        "accuracy_mean": accuracy.mean if accuracy else None,
        "accuracy_std": accuracy.std if accuracy else None,
        "accuracy_ci95_low": accuracy.ci95[0] if accuracy else None,
        "accuracy_ci95_high": accuracy.ci95[1] if accuracy else None,
        "accuracy_n": accuracy.n if accuracy else None,
        "accuracy_over": accuracy.over if accuracy else None,
    }
    measured = {m.batch: m for m in row.measurements}
    batches = sorted({e.batch for e in row.estimates} | set(measured)) or [None]
    estimates = {e.batch: e for e in row.estimates}
    for batch in batches:
        estimate = None if batch is None else estimates.get(batch)
        measurement = None if batch is None else measured.get(batch)
        # spikes on crossbars are estimated from the crossbar's card, whose scope may be another than the target's
        scope = estimate.scope if estimate else row.card.scope
        line: dict[str, Any] = {**head, "batch": batch, "scope": scope}
        line["estimate_provenance"] = estimate.provenance if estimate else None
        for name in ("energy_j", "latency_s", "throughput_hz", "area_mm2"):
            band = getattr(estimate, name) if estimate else None
            for bound in ("low", "nominal", "high"):
                line[f"{name}_{bound}"] = getattr(band, bound) if band else None
        line["measured_latency_s"] = measurement.latency_s if measurement else None
        line["measured_throughput_hz"] = measurement.throughput_hz if measurement else None
        line["measured_energy_j"] = measurement.energy_j if measurement else None
        line["measured_provenance"] = measurement.provenance if measurement else None
        line["measured_on"] = measurement.device if measurement else None
        line["notes"] = " ".join(row.notes)
        yield line


def config_hash(config: dict[str, Any]) -> str:
    """Twelve hex digits of the SHA-256 of a configuration, independent of the order of its keys."""
    canonical = json.dumps(config, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
