"""`compare`: one network on many machines. Accuracy, estimate and measurement are three passes that never mix.

For every seed the network is trained once; for every target it is converted, tuned where the machine needs it
(hardware-aware or surrogate-gradient training), programmed onto chips where the machine is analog, evaluated, counted
and estimated. Each row is on disk as soon as it is known.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from hpml_sim.data import Data, load_data
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.config import (
    TIMES,
    ExecutionConfig,
    ExperimentConfig,
    RunConfig,
    SearchConfig,
    SweepConfig,
    checked,
)
from hpml_sim.experiments.config_files import to_toml
from hpml_sim.experiments.execution import Workers, execute
from hpml_sim.experiments.pipeline import Work
from hpml_sim.experiments.plan import Point, labelled_targets, make_plan
from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.run_folder import RunFolder, opened
from hpml_sim.results import Row
from hpml_sim.targets import Target

_log = logging.getLogger(__name__)


def compare(
    model: str | nn.Module,
    data: str | Data | tuple,
    on: Sequence[str | Target] | Mapping[str, str | Target],
    *,
    seeds: int | Sequence[int] = 1,
    chips: int = 25,
    times: Sequence[str | float] = TIMES,
    epochs: int | None = None,
    finetune_epochs: int | None = None,
    lr: float = 5e-3,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    jobs: int | None = None,
    dask: str | None = None,
    mlflow: str | None = None,
) -> Comparison:
    """Run one network on several machines.

    Args:
        model: a built-in name ("mlp", "cnn"), "package.module:callable" or "file.py:callable" (called without
            arguments, must return an `nn.Module`), or a network, which is copied, never changed.
        data: a name, code of your own likewise, a `Data`, or a (train, test) pair of datasets of (input, label).
        on: cards' names, targets, or a mapping from a label of your choice to either.
        seeds: how many (0, 1, ...), or which: of the first weights (where a name is given), training and chips.
        chips: programmed chips of each analog target, >= 1.
        times: since programming, seconds or strings such as "1 h"; machines without drift ignore them.
        epochs: of the digital training; by default chosen from the size of the data (40 for digits), 0 keeps the
            network as it comes.
        finetune_epochs: of the training after conversion; by default `epochs` if that is given and not 0, otherwise half
            as many as chosen from the size of the data.
        lr: first learning rate of both.
        out: folder for rows, table, report, log and trained networks; None keeps the rows in memory.
        resume: go on with a run that `out` holds.
        force: replace a run that `out` holds.
        jobs: processes; more than one, or `dask`, leave out the clock, which would measure how they disturb each other.
        dask: address of a Dask scheduler whose workers compute.
        mlflow: tracking server or folder that the finished run is logged to (extra `track`).

    Raises:
        HpmlError: a name that does not exist, an argument out of range, or a folder with another run in it; raised
            before anything is computed or written.
    """
    asked = asked_of(
        model, data, on, seeds=seeds, chips=chips, times=times, epochs=epochs, finetune_epochs=finetune_epochs, lr=lr, out=out,
        resume=resume, force=force, jobs=jobs, dask=dask, mlflow=mlflow,
    )  # fmt: skip
    return compared(asked, model, data)


def asked_of(
    model: str | nn.Module,
    data: object,
    on: Sequence[str | Target] | Mapping[str, str | Target],
    *,
    sweep: SweepConfig | None = None,
    search: SearchConfig | None = None,
    **options: Any,
) -> RunConfig:
    """The settings of a call; a network or data set that is no name is named by its class.

    Raises:
        HpmlError: a value out of range.
    """
    running = {f.name: options.pop(f.name) for f in fields(ExecutionConfig)}
    setup = {
        "model": model if isinstance(model, str) else type(model).__name__,
        "data": data if isinstance(data, str) else getattr(data, "name", "custom"),
        "targets": labelled_targets(on),
        **{name: tuple(value) if isinstance(value, (list, range)) else value for name, value in options.items()},
    }
    return RunConfig(
        compare=checked(ExperimentConfig, setup), sweep=sweep, search=search, run=checked(ExecutionConfig, running)
    )


def targets_of(setup: ExperimentConfig) -> dict[str, Target]:
    """All targets of the settings by label: the cards of `on`, then the tables of `targets`.

    Raises:
        HpmlError: none, or a label that stands twice. UnknownNameError: no card has this name.
    """
    cards = labelled_targets(setup.on) if setup.on or not setup.targets else {}
    if twice := cards.keys() & setup.targets:
        raise HpmlError(f"on and targets both name {', '.join(sorted(twice))}; choose another label")
    return {**cards, **setup.targets}


def compared(asked: RunConfig, model: str | nn.Module | None = None, data: Any = None) -> Comparison:
    """Carry out a comparison; `model` and `data` stand in where they are not names.

    Raises:
        HpmlError: see `compare`.
    """
    points = [Point(label, target) for label, target in targets_of(asked.compare).items()]
    workers = workers_of(asked.run, default_jobs=1)
    return carried_out(asked, points, workers, model, data, timed=workers.here)


def workers_of(running: ExecutionConfig, *, default_jobs: int) -> Workers:
    """Who computes, as the settings say."""
    return Workers(jobs=running.jobs or (1 if running.dask else default_jobs), dask=running.dask)


def carried_out(
    asked: RunConfig,
    points: Sequence[Point],
    workers: Workers,
    model: str | nn.Module | None,
    data: Any,
    *,
    timed: bool,
) -> Comparison:
    """Compute the rows of these points, and write what goes into the folder.

    Raises:
        HpmlError: see `compare`.
    """
    with started(asked, points, workers, model, data, timed=timed) as (work, folder):
        rows = list(folder.known) if folder is not None else []
        for row in execute(work, points, workers, folder=folder, done={row.key for row in rows}):
            if folder is None or folder.results.append(row):
                rows.append(row)
        comparison = Comparison(in_order(rows, [point.label for point in points]), work.plan, asked.run.out)
        finished(asked, comparison, folder)
    return comparison


@contextmanager
def started(
    asked: RunConfig,
    points: Sequence[Point],
    workers: Workers,
    model: str | nn.Module | None,
    data: Any,
    *,
    timed: bool,
    search: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Work, RunFolder | None]]:
    """Check what is asked, and take up its folder, if it has one.

    Raises:
        HpmlError: see `compare`.
    """
    model, data = asked.compare.model if model is None else model, asked.compare.data if data is None else data
    task = load_data(data)
    plan = make_plan(asked.compare, model, task, points, timed=timed, search=search)
    work = Work(plan, model, data if isinstance(data, str) and not workers.here else task)
    if asked.run.out is None:
        yield work, None
        return
    toml = to_toml(asked) if isinstance(model, str) and isinstance(data, str) else None
    with opened(asked.run.out, plan, resume=asked.run.resume, force=asked.run.force, toml=toml) as folder:
        yield work, folder


def finished(asked: RunConfig, comparison: Comparison, folder: RunFolder | None) -> None:
    """Write table.csv and report.html, and log to MLflow, as asked.

    Raises:
        HpmlError: the disk is full, or MLflow does not take it; the rows are safe.
    """
    if folder is not None:
        _log.info("%d rows of run %s are complete", len(comparison.rows), comparison.hash)
        folder.write("table.csv", comparison.table().to_csv(index=False))
        comparison.report(folder.path / "report.html")
    if asked.run.mlflow is not None:
        from hpml_sim.experiments.tracking import log_run

        log_run(asked.run.mlflow, comparison)


def in_order(rows: Iterable[Row], labels: Sequence[str]) -> tuple[Row, ...]:
    """Rows by target in the order asked for, then seed, then time."""
    order = {label: i for i, label in enumerate(labels)}
    return tuple(sorted(rows, key=lambda r: (order[r.target], r.seed, -1.0 if r.time_s is None else r.time_s)))
