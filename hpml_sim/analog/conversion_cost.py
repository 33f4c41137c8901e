"""What conversion alone costs a network: its outputs through the converters against the exact ones, without chips."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hpml_sim.analog.converter_error import ConversionCost
from hpml_sim.analog.layers import crossbars

MOST_LOST = 0.1
"""Share of the spread of a network's outputs that its converters may turn into error before a warning names layers."""
_KEEPS = 35.0
"""Decibels between signal and error below which a layer is worth a warning. Where all layers keep more, it is the
network that makes much of little, such as a neuron that spikes one step later, and no range would help."""
_MAX_NAMES = 5


def note_cost(model: nn.Module, lost: float | None, where: str) -> None:
    """Note what conversion costs the outputs, and warn where it is too much.

    Args:
        model: the network.
        lost: what `OutputError.cost` gave.
        where: function that the caller called, which begins the warning.
    """
    if lost is None:
        return
    cost = ConversionCost(lost)
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


def warn_of_cost(model: nn.Module, where: str) -> None:
    """Warn once where the converters alone cost a network more than `MOST_LOST`, and name its worst layers.

    Args:
        model: the network.
        where: function that the caller called, which begins the warning.
    """
    layers = crossbars(model)
    costs = {id(crossbar.cost): crossbar.cost for crossbar in layers.values() if crossbar.cost is not None}
    for cost in costs.values():
        if cost.warned or cost.lost <= MOST_LOST:
            continue
        known = [(crossbar.error.signal_to_error_db, name) for name, crossbar in layers.items() if crossbar.error]
        if not known or min(known)[0] > _KEEPS:
            continue
        cost.warned = True
        worst = ", ".join(
            f"{name.removeprefix('network.')!r} ({db:.1f} dB, {layers[name].range_name()})"
            for db, name in sorted(known)[:_MAX_NAMES]
        )
        share = f"{100 * cost.lost:.0f} %" if cost.lost < 10 else f"{cost.lost:.3g} times"
        warnings.warn(
            f"{where}: the converters alone, without any noise of devices, put an error into the outputs of "
            f"{share} of their spread (more than {100 * MOST_LOST:.0f} %). Layers by signal to converter error: "
            f"{worst}. Next: input_range=None or 'dynamic' for them, more bits, or skip= to leave them digital",
            RuntimeWarning,
            stacklevel=3,
        )


@torch.no_grad()
def _lost(exact: Any, converted: Any) -> float:
    """The error of the outputs in units of their spread, the largest of several outputs."""
    found = [0.0]
    for one, other in zip(tree_leaves(exact), tree_leaves(converted), strict=False):
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            continue
        if one.shape != other.shape or not one.is_floating_point() or one.numel() < 2:
            continue
        one, other = one.double(), other.double()
        spread = float((one - one.mean()).square().mean())
        error = float((other - one).square().mean())
        if spread > 0:
            found.append(error / spread)
    return max(found)
