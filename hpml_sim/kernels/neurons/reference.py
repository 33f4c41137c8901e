"""Any neuron of `dynamics/` in torch, step by step: the definition.

The three implementations (this one, `cpu.py`, `cuda.py`) have the same two functions, on contiguous tensors:

    forward   fills spikes (chips, steps, neurons) and slots 1 ... of states (states, chips, steps + 1, neurons) from x,
              of the spikes' shape, and p (parameters, neurons)
    backward  fills grad_x. `grad` is the spikes' gradient times the surrogate's slope; of a neuron whose spike is
              differentiated inside (`attached`) it is the gradient alone, `slope` is the other factor, and `divides`
              says that it is a divisor. `direct` is the gradient of the states (states, chips, steps, neurons) or None.
              `later` (states + 1, chips, neurons) holds the states' gradients from step to step, the spike's behind
              them; `grads` (parameters, chips, neurons) gathers those of the parameters
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
    """Fill spikes and states."""
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
    """Fill the gradients."""
    _, back = _step_and_back(name, divides)
    every = slice(None)
    for t in range(grad.shape[1] - 1, -1, -1):
        if direct is not None:
            later[:-1] = direct[:, :, t] + later[:-1]
        grad_x[:, t] = back(grad[:, t], slope[:, t], states, every, t, every, p, later, grads)
