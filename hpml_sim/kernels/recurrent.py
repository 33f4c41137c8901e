"""Leaky neurons that are connected all to all, over all time steps: a matrix product a step, everything else in place.

    v = (beta m + x) + (W S + bias);  m' = v - v R (zero), v - R theta (subtract), v (none);  S' = H(m' - theta)

R = H(m - theta) is held constant, S in the product is differentiated, as in snnTorch 1.0's `RLeaky`, which this equals:
spikes and membranes bit for bit, gradients to the order of their sums (the weights' is one product over all steps).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate


def recurrent_leaky(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    beta: Tensor | float,
    threshold: Tensor | float,
    *,
    reset: str = "subtract",
    surrogate: str | Surrogate | Gradient = "atan",
    time_dim: int = 0,
) -> tuple[Tensor, Tensor]:
    """Spikes and membrane potentials over all steps.

    Args:
        x: currents, floating point, steps at `time_dim`, neurons in the last dimension.
        weight: (neurons, neurons). bias: (neurons,) or None.
        beta, threshold: broadcastable to (neurons,); may require gradients.
        reset, surrogate, time_dim: as for `lif.leaky`.

    Returns:
        spikes and membrane potentials of x's shape.

    Raises:
        HpmlError: x is not floating point, or the weights do not fit its last dimension.
    """
    if not x.is_floating_point():
        raise HpmlError(f"recurrent_leaky: x has dtype {x.dtype}; it must be floating point (x.float())")
    if x.dim() < time_dim + 2 or x.shape[time_dim] < 1 or weight.shape != (x.shape[-1], x.shape[-1]):
        raise HpmlError(
            f"recurrent_leaky: x of shape {tuple(x.shape)} (time at {time_dim}) and weights {tuple(weight.shape)}: "
            "the last dimension holds the neurons, and the weights are (neurons, neurons)"
        )
    in_time = x.movedim(time_dim, 0)
    decay, theta = (torch.as_tensor(v, dtype=x.dtype, device=x.device).expand(x.shape[-1]) for v in (beta, threshold))
    gradient = as_surrogate(surrogate)
    spikes, membrane = _Recurrent.apply(in_time, weight, bias, decay, theta, reset, gradient)  # type: ignore[misc]
    return spikes.movedim(0, time_dim), membrane.movedim(0, time_dim)


class _Recurrent(torch.autograd.Function):
    """x (steps, ..., neurons) -> spikes, membrane of that shape."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        beta: Tensor,
        theta: Tensor,
        reset: str,
        surrogate: Surrogate,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        spikes, membrane = x.new_empty(x.shape), x.new_empty(x.shape)
        m = torch.zeros_like(x[0])
        fired = torch.zeros_like(m)
        for t in range(x.shape[0]):
            v = (beta * m).add_(x[t]).add_(F.linear(fired, weight, bias))
            if reset == "subtract":
                v -= fired * theta
            elif reset == "zero":
                v -= v * fired
            m, fired = v, (v > theta).to(x.dtype)
            membrane[t], spikes[t] = m, fired
        ctx.save_for_backward(membrane, spikes, weight, beta, theta)
        ctx.constants = (reset, surrogate, bias is not None)
        return spikes, membrane

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_spikes, grad_membrane = grad_outputs
        membrane, spikes, weight, beta, theta = ctx.saved_tensors
        reset, surrogate, has_bias = ctx.constants
        if grad_spikes is None and grad_membrane is None:
            return (None,) * 7
        steps = membrane.shape[0]
        grad_x, from_spikes, arriving = (torch.empty_like(membrane) for _ in range(3))
        carry = again = None
        for t in range(steps - 1, -1, -1):
            grad = torch.zeros_like(membrane[0]) if grad_spikes is None else grad_spikes[t]
            grad = grad if again is None else grad + again
            u = membrane[t] - theta
            # the surrogates take (chips, steps, neurons): this step is one of them
            shaped = (part.reshape(1, 1, -1) for part in (u, grad, spikes[t]))
            from_spikes[t] = surrogate.gradient(*shaped).reshape(u.shape)
            past = None if grad_membrane is None else grad_membrane[t]
            if carry is not None:
                past = carry if past is None else past + carry
            lam = from_spikes[t] if past is None else past + from_spikes[t]
            arriving[t] = lam
            if reset == "zero" and t > 0:
                lam = lam - lam * spikes[t - 1]
            grad_x[t] = lam
            carry, again = lam * beta, lam @ weight
        neurons = membrane.shape[-1]
        later, before = grad_x[1:].reshape(-1, neurons), spikes[:-1].reshape(-1, neurons)
        grad_beta = (later * membrane[:-1].reshape(-1, neurons)).sum(0)
        grad_theta = -from_spikes.reshape(-1, neurons).sum(0)
        if reset == "subtract":
            grad_theta -= (arriving[1:].reshape(-1, neurons) * before).sum(0)
        grad_bias = grad_x.reshape(-1, neurons).sum(0) if has_bias else None
        return grad_x, later.t() @ before, grad_bias, grad_beta, grad_theta, None, None
