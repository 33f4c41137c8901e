"""`search`: the best trade-offs between accuracy, energy and latency over options of machine and network, with Optuna.

Each trial is a point like those of a sweep, with rows of its own. Trials are kept in a journal in the run's folder; the
sampler of trial n is seeded from the seed and n, so a search that was stopped goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from torch import nn

from hpml_sim.data import Data
from hpml_sim.errors import HpmlError, needs
from hpml_sim.experiments.comparison import asked_of, finished, in_order, started, targets_of, workers_of
from hpml_sim.experiments.config import TIMES, Choices, Objective, Range, RunConfig, SearchConfig, as_texts, checked
from hpml_sim.experiments.execution import Workers, execute
from hpml_sim.experiments.pipeline import Work
from hpml_sim.experiments.plan import Point, check_over, with_options
from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.run_folder import RunFolder
from hpml_sim.report.plots.pareto import draw_trials, on_front
from hpml_sim.results import Row, cut_torn_end
from hpml_sim.targets import Target
from hpml_sim.training.progress import progress
from hpml_sim.training.score import SHARE
from hpml_sim.units.display import html_table, text_table

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.figure import Figure

_log = logging.getLogger(__name__)

_COLUMNS: Mapping[Objective, str] = {"accuracy": "accuracy_mean", "energy": "energy_j", "latency": "latency_s"}
_MAX_LINES = 10
"""Lines of the front that a terminal shows."""
STARTUP_TRIALS = 10
"""Random trials before the sampler models the others."""


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        trials: one row a trial, in their order, after the configuration as it was given (trial -1): the options, the
            objectives (accuracy as a share, joules, seconds), and `on_front`, whether no other row is at least as good
            in every objective and better in one. `attrs["units"]` has the units.
        objectives: what was searched for, in the order asked for.
        comparison: every row behind the trials.
    """

    trials: pd.DataFrame
    objectives: tuple[Objective, ...]
    comparison: Comparison

    @property
    def front(self) -> pd.DataFrame:
        """The rows of `trials` that no other beats, each configuration once, by the first objective, best first."""
        options = [name for name in self.trials.columns if name not in ("trial", "on_front")]
        first = self.objectives[0]
        front = self.trials.query("on_front").drop_duplicates(options)
        return front.sort_values(_COLUMNS[first], ascending=first != "accuracy").reset_index(drop=True)

    def plot(self) -> Figure:
        """All trials in the plane of the first two objectives, with their front; a notebook shows it as a picture."""
        return draw_trials(self.trials, [_COLUMNS[name] for name in self.objectives])

    def __repr__(self) -> str:
        front = self.front
        note = f"front of {len(front)}: .front; every trial: .trials; .plot(); rows: .comparison"
        return text_table(*self._lines(front, _MAX_LINES), title=self._title(), note=note)

    def _repr_html_(self) -> str:
        """What a notebook shows: the front."""
        front = self.front
        columns, lines = self._lines(front, len(front))
        return html_table(f"{self._title()}; the front", lines, columns=columns, note=".trials .plot() .comparison")

    def _title(self) -> str:
        tried = int((self.trials["trial"] >= 0).sum())
        return f"Search of {tried} trial{'s'[: tried != 1]} for {', '.join(self.objectives)}"

    def _lines(self, front: pd.DataFrame, most: int) -> tuple[list[str], list[list[object]]]:
        shown = front.drop(columns="on_front").head(most)
        units = self.trials.attrs["units"]
        heads = [f"{name} ({units[name]})" if name in units else str(name) for name in shown.columns]
        return heads, [[_plain(value) for value in line] for line in shown.itertuples(index=False)]


def _plain(value: Any) -> object:
    """A value of the table as people read it: an option that was left as it is has none."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def search(
    model: str | nn.Module,
    data: str | Data | tuple,
    on: str | Target | Mapping[str, str | Target],
    over: Mapping[str, Sequence[Any] | Range],
    *,
    trials: int = 30,
    objectives: Sequence[Objective] = ("accuracy", "energy"),
    search_seed: int = 0,
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
) -> SearchResult:
    """Search the options of a machine and a network for the best trade-offs (needs Optuna, extra `tune`).

    The configuration as it was given comes first and is no trial; the rest are drawn by Optuna's multi-objective TPE.
    Source: Y. Ozaki, Y. Tanigaki, S. Watanabe, M. Onishi, GECCO 2020, doi:10.1145/3377930.3389817.

    Args:
        model: as for `sweep`. data: as for `sweep`.
        on: one card or target, or a mapping from a label of your choice to it.
        over: option -> values, or a `Range`; as for `sweep`.
        trials: how many, all told; resumed with a larger number it goes on.
        objectives: at least one of "accuracy" (mean over chips and seeds at the last of the times), "energy" and
            "latency" (estimated, nominal, batch 1).
        search_seed: of the sampler.
        seeds: as for `sweep`. chips: likewise. times: likewise. epochs: likewise. finetune_epochs: likewise. lr: likewise.
        out: likewise; trials.csv, front.csv and the journal lie there as well. resume: likewise. force: likewise.
        jobs: likewise; so many trials are asked for at a time, so the trials depend on it. dask: likewise (with
            `jobs` for how many trials at a time). mlflow: likewise.

    Raises:
        HpmlError: as `sweep`; Optuna is missing.
    """
    wanted = checked(
        SearchConfig, {"over": over, "trials": trials, "objectives": tuple(objectives), "search_seed": search_seed}
    )
    asked = asked_of(
        model, data, on if isinstance(on, Mapping) else [on], search=wanted, seeds=seeds, chips=chips, times=times,
        epochs=epochs, finetune_epochs=finetune_epochs, lr=lr, out=out, resume=resume, force=force, jobs=jobs, dask=dask,
        mlflow=mlflow,
    )  # fmt: skip
    return searched(asked, model, data)


def searched(asked: RunConfig, model: str | nn.Module | None = None, data: Any = None) -> SearchResult:
    """Carry out a search; `model` and `data` stand in where they are not names.

    Raises:
        HpmlError: see `search`.
    """
    wanted = asked.search or SearchConfig()
    label, target = _one_target(asked)
    check_over(wanted.over, [target], asked.compare.model if model is None else model)
    if not wanted.objectives or len(set(wanted.objectives)) != len(wanted.objectives):
        raise HpmlError(f"objectives={wanted.objectives} must name at least one, none twice: {', '.join(_COLUMNS)}")
    base, workers = Point(label, target), workers_of(asked.run, default_jobs=joblib.cpu_count())
    space = {
        "over": as_texts(wanted.over),
        "objectives": list(wanted.objectives),
        "seed": wanted.search_seed,
        "at_a_time": workers.jobs,
    }
    with started(asked, [base], workers, model, data, timed=False, search=space) as (work, folder):
        found = _Trials(work, base, wanted, workers, folder).run()
        finished(asked, found.comparison, folder)
        if folder is not None:
            folder.write("trials.csv", found.trials.to_csv(index=False))
            folder.write("front.csv", found.front.to_csv(index=False))
            found.plot().savefig(folder.path / "front.svg")
    return found


def _one_target(asked: RunConfig) -> tuple[str, Target]:
    targets = targets_of(asked.compare)
    if len(targets) != 1:
        raise HpmlError(
            f"a search is for one machine, got {', '.join(targets)}; figures of different machines are compared by "
            "`hs.compare` once each has its best configuration"
        )
    return next(iter(targets.items()))


class _Trials:
    """Asks Optuna for options, computes their rows, tells it the objectives."""

    def __init__(self, work: Work, base: Point, wanted: SearchConfig, workers: Workers, folder: RunFolder | None):
        self.work, self.base, self.wanted, self.workers, self.folder = work, base, wanted, workers, folder
        self.rows: dict[str, list[Row]] = {}
        for row in folder.known if folder is not None else ():
            self.rows.setdefault(row.target, []).append(row)
        self.study = _study(folder, wanted)

    def run(self) -> SearchResult:
        """Go on to the number of trials that was asked for."""
        import optuna

        points: dict[int, Point] = {-1: self.base}
        self._compute([self.base])
        self._objectives(self.base)  # refuses what cannot be searched for before any trial is made
        with progress("trials", self.wanted.trials) as step:
            step(len(self.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])))
            while batch := self._next_batch():
                chosen = [self._point(trial) for trial in batch]
                self._compute(chosen)
                for trial, point in zip(batch, chosen, strict=True):
                    self.study.tell(trial.number, self._objectives(point))
                    _log.info("trial %d: %s", trial.number, point.label)
                    step()
        for trial in self.study.trials[: self.wanted.trials]:
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
        for _ in range(min(self.workers.jobs - len(batch), self.wanted.trials - len(self.study.trials))):
            self._seed_sampler(len(self.study.trials))
            batch.append(self.study.ask())
            self._point(batch[-1])  # draws its options now, from its own sampler
        return batch

    def _seed_sampler(self, number: int) -> None:
        import optuna

        seed = int(np.random.SeedSequence([self.wanted.search_seed, number]).generate_state(1)[0])
        self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)

    def _point(self, trial: optuna.Trial) -> Point:
        return self._of_options({name: _suggested(trial, name, choices) for name, choices in self.wanted.over.items()})

    def _of_options(self, options: Mapping[str, Any]) -> Point:
        given = {
            name: value if isinstance(choices, Range) else choices[int(value)]
            for name, choices in self.wanted.over.items()
            for value in [options[name]]
        }
        return with_options(self.base.label, self.base.target, given)

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
        for name in self.wanted.objectives:
            if name == "accuracy":
                values = [row.accuracy.mean for row in rows if row.time_s == last and row.accuracy is not None]
                found.append(math.fsum(values) / len(values) if values else 0.0)
                continue
            bands = [
                getattr(estimate, _COLUMNS[name])
                for row in rows
                if row.time_s == last
                for estimate in row.estimates[:1]
            ]
            if not bands or any(band is None for band in bands):
                raise HpmlError(
                    f"objective {name!r}: {point.label} has no such figure ({'; '.join(rows[-1].notes)}); "
                    "search for other objectives or on another card"
                )
            found.append(math.fsum(band.nominal for band in bands) / len(bands))
        return found

    def _found(self, points: Mapping[int, Point]) -> SearchResult:
        import pandas as pd

        columns = [_COLUMNS[name] for name in self.wanted.objectives]
        lines = []
        for number, point in points.items():
            options = {name: point.options.get(name) for name in self.wanted.over}
            lines.append({"trial": number, **options, **dict(zip(columns, self._objectives(point), strict=True))})
        table = pd.DataFrame(lines)
        table["on_front"] = on_front(table[columns].to_numpy(float), [c == "accuracy_mean" for c in columns])
        table.attrs["units"] = {
            column: unit
            for column, unit in {"accuracy_mean": SHARE, "energy_j": "J", "latency_s": "s"}.items()
            if column in columns
        }
        labels = list(dict.fromkeys(point.label for point in points.values()))
        rows = in_order((row for label in labels for row in self.rows[label]), labels)
        folder = None if self.folder is None else self.folder.path
        return SearchResult(table, self.wanted.objectives, Comparison(rows, self.work.plan, folder))


def _suggested(trial: optuna.Trial, name: str, choices: Choices) -> Any:
    """A value of a range, or a place in a list: there, numbers in order are neighbors, anything else is not."""
    if isinstance(choices, Range):
        if choices.whole:
            return trial.suggest_int(name, int(choices.low), int(choices.high), log=choices.log)
        return trial.suggest_float(name, choices.low, choices.high, log=choices.log)
    if all(isinstance(value, (int, float)) for value in choices) and list(choices) == sorted(choices):
        return trial.suggest_int(name, 0, len(choices) - 1)
    return trial.suggest_categorical(name, range(len(choices)))


def _study(folder: RunFolder | None, wanted: SearchConfig) -> optuna.Study:
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
            directions=["maximize" if name == "accuracy" else "minimize" for name in wanted.objectives],
        )
    finally:
        log.setLevel(before)
