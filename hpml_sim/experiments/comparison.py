"""`compare`: one network on many machines. Scores, estimate and measurement are three passes that never mix.

For every seed the network is trained once; for every target it is converted, tuned where the machine needs it
(hardware-aware or surrogate-gradient training), programmed onto chips where the machine is analog, evaluated, counted
and estimated. Each row is on disk as soon as it is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import nn

from hpml_sim.data import Data
from hpml_sim.experiments.config import TIMES
from hpml_sim.experiments.experiment import Experiment
from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.target_list import TargetsLike
from hpml_sim.tasks.task import Task


def compare(
    model: str | nn.Module,
    data: str | Data | tuple,
    targets: TargetsLike,
    *,
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
    """Run one network on several machines.

    Args:
        model: the network: a built-in name ("mlp", "cnn"), "package.module:callable" or "file.py:callable" (called
            without arguments, must return an `nn.Module`), or an `nn.Module`, which is copied, never changed.
        data: the data set: a name (`hpml-sim data` lists them), "package.module:callable" or "file.py:callable", a
            `Data`, or a (train, test) pair of datasets of (input, label).
        targets: the machines: a list of names of cards, paths of cards and targets, or a mapping from labels of your
            own to such.
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
        prune: what goes of the trained network before it is made ready for the machines, as `hs.prune` takes it, with a
            share where it is not a half: "2:4", "channels=0.3"; None: nothing. Training after conversion keeps the
            zeros.
        quantize: what the trained network is quantized to, a scheme of `hs.quantize`; None: it is not. Training after
            conversion keeps the numbers.
        skip: layers that stay digital on crossbars, by name, such as "head" (a name covers what lies below it). None:
            the head of a language model that is taken as it comes, because it loses most to the devices; (): none.
        scope: what energy and time in table and plots include: None is each card's own scope; "system" adds what that
            leaves out, from components, so that all machines are drawn in one panel. `rank` is at system scope by
            itself.
        out: folder for rows, table, report, log and trained networks; None keeps the rows in memory.
        resume: go on with the run that `out` holds.
        force: replace the run that `out` holds.
        jobs: processes of this machine; None takes 1. With more than one, or with `dask`, nothing is timed, because
            processes that run together slow each other down.
        dask: address of a Dask scheduler, such as `tcp://host:8786`, whose workers compute.
        mlflow: address of a tracking server, or a folder, that the finished run is logged to (extra `track`).

    Returns:
        The rows, their table, plots and report.

    Raises:
        UnknownNameError: no network, data set or card has this name.
        ConversionError: a network that a machine cannot run.
        HpmlError: an argument out of range, network and data that do not fit, or a folder with another run in it. All
            of these are raised before anything is computed or written.

    Example:
        >>> import torch, hpml_sim as hs
        >>> x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
        >>> split = torch.utils.data.TensorDataset(x, (x[:, 0] > 0.5).long())
        >>> targets = {"6 bits": hs.Analog("pcm-hermes", adc_bits=6), "loihi": "loihi"}
        >>> result = hs.compare("mlp", (split, split), targets, chips=2, times=["1 day"], epochs=1)
        >>> [(row.target, row.time_s, row.score.n) for row in result.rows]
        [('6 bits', 86400.0, 2), ('loihi', None, 1), ('hailo-8, integer twin of loihi', None, 1)]
    """
    return Experiment.from_call(
        model, data, targets, task=task, seeds=seeds, chips=chips, times=times, epochs=epochs,
        finetune_epochs=finetune_epochs, lr=lr, prune=prune, quantize=quantize, skip=skip,
        scope=scope, out=out, resume=resume, force=force, jobs=jobs, dask=dask, mlflow=mlflow,
    ).run_comparison()  # fmt: skip
