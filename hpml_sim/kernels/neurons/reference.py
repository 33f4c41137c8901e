"""Any neuron of `dynamics/` in torch, step by step: the definition.

The three implementations (this one, `cpu.py`, `cuda.py`) have the same two functions, `forward` and `backward`, on
contiguous tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hpml_sim.kernels.neurons.dynamics import DYNAMICS


def _step_and_back(name: str, divides: bool) -> Any:
    return DYNAMICS[name].make(
        torch.mul, torch.add, lambda a, b: (a > b).to(a.dtype), torch.div if divides else torch.mul
    )


def forward(name: str, x: Tensor, states: Tensor, p: Tensor, spikes: Tensor) -> None:
    """Fill spikes and states.

    Args:
        name: a neuron in `DYNAMICS`.
        x: input currents, shape (chips, steps, neurons).
        states: slot 0 is given, the others are results, shape (states, chips, steps + 1, neurons).
        p: the neuron's parameters, shape (parameters, neurons).
        spikes: result, 0 or 1, shape (chips, steps, neurons).
    """
    step, _ = _step_and_back(name, False)
    everything = slice(None)
    for t in range(x.shape[1]):
        spikes[:, t] = step(x[:, t], states, everything, t, everything, p)


def backward(
    name: str,
    divides: bool,
    grad: Tensor,
    slope: Tensor,
    direct: Tensor | None,
    states: Tensor,
    p: Tensor,
    later: Tensor,
    grads: Tensor,
    grad_x: Tensor,
) -> None:
    """Fill grad_x, and what the gradients of parameters and initial states are made of.

    Args:
        name: a neuron in `DYNAMICS`.
        divides: whether `slope` is a divisor.
        grad: gradient of the spikes, shape (chips, steps, neurons); times the surrogate's slope already, unless the
            spike is differentiated inside the neuron (`attached`).
        slope: the surrogate's slope, of grad's shape; read by neurons that are `attached` alone.
        direct: gradient of the states, shape (states, chips, steps, neurons); None: there is none.
        states: from `forward`, shape (states, chips, steps + 1, neurons).
        p: the neuron's parameters, shape (parameters, neurons).
        later: zeros, shape (states + 1, chips, neurons); becomes the gradients of the initial states, and behind them
            that of the spike before the first step.
        grads: zeros, shape (parameters, chips, neurons); becomes the gradients of the parameters, chip by chip.
        grad_x: result, shape (chips, steps, neurons).
    """
    _, back = _step_and_back(name, divides)
    every = slice(None)
    for t in range(grad.shape[1] - 1, -1, -1):
        if direct is not None:
            later[:-1] = direct[:, :, t] + later[:-1]
        grad_x[:, t] = back(grad[:, t], slope[:, t], states, every, t, every, p, later, grads)
