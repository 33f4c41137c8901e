"""What a run refuses before anything is computed: networks, data and machines that do not go together.

A dry run asks the same questions, so it refuses what the run refuses.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog import calibrate, has_analog_layers, program
from hpml_sim.analog.chips import try_chips
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.conversion import Converted
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import is_large
from hpml_sim.conversion.network_call import call_network, map_tensors, samples_in, shapes_of, tensors_in
from hpml_sim.data import Data
from hpml_sim.data.batches import first, items, resident_tensors
from hpml_sim.errors import HpmlError, NotFiniteError, needs
from hpml_sim.experiments.config import Objective, SearchConfig
from hpml_sim.experiments.pipeline import crossbar_card, estimate_target
from hpml_sim.experiments.plan import AnyNetwork, Point, given_network, network_name
from hpml_sim.experiments.target_list import AnyTarget
from hpml_sim.networks import models
from hpml_sim.targets import Analog, Digital, crossbar_targets
from hpml_sim.tasks.choosing import TRIED, Sample, choose_task
from hpml_sim.tasks.tally import Tally
from hpml_sim.tasks.task import Task
from hpml_sim.training.evaluation import on_device, try_network
from hpml_sim.training.fitting import check_loss

_log = logging.getLogger(__name__)

COLUMNS: Mapping[Objective, str] = {"energy": "energy_j", "latency": "latency_s"}
"""Objective -> the column of its figures, an attribute of an `Estimate`, too; a score has that of its metric."""


def column_of_objective(name: Objective, task: Task) -> str:
    """The column of an objective's figures.

    Args:
        name: the objective.
        task: whose first metric is the score.
    """
    return f"{task.metric.column}_mean" if name == "score" else COLUMNS[name]


_COMPARED, _FAR = 32, 0.8
"""Samples that tell whether a network is trained (an eighth of them if it is large), and its share of loss."""
_ON_CHIPS = 64
"""Samples on which some chips are tried; one of a large network."""
_LABELS = 32
"""Labels that say which task it is."""


@dataclass(frozen=True)
class Trial:
    """What a network made of two samples before anything is computed.

    Attributes:
        where: names network and data in messages.
        inputs: of some samples, more than the two.
        labels: of the same samples.
        given: what the network gave for the first two.
        network: its class.
    """

    where: str
    inputs: Any
    labels: Any
    given: Any
    network: str


def try_samples(model: AnyNetwork, data: Data) -> Trial:
    """Send two samples through a copy of the network: it must take them.

    Args:
        model: a name, code by name, or a module.
        data: the data.

    Raises:
        HpmlError: the network fails on the samples.
    """
    where = f"model {network_name(model)!r} on data {data.name!r}"
    inputs, labels = first(data.test, _LABELS)  # type: ignore[arg-type]
    network = given_network(model, data, {})
    # A call may change more than the state dict (counters, caches), so not even a network of ours is called itself.
    tried = clone(network).eval()
    held = [*tried.parameters(), *tried.buffers(), *tensors_in(inputs)]
    device = held[0].device
    x = map_tensors(lambda tensor: tensor[:TRIED].to(device), inputs)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            given = call_network(tried, x)
    except Exception as error:  # whatever the code of a user's network raises
        shapes = shapes_of(x) if not isinstance(x, Tensor) else f"shape {tuple(x.shape)}"
        raise HpmlError(
            f"{where}: a batch of two samples, {shapes}, stops it with {type(error).__name__}: {error}; "
            "change the network or the data so that they fit"
        ) from error
    return Trial(where, inputs, labels, given, type(network).__name__)


def find_task(trial: Trial, data: Data, given: str | Task | None) -> Task:
    """The task of a run, and whether outputs and labels fit it.

    Args:
        trial: what the network made of two samples.
        data: the data.
        given: the task that was asked for; None takes that of the data, or the only one that is possible.

    Raises:
        HpmlError: no task has this name, data and outputs leave a doubt, or labels or outputs do not fit the task.
    """
    where, labels = trial.where, trial.labels
    sample = Sample(trial.inputs, labels, lambda: trial.given, trial.network)
    task = choose_task(where, given, data.task, lambda: sample)
    outputs = task.read(where, trial.given, trial.network)
    classes = data.classes
    if task.name == "classification" and classes is not None and (outputs.dim() != 2 or outputs.shape[1] < classes):
        raise HpmlError(
            f"{where}: two samples must give logits of shape (2, {classes}), one for each class; they give a tensor of "
            f"shape {tuple(outputs.shape)}; for another task give task=, such as 'regression' (hs.tasks has them)"
        )
    tried = map_tensors(lambda tensor: tensor[:TRIED].to(outputs.device), labels)
    if outputs.dim() == 0 or len(outputs) != samples_in(tried):
        raise HpmlError(f"{where}: two samples gave outputs {tuple(outputs.shape)}; expected {task.layout}")
    tried = task.labels(where, tried, len(outputs), outputs)
    check_loss(where, task, task.loss(outputs, tried))
    for metric in task.metrics:  # what a metric needs and these data lack
        Tally(metric, spread=False).add([outputs], tried)
    for split in (data.train, data.test):
        if (whole := resident_tensors(split)) is not None:
            task.labels(where, whole[1], len(whole[0]), None)
    return task


def comes_trained(model: AnyNetwork, data: Data, task: Task) -> bool:
    """Whether a network has learned the task already: it does far better with the labels than with those of others.

    A network that was not trained makes nothing of its inputs that has to do with their labels. Its loss is about the
    same if each sample gets the label of another one.

    Args:
        model: a name, code by name, or a module; the built-in networks come untrained.
        data: the data; some of the training samples are looked at.
        task: its loss is taken.
    """
    if isinstance(model, str) and model in models.BUILT_IN:
        return False
    network = given_network(model, data, {})
    count = len(data.train)  # type: ignore[arg-type]
    chosen = sorted({i * count // _COMPARED for i in range(_COMPARED)})[:: 8 if is_large(network) else 1]
    if len(chosen) < 2:
        return False
    inputs, labels = items(data.train, chosen)
    outputs = task.read("compare", try_network("compare", clone(network), inputs), type(network).__name__)
    labels = task.labels("compare", on_device(labels, outputs.device), len(outputs), outputs)
    own = float(task.loss(outputs, labels))
    moved = [
        float(task.loss(outputs, map_tensors(lambda tensor, by=by: tensor.roll(by, 0), labels)))
        for by in range(1, min(8, len(chosen)))
    ]
    others = sum(moved) / len(moved)
    if not own < _FAR * others:
        return False
    _log.info(
        "the network knows its task already (loss %.3g with the labels of %d samples, %.3g with those of others): "
        "it is not trained again; epochs= and finetune_epochs= train it",
        own, len(chosen), others,
    )  # fmt: skip
    return True


def check_conversions(
    model: AnyNetwork, data: Data, points: Sequence[Point], *, chips: int, skip: Sequence[str] = ()
) -> None:
    """Convert every network once for every machine and give it a sample: one that fails is named before any training.

    Args:
        model: a name, code by name, or a module.
        data: the data.
        points: the machines.
        chips: how many are programmed; with more than one, some are tried on a few samples.
        skip: names of layers that stay digital on crossbars.

    Raises:
        ConversionError: a network that a machine cannot run.
        HpmlError: a network that cannot be made or that fails on a sample once it is converted, such as token numbers
            into an encoder of numbers, one that returns tensors of another shape for another chip, or a package that
            the device model of a machine needs and lacks.
    """
    networks: dict[str, nn.Module] = {}
    for point in points:
        options = repr(point.network)
        if options not in networks:
            networks = {options: given_network(model, data, point.network)}
        try:
            converted = point.converted(point.compressing.of(networks[options], data), skip)
            _check_programming(converted, point.target, data)
        except ImportError as error:
            raise HpmlError(f"{point.label}: {error}") from error
        try:
            if not _is_the_network(point.target):  # which ran on samples already
                try_network(point.label, converted, first(data.test, 1)[0])
            if chips > 1:
                few = first(data.test, 1 if is_large(converted) else _ON_CHIPS)[0]
                try_chips(converted, partial(_try_on, point.label, few))
        except NotFiniteError:
            pass  # a row says so, and the others have their figures
        except HpmlError as error:
            said = str(error).removeprefix(f"{point.label}: ")
            raise HpmlError(
                f"{point.label}: it cannot run this network on these data: {said}; leave it out, or change its options"
            ) from error


def _is_the_network(target: AnyTarget) -> bool:
    """Whether a machine computes what the network itself does."""
    return isinstance(target, Digital) and (target.precision, target.engine) == ("fp32", "torch")


def _try_on(label: str, inputs: Any, network: nn.Module) -> Any:
    return try_network(label, network, inputs)


def _check_programming(converted: Converted, target: AnyTarget, data: Data) -> None:
    """Ask now what programming asks after the training: for the device model, and what aihwkit's tiles can hold."""
    programmed = [own for own in crossbar_targets(target) if isinstance(own, Analog)]
    for analog in programmed:
        DeviceModel(crossbar_card(analog).noise)
    if any(analog.engine == "aihwkit" for analog in programmed) and has_analog_layers(converted):
        with warnings.catch_warnings():  # of the ranges of a network that is not trained yet
            warnings.simplefilter("ignore", RuntimeWarning)
            calibrate(converted, first(data.test, 2)[0])
        program(converted, chips=1, seed=0)


def check_search(
    config: SearchConfig, point: Point, model: AnyNetwork, data: Data, *, skip: Sequence[str] = ()
) -> None:
    """Refuse objectives that the machine has no figures for, and a search without Optuna.

    Args:
        config: objectives and options.
        point: the machine.
        model: the network.
        data: the data.
        skip: names of layers that stay digital on crossbars.

    Raises:
        HpmlError: no objectives, one that stands twice or has no figure on this machine, or Optuna is missing.
    """
    if not config.objectives or len(set(config.objectives)) != len(config.objectives):
        names = ", ".join(("score", *COLUMNS))
        raise HpmlError(f"objectives={config.objectives} must name at least one, none twice: {names}")
    with needs("search", "hpml_sim[tune]"):
        import optuna  # noqa: F401
    if set(config.objectives) <= {"score"}:
        return
    # Whether a card has energy and latency depends on the card and on the shapes, not on the training.
    network = point.compressing.of(given_network(model, data, point.network), data)
    costs = estimate_target(point.target, point.converted(network, skip), data)
    for name in config.objectives:
        if name != "score":
            check_figures(
                name, point.label, [getattr(estimate, COLUMNS[name]) for estimate in costs.own[:1]], costs.missing
            )


def check_figures(objective: Objective, label: str, figures: Sequence[Any], notes: Sequence[str]) -> None:
    """Refuse an objective without a figure.

    Args:
        objective: what the search weighs.
        label: of the machine.
        figures: of the rows; None where one has none.
        notes: why there is none.

    Raises:
        HpmlError: there is no figure, or one row has none.
    """
    if not figures or any(figure is None for figure in figures):
        raise HpmlError(
            f"objective {objective!r}: {label} has no such figure ({'; '.join(notes)}); search for other objectives or "
            "on another card"
        )
