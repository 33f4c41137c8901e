"""The trials of a search: Optuna picks the options, we compute their rows.

Each trial is a point like those of a sweep, with rows of its own. Trials are kept in a journal in the run's folder; the
sampler of trial n is seeded from the seed and n, so a search that was stopped goes on with the same trials.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_sim.errors import needs
from hpml_sim.experiments.checks import COLUMNS, check_figures, column_of_objective
from hpml_sim.experiments.config import SearchConfig
from hpml_sim.experiments.execution import Workers, execute, in_order
from hpml_sim.experiments.pipeline import Work
from hpml_sim.experiments.plan import Point
from hpml_sim.experiments.points import with_options
from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.run_folder import RunFolder
from hpml_sim.experiments.search_result import SearchResult
from hpml_sim.experiments.search_space import Choices, Range
from hpml_sim.results import Row, cut_torn_end
from hpml_sim.tasks.task import Task
from hpml_sim.training.progress import progress

if TYPE_CHECKING:
    import optuna

_log = logging.getLogger(__name__)

_FAR = 1e30
"""Stands for a score that a trial has not, where the metric has no worst value: Optuna takes no infinity."""
STARTUP_TRIALS = 10
"""Random trials before the sampler models the others."""


class Trials:
    """Asks Optuna for options, computes their rows, and tells it the objectives.

    Args:
        work: what to compute with.
        base: the machine as it was given.
        config: options, objectives and number of trials.
        workers: who computes.
        folder: of the run; None keeps everything in memory.
    """

    def __init__(self, work: Work, base: Point, config: SearchConfig, workers: Workers, folder: RunFolder | None):
        self.work, self.base, self.config, self.workers, self.folder = work, base, config, workers, folder
        self.rows: dict[str, list[Row]] = {}
        for row in folder.known if folder is not None else ():
            self.rows.setdefault(row.target, []).append(row)
        self.study = _study(folder, config, work.task)

    def run(self) -> SearchResult:
        """Compute trials up to the number that was asked for; those of the folder count."""
        import optuna

        points: dict[int, Point] = {-1: self.base}
        self._compute([self.base])
        self._objectives(self.base)  # refuses what cannot be searched for before any trial is made
        with progress("trials", self.config.trials) as step:
            step(len(self.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])))
            while batch := self._next_batch():
                chosen = [self._point(trial) for trial in batch]
                self._compute(chosen)
                for trial, point in zip(batch, chosen, strict=True):
                    self.study.tell(trial.number, self._objectives(point))
                    _log.info("trial %d: %s", trial.number, point.label)
                    step()
        for trial in self.study.trials[: self.config.trials]:
            points[trial.number] = self._of_options(trial.params)
        return self._found(points)

    def _next_batch(self) -> list[optuna.Trial]:
        """Trials that were begun and never finished, then new ones."""
        import optuna

        unfinished = [t for t in self.study.trials if t.state == optuna.trial.TrialState.RUNNING]
        batch = []
        for trial in unfinished:
            self._seed_sampler(trial.number)
            batch.append(optuna.Trial(self.study, trial._trial_id))
            self._point(batch[-1])
        for _ in range(min(self.workers.jobs - len(batch), self.config.trials - len(self.study.trials))):
            self._seed_sampler(len(self.study.trials))
            batch.append(self.study.ask())
            self._point(batch[-1])  # draws its options now, from its own sampler
        return batch

    def _seed_sampler(self, number: int) -> None:
        import optuna

        seed = int(np.random.SeedSequence([self.config.trial_seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)

    def _point(self, trial: optuna.Trial) -> Point:
        space = self.config.search_space
        return self._of_options({name: _suggested(trial, name, choices) for name, choices in space.items()})

    def _of_options(self, options: Mapping[str, Any]) -> Point:
        given = {
            name: value if isinstance(choices, Range) else choices[int(value)]
            for name, choices in self.config.search_space.items()
            for value in [options[name]]
        }
        return replace(with_options(self.base.label, self.base.target, given), compressing=self.base.compressing)

    def _compute(self, points: Sequence[Point]) -> None:
        done = {row.key for rows in self.rows.values() for row in rows}
        distinct = list({point.label: point for point in points}.values())
        for row in execute(self.work, distinct, self.workers, folder=self.folder, done=done):
            if self.folder is not None:
                self.folder.results.append(row)
            self.rows.setdefault(row.target, []).append(row)

    def _objectives(self, point: Point) -> list[float]:
        """In the order asked for; NaN, which fails a trial, would lose it: what has no figure gets the worst."""
        rows = self.rows[point.label]
        last = max(rows, key=lambda row: -1.0 if row.time_s is None else row.time_s).time_s
        found: list[float] = []
        for name in self.config.objectives:
            if name == "score":
                values = [row.score.mean for row in rows if row.time_s == last and row.score is not None]
                found.append(math.fsum(values) / len(values) if values else self._worst())
                continue
            bands = [
                getattr(estimate, COLUMNS[name]) for row in rows if row.time_s == last for estimate in row.estimates[:1]
            ]
            check_figures(name, point.label, bands, rows[-1].notes)
            found.append(math.fsum(band.nominal for band in bands) / len(bands))
        return found

    def _worst(self) -> float:
        """The worst that the task's first metric can be; where it has no bound, far worse than any value."""
        metric = self.work.task.metric
        worst = metric.limits[0] if metric.higher_is_better else metric.limits[1]
        return worst if math.isfinite(worst) else math.copysign(_FAR, worst)

    def _found(self, points: Mapping[int, Point]) -> SearchResult:
        import pandas as pd

        from hpml_sim.report.plots.pareto import on_front

        task = self.work.task
        columns = [column_of_objective(name, task) for name in self.config.objectives]
        higher = [name == "score" and task.metric.higher_is_better for name in self.config.objectives]
        lines = []
        for number, point in points.items():
            options = {name: point.options.get(name) for name in self.config.search_space}
            lines.append({"trial": number, **options, **dict(zip(columns, self._objectives(point), strict=True))})
        table = pd.DataFrame(lines)
        table["on_front"] = on_front(table[columns].to_numpy(float), higher)
        units = {column_of_objective("score", task): task.metric.unit, "energy_j": "J", "latency_s": "s"}
        table.attrs["units"] = {column: unit for column, unit in units.items() if column in columns}
        table.attrs["metric"] = task.metric.name
        table.attrs["higher_is_better"] = dict(zip(columns, higher, strict=True))
        labels = list(dict.fromkeys(point.label for point in points.values()))
        rows = in_order((row for label in labels for row in self.rows[label]), labels)
        folder = None if self.folder is None else self.folder.path
        return SearchResult(table, self.config.objectives, Comparison(rows, self.work.plan, folder))


def _suggested(trial: optuna.Trial, name: str, choices: Choices) -> Any:
    """A value of a range, or a place in a list: there, numbers in order are neighbors, anything else is not."""
    if isinstance(choices, Range):
        if choices.whole:
            return trial.suggest_int(name, int(choices.low), int(choices.high), log=choices.log)
        return trial.suggest_float(name, choices.low, choices.high, log=choices.log)
    if all(isinstance(value, (int, float)) for value in choices) and list(choices) == sorted(choices):
        return trial.suggest_int(name, 0, len(choices) - 1)
    return trial.suggest_categorical(name, range(len(choices)))


def _study(folder: RunFolder | None, config: SearchConfig, task: Task) -> optuna.Study:
    with needs("search", "hpml_sim[tune]"):
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    storage = None
    if folder is not None:
        journal = folder.path / "search.journal"
        with journal.open("ab+") as file:
            cut_torn_end(file.fileno(), journal)
        Path(f"{journal}.lock").unlink(missing_ok=True)  # of a run that was killed: the folder's own lock is ours
        storage = JournalStorage(JournalFileBackend(str(journal)))
    log = logging.getLogger("optuna")
    before = log.level
    log.setLevel(logging.WARNING)  # it would write "a new study" to standard error
    try:
        return optuna.create_study(
            storage=storage,
            study_name="search",
            load_if_exists=True,
            directions=[
                "maximize" if name == "score" and task.metric.higher_is_better else "minimize"
                for name in config.objectives
            ],
        )
    finally:
        log.setLevel(before)
