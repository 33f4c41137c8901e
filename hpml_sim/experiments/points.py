"""Which machines a sweep runs on: options of targets set to every combination of their values, or to random ones."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import nn

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.experiments.config import SweepConfig
from hpml_sim.experiments.plan import NETWORK, Point
from hpml_sim.experiments.search_space import DEFAULT, Choices, Range
from hpml_sim.experiments.target_list import AnyTarget
from hpml_sim.networks.importing import imported, names_code
from hpml_sim.networks.models import options_of as options_of_network
from hpml_sim.targets import PerLayer
from hpml_sim.targets.checking import checked


def sweep_points(config: SweepConfig, targets: Mapping[str, AnyTarget], model: str | nn.Module) -> list[Point]:
    """Every point of a sweep, target by target.

    Args:
        config: which options take which values.
        targets: label -> target.
        model: the network, whose arguments may be varied where it is made by name.

    Raises:
        UnknownNameError: an option that no target and no network has.
        HpmlError: nothing to vary, a range without `trials`, or a value that a target refuses.
    """
    check_search_space(config.search_space, targets.values(), model)
    if config.trials is not None:
        check_values(config.search_space, targets)
    found: dict[str, Point] = {}
    for label, target in targets.items():
        own = _applicable(config.search_space, target)
        chosen = _grid(own) if config.trials is None else _random(own, config.trials, config.trial_seed)
        for options in chosen:
            point = with_options(label, target, options)
            found.setdefault(point.label, point)  # random trials may hit the same combination twice
    return list(found.values())


def _applicable(search_space: Mapping[str, Choices], target: AnyTarget) -> dict[str, Choices]:
    """Those options to vary that this target, or the network, has."""
    own = options_of(target)
    return {name: choices for name, choices in search_space.items() if name in own or name.startswith(NETWORK)}


def _grid(search_space: Mapping[str, Choices]) -> Iterator[dict[str, Any]]:
    values: list[tuple[Any, ...]] = []
    for name, choices in search_space.items():
        if isinstance(choices, Range):
            raise HpmlError(
                f"search_space: {name}={choices} holds no list of values; list some, or give trials=, how many random "
                "combinations to try"
            )
        values.append(choices)
    return (dict(zip(search_space, combination, strict=True)) for combination in itertools.product(*values))


def _random(search_space: Mapping[str, Choices], trials: int, seed: int) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(seed)
    return ({name: _draw(choices, random) for name, choices in search_space.items()} for _ in range(trials))


def _draw(choices: Choices, random: np.random.Generator) -> Any:
    if not isinstance(choices, Range):
        return choices[int(random.integers(len(choices)))]
    low, high = choices.low, choices.high + choices.whole  # whole numbers: up to the next one, then rounded down
    value = math.exp(random.uniform(math.log(low), math.log(high))) if choices.log else random.uniform(low, high)
    return min(math.floor(value), int(choices.high)) if choices.whole else value


# -------------------------------------------------------------------------------------------------- options of a target


def with_options(label: str, target: AnyTarget, options: Mapping[str, Any]) -> Point:
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
    changed: AnyTarget = target
    for option, value in given.items():
        if not option.startswith(NETWORK):
            part = option.rpartition(".")[0]
            where = f"{label}, {part}" if part else label
            changed = _replaced(changed, option.split("."), value, where=where)
    named = (f"{option}={f'{value:.6g}' if isinstance(value, float) else value}" for option, value in given.items())
    return Point(" ".join([label, *named]), changed, given)


def _replaced(target: Any, path: list[str], value: Any, *, where: str) -> Any:
    first, *rest = path
    inner = _replaced(getattr(target, first), rest, value, where=where) if rest else value
    return checked(type(target), {**_shallow(target), first: inner}, where=where)


def _shallow(target: Any) -> dict[str, Any]:
    return {f.name: getattr(target, f.name) for f in fields(target)}


def options_of(target: AnyTarget) -> set[str]:
    """Names of all options of a target, with those of its parts, such as "synapses.adc_bits" and "neuron.beta".

    Args:
        target: any target.
    """
    if isinstance(target, PerLayer):  # each of its layers has options of its own
        return set()
    own = _shallow(target)
    below = {f"{name}.{inner}" for name, part in own.items() if is_dataclass(part) for inner in _shallow(part)}
    return set(own) | below


def check_search_space(
    search_space: Mapping[str, Choices], targets: Iterable[AnyTarget], model: str | nn.Module
) -> None:
    """Refuse options that no target and no network has.

    Args:
        search_space: option -> values.
        targets: the machines.
        model: the network.

    Raises:
        UnknownNameError: an option that none has, with the nearest name.
        HpmlError: nothing to vary.
    """
    if not search_space:
        raise HpmlError("search_space: nothing to vary; give options with their values, such as adc_bits=4,6,8")
    network = {NETWORK + name for name in _arguments(model)}
    known = network.union(*(options_of(target) for target in targets))
    for name in search_space:
        if name not in known:
            hint = f"The network takes it as {NETWORK + name!r}." if NETWORK + name in network else ""
            raise UnknownNameError("option in search_space", name, known, hint=hint)


def check_values(search_space: Mapping[str, Choices], targets: Mapping[str, AnyTarget]) -> None:
    """Build each target with every value of its options, and at both ends of each range: a trial may draw any.

    Args:
        search_space: option -> values.
        targets: label -> target.

    Raises:
        HpmlError: a value that a target refuses, such as a fraction where the option takes whole numbers.
    """
    for label, target in targets.items():
        for name, choices in _applicable(search_space, target).items():
            for value in (choices.low, choices.high) if isinstance(choices, Range) else choices:
                with_options(label, target, {name: value})


def _arguments(model: str | nn.Module) -> set[str]:
    if isinstance(model, nn.Module):
        return set()
    if not names_code(model):
        return set(options_of_network(model))
    try:
        return set(inspect.signature(imported("model", model)).parameters)
    except ValueError:  # a callable written in C tells no signature
        return set()
