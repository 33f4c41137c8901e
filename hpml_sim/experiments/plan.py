"""`Plan`: what a run was asked to do, checked before anything is computed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.cards import load_card
from hpml_sim.conversion import convert
from hpml_sim.conversion.cloning import clone
from hpml_sim.data import Data
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.experiments.config import DEFAULT, Choices, ExperimentConfig, checked
from hpml_sim.measurement.machine import versions
from hpml_sim.networks import models
from hpml_sim.networks.importing import imported, names_code
from hpml_sim.results import config_hash
from hpml_sim.targets import Spiking, Target, analog_part, as_target, in_memory
from hpml_sim.units.times import parse_time

NETWORK = "model."
"""What the name of an option begins with that is an argument of the network, not of a target."""


@dataclass(frozen=True)
class Point:
    """One line of a run: a machine, with the options that a sweep or a search gave it.

    Attributes:
        label: its name in the run. target: with those options in place. options: which were given, by name.
    """

    label: str
    target: Target
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def network(self) -> dict[str, Any]:
        """The arguments of the network among the options."""
        return {name.removeprefix(NETWORK): v for name, v in self.options.items() if name.startswith(NETWORK)}

    def times(self, plan: Plan) -> tuple[float | None, ...]:
        """The times since programming at which it has rows; (None,) for machines that do not drift."""
        drifts = analog_part(self.target) is not None and not in_memory(self.target)
        return plan.times_s if drifts else (None,)


@dataclass(frozen=True)
class Plan:
    """Everything that decides the rows of a run; its hash names the run.

    Attributes:
        version: of hpml_sim; rows of different versions are never mixed in one run.
        model: the network's name. fingerprint: of the network's structure and first weights and
            of the data.
        data: the data set's name. targets: label -> configuration. options: label -> what a sweep changed in it.
        seeds: one full repetition each. chips: programmed for each analog target. times_s: seconds since programming.
        epochs: of the digital training. finetune_epochs: of the training after conversion. lr: first learning rate.
        timed: whether the clock is read; only where one process computes.
        card_versions: card -> its version.
        search: what a search looks through, and for what; empty otherwise.
    """

    version: str
    model: str
    fingerprint: str
    data: str
    targets: dict[str, dict[str, Any]]
    options: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    chips: int
    times_s: tuple[float, ...]
    epochs: int
    finetune_epochs: int
    lr: float
    timed: bool
    card_versions: dict[str, int]
    search: dict[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """Twelve hex digits that are the same for the same plan."""
        return config_hash(asdict(self))


def make_plan(
    setup: ExperimentConfig,
    model: str | nn.Module,
    task: Data,
    points: Sequence[Point],
    *,
    timed: bool = True,
    search: Mapping[str, Any] | None = None,
) -> Plan:
    """Check what was asked and write down what will be run.

    Every network is made once, and converted once for every kind of machine, so that what cannot be is said now.

    Raises:
        HpmlError: an argument out of range, with its name and what is allowed; a network that cannot be made, or that
            does not take the data.
        ConversionError: a network that a machine cannot run.
    """
    if not setup.times:
        raise HpmlError("times=() must be a list of at least one time, such as ['1 s', '1 day']")
    network, name = resolve_model(model, task)
    seeds, times = _seeds(setup.seeds), {parse_time(time) for time in setup.times}
    _check_samples(network, name, task)
    _check_conversions(model, task, points)
    default = max(5, min(40, 60_000 // len(task.train)))  # type: ignore[arg-type]
    tuning = setup.epochs or -(-default // 2)
    return Plan(
        version=versions()["hpml_sim"],
        model=name,
        fingerprint=_fingerprint(network, task),
        data=task.name,
        targets={point.label: configuration(point.target) for point in points},
        options={point.label: dict(point.options) for point in points if point.options},
        seeds=seeds,
        chips=setup.chips,
        times_s=tuple(sorted(times)),
        epochs=default if setup.epochs is None else setup.epochs,
        finetune_epochs=tuning if setup.finetune_epochs is None else setup.finetune_epochs,
        lr=setup.lr,
        timed=timed,
        card_versions={name: load_card(name).version for name in sorted(_cards_of(point.target for point in points))},
        search=dict(search or {}),
    )


def configuration(target: Target) -> dict[str, Any]:
    """A target as plain values, its class among them."""
    return {"target": type(target).__name__, **asdict(target)}


def _check_samples(network: nn.Module, name: str, task: Data) -> None:
    """Two samples through a copy of the network: their shape and the number of classes must be what it is made for."""
    x = torch.stack([torch.as_tensor(task.test[i % len(task.test)][0]) for i in range(2)])  # type: ignore[arg-type]
    where = f"model {name!r} on data {task.name!r}"
    tried = clone(network).eval()
    device = next((tensor.device for tensor in [*tried.parameters(), *tried.buffers()]), x.device)
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            y = tried(x.to(device))
    except Exception as error:  # whatever the code of a user's network raises
        raise HpmlError(
            f"{where}: a batch of two samples, shape {tuple(x.shape)}, stops it with {type(error).__name__}: {error}; "
            "change the network or the data so that they fit"
        ) from error
    if not isinstance(y, Tensor) or y.ndim != 2 or len(y) != 2 or y.shape[1] < task.classes:
        got = f"a tensor of shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise HpmlError(
            f"{where}: two samples must give logits of shape (2, {task.classes}), one for each class; they give {got}"
        )


def _check_conversions(model: str | nn.Module, task: Data, points: Sequence[Point]) -> None:
    seen: set[tuple[str, str]] = set()
    for point in points:
        kind = (repr(point.network), f"{type(point.target).__name__} {_label(point.target)}")
        if kind not in seen:
            seen.add(kind)
            convert(resolve_model(model, task, **point.network)[0], point.target)


def _cards_of(targets: Iterable[Target]) -> set[str]:
    """Every card that the rows rest on: of the targets, and of the crossbars that hold their weights."""
    used = {part.card for target in targets for part in (target, analog_part(target)) if part is not None}
    return {str(card) for card in used}


def labelled_targets(on: Sequence[str | Target] | Mapping[str, str | Target]) -> dict[str, Target]:
    """Targets by label: the card's name unless a mapping gives labels of its own.

    Raises:
        HpmlError: an empty list, or a label that stands twice. UnknownNameError: no card has this name.
    """
    if isinstance(on, str) or not on:
        raise HpmlError(f"on={on!r} must be a list of cards or targets, at least one, such as ['cpu', 'pcm-hermes']")
    pairs = list(on.items()) if isinstance(on, Mapping) else [(_label(target), target) for target in on]
    labels = [label for label, _ in pairs]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise HpmlError(f"on= names {sorted(twice)} twice; give a mapping from labels of your own to the targets")
    return {label: as_target(target) for label, target in pairs}


def _label(target: str | Target) -> str:
    if isinstance(target, Spiking) and target.synapses is not None:
        return f"{target.card}+{target.synapses.card}"
    return str(getattr(target, "card", target))


def resolve_model(model: str | nn.Module, task: Data, *, seed: int = 0, **options: Any) -> tuple[nn.Module, str]:
    """A network of the caller's own to change, and its name.

    Args:
        model: a network (copied with its weights), a built-in name, or code of the user's ("file.py:callable").
        task: gives built-in networks their sizes.
        seed: of the first weights, where they are drawn here.
        options: arguments of the network, where it is made here.

    Raises:
        UnknownNameError: no built-in network has this name or option. HpmlError: the callable cannot be imported,
            fails, or gives something that is not an `nn.Module`; options for a network that is there already.
    """
    if isinstance(model, nn.Module):
        if options:
            raise HpmlError(
                f"{NETWORK}{next(iter(options))}: the network is made already; give model= as a name or "
                "'package.module:callable', which takes it as an argument"
            )
        return clone(model), type(model).__name__
    if names_code(model):
        return models.imported(model, seed=seed, **options), model
    return models.build(model, task.input_shape, task.classes, seed=seed, **options), model


# --------------------------------------------------------------------------------------------------- options of targets


def with_options(label: str, target: Target, options: Mapping[str, Any]) -> Point:
    """The point of a target with some of its options, or of its network's, set; its label names them.

    Args:
        label: of the target.
        target: the target.
        options: by name: a field of the target, "synapses.FIELD" for the crossbars of a spiking one, or "model.NAME"
            for an argument of the network. The value "default" leaves an option as it is.

    Raises:
        HpmlError: a value that the target refuses.
    """
    given = {name: value for name, value in options.items() if value != DEFAULT}
    changed = target
    for option, value in given.items():
        if not option.startswith(NETWORK):
            changed = _replaced(changed, option.split("."), value, where=f"{label}, {option}={value!r}")
    named = (f"{option}={f'{value:.6g}' if isinstance(value, float) else value}" for option, value in given.items())
    return Point(" ".join([label, *named]), as_target(changed), given)


def _replaced(target: Any, path: list[str], value: Any, *, where: str) -> Any:
    first, *rest = path
    inner = _replaced(getattr(target, first), rest, value, where=where) if rest else value
    return checked(type(target), {**_shallow(target), first: inner}, where=where)


def _shallow(target: Any) -> dict[str, Any]:
    return {f.name: getattr(target, f.name) for f in fields(target)}


def options_of(target: Target) -> set[str]:
    """Names of all options of a target, those of its synapses among them."""
    own = _shallow(target)
    below = {f"{name}.{inner}" for name, part in own.items() if is_dataclass(part) for inner in _shallow(part)}
    return set(own) | below


def check_over(over: Mapping[str, Choices], targets: Iterable[Target], model: str | nn.Module) -> None:
    """Refuse options that no target and no network has.

    Raises:
        HpmlError: nothing to vary. UnknownNameError: an option that none has, with the nearest name.
    """
    if not over:
        raise HpmlError("over: nothing to vary; give options with their values, such as adc_bits=4,6,8")
    network = {NETWORK + name for name in _arguments(model)}
    known = network.union(*(options_of(target) for target in targets))
    for name in over:
        if name not in known:
            hint = f"The network takes it as {NETWORK + name!r}." if NETWORK + name in network else ""
            raise UnknownNameError("option over", name, known, hint=hint)


def _arguments(model: str | nn.Module) -> set[str]:
    if isinstance(model, nn.Module):
        return set()
    if not names_code(model):
        return {"width"}
    try:
        return set(inspect.signature(imported("model", model)).parameters)
    except ValueError:  # a callable written in C tells no signature
        return set()


def applicable(over: Mapping[str, Choices], target: Target) -> dict[str, Choices]:
    """Those options to vary that this target, or the network, has."""
    own = options_of(target)
    return {name: choices for name, choices in over.items() if name in own or name.startswith(NETWORK)}


# ------------------------------------------------------------------------------------------------------------- the rest


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int):
        return tuple(range(seeds))
    if not seeds or len(set(seeds)) != len(seeds):
        raise HpmlError(f"seeds={list(seeds)!r} must name at least one seed, and none twice")
    return tuple(seeds)


def _fingerprint(network: nn.Module, task: Data) -> str:
    """Of the network's structure and first weights, and of the data: its sizes and some samples."""
    digest = hashlib.sha256(repr(network).encode())
    samples = [task.test[i] for i in range(min(16, len(task.test)))]  # type: ignore[arg-type]
    sizes = (len(task.train), len(task.test))  # type: ignore[arg-type]
    values = {**network.state_dict(), **{f"sample {i}": torch.as_tensor(x) for i, (x, _) in enumerate(samples)}}
    digest.update(repr((task.name, sizes, [int(label) for _, label in samples])).encode())
    for name, value in values.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
