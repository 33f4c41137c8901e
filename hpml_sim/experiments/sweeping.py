"""`sweep`: every combination of options, or random draws, times seeds, times times; on one machine or on a cluster."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from torch import nn

from hpml_sim.data import Data
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.comparison import asked_of, carried_out, targets_of, workers_of
from hpml_sim.experiments.config import TIMES, Choices, Range, RunConfig, SweepConfig, checked
from hpml_sim.experiments.plan import Point, applicable, check_over, with_options
from hpml_sim.experiments.result import Comparison
from hpml_sim.targets import Target


def sweep(
    model: str | nn.Module,
    data: str | Data | tuple,
    on: Sequence[str | Target] | Mapping[str, str | Target],
    over: Mapping[str, Sequence[Any] | Range],
    *,
    draws: int | None = None,
    draw_seed: int = 0,
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
    """Run one network on several machines with many settings of their options.

    The rows are the same on one process, on several and on a Dask cluster; the clock is not read (`hs.compare` does).
    The target of a row is labelled with its options, which are columns of the table as well.

    Args:
        model: as for `compare`; a name or "package.module:callable" where its arguments are swept over.
        data: as for `compare`; with several processes, a name spares sending it with each task.
        on: as for `compare`.
        over: option -> values: a field of the target such as "adc_bits", "synapses.adc_bits" for spikes on crossbars,
            "model.width" for an argument of the network. An option that a target does not have is not varied there.
            The value "default" leaves an option as it is; `Range(low, high, log=False)` is for random draws.
        draws: this many random draws for each target, in place of every combination.
        draw_seed: of the draws.
        seeds: as for `compare`. chips: likewise. times: likewise. epochs: likewise. finetune_epochs: likewise.
        lr: likewise. out: likewise. resume: likewise. force: likewise. mlflow: likewise.
        jobs: processes of this machine; None takes one a core.
        dask: address of a Dask scheduler, such as `tcp://host:8786`, whose workers compute in their place;
            `hpml_sim.experiments.execution` shows how Slurm gives them.

    Raises:
        HpmlError: as `compare`; an option that no target has, or a value that a target refuses.
    """
    vary = checked(SweepConfig, {"over": over, "draws": draws, "draw_seed": draw_seed})
    asked = asked_of(
        model, data, on, sweep=vary, seeds=seeds, chips=chips, times=times, epochs=epochs, finetune_epochs=finetune_epochs,
        lr=lr, out=out, resume=resume, force=force, jobs=jobs, dask=dask, mlflow=mlflow,
    )  # fmt: skip
    return swept(asked, model, data)


def swept(asked: RunConfig, model: str | nn.Module | None = None, data: Any = None) -> Comparison:
    """Carry out a sweep; `model` and `data` stand in where they are not names.

    Raises:
        HpmlError: see `sweep`.
    """
    points = points_of(asked, model)
    return carried_out(asked, points, workers_of(asked.run, default_jobs=joblib.cpu_count()), model, data, timed=False)


def points_of(asked: RunConfig, model: str | nn.Module | None = None) -> list[Point]:
    """Every point of a sweep, target by target.

    Raises:
        HpmlError: an option that no target has, a range without draws, or a value that a target refuses.
    """
    vary, targets = asked.sweep or SweepConfig(), targets_of(asked.compare)
    check_over(vary.over, targets.values(), asked.compare.model if model is None else model)
    found: dict[str, Point] = {}
    for label, target in targets.items():
        own = applicable(vary.over, target)
        chosen = _grid(own) if vary.draws is None else _drawn(own, vary.draws, vary.draw_seed)
        for options in chosen:
            point = with_options(label, target, options)
            found.setdefault(point.label, point)  # a draw may hit the same twice
    return list(found.values())


def _grid(over: Mapping[str, Choices]) -> Iterator[dict[str, Any]]:
    for name, choices in over.items():
        if isinstance(choices, Range):
            raise HpmlError(f"over: {name}={choices} has no end of values; list some, or give draws=, how many to draw")
    return (dict(zip(over, values, strict=True)) for values in itertools.product(*over.values()))  # type: ignore[arg-type]


def _drawn(over: Mapping[str, Choices], draws: int, seed: int) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return ({name: _draw(choices, random) for name, choices in over.items()} for _ in range(draws))


def _draw(choices: Choices, random: np.random.Generator) -> Any:
    if not isinstance(choices, Range):
        return choices[int(random.integers(len(choices)))]
    low, high = choices.low, choices.high + choices.whole  # whole numbers: up to the next one, then rounded down
    value = math.exp(random.uniform(math.log(low), math.log(high))) if choices.log else random.uniform(low, high)
    return min(math.floor(value), int(choices.high)) if choices.whole else value
