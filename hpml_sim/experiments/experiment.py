"""`Experiment`: one run from its settings to its rows.

`compare`, `sweep`, `search`, `run`, `dry_run` and the command line stand on it.
Making one resolves everything once (settings, data, targets, points, plan, workers) and refuses what cannot be run.
Nothing is computed or written before `run`, so a dry run refuses what the run refuses, in the same words.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from torch import nn

from hpml_sim.conversion.modules import check_network
from hpml_sim.data import Data, load_data
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.checks import check_conversions, check_search, comes_trained, find_task, try_samples
from hpml_sim.experiments.compressing import compressing
from hpml_sim.experiments.config import ExecutionConfig, ExperimentConfig, RunConfig, SearchConfig, SweepConfig
from hpml_sim.experiments.config_files import check_tables, to_toml
from hpml_sim.experiments.execution import Workers, execute, in_order, workers_at
from hpml_sim.experiments.integer_twins import with_integer_twins
from hpml_sim.experiments.language_models import as_served, tokens_of_sample, usual_skip
from hpml_sim.experiments.pipeline import Work
from hpml_sim.experiments.plan import (
    Point,
    check_times,
    epochs_of,
    given_network,
    loaded_once,
    make_plan,
    network_name,
    with_fair_rows,
)
from hpml_sim.experiments.points import check_search_space, check_values, sweep_points
from hpml_sim.experiments.preview import DryRun, preview
from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.run_folder import RunFolder, check_folder, open_run, rows_held
from hpml_sim.experiments.search_result import SearchResult
from hpml_sim.experiments.search_space import as_texts
from hpml_sim.experiments.tracking import check_store, log_run
from hpml_sim.experiments.trials import Trials
from hpml_sim.report.plots.notebook_figure import write_figure
from hpml_sim.targets.checking import checked
from hpml_sim.tasks.choosing import as_task
from hpml_sim.tasks.task import Task

_log = logging.getLogger(__name__)


class Experiment:
    """A run that has been checked and can start.

    Args:
        config: the settings, or a mapping of their tables.
        model: a network, in the place of the name in the settings; it is copied where it is changed, never changed.
        data: a `Data` or a (train, test) pair, in the place of the name in the settings.
        task: an `hs.Task`, in the place of the name in the settings.

    Attributes:
        config: the settings, checked.
        points: the machines, with the options that a sweep gave them.
        plan: everything that decides the rows.

    Raises:
        HpmlError: whatever the run would refuse before it computes; nothing is written.
    """

    def __init__(
        self,
        config: RunConfig | Mapping[str, Any],
        model: str | nn.Module | None = None,
        data: str | Data | tuple | None = None,
        task: Task | None = None,
    ):
        check_tables(config)
        self.config = checked(RunConfig, config)
        setup, execution = self.config.compare, self.config.run
        model, data = setup.model if model is None else model, setup.data if data is None else data
        if not setup.targets:
            raise HpmlError("targets: give at least one machine, such as cpu, h200 or pcm-hermes (`hpml-sim cards`)")
        if execution.out is None and (execution.resume or execution.force):
            asked = "resume" if execution.resume else "force"
            raise HpmlError(f"{asked}=True: {asked} needs out=, the folder of the run")
        alone = self.config.sweep is None and self.config.search is None
        jobs = execution.jobs or (1 if alone or execution.dask else _cores())
        self._workers = Workers(jobs=jobs, dask=execution.dask)
        self._data = load_data(data)
        self.points = self._points(model)
        check_times(setup)
        network = self._network = loaded_once(model)
        self._task = find_task(try_samples(network, self._data), self._data, task or setup.task)
        trained = comes_trained(network, self._data, self._task)
        self.points = as_served(self.points, self._task)
        skip, as_made = setup.skip, given_network(network, self._data, {})
        if skip is None:
            skip = usual_skip(as_made, self.points, came_trained=trained)
        if alone:
            after = epochs_of(setup, self._data, came_trained=trained)[1]
            self.points = with_fair_rows(self.points, after)
            self.points = with_integer_twins(self.points, as_made, finetuned=after > 0)
        self.plan = make_plan(
            setup, network, self._data, self.points, task=self._task, came_trained=trained,
            timed=alone and self._workers.here, search=self._search_settings(), skip=skip,
            tokens=tokens_of_sample(self._data, self._task),
        )  # fmt: skip
        if trained:
            _log.info("trying it on %s", ", ".join(point.label for point in self.points))
        check_conversions(network, self._data, self.points, chips=self.plan.chips, skip=skip)
        if self.config.search is not None:
            check_search(self.config.search, self.points[0], network, self._data, skip=skip)
        if execution.mlflow is not None:
            check_store(execution.mlflow)
        if execution.out is not None:
            check_folder(execution.out, self.plan, resume=execution.resume, force=execution.force)
        self._processes = workers_at(self._workers)
        self._named = isinstance(model, str) and isinstance(data, str) and task is None
        # A worker elsewhere loads a data set that has a name by itself, once, which is less than sending it each time.
        sent = data if isinstance(data, str) and not self._workers.here else self._data
        self._work = Work(self.plan, network, sent, self._task)

    @classmethod
    def from_call(
        cls,
        model: str | nn.Module,
        data: str | Data | tuple,
        targets: Any,
        *,
        task: str | Task | None = None,
        sweep: SweepConfig | None = None,
        search: SearchConfig | None = None,
        **options: Any,
    ) -> Experiment:
        """The experiment that a call of `compare`, `sweep` or `search` asks for.

        Args:
            model: a name, code by name, or a network.
            data: a name, code by name, a `Data`, or a (train, test) pair.
            targets: names of cards and targets, or a mapping from labels to either.
            task: a name, code by name, a task, or None to take that of the data or the only one that is possible.
            sweep: which options to vary.
            search: which options to search.
            options: the fields of `ExperimentConfig` and `ExecutionConfig` that are left.

        Raises:
            HpmlError: a value out of range, or what `Experiment` refuses.
        """
        if not isinstance(model, str):
            check_network("model", model)
        if data is None:
            raise HpmlError("data=None: give a name, such as 'digits', or a (train, test) pair of datasets")
        execution = {f.name: options.pop(f.name) for f in fields(ExecutionConfig)}
        setup = {
            "model": network_name(model),
            "data": data if isinstance(data, str) else getattr(data, "name", "custom"),
            "task": task if isinstance(task, str) else None,
            "targets": targets,
            **{name: tuple(value) if isinstance(value, (list, range)) else value for name, value in options.items()},
        }
        config = RunConfig(
            compare=checked(ExperimentConfig, setup),
            sweep=sweep,
            search=search,
            run=checked(ExecutionConfig, execution),
        )
        return cls(config, model, data, None if task is None or isinstance(task, str) else as_task(task))

    def run(self) -> Comparison | SearchResult:
        """Compute the rows, and write what goes into the folder.

        Returns:
            A `SearchResult` where the settings have a search, otherwise a `Comparison`.

        Raises:
            HpmlError: a network, a machine, a worker or the disk failed; finished rows are safe.
        """
        return self.run_comparison() if self.config.search is None else self.run_search()

    def run_comparison(self) -> Comparison:
        """Compute the rows of all points.

        Raises:
            HpmlError: see `run`.
        """
        with self._open() as folder:
            rows = list(folder.known) if folder is not None else []
            for row in execute(self._work, self.points, self._workers, folder=folder, done={row.key for row in rows}):
                if folder is None or folder.results.append(row):
                    rows.append(row)
            ordered = in_order(rows, [point.label for point in self.points])
            comparison = Comparison(ordered, self.plan, self.config.run.out)
            self._finalize(comparison, folder)
        return comparison

    def run_search(self) -> SearchResult:
        """Compute the rows of the machine as it was given, and of every trial.

        Raises:
            HpmlError: see `run`.
        """
        with self._open() as folder:
            config = self.config.search or SearchConfig()
            found = Trials(self._work, self.points[0], config, self._workers, folder).run()
            self._finalize(found.comparison, folder)
            if folder is not None:
                folder.write("trials.csv", found.trials.to_csv(index=False))
                folder.write("front.csv", found.front.to_csv(index=False))
                write_figure(folder.path / "front.svg", found.plot())
        return found

    def preview(self) -> DryRun:
        """What the run would do and for how long, from short probes on this machine; nothing is written."""
        execution, search = self.config.run, self.config.search
        done = rows_held(execution.out, self.plan) if execution.resume and execution.out else 0
        repeats = 1 if search is None else search.trials + 1
        return preview(
            self.plan, self._network, self._data, self._task, self.points,
            rows_done=done, repeats=repeats, workers=self._processes,
        )  # fmt: skip

    def _points(self, model: str | nn.Module) -> list[Point]:
        targets, sweep, search = self.config.compare.targets, self.config.sweep, self.config.search
        how = compressing(self.config.compare.prune, self.config.compare.quantize)
        if sweep is not None:
            return [replace(point, compressing=how) for point in sweep_points(sweep, targets, model)]
        if search is not None:
            if len(targets) != 1:
                raise HpmlError(
                    f"a search is for one machine, got {', '.join(targets)}; search each by itself, then compare the "
                    "best configurations"
                )
            check_search_space(search.search_space, targets.values(), model)
            check_values(search.search_space, targets)
        return [Point(label, target, compressing=how) for label, target in targets.items()]

    def _search_settings(self) -> dict[str, Any] | None:
        """What of a search decides its rows: how many trials run at a time as well, for they are picked together."""
        search = self.config.search
        if search is None:
            return None
        return {
            "search_space": as_texts(search.search_space),
            "objectives": list(search.objectives),
            "seed": search.trial_seed,
            "at_a_time": self._workers.jobs,
        }

    @contextmanager
    def _open(self) -> Iterator[RunFolder | None]:
        execution = self.config.run
        if execution.out is None:
            yield None
            return
        toml = to_toml(self.config) if self._named else None
        with open_run(execution.out, self.plan, resume=execution.resume, force=execution.force, toml=toml) as folder:
            yield folder

    def _finalize(self, comparison: Comparison, folder: RunFolder | None) -> None:
        """Write table.csv and report.html, and log to MLflow, as asked."""
        if folder is not None:
            _log.info("%d rows of run %s are complete", len(comparison.rows), self.plan.hash)
            folder.write("table.csv", comparison.table().to_csv(index=False))
            comparison.report(folder.path / "report.html")
        if self.config.run.mlflow is not None:
            log_run(self.config.run.mlflow, comparison)


def _cores() -> int:
    from joblib import cpu_count  # for those who start processes

    return cpu_count()
