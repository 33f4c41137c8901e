"""The folder of a run: what was asked, the rows, the trained networks, the log. It holds one run.

run.json         what was asked, resolved, with its hash
run.toml         the same as `hpml-sim run` takes it, where it can be written down
results.jsonl    the rows
networks/        trained networks, so that a resumed run need not train again
run.log          what the run said, with the time of day
table.csv, report.html
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.errors.files import Kind, read_tensors, write_file, write_tensors
from hpml_sim.experiments.plan import Plan
from hpml_sim.results import ResultFile, Row

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)

_NETWORK = Kind("hpml_sim.TrainedNetwork", 1, "a trained network", "it is trained again")

OUR_FILES = (
    "run.json",
    "run.toml",
    "results.jsonl",
    "search.journal",
    "networks",
    "run.log",
    "table.csv",
    "trials.csv",
    "front.csv",
    "front.svg",
    "report.html",
)


class RunFolder:
    """A run's folder that this process works in.

    Attributes:
        path: the folder.
        results: the file of its rows.
        known: rows that it held when it was opened.
    """

    def __init__(self, path: Path, known: list[Row]):
        self.path = path
        self.known = known
        self.results = ResultFile(path / "results.jsonl")

    def save_network(self, key: str, state: Mapping[str, Tensor]) -> None:
        """Keep a trained network, for a resumed run. On a full disk there is a warning, and the run goes on without.

        Args:
            key: names the network.
            state: its state dict.
        """
        file = self.path / "networks" / f"{key}.safetensors"
        try:
            file.parent.mkdir(exist_ok=True)
            write_tensors(file, _NETWORK, state, {})
        except (OSError, HpmlError) as error:
            _log.warning("a trained network is not kept (%s); a resumed run will train it again", error)

    def network(self, key: str) -> dict[str, Tensor] | None:
        """The state dict of a trained network that was kept; None where there is none that can be read.

        Args:
            key: names the network.
        """
        file = self.path / "networks" / f"{key}.safetensors"
        if not file.exists():
            return None
        try:
            return read_tensors(file, _NETWORK)[0]
        except HpmlError as error:
            _log.warning("%s", error)
            return None

    def write(self, name: str, text: str) -> None:
        """Write a file: all of it, or nothing.

        Args:
            name: of the file.
            text: what it holds.

        Raises:
            HpmlError: the disk is full or the folder cannot be written; the rows are safe.
        """
        write_file(
            self.path / name,
            text,
            safe="the rows in results.jsonl are safe. Free some space, then run again with --resume",
        )


@contextlib.contextmanager
def open_run(
    path: Path, plan: Plan, *, resume: bool = False, force: bool = False, toml: str | None = None
) -> Iterator[RunFolder]:
    """Make the folder of a run, or go on in it. No other process runs in it meanwhile, and the log goes to its run.log.

    Args:
        path: the folder.
        plan: what is asked now.
        resume: go on with the same run.
        force: replace any run.
        toml: what was asked, as `hpml-sim run` takes it; None where it cannot be written down.

    Raises:
        HpmlError: another run is in it and neither `resume` nor `force` was given, or it cannot be resumed, or it is
            running at this moment.
    """
    check_folder(path, plan, resume=resume, force=force)
    try:
        path.mkdir(parents=True, exist_ok=True)
        log = (path / "run.log").open("a", encoding="utf-8")
    except OSError as error:
        raise _not_writable(path, error) from error
    with log, _alone(path, log.fileno()), _logging_to(log):
        if not resume:
            log.truncate(0)
            _clear(path)
        folder = RunFolder(path, [])
        folder.write("run.json", json.dumps({"hash": plan.hash, **_jsonable(plan)}, indent=2))
        if toml is not None:
            folder.write("run.toml", toml)
        folder.known = folder.results.read()
        yield folder


def check_folder(path: Path, plan: Plan, *, resume: bool = False, force: bool = False) -> None:
    """Refuse what `open_run` would refuse; nothing is written.

    Args:
        path: the folder.
        plan: what is asked now.
        resume: go on with the same run.
        force: replace any run.

    Raises:
        HpmlError: see `open_run`.
    """
    if resume and force:
        raise HpmlError("resume and force exclude each other: go on with the run in the folder, or replace it")
    if path.exists() and not path.is_dir():
        raise HpmlError(f"out={str(path)!r} is a file; give a folder")
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise _not_writable(path, "no permission")
    if (path / "run.log").exists():
        with (path / "run.log").open(encoding="utf-8") as log, _alone(path, log.fileno()):
            pass
    if not force:
        _check_same(path, plan, resume=resume)


def _not_writable(path: Path, why: object) -> HpmlError:
    return HpmlError(f"out={str(path)!r} cannot be written ({why}); choose another folder")


def rows_held(path: Path, plan: Plan) -> int:
    """How many rows of this plan the folder holds.

    Args:
        path: the folder.
        plan: what is asked now.

    Raises:
        HpmlError: it holds another run.
    """
    _check_same(path, plan, resume=True)
    return len(ResultFile(path / "results.jsonl").read())


def _check_same(path: Path, plan: Plan, *, resume: bool) -> None:
    """Refuse a folder with another run in it, or with one that `resume` does not ask for."""
    if not any((path / name).exists() for name in OUR_FILES if name != "run.log"):  # the log comes first
        return
    held = _held(path)
    if not resume:
        raise HpmlError(
            f"{path} already holds {_described(held)}; add --resume to go on with it, --force to replace it, "
            "or choose another --out"
        )
    if held is None or held["hash"] != plan.hash:
        raise HpmlError(
            f"{path} holds {_described(held)}, not the run asked for ({_differences(held or {}, plan)}); "
            "repeat its options, choose another --out, or replace it with --force"
        )
    if foreign := {row.run for row in ResultFile(path / "results.jsonl").read()} - {plan.hash}:
        raise HpmlError(
            f"{path}: results.jsonl has rows of run {foreign.pop()}, run.json is of {plan.hash}; they are never mixed. "
            "Choose another --out, or replace both with --force"
        )


@contextlib.contextmanager
def _alone(path: Path, descriptor: int) -> Iterator[None]:
    """Hold the run for this process. The lock goes with the process, however it ends."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HpmlError(
                f"{path}: another process is running this very run; wait for it or stop it. To compute with more "
                "processes, give it --jobs or --dask"
            ) from None
        except OSError as error:  # a file system without locks
            _log.warning("%s: cannot be locked (%s); see to it that only one process runs in it", path, error)
    yield


@contextlib.contextmanager
def _logging_to(stream: Any) -> Iterator[None]:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log = logging.getLogger("hpml_sim")
    before = log.level
    log.addHandler(handler)
    if log.getEffectiveLevel() > logging.INFO:
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def _clear(path: Path) -> None:
    for name in OUR_FILES:
        if name == "networks":
            shutil.rmtree(path / name, ignore_errors=True)
        elif name != "run.log":  # it is open, and carries the lock
            (path / name).unlink(missing_ok=True)


def _held(path: Path) -> dict[str, Any] | None:
    """What an earlier `run.json` says, or None where there is none that can be read."""
    try:
        held: Any = json.loads((path / "run.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    named = isinstance(held, dict) and all(isinstance(held.get(key), str) for key in ("hash", "model", "data"))
    return held if named else None


def _described(held: dict[str, Any] | None) -> str:
    return f"run {held['hash']} ({held['model']} on {held['data']})" if held else "results without a readable run.json"


def _jsonable(plan: Plan) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(plan), default=str))


def _differences(held: dict[str, Any], plan: Plan) -> str:
    now = _jsonable(plan)
    changed = [
        f"{k}: {_shortened(held.get(k))} there, {_shortened(v)} asked" for k, v in now.items() if held.get(k) != v
    ]
    return "; ".join(changed)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]} ... (run.json has it all)"
