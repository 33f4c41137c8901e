"""`sweep`: one network on machines whose options take many values; on one machine or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from hpml_sim.data import Data
from hpml_sim.experiments.config import TIMES, SweepConfig
from hpml_sim.experiments.experiment import Experiment
from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.search_space import Range, from_python
from hpml_sim.experiments.target_list import TargetsLike
from hpml_sim.targets.checking import checked
from hpml_sim.tasks.task import Task


def sweep(
    model: str | nn.Module,
    data: str | Data | tuple,
    targets: TargetsLike,
    search_space: Mapping[str, Sequence[Any] | Range],
    *,
    trials: int | None = None,
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
) -> Comparison:
    """Run one network on several machines with many settings of their options.

    The rows are the same on one process, on several and on a Dask cluster; the clock is not read (`hs.compare` does).
    The target of a row is labeled with its options, which are columns of the table as well.

    Args:
        model: the network: a built-in name ("mlp", "cnn"), "package.module:callable" or "file.py:callable" (called
            with its swept
            arguments, must return an `nn.Module`), or an `nn.Module`, which is copied, never changed.
        data: the data set: a name (`hpml-sim data` lists them), "package.module:callable" or "file.py:callable", a
            `Data`, or a (train, test) pair of datasets of (input, label). Several processes load a named data set by
            themselves; any other is sent to them with each task.
        targets: the machines: a list of names of cards, paths of cards and targets, or a mapping from labels of your
            own to such.
        search_space: option -> values. An option is a field of the target such as "adc_bits", a field of one of its
            parts such as "synapses.adc_bits" or "neuron.beta", or "model.width" for an argument of the network. One
            that a target does not have is not varied there. The value "default" leaves an option as it is;
            `hs.Range(low, high)` is for random trials.
        trials: this many random combinations for each target; None takes every combination.
        trial_seed: seed of the random combinations, >= 0.
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
        out: folder for rows, table, report, log and trained networks; None keeps the rows in memory.
        resume: go on with the run that `out` holds.
        force: replace the run that `out` holds.
        jobs: processes of this machine; None takes one a core.
        dask: address of a Dask scheduler, such as `tcp://host:8786`, whose workers compute in their place;
            `hpml_sim.experiments.execution` shows how Slurm gives them.
        mlflow: address of a tracking server, or a folder, that the finished run is logged to (extra `track`).

    Returns:
        The rows, their table, plots and report.

    Raises:
        UnknownNameError: no network, data set, card or option has this name.
        ConversionError: a network that a machine cannot run.
        HpmlError: an argument out of range, a value that a target refuses, network and data that do not fit, or a
            folder with another run in it. All of these are raised before anything is computed or written.

    Example:
        >>> import torch, hpml_sim as hs
        >>> x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
        >>> split = torch.utils.data.TensorDataset(x, (x[:, 0] > 0.5).long())
        >>> found = hs.sweep("mlp", (split, split), ["loihi"], {"steps": [2, 4]}, epochs=1, jobs=1)
        >>> found.table()[["target", "steps"]].values.tolist()
        [['loihi steps=2', 2], ['loihi steps=4', 4]]
    """
    given = {"search_space": from_python(search_space), "trials": trials, "trial_seed": trial_seed}
    config = checked(SweepConfig, given)
    return Experiment.from_call(
        model, data, targets, sweep=config, task=task, seeds=seeds, chips=chips, times=times, epochs=epochs,
        finetune_epochs=finetune_epochs, lr=lr, prune=prune, quantize=quantize, skip=skip,
        scope=scope, out=out, resume=resume, force=force, jobs=jobs, dask=dask, mlflow=mlflow,
    ).run_comparison()  # fmt: skip
