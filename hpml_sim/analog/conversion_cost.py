"""What conversion alone costs a network, without noise and without chips.

Its outputs through the converters against those of ideal ones; and those of the weights as cells hold them, clipped and
rounded to levels, against those of its own weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hpml_sim.analog.converter_error import ConversionCost
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.layers import crossbars, weight_matrix
from hpml_sim.analog.weight_limits import is_frozen
from hpml_sim.analog.weight_probe import WeightProbe
from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.training_sessions import FewSamples, register_before_training

MOST_LOST = 0.1
"""Share of the spread of a network's outputs that conversion may turn into error, and of its score that it may cost,
before a warning names layers."""
_KEEPS = 35.0
"""Decibels between signal and error below which a layer is worth a warning. Where all layers keep more, it is the
network that makes much of little, such as a neuron that spikes one step later, and no range would help."""
_MAX_NAMES = 5


def note_cost(model: nn.Module, lost: float | None, where: str, weights: WeightCost | None = None) -> None:
    """Note what conversion costs the outputs, and warn where it is too much.

    Args:
        model: the network.
        lost: what `OutputError.cost` gave.
        where: function that the caller called, which begins the warning.
        weights: what mapping does to its weights; None: nothing.
    """
    if lost is None and weights is None:
        return
    cost = ConversionCost(lost or 0.0)
    if weights is not None:
        cost.lost_by_weights, cost.layers = weights.lost, weights.layers
    for crossbar in crossbars(model).values():
        crossbar.cost = cost
    warn_of_cost(model, where)


class OutputError:
    """The error of a network's outputs through its converters as they are set.

    Args:
        exact: its outputs with ideal converters.
        call: gives its outputs on the same inputs through the converters.

    Attributes:
        lost: the power of the error over that of the spread of the outputs.
    """

    def __init__(self, exact: Any, call: Callable[[], Any]):
        self._call, self._converted = call, call()
        self.lost = _lost(exact, self._converted)

    def cost(self) -> float | None:
        """What was lost; None where it cannot be known. The converters must be set as they were."""
        # a network that gives something else at each call tells nothing of its converters
        if self.lost > MOST_LOST and _lost(self._converted, self._call()) > 0.1 * self.lost:
            return None
        return self.lost


@dataclass(frozen=True)
class WeightCost:
    """What mapping does to the weights of a network, seen in its outputs on some inputs, with ideal converters.

    Attributes:
        own: outputs with the weights as they are.
        held: outputs with the weights as cells hold them, without noise.
        lost: power of what lies between the two over that of the spread of the outputs.
        layers: power of a layer's products over that of their error, decibels, by name; of layers that change.
    """

    own: Any
    held: Any
    lost: float
    layers: dict[str, float]


def cost_of_weights(
    model: nn.Module, call: Callable[[], Any], *, in_training: bool, held: Any = None
) -> WeightCost | None:
    """What mapping does to the weights, before any noise.

    Weights that training rounded to levels were trained to be held so, and cost nothing; so do weights that were
    clipped in training.

    Args:
        model: the network; it is left as it was found.
        call: runs it on some inputs.
        in_training: whether the weights are mapped as training will map them, which clips them.
        held: its outputs on these inputs with the mapped weights and ideal converters, where they are known.

    Returns:
        What was lost; None where mapping changes no weight.
    """
    layers = crossbars(model)
    probes = {name: _probe(model, name, crossbar, in_training=in_training) for name, crossbar in layers.items()}
    if not any(probe.changes for probe in probes.values()):
        return None
    try:
        for name, crossbar in layers.items():
            crossbar.weight_probe = probes[name]
        with eval_mode(model):
            own = call()
            if held is None:
                for probe in probes.values():
                    probe.mapped = True
                held = call()
    finally:
        for crossbar in layers.values():
            crossbar.weight_probe = None
    found = {name: probe.signal_to_error_db for name, probe in probes.items() if probe.error > 0}
    return WeightCost(own, held, _lost(own, held), found)


def _probe(model: nn.Module, name: str, crossbar: Crossbar, *, in_training: bool) -> WeightProbe:
    target = crossbar.target
    with torch.enable_grad():  # a product of the parameter, as with scales of channels, learns as it does
        frozen = is_frozen(weight_matrix(model, name))
    clips = in_training and target.weight_clip is not None and not frozen
    return WeightProbe(clips, target.levels is not None and not crossbar.trained_at_levels)


@register_before_training
def warn_of_mapping(model: nn.Module, samples: FewSamples) -> None:
    """Warn before a training where clipping and rounding the weights alone takes a network much of its score.

    Where several processes train together nothing is tried: all of them would have to run the network.

    Args:
        model: any network.
        samples: a few of the training's.
    """
    layers = crossbars(model).values()
    if any(layer.programmed is not None for layer in layers):
        return
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return
    found = cost_of_weights(model, lambda: repeatable(lambda: samples.call(model)), in_training=True)
    if found is None or found.lost <= MOST_LOST:
        return
    if (worse := samples.worse(found.own, found.held, MOST_LOST)) is None:
        return
    warnings.warn(
        f"fit: {_mapped_by(model)}, the mapped weights take {worse}, before any noise (more than "
        f"{100 * MOST_LOST:.0f} %). Layers by signal to error: {_worst(found.layers)}. Next: "
        f"{_next(model, in_training=True)}",
        RuntimeWarning,
        stacklevel=4,
    )


def warn_of_cost(model: nn.Module, where: str) -> None:
    """Warn once where conversion alone costs a network more than `MOST_LOST`, and name its worst layers.

    Where no data have passed, weights that are rounded to levels are held against themselves.

    Args:
        model: the network.
        where: function that the caller called, which begins the warning.
    """
    layers = crossbars(model)
    costs = {id(crossbar.cost): crossbar.cost for crossbar in layers.values() if crossbar.cost is not None}
    if not costs:
        _warn_of_weights(model, where)
    for cost in costs.values():
        if cost.warned:
            continue
        if cost.lost_by_weights > MOST_LOST:
            cost.warned = True
            warnings.warn(
                f"{where}: {_mapped_by(model, in_training=False)}, the mapped weights alone, without any noise, put an "
                f"error into the outputs of {_share(cost.lost_by_weights)} of their spread (more than "
                f"{100 * MOST_LOST:.0f} %). Layers by signal to error: {_worst(cost.layers)}. Next: "
                f"{_next(model, in_training=False)}",
                RuntimeWarning,
                stacklevel=3,
            )
        known = {name: crossbar.error.signal_to_error_db for name, crossbar in layers.items() if crossbar.error}
        if cost.lost <= MOST_LOST or not known or min(known.values()) > _KEEPS:
            continue
        cost.warned = True
        notes = {name: layers[name].range_name() for name in known}
        warnings.warn(
            f"{where}: the converters alone, without any noise of devices, put an error into the outputs of "
            f"{_share(cost.lost)} of their spread (more than {100 * MOST_LOST:.0f} %). Layers by signal to converter "
            f"error: {_worst(known, notes)}. Next: input_range=None or 'dynamic' for them, more bits, or skip= to "
            "leave them digital",
            RuntimeWarning,
            stacklevel=3,
        )


def _warn_of_weights(model: nn.Module, where: str) -> None:
    """Warn where rounding to levels takes much of the weights themselves, of a network that no data have passed."""
    lost = {}
    for name, crossbar in crossbars(model).items():
        probe = _probe(model, name, crossbar, in_training=False)
        if probe.changes and (share := probe.lost_of_weights(crossbar, weight_matrix(model, name))) > MOST_LOST:
            lost[name] = -10 * math.log10(share)
    if lost:
        warnings.warn(
            f"{where}: {_mapped_by(model, in_training=False)}, {len(lost)} of {len(crossbars(model))} layers lose more "
            f"than {100 * MOST_LOST:.0f} % of the power of their weights before any noise: {_worst(lost)}. Next: "
            f"{_next(model, in_training=False)}; hs.calibrate says what it costs the outputs",
            RuntimeWarning,
            stacklevel=4,
        )


def _mapped_by(model: nn.Module, *, in_training: bool = True) -> str:
    """The options that change weights, in words."""
    targets = [crossbar.target for crossbar in crossbars(model).values()]
    clips = [f"weight_clip={t.weight_clip:g} by {t.weight_clip_by}" for t in targets if t.weight_clip] * in_training
    levels = [f"levels={t.levels}" + f", slices={t.slices}" * (t.slices > 1) for t in targets if t.levels]
    return f"with {' and '.join(dict.fromkeys(clips + levels))}"


def _next(model: nn.Module, *, in_training: bool) -> str:
    """What to do about weights that mapping changes much."""
    targets = [crossbar.target for crossbar in crossbars(model).values()]
    steps = ["weight_clip=None (what clips costs, only a long training mends)"] * any(
        in_training and t.weight_clip for t in targets
    )
    steps += ["more levels= or slices="] * any(t.levels for t in targets)
    return ", ".join([*steps, "skip= to leave them digital"])


def _worst(known: Mapping[str, float], notes: Mapping[str, str] | None = None) -> str:
    """The layers that lose most, worst first. known: decibels by name."""
    worst = sorted(known.items(), key=lambda each: (each[1], each[0]))[:_MAX_NAMES]
    more = {name: f", {notes[name]}" if notes else "" for name, _ in worst}
    return ", ".join(f"{name.removeprefix('network.')!r} ({db:.1f} dB{more[name]})" for name, db in worst)


def _share(lost: float) -> str:
    return f"{100 * lost:.0f} %" if lost < 10 else f"{lost:.3g} times"


def repeatable(call: Callable[[], Any]) -> Any:
    """What a call gives that draws the same random numbers each time, such as spikes.

    Args:
        call: what is called.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return call()


@torch.no_grad()
def _lost(exact: Any, converted: Any) -> float:
    """The error of the outputs in units of their spread, the largest of several outputs."""
    found = [0.0]
    for one, other in zip(tree_leaves(exact), tree_leaves(converted), strict=False):
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            continue
        if one.shape != other.shape or not one.is_floating_point() or one.numel() < 2:
            continue
        if one.dtype in (torch.float16, torch.bfloat16):
            one, other = one.float(), other.float()
        # summed in float64, and not turned into it: the logits of a language model are large
        mean = one.sum(dtype=torch.float64) / one.numel()
        spread = float((one - mean.to(one)).square_().sum(dtype=torch.float64))
        error = float((other.to(one) - one).square_().sum(dtype=torch.float64))
        if spread > 0:
            found.append(error / spread)
    return max(found)
