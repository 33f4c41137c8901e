"""`DryRun`: what a run would do and for how long, from short probes on this machine; nothing is written."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn
from torch.utils.data import Subset

from hpml_sim.analog import has_analog_layers, program
from hpml_sim.conversion.cloning import clone
from hpml_sim.counting import workload
from hpml_sim.data import Data
from hpml_sim.data.batches import first
from hpml_sim.experiments.pipeline import WORKLOAD_SAMPLES
from hpml_sim.experiments.plan import AnyNetwork, Plan, Point, given_network, own_network
from hpml_sim.targets import cards_of, in_memory
from hpml_sim.tasks.task import Task
from hpml_sim.training import fit
from hpml_sim.training.evaluation import scores
from hpml_sim.training.progress import progress, quiet
from hpml_sim.units.display import WIDTH, html_table

TRAIN_SAMPLES, TEST_SAMPLES, CHIPS = 640, 100, 2
"""What a probe trains on, tests with, and programs."""
MAX_PROBES = 6
"""Points that are probed; the others are taken to cost the mean of these."""
CLOCK_S = 7.0
"""Seconds of the measurement of both batches: three windows of 0.7 s each, and a process of their own to start."""


@dataclass(frozen=True, repr=False)
class DryRun:
    """What a run would do.

    Attributes:
        model: name of the network.
        data: name of the data set.
        targets: labels of the machines.
        rows: how many it has in the end.
        rows_done: how many of them lie in the folder already.
        networks: trainings before conversion.
        workers: tasks that are computed at a time.
        seconds: expected duration, with so many workers.
        provenance: where `seconds` comes from.
    """

    model: str
    data: str
    targets: tuple[str, ...]
    rows: int
    rows_done: int
    networks: int
    workers: int
    seconds: float
    provenance: str

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def text(self) -> str:
        """The same in words."""
        shown = ", ".join(self.targets[:12]) + (
            f", and {len(self.targets) - 12} more" if len(self.targets) > 12 else ""
        )
        done = f", {self.rows_done} of them there already" if self.rows_done else ""
        trainings = f"{self.networks} training" + ("" if self.networks == 1 else "s")
        return (
            f"{self.model} on {self.data}: {self.rows} row{'s'[: self.rows != 1]}{done}, {trainings}, {self.workers} "
            f"process{'es' if self.workers > 1 else ''}\n"
            f"Targets: {shown}\nAbout {_duration(self.seconds)}: {self.provenance}"
        )

    def __repr__(self) -> str:
        return "\n".join(textwrap.fill(line, WIDTH) for line in self.text().splitlines())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        first, *others = self.text().splitlines()
        return html_table(f"Dry run: {first}", [line.split(": ", 1) for line in others])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def preview(
    plan: Plan,
    model: AnyNetwork,
    data: Data,
    task: Task,
    points: Sequence[Point],
    *,
    rows_done: int = 0,
    repeats: int = 1,
    workers: int = 1,
) -> DryRun:
    """Say what a run would do and for how long, from probes of its machines.

    Args:
        plan: the run.
        model: a name, code by name, or a module, which is copied.
        data: the data.
        task: what is learned and measured.
        points: the machines.
        rows_done: rows that the folder holds already.
        repeats: how often all points are computed; a search computes its machine once a trial.
        workers: tasks that are computed at a time.
    """
    rows = repeats * sum(len(point.times(plan)) for point in points) * len(plan.seeds)
    networks = {repr(point.network): point for point in points}
    chosen, seconds = _spread(points), 0.0
    with progress("probing", len(networks) + len(chosen)) as step, quiet():
        probes = _Probes(plan, model, data, task)
        for point in _spread(list(networks.values())):
            seconds += probes.training_s(point) * len(networks) / min(len(networks), MAX_PROBES)
            step()
        for point in chosen:
            seconds += probes.point_s(point) * len(points) / len(chosen)
            step()
    total = seconds * len(plan.seeds) * repeats * (1 - rows_done / rows)
    provenance = (
        f"measured here on {len(chosen)} of {len(points)} machines with {probes.train_samples} training samples, "
        f"{probes.test_samples} test samples and {CHIPS} chips, and scaled up; other work on the machine comes on top"
    )
    return DryRun(
        model=plan.model, data=plan.data, targets=tuple(plan.targets), rows=rows, rows_done=rows_done,
        networks=len(networks) * len(plan.seeds) * repeats, workers=workers, seconds=total / workers,
        provenance=provenance,
    )  # fmt: skip


def _spread(points: Sequence[Point]) -> list[Point]:
    """At most `MAX_PROBES` of them, evenly from first to last."""
    if len(points) <= MAX_PROBES:
        return list(points)
    return [points[round(i * (len(points) - 1) / (MAX_PROBES - 1))] for i in range(MAX_PROBES)]


class _Probes:
    """Runs a little of everything, and scales it up."""

    def __init__(self, plan: Plan, model: AnyNetwork, data: Data, task: Task):
        self.plan, self.model, self.data, self.task = plan, model, data, task
        self.train_samples = min(TRAIN_SAMPLES, len(data.train))  # type: ignore[arg-type]
        self.test_samples = min(TEST_SAMPLES, len(data.test))  # type: ignore[arg-type]
        self.small = replace(
            data,
            train=Subset(data.train, range(self.train_samples)),
            test=Subset(data.test, range(self.test_samples)),
        )

    def training_s(self, point: Point) -> float:
        """Of the digital network, all epochs."""
        network = own_network(self.model, self.data, point.network)
        return self.plan.epochs * self._epoch_s(network, point)

    def point_s(self, point: Point) -> float:
        """Of everything after it: tuning, counting, programming, evaluating at all times, the clock."""
        network = point.compressing.of(given_network(self.model, self.data, point.network), self.data)
        model = point.converted(network, self.plan.skip)
        trained = network if point.digital_finetuned else model
        tuned = point.finetuned and self.plan.finetune_epochs
        total = self.plan.finetune_epochs * self._epoch_s(clone(trained), point) if tuned else 0.0
        x, _ = first(self.small.test, WORKLOAD_SAMPLES)
        total += _seconds(lambda: workload(model, data=x))
        share = len(self.data.test) / self.test_samples  # type: ignore[arg-type]
        if not has_analog_layers(model):
            clock = CLOCK_S if self.plan.timed and cards_of(point.target) == ("cpu",) else 0.0
            return total + clock + share * self._evaluation_s(model)
        programmed: list[Any] = []
        total += self.plan.chips / CHIPS * _seconds(lambda: programmed.append(program(model, chips=CHIPS, seed=0)))
        times = point.times(self.plan)
        aged: list[Any] = []
        at_s = _seconds(lambda: aged.append(programmed[0].at(1.0 if times[0] is None else times[0])))
        evaluate_s = self._evaluation_s(aged[0])
        return total + len(times) * self.plan.chips / CHIPS * (at_s + share * evaluate_s)

    def _evaluation_s(self, model: nn.Module) -> float:
        return _seconds(lambda: scores(model, self.small.test, self.task, self.task.metrics, notes=[]))

    def _epoch_s(self, model: nn.Module, point: Point) -> float:
        lr = None if in_memory(point.target) else self.plan.lr

        def epoch() -> None:
            fit(model, self.small, task=self.task, epochs=1, lr=lr, show_progress=False)

        epoch()  # compiles, and fills caches
        return _seconds(epoch) * len(self.data.train) / self.train_samples  # type: ignore[arg-type]


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
