r"""Leaky integrate-and-fire neurons in torch: the definition.

The neuron is snnTorch 1.0's `Leaky` with its default, delayed reset. H(u) is 1 for u > 0 and 0 otherwise; m[-1] = 0:

    R[t] = H(m[t-1] - theta)
    subtract  m[t] = (beta * m[t-1] + x[t]) - R[t] * theta
    zero      m[t] = beta * ((1 - R[t]) * m[t-1]) + x[t]
    none      m[t] = beta * m[t-1] + x[t]
    S[t] = H(m[t] - theta)

Backwards, with the surrogate slope h(u) in place of H's derivative and R held constant (snnTorch detaches it):

    lambda[t] = h(m[t] - theta) * dL/dS[t] + dL/dm[t] + lambda[t+1] * beta * (zero: 1 - R[t+1], otherwise 1)
    dL/dx[t] = lambda[t]

Every product and sum is rounded on its own, in the order written (no fused multiply-add), so that spikes, membrane
potentials and input gradients equal snnTorch's bit for bit. Only the membrane potentials are kept for the way back.

The three implementations (this one, `cpu.py`, `cuda.py`) have the same two functions, `forward` and `backward`, on
contiguous tensors.

Source: snntorch 1.0.0, `_neurons/leaky.py` and `surrogate.py` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.kernels.surrogates.reference import ATAN, FAST_SIGMOID


def forward(x: Tensor, beta: Tensor, theta: Tensor, reset: str, spikes: Tensor, membrane: Tensor) -> None:
    """Fill spikes and membrane.

    Args:
        x: input currents, shape (chips, steps, neurons), or (chips, 1, neurons) for the same current at every step.
        beta: decay in one step, shape (neurons,) or (1,).
        theta: threshold, of beta's shape.
        reset: "subtract", "zero" or "none".
        spikes: result, 0 or 1, shape (chips, steps, neurons).
        membrane: result, potentials after each step, shape (chips, steps, neurons).
    """
    m = torch.zeros_like(x[:, 0])
    for t in range(spikes.shape[1]):
        drive = x[:, min(t, x.shape[1] - 1)]
        fired = (m > theta).to(x.dtype)
        if reset == "subtract":
            m = (beta * m + drive) - fired * theta
        elif reset == "zero":
            m = beta * ((1 - fired) * m) + drive
        else:
            m = beta * m + drive
        membrane[:, t] = m
        spikes[:, t] = m > theta


def backward(
    grad_spikes: Tensor,
    grad_membrane: Tensor | None,
    membrane: Tensor,
    beta: Tensor,
    theta: Tensor,
    reset: str,
    kind: int,
    slope: float,
    grad_x: Tensor,
) -> None:
    """Fill grad_x.

    Args:
        grad_spikes: gradient of the spikes, shape (chips, steps, neurons); with kind OTHER it has been multiplied by
            the surrogate's slope already.
        grad_membrane: gradient of the membrane potentials, shape (chips, steps, neurons); None: there is none.
        membrane: potentials after each step, shape (chips, steps, neurons).
        beta: decay in one step, shape (neurons,) or (1,).
        theta: threshold, of beta's shape.
        reset: "subtract", "zero" or "none".
        kind: the surrogate: ATAN, FAST_SIGMOID or OTHER.
        slope: its parameter; not read if OTHER.
        grad_x: result, shape (chips, steps, neurons), or (chips, 1, neurons) for the sum over all steps.
    """
    summed = grad_x.shape[1] < membrane.shape[1]
    if summed:
        grad_x.zero_()
    later = torch.zeros_like(membrane[:, 0])
    for t in range(membrane.shape[1] - 1, -1, -1):
        m, grad = membrane[:, t], grad_spikes[:, t]
        u = m - theta
        if kind == ATAN:
            grad = (1 + (torch.pi / 2 * slope * u) ** 2).reciprocal() * (slope / 2) * grad
        elif kind == FAST_SIGMOID:
            grad = grad / (slope * u.abs() + 1) ** 2
        # Sums are not associative: autograd adds the membrane's own gradient to what comes from the step after, then
        # the spike's. Another order would leave snnTorch's gradients in the last bit.
        past = None if grad_membrane is None else grad_membrane[:, t]
        if t < membrane.shape[1] - 1:
            carry = later * beta
            if reset == "zero":
                carry = carry * (1 - (m > theta).to(m.dtype))
            past = carry if past is None else past + carry
        later = grad if past is None else past + grad
        if summed:
            grad_x[:, 0] += later
        else:
            grad_x[:, t] = later
