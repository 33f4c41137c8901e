"""Neurons that get back each other's spikes, in torch: one product a step, everything else in place.

P is the recurrent connection, linear in the spikes S of the step before (a matrix, a convolution, a factor a neuron):

    leaky      v = (beta m + x) + P(S)
    synaptic   i' = (alpha i + x) + P(S);  v = beta m + i'

    delayed    m' = v - v R (zero), v - R theta (subtract), v (none);  S' = H(m' - theta);  R = H(m - theta) = S
    at once    S' = H(v - theta);  m' = v - v S' (zero), v - S' theta (subtract)

R is held constant, S in the product and S' at once are differentiated, as in snnTorch 1.0's `RLeaky` and `RSynaptic`,
which this equals: spikes and states bit for bit, gradients to the order of their sums (the weights' is one product over
all steps). Two are mended: snnTorch's RSynaptic with reset_delay=False raises, and "subtract" at once leaves a neuron
silent above its threshold there.

There is no compiled kernel: the product in every step belongs to the device's library (BLAS, cuDNN).

Source: snntorch 1.0.0, `_neurons/rleaky.py` and `_neurons/rsynaptic.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.vmapping import with_mapped_axis
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate

Product = Callable[..., Tensor]
"""(spikes, *weights) -> currents of the same shape, linear in the spikes, whatever dimensions stand in front."""


def recurrent(
    x: Tensor,
    product: Product,
    weights: tuple[Tensor, ...],
    beta: Tensor | float,
    threshold: Tensor | float,
    *,
    alpha: Tensor | float | None = None,
    reset: str = "subtract",
    reset_delay: bool = True,
    surrogate: str | Surrogate | Gradient = "atan",
    start: Mapping[str, Tensor] | None = None,
    time_dim: int = 0,
) -> tuple[Tensor, ...]:
    """Spikes and states over all steps.

    Args:
        x: currents, floating point, steps at `time_dim`; all other dimensions are neurons.
        product: the recurrent connection, called as product(spikes, *weights) on one step and on all of them.
        weights: what it learns; may require gradients.
        beta: decay of the membrane in one step, in [0, 1], broadcastable to x without its time; may require gradients.
        threshold: theta, broadcastable to x without its time; may require gradients.
        alpha: decay of the synaptic current in one step, in [0, 1], broadcastable to x without its time; may require
            gradients. None: the neurons have no such current (leaky).
        reset: what a spike does to the membrane: "subtract" takes one threshold, "zero" sets it to 0, "none" nothing.
        reset_delay: whether the reset acts at the next step and is not differentiated. If false, it acts in the step of
            the spike and is differentiated.
        surrogate: what stands in for the derivative of a spike: a name in `SURROGATES`, a `Surrogate`, or a function.
        start: "spikes", "current" and "membrane" before the first step, of x's shape without its time; 0 where none is
            given. May require gradients.
        time_dim: where time is, >= 0.

    Returns:
        Spikes, (with alpha) synaptic currents, and membrane potentials, each of x's shape.

    Raises:
        HpmlError: x is not floating point, has no step, or the product gives another shape.
    """
    if not x.is_floating_point():
        raise HpmlError(f"recurrent: x has dtype {x.dtype}; it must be floating point (x.float())")
    if x.dim() <= time_dim or x.shape[time_dim] < 1:
        raise HpmlError(f"recurrent: x of shape {tuple(x.shape)} has no time step at dimension {time_dim}")
    in_time = x.movedim(time_dim, 0)
    rest = torch.zeros_like(in_time[0])
    with torch.no_grad():
        try:
            fits = product(rest, *weights).shape == rest.shape
        except RuntimeError:
            fits = False
    if not fits:
        raise HpmlError(
            f"recurrent: the connection does not take the spikes of {tuple(rest.shape)} to currents of that shape; "
            f"its weights are {[tuple(weight.shape) for weight in weights]}"
        )
    given = start or {}
    states = [given.get(name, rest) for name in ("spikes", "current", "membrane")]
    constants = (product, reset, reset_delay, as_surrogate(surrogate))
    shared = [
        None if value is None else torch.as_tensor(value, dtype=x.dtype, device=x.device)
        for value in (alpha, beta, threshold)
    ]

    def run(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        return _Recurrent.apply(constants, *tensors)  # type: ignore[no-any-return]

    axes = (1, 0, 0, 0, *(None,) * (len(shared) + len(weights)))
    out = with_mapped_axis(run, axes, (1, 1, 1), in_time, *states, *shared, *weights, merge=False)
    return tuple(part.movedim(0, time_dim) for part in out if part is not None)  # type: ignore[union-attr]


class _Recurrent(torch.autograd.Function):
    """x (steps, ...), states (...), parameters and weights -> spikes, currents or None, membranes: (steps, ...)."""

    @staticmethod
    def forward(
        ctx: Any,
        constants: tuple[Product, str, bool, Surrogate],
        x: Tensor,
        spikes_before: Tensor,
        current_before: Tensor,
        membrane_before: Tensor,
        alpha: Tensor | None,
        beta: Tensor,
        theta: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        product, reset, late, _ = constants
        longer = (x.shape[0] + 1, *x.shape[1:])
        spikes, membrane = x.new_empty(longer), x.new_empty(longer)  # slot 0: before the first step
        spikes[0], membrane[0] = spikes_before, membrane_before
        current = None if alpha is None else x.new_empty(longer)
        if current is not None:
            current[0] = current_before
        reached = None if late else x.new_empty(x.shape)  # the membrane before it is reset at once
        fired = spikes_before.clone()  # never a view: matrix products round otherwise where memory is not aligned
        for t in range(x.shape[0]):
            m = membrane[t]
            if alpha is None or current is None:
                v = (beta * m).add_(x[t]).add_(product(fired, *weights))
            else:
                current[t + 1] = (alpha * current[t]).add_(x[t]).add_(product(fired, *weights))
                v = (beta * m).add_(current[t + 1])
            if reached is not None:
                reached[t] = v
                fired = (v > theta).to(x.dtype)
            if reset == "subtract":
                v -= fired * theta
            elif reset == "zero":
                v -= v * fired
            if late:
                fired = (v > theta).to(x.dtype)
            membrane[t + 1], spikes[t + 1] = v, fired
        ctx.save_for_backward(spikes, current, membrane, reached, alpha, beta, theta, *weights)
        ctx.constants = constants
        return spikes[1:], None if current is None else current[1:], membrane[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        spikes, current, membrane, reached, alpha, beta, theta, *weights = ctx.saved_tensors
        product, reset, late, surrogate = ctx.constants
        steps = spikes.shape[0] - 1
        into_spikes, into_current, into_membrane = (
            torch.zeros_like(spikes[1:]) if grad is None else grad for grad in grad_outputs
        )
        u = (membrane[1:] if late else reached) - theta
        grad_x, grad_v, grad_theta = (torch.empty_like(u) for _ in range(3))
        again = carry = carry_current = torch.zeros_like(u[0])
        # linear in the spikes: one graph serves every step
        with torch.enable_grad():
            probe = torch.zeros_like(u[0]).requires_grad_()
            fed_back = product(probe, *weights)
        for t in range(steps - 1, -1, -1):
            fired = spikes[t] if late else spikes[t + 1]
            g_m = into_membrane[t] + carry
            g_s = into_spikes[t] + again
            if not late and reset != "none":  # the spike takes from the membrane at once, and that is differentiated
                g_s = g_s - g_m * (reached[t] if reset == "zero" else theta)
            # the surrogates take (chips, steps, neurons): this step is one of them
            shaped = (part.reshape(1, 1, -1) for part in (u[t], g_s, spikes[t + 1]))
            from_spike = surrogate.gradient(*shaped).reshape(g_s.shape)
            lam = g_m + from_spike if late else g_m
            grad_theta[t] = -from_spike
            if reset == "subtract":
                grad_theta[t] -= lam * fired
            elif reset == "zero":
                lam = lam - lam * fired
            grad_v[t] = lam if late else lam + from_spike
            carry = grad_v[t] * beta
            grad_x[t] = grad_v[t]
            if alpha is not None:
                grad_x[t] += into_current[t] + carry_current
                carry_current = grad_x[t] * alpha
            again = torch.autograd.grad(fed_back, probe, grad_x[t], retain_graph=True)[0]
        grad_alpha = None if alpha is None else (grad_x * current[:-1]).sum(0).sum_to_size(alpha.shape)
        grad_beta = (grad_v * membrane[:-1]).sum(0).sum_to_size(beta.shape)
        grad_theta = grad_theta.sum(0).sum_to_size(theta.shape)
        found: tuple[Tensor, ...] = ()
        if any(ctx.needs_input_grad[8:]):
            with torch.enable_grad():
                copies = [weight.detach().requires_grad_() for weight in weights]
                wanted = [copy for copy, needed in zip(copies, ctx.needs_input_grad[8:], strict=True) if needed]
                found = torch.autograd.grad(product(spikes[:-1], *copies), wanted, grad_x)
        grads = iter(found)
        grad_weights = (next(grads) if needed else None for needed in ctx.needs_input_grad[8:])
        states = (again, None if alpha is None else carry_current, carry)
        return None, grad_x, *states, grad_alpha, grad_beta, grad_theta, *grad_weights
