"""`Plan`: everything that decides the rows of a run, in plain values; its hash names the run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from hpml_sim.cards import load_card
from hpml_sim.conversion import Converted, convert
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.network_call import shapes_of, tensors_in
from hpml_sim.data import Data
from hpml_sim.data.batches import first
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.compressing import AS_IT_IS, Compressing
from hpml_sim.experiments.config import ExperimentConfig
from hpml_sim.experiments.target_list import AnyTarget
from hpml_sim.measurement.machine import versions
from hpml_sim.networks import models
from hpml_sim.networks.importing import check_not_a_file, names_code
from hpml_sim.networks.loading import load_network
from hpml_sim.results import config_hash
from hpml_sim.targets import Digital, cards_of, crossbar_targets, in_memory
from hpml_sim.tasks.task import Task
from hpml_sim.units.times import parse_time

NETWORK = "model."
"""What the name of an option begins with that is an argument of the network, not of a target."""


@dataclass(frozen=True)
class Point:
    """One machine of a run, with the options that a sweep or a search gave it.

    Attributes:
        label: its name in the run.
        target: how the network runs there, with those options in place.
        options: which options were given, by name.
        digital_finetuned: whether a digital network gets the second training that the converted ones get.
        compressing: what is done to the trained network before it is made ready for the machine.
    """

    label: str
    target: AnyTarget
    options: Mapping[str, Any] = field(default_factory=dict)
    digital_finetuned: bool = False
    compressing: Compressing = AS_IT_IS

    @property
    def finetuned(self) -> bool:
        """Whether the network is trained on for this machine."""
        return self.digital_finetuned or not isinstance(self.target, Digital)

    @property
    def network(self) -> dict[str, Any]:
        """The arguments of the network among the options."""
        return {name.removeprefix(NETWORK): v for name, v in self.options.items() if name.startswith(NETWORK)}

    def converted(self, network: nn.Module, skip: Sequence[str]) -> Converted:
        """The network made ready for this machine.

        Args:
            network: not changed.
            skip: names of layers that stay digital on crossbars.

        Raises:
            ConversionError: a network that the machine cannot run.
            UnknownNameError: no layer has one of the names.
        """
        return convert(network, self.target, skip=list(skip) if skip and crossbar_targets(self.target) else None)

    def times(self, plan: Plan) -> tuple[float | None, ...]:
        """The times since programming at which it has rows; (None,) for machines that do not drift.

        Args:
            plan: the run.
        """
        drifts = bool(crossbar_targets(self.target)) and not in_memory(self.target)
        return plan.times_s if drifts else (None,)


@dataclass(frozen=True)
class Plan:
    """Everything that decides the rows of a run; its hash names the run.

    Attributes:
        version: of hpml_sim; rows of different versions are never mixed in one run.
        model: the network's name.
        fingerprint: of the network's structure and first weights, and of the data.
        data: the data set's name.
        task: what is learned and measured.
        targets: label -> configuration.
        options: label -> what a sweep changed in it.
        seeds: one full repetition each.
        chips: programmed for each analog target, >= 1.
        times_s: seconds since programming, in rising order.
        epochs: of the digital training.
        finetune_epochs: of the training after conversion.
        lr: first learning rate of both.
        came_trained: whether the network had learned the task already, so that it is not trained again unless asked.
        timed: whether the clock is read; only where one process computes.
        card_versions: card -> its version.
        compressed: label -> what is done to the trained network; empty where nothing is.
        search: what a search looks through, and for what; empty otherwise.
        scope: of the estimates in the table: "" for each card's own, or "system".
        skip: layers that stay digital on crossbars.
        tokens: of a sample of a language model; 0 of other tasks.
    """

    version: str
    model: str
    fingerprint: str
    data: str
    task: dict[str, Any]
    targets: dict[str, dict[str, Any]]
    options: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    chips: int
    times_s: tuple[float, ...]
    epochs: int
    finetune_epochs: int
    lr: float
    came_trained: bool
    timed: bool
    card_versions: dict[str, int]
    compressed: dict[str, dict[str, Any]] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    scope: str = ""
    skip: tuple[str, ...] = ()
    tokens: int = 0

    def __repr__(self) -> str:
        machines, seeds = len(self.targets), len(self.seeds)
        return f"Plan({self.hash}: {self.model} on {self.data}, targets: {machines}, seeds: {seeds})"

    @property
    def hash(self) -> str:
        """Twelve hex digits that are the same for the same plan."""
        return config_hash(asdict(self))


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A network whose weights lie in files, read once for a whole run; another process reads them by name.

    Attributes:
        name: that `load_network` knows.
        network: with its weights; it is copied where it is changed.
    """

    name: str
    network: nn.Module

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return loaded_once, (self.name,)


AnyNetwork = str | nn.Module | LoadedNetwork
"""The network of a run: a name that makes a new one, code by name, a module, or one that was loaded."""


def loaded_once(model: str | nn.Module) -> AnyNetwork:
    """The network of a run, loaded if its name stands for weights in files; built-in ones and code are made anew.

    Args:
        model: a name, code by name, or a module.

    Raises:
        UnknownNameError: no network has this name.
        HpmlError: its files are not here, or a package is missing.
    """
    if not isinstance(model, str) or names_code(model) or model in models.BUILT_IN:
        return model
    check_not_a_file("model", model)
    return LoadedNetwork(model, load_network(model))


def make_plan(
    config: ExperimentConfig,
    model: AnyNetwork,
    data: Data,
    points: Sequence[Point],
    *,
    task: Task,
    came_trained: bool = False,
    timed: bool = True,
    search: Mapping[str, Any] | None = None,
    skip: Sequence[str] = (),
    tokens: int = 0,
) -> Plan:
    """Write down what will be run. Whether it can be run is for `checks` to say.

    Args:
        config: network, data, machines and repetitions, checked.
        model: the network, which is read and not changed.
        data: the data.
        points: the machines.
        task: what is learned and measured.
        came_trained: whether the network had learned the task before.
        timed: whether the clock is read.
        search: what a search looks through, and for what.
        skip: layers that stay digital on crossbars.
        tokens: of a sample of a language model; 0 of other tasks.

    Raises:
        HpmlError: no times, no seeds or a seed that stands twice, or a network that cannot be made.
    """
    seeds, times = check_times(config)
    epochs, finetune_epochs = epochs_of(config, data, came_trained=came_trained)
    network = given_network(model, data, {})
    return Plan(
        version=versions()["hpml_sim"],
        model=network_name(model),
        fingerprint=_fingerprint(network, data),
        data=data.name,
        task=task.settings(),
        targets={point.label: configuration(point.target) for point in points},
        options={point.label: dict(point.options) for point in points if point.options},
        seeds=seeds,
        chips=_chips(network) if config.chips is None else config.chips,
        times_s=tuple(sorted(times)),
        epochs=epochs,
        finetune_epochs=finetune_epochs,
        lr=config.lr,
        came_trained=came_trained,
        timed=timed,
        card_versions={name: load_card(name).version for name in sorted(_cards_of(point.target for point in points))},
        compressed={point.label: asdict(point.compressing) for point in points if point.compressing},
        search=dict(search or {}),
        scope=config.scope or "",
        skip=tuple(skip),
        tokens=tokens,
    )


def check_times(config: ExperimentConfig) -> tuple[tuple[int, ...], set[float]]:
    """The seeds of a run, and its times since programming in seconds.

    Args:
        config: what was asked for.

    Raises:
        HpmlError: no times, a time that is none, no seeds, or a seed that stands twice.
    """
    if not config.times:
        raise HpmlError("times: give at least one time, such as '1 day'")
    return _seeds(config.seeds), {parse_time(time) for time in config.times}


def epochs_of(config: ExperimentConfig, data: Data, *, came_trained: bool) -> tuple[int, int]:
    """Epochs of the training before and after conversion.

    Args:
        config: what was asked for.
        data: its size decides what was not asked for.
        came_trained: whether the network had learned the task before: it is then not trained unless asked.
    """
    default = 0 if came_trained else max(5, min(40, 60_000 // len(data.train)))  # type: ignore[arg-type]
    after = config.epochs or -(-default // 2)
    return (
        default if config.epochs is None else config.epochs,
        after if config.finetune_epochs is None else config.finetune_epochs,
    )


def with_fair_rows(points: Sequence[Point], finetune_epochs: int) -> list[Point]:
    """The machines of a comparison, and digital ones whose network is trained as long as the converted ones.

    What is trained on after conversion saw the data more often. So that this is not taken for an effect of the machine,
    the first digital machine of each precision gets a second row, with the same second training.

    Args:
        points: the machines.
        finetune_epochs: of the second training.
    """
    if finetune_epochs == 0 or not any(point.finetuned for point in points):
        return list(points)
    found: list[Point] = []
    precisions: set[str] = set()
    for point in points:
        found.append(point)
        if isinstance(point.target, Digital) and point.target.precision not in precisions:
            precisions.add(point.target.precision)
            found.append(replace(point, label=f"{point.label}, fine-tuned", digital_finetuned=True))
    return found


def _chips(network: nn.Module) -> int:
    """How many chips stand for all, where nobody said: few of a large network, whose chips differ less."""
    weights = sum(p.numel() for p in network.parameters() if not nn.parameter.is_lazy(p))
    return 3 if weights > 50_000_000 else 25


def configuration(target: AnyTarget) -> dict[str, Any]:
    """A target as plain values, its class among them.

    Args:
        target: any target.
    """
    return {"target": type(target).__name__, **asdict(target)}


def _cards_of(targets: Iterable[AnyTarget]) -> set[str]:
    """Every card that the rows rest on: of the targets, and of the crossbars that hold their weights."""
    return {
        card
        for target in targets
        for card in (*cards_of(target), *(crossbars.card for crossbars in crossbar_targets(target)))
    }


def network_name(model: AnyNetwork) -> str:
    """What a network is called in the rows.

    Args:
        model: the name that was given, or a module, which is called by its class.
    """
    if isinstance(model, LoadedNetwork):
        return model.name
    return model if isinstance(model, str) else type(model).__name__


def given_network(model: AnyNetwork, data: Data, options: Mapping[str, Any], *, seed: int = 0) -> nn.Module:
    """The network to look at and to convert; what was given or loaded is returned itself and must not be changed.

    Args:
        model: a name that `load_network` knows, code by name ("file.py:callable"), a module, or one that was loaded.
        data: gives built-in networks their sizes.
        options: arguments of the network, where it is made here.
        seed: of the first weights, where they are drawn here.

    Raises:
        UnknownNameError: no network has this name, or a built-in one no such option.
        HpmlError: the code cannot be imported, fails, or gives no `nn.Module`; options for a module that is there.
    """
    if isinstance(model, LoadedNetwork):
        return load_network(model.name, **options) if options else model.network
    if isinstance(model, nn.Module):
        if options:
            raise HpmlError(
                f"{NETWORK}{next(iter(options))}: the network is made already; give model= as a name or "
                "'package.module:callable', which takes it as an argument"
            )
        return model
    if names_code(model):
        return models.imported(model, seed=seed, **options)
    check_not_a_file("model", model)
    if model not in models.BUILT_IN:
        return load_network(model, **options)
    return models.build(model, data.input_shape, _outputs(data), seed=seed, **options)


def _outputs(data: Data) -> int:
    """How many outputs a built-in network gets: one for each class, or one for each number of a label."""
    if data.classes is not None:
        return data.classes
    _, labels = first(data.train, 1)
    found = next(tensors_in(labels))
    if not found.is_floating_point():
        raise HpmlError(
            f"data {data.name!r}: labels {shapes_of(found)} do not say how many outputs a built-in network needs; give "
            "a network of your own, or an hs.Data with classes="
        )
    return found[0].numel()


def own_network(model: AnyNetwork, data: Data, options: Mapping[str, Any], *, seed: int = 0) -> nn.Module:
    """A network to change: one that is made here, or a copy of the module that was given.

    Args:
        model: as for `given_network`.
        data: gives built-in networks their sizes.
        options: arguments of the network, where it is made here.
        seed: of the first weights, where they are drawn here.

    Raises:
        HpmlError: see `given_network`.
    """
    network = given_network(model, data, options, seed=seed)
    kept = model.network if isinstance(model, LoadedNetwork) else model
    return clone(network) if network is kept else network


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        return tuple(range(seeds))
    if not seeds or len(set(seeds)) != len(seeds):
        raise HpmlError(f"seeds={list(seeds)!r} must name at least one seed, and none twice")
    return tuple(seeds)


def _fingerprint(network: nn.Module, data: Data) -> str:
    """Of the network's structure and first weights, and of the data: its sizes and some samples."""
    digest = hashlib.sha256(repr(network).encode())
    inputs, labels = first(data.test, 16)
    sizes = (len(data.train), len(data.test))  # type: ignore[arg-type]
    samples = {f"sample {i}": tensor for i, tensor in enumerate(tensors_in((inputs, labels)))}
    values = {**network.state_dict(), **samples}
    digest.update(repr((data.name, sizes)).encode())
    for name, value in values.items():
        digest.update(name.encode())
        value = value.detach().cpu() if value.layout is torch.strided else value.detach().cpu().to_dense()
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
