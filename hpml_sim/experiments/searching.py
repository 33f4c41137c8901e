"""`search`: the best trade-offs of score, energy and latency over options of machine and network, with Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from hpml_sim.data import Data
from hpml_sim.experiments.config import TIMES, Objective, SearchConfig
from hpml_sim.experiments.experiment import Experiment
from hpml_sim.experiments.search_result import SearchResult
from hpml_sim.experiments.search_space import Range, from_python
from hpml_sim.experiments.target_list import TargetsLike
from hpml_sim.targets import Target
from hpml_sim.targets.checking import checked
from hpml_sim.tasks.task import Task


def search(
    model: str | nn.Module,
    data: str | Data | tuple,
    targets: str | Target | TargetsLike,
    search_space: Mapping[str, Sequence[Any] | Range],
    *,
    trials: int = 30,
    objectives: Sequence[Objective] = ("score", "energy"),
    trial_seed: int = 0,
    task: str | Task | None = None,
    seeds: int | Sequence[int] = 1,
    chips: int | None = None,
    times: Sequence[str | float] = TIMES,
    epochs: int | None = None,
    finetune_epochs: int | None = None,
    lr: float = 5e-3,
    prune: str | None = None,
    quantize: str | None = None,
    skip: str | Sequence[str] | None = None,
    scope: Literal["system"] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    jobs: int | None = None,
    dask: str | None = None,
    mlflow: str | None = None,
) -> SearchResult:
    """Search the options of a machine and a network for the best trade-offs (needs Optuna, extra `tune`).

    The configuration as it was given comes first and is no trial; the rest are picked by Optuna's multi-objective TPE.

    Source: Y. Ozaki, Y. Tanigaki, S. Watanabe, M. Onishi, GECCO 2020, doi:10.1145/3377930.3389817.

    Args:
        model: the network: a built-in name ("mlp", "cnn"), "package.module:callable" or "file.py:callable" (called
            with its
            searched arguments, must return an `nn.Module`), or an `nn.Module`, which is copied, never changed.
        data: the data set: a name (`hpml-sim data` lists them), "package.module:callable" or "file.py:callable", a
            `Data`, or a (train, test) pair of datasets of (input, label).
        targets: the machine: one card or target, or a list or a mapping (label -> target) with one entry.
        search_space: option -> values, or an `hs.Range`. An option is a field of the target such as "adc_bits", a field
            of one of its parts such as "synapses.adc_bits" or "neuron.beta", or "model.width" for an argument of the
            network. The value "default" leaves an option as it is.
        trials: how many configurations to try in all, >= 1; a resumed search goes on to this number.
        objectives: at least one of "score" (the task's first metric, such as the accuracy, mean over chips and seeds at
            the last of the times), "energy" and "latency" (estimated, nominal, batch 1).
        trial_seed: seed of the sampler, >= 0.
        task: what is learned and measured: a name of `hs.tasks`, such as "regression", "file.py:callable" that gives an
            `hs.Task`, or an `hs.Task`; None takes that of the data, or the only one that labels and outputs leave no
            doubt about, which the log says.
        seeds: how many repetitions of the whole run (seeds 0, 1, ...), or which seeds. A seed decides the first weights
            (where the network has a name), the training and the chips.
        chips: programmed chips of each analog target, >= 1; None: 25, or 3 of a network of more than 50 million
            weights.
        times: times since programming, in seconds or as strings such as "1 h"; machines without drift ignore them.
        epochs: passes over the training data before conversion. None chooses by the size of the data (40 for digits),
            or 0 for a network that has learned the task already; 0 keeps the network as it comes.
        finetune_epochs: passes over the training data after conversion. None takes `epochs` if that is given and not 0,
            otherwise half as many as chosen by the size of the data, or 0 for a network that has learned the task.
        lr: first learning rate of both trainings, > 0.
        prune: as in `compare`.
        quantize: as in `compare`.
        skip: as in `compare`.
        scope: as in `compare`.
        out: folder for rows, table, report, log and trained networks, with trials.csv, front.csv and the journal of the
            trials; None keeps everything in memory.
        resume: go on with the run that `out` holds.
        force: replace the run that `out` holds.
        jobs: processes of this machine; None takes one a core. So many trials are picked at a time, so the trials
            depend on it.
        dask: address of a Dask scheduler, such as `tcp://host:8786`, whose workers compute; `jobs` still says how many
            trials are picked at a time.
        mlflow: address of a tracking server, or a folder, that the finished run is logged to (extra `track`).

    Returns:
        All trials, those that no other beats, and their rows.

    Raises:
        UnknownNameError: no network, data set, card or option has this name.
        ConversionError: a network that the machine cannot run.
        HpmlError: an argument out of range, a value that the target refuses, an objective that the machine has no
            figure for, a folder with another run in it, or Optuna is missing. All of these are raised before anything
            is computed or written.

    Example:
        >>> import torch, hpml_sim as hs
        >>> x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
        >>> split = torch.utils.data.TensorDataset(x, (x[:, 0] > 0.5).long())
        >>> found = hs.search("mlp", (split, split), "loihi", {"steps": hs.Range(1, 8)}, trials=2, epochs=1, jobs=1)
        >>> found.trials["trial"].tolist(), bool(found.front["on_front"].all())
        ([-1, 0, 1], True)
    """
    config = checked(
        SearchConfig,
        {
            "search_space": from_python(search_space),
            "trials": trials,
            "objectives": objectives,
            "trial_seed": trial_seed,
        },
    )
    one = [targets] if isinstance(targets, (str, Target)) else targets
    return Experiment.from_call(
        model, data, one, search=config, task=task, seeds=seeds, chips=chips, times=times, epochs=epochs,
        finetune_epochs=finetune_epochs, lr=lr, prune=prune, quantize=quantize, skip=skip,
        scope=scope, out=out, resume=resume, force=force, jobs=jobs, dask=dask, mlflow=mlflow,
    ).run_search()  # fmt: skip
