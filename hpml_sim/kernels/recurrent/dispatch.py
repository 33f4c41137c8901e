"""The call of recurrent neurons: what it takes, and whether the connection fits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.recurrent.reference import Product, Recurrent
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate


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
    """Spikes and states over all steps; the equations stand in `reference.py`.

    Args:
        x: currents, floating point, steps at `time_dim`; all other dimensions are neurons.
        product: the recurrent connection, called as product(spikes, *weights) on one step and on all of them.
        weights: what it learns; may require gradients.
        beta: decay of the membrane in one step, in [0, 1], broadcastable to x without its time; may require gradients.
        threshold: theta, broadcastable to x without its time; may require gradients.
        alpha: decay of the synaptic current in one step, in [0, 1], broadcastable to x without its time; may require
            gradients. None: the neurons have no such current (leaky).
        reset: what a spike does to the membrane: "subtract" takes one threshold, "zero" sets it to 0, "none" nothing.
        reset_delay: true: the reset acts at the next step and is not differentiated; false: it acts in the step of the
            spike and is differentiated.
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
    out = Recurrent.apply(constants, in_time, *states, *shared, *weights)
    return tuple(part.movedim(0, time_dim) for part in out if part is not None)  # type: ignore[union-attr]
