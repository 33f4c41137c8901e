"""What describes a neuron to the engines, and the parameters that most neurons have.

Every neuron has its parameters in an array p (parameters, neurons) and its states in an array (states, chips, slots,
neurons). The constants beside a neuron's equations are the places of its parameters and states there: numba freezes a
module's whole numbers into the compiled code, so a name costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Pair = tuple[Callable[..., Any], Callable[..., Any]]

LEAKY_PARAMETERS = ("beta", "threshold", "subtracts", "clears")
BETA, THRESHOLD, SUBTRACTS, CLEARS = range(4)
"""Decay, threshold, and which reset: `subtracts` is 1 where a spike takes one threshold, `clears` where it sets the
membrane to 0, so that one formula serves all three (multiplying by 1 and subtracting 0 change no bit)."""
MEMBRANE = 0
"""The state that every neuron has, in front of all others."""


@dataclass(frozen=True)
class Dynamics:
    """A neuron.

    Attributes:
        states: names of its states.
        parameters: names of its parameters, one value a neuron, in the order of `p`.
        make: (mul, add, above, apply) -> (step, back), from an engine's arithmetic; `above(a, b)` is 1 where a > b,
            `apply(grad, slope)` the gradient that a spike passes on.
            step(x, states, c, t, n, p) -> spike writes slot t + 1 of chip c, time step t and neuron n (for the torch
            engine, c and n are slices).
            back(grad_spike, slope, states, c, t, n, p, later, grads) -> gradient of x. `later[k]` holds the gradient of
            state k after the step, `later[len(states)]` that of the spike from later steps, and both become those
            before the step. `grads[j]` gathers the gradient of parameter j. Read from `later` before you write there,
            because for the torch engine it is a view.
        excess: (states, p) -> u, the argument of H at slots 1 ..., for tensors.
        attached: the spike is differentiated inside the dynamics, so its gradient is known only on the way.
    """

    states: tuple[str, ...]
    parameters: tuple[str, ...]
    make: Callable[..., Pair]
    excess: Callable[[Tensor, Tensor], Tensor]
    attached: bool = False


def membrane_over_threshold(states: Tensor, p: Tensor) -> Tensor:
    """The excess of neurons that fire by their membrane."""
    return states[MEMBRANE, :, 1:] - p[THRESHOLD]
