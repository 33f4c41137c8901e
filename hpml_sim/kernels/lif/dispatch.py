"""The call of leaky neurons: what it takes, which implementation runs, and the way back through torch.autograd."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels.common.arrays import expanded_parts
from hpml_sim.kernels.common.engines import Engine, choose_engine
from hpml_sim.kernels.common.memory import BLOCKS
from hpml_sim.kernels.common.vmapping import with_mapped_axis
from hpml_sim.kernels.lif import cpu, reference
from hpml_sim.kernels.neurons import multistep
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate
from hpml_sim.kernels.surrogates.reference import OTHER

Reset = Literal["subtract", "zero", "none"]

RESETS: tuple[str, ...] = ("subtract", "zero", "none")


def _implementation(engine: str) -> Any:
    """The module with `forward` and `backward` of an engine."""
    if engine == "torch":
        return reference
    if engine == "numba":
        return cpu
    from hpml_sim.kernels.lif import cuda  # here, because not everyone has numba-cuda

    return cuda


def leaky(
    x: Tensor,
    beta: Tensor | float,
    threshold: Tensor | float,
    *,
    reset: Reset = "subtract",
    surrogate: str | Surrogate | Gradient = "atan",
    slope: float | None = None,
    reset_delay: bool = True,
    start: Tensor | None = None,
    steps: int | None = None,
    time_dim: int = 0,
    engine: Engine = "auto",
) -> tuple[Tensor, Tensor]:
    """Spikes and membrane potentials of leaky integrate-and-fire neurons over all steps.

    The equations stand in `reference.py`.

    Args:
        x: input current of each step, floating point; the shape has `steps` at `time_dim`, all other dimensions are
            neurons.
        beta: decay in one step, broadcastable to the dimensions after time; values outside [0, 1] are clamped, as
            snnTorch does. May require gradients.
        threshold: theta, in the unit of the membrane potential, broadcastable to the dimensions after time. May require
            gradients.
        reset: what a spike does to the membrane: "subtract" takes one threshold, "zero" sets it to 0, "none" nothing.
        surrogate: what stands in for the derivative of H on the way back: a name in `SURROGATES`, a `Surrogate`, or a
            function. The kernels compute "atan" and "fast_sigmoid" themselves; any other is one more pass in torch.
        slope: the surrogate's first parameter; None takes snnTorch's default.
        reset_delay: whether the reset acts at the next step and is not differentiated. If false, it acts in the step of
            the spike and is differentiated, and membrane potentials are those after it
            (`neurons/dynamics/immediate.py`).
        start: membrane potentials before the first step, of x's shape without its time; None: 0. May require gradients.
        steps: so many steps with the same current: x has one step, which is neither copied nor given more than one
            gradient (the sum, from the last step to the first, as autograd forms it); None: as many as x has.
        time_dim: where time is, >= 0.
        engine: "numba" (CPU, float32 and float64), "numba-cuda" (CUDA device or numba's simulator, float32 and
            float64), "torch" (anything); "auto" picks the fastest for the tensor at hand.

    Returns:
        Spikes (0 or 1) and membrane potentials, each of x's dtype and shape (with `steps` in its time, if given).

    Raises:
        HpmlError: x is not floating point, has no step or other than `steps`, or does not fit the engine.
        UnknownNameError: no reset, surrogate or engine has this name.
    """
    if reset not in RESETS:
        raise UnknownNameError("reset", reset, RESETS)
    gradient = as_surrogate(surrogate, slope)
    if not x.is_floating_point():
        raise HpmlError(f"leaky: x has dtype {x.dtype}; it must be floating point (x.float())")
    if x.dim() <= time_dim or x.shape[time_dim] < 1:
        raise HpmlError(f"leaky: x of shape {tuple(x.shape)} has no time step at dimension {time_dim}")
    if steps is not None and (steps < 1 or x.shape[time_dim] not in (1, steps)):
        raise HpmlError(
            f"leaky: steps={steps!r}, but x of shape {tuple(x.shape)} has {x.shape[time_dim]} steps at dimension "
            f"{time_dim}; steps must be >= 1, and x have 1, for the same current at every step, or as many"
        )
    engine = choose_engine("leaky", x, engine)
    immediate = not reset_delay and reset != "none"
    steps = x.shape[time_dim] if steps is None else steps
    if immediate or start is not None:  # not constant, or no kernel for it
        x = x.expand(*x.shape[:time_dim], steps, *x.shape[time_dim + 1 :])
    if immediate:
        flags = {"subtracts": float(reset == "subtract"), "clears": float(reset == "zero")}
        values = {"beta": torch.as_tensor(beta).clamp(0, 1), "threshold": threshold, **flags}
        initial = {} if start is None else {"membrane": start}
        spikes, states = multistep(
            "immediate", x, values, surrogate=gradient, start=initial, time_dim=time_dim, engine=engine
        )
        return spikes, states[0]
    if start is not None:
        # a step from 0 whose current is the membrane potential ends there, to the last bit
        x = torch.cat([start.unsqueeze(time_dim), x], time_dim)
        steps += 1
    before, after = x.shape[:time_dim], x.shape[time_dim + 1 :]
    neurons = math.prod(after)
    flat = x.reshape(math.prod(before), x.shape[time_dim], neurons)
    values = [
        # made where x is: copying a number to a GPU would wait for everything before it
        (v if isinstance(v, Tensor) else torch.full((1,), v, device=x.device)).to(x)
        for v in (beta, threshold)
    ]
    values[0] = values[0].clamp(0, 1)
    if all(value.numel() == 1 for value in values):
        decay, theta = (value.reshape(1) for value in values)
    else:
        decay, theta = (value.expand(after).reshape(neurons) for value in values)

    def run(x: Tensor, beta: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        return _Leaky.apply(x, beta, theta, steps, reset, gradient, engine)  # type: ignore[no-any-return]

    found = with_mapped_axis(run, (0, None, None), (0, 0), flat, decay, theta, merge=True)
    spikes, membrane = (out.reshape(*before, steps, *after) for out in found)
    if start is None:
        return spikes, membrane
    return spikes.narrow(time_dim, 1, steps - 1), membrane.narrow(time_dim, 1, steps - 1)


class _Leaky(torch.autograd.Function):
    """x (chips, steps or 1, neurons), beta and theta both (neurons,) or both (1,) -> spikes, membrane."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, beta: Tensor, theta: Tensor, steps: int, reset: str, surrogate: Surrogate, engine: str
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        x, beta, theta = x.contiguous(), beta.contiguous(), theta.contiguous()
        shape = (x.shape[0], steps, x.shape[2])
        spikes, membrane = BLOCKS.empty(shape, x), BLOCKS.empty(shape, x)
        _implementation(engine).forward(x, beta, theta, reset, spikes, membrane)
        ctx.save_for_backward(membrane, beta, theta)
        ctx.constants = (x.shape, reset, surrogate, engine)
        return spikes, membrane

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_spikes, grad_membrane = grad_outputs
        membrane, beta, theta = ctx.saved_tensors
        shape, reset, surrogate, engine = ctx.constants
        if grad_spikes is None and grad_membrane is None:
            return (None,) * 7
        given = membrane.new_zeros(()).expand(membrane.shape) if grad_spikes is None else grad_spikes
        kind, slope = surrogate.compiled
        if kind == OTHER:  # in torch, before the kernel, which then only adds it
            u = membrane - theta
            given = surrogate.gradient(u, given, (u > 0).to(u.dtype))
        # that of a sum over steps is the same at each of them: our pass on a CPU needs no copy for every step
        whole = partial(expanded_parts, rows=True) if engine == "numba" else Tensor.contiguous
        from_spikes = whole(given)
        direct = None if grad_membrane is None else whole(grad_membrane)
        learned = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]  # needs the gradient of every step
        grad_x = BLOCKS.empty(membrane.shape if learned else shape, membrane)
        _implementation(engine).backward(from_spikes, direct, membrane, beta, theta, reset, kind, slope, grad_x)
        grad_beta = grad_theta = None
        if learned:
            # Parameters are few and seldom learned: plain torch over what is there already.
            earlier, later = membrane[:, :-1], grad_x[:, 1:]
            fired = (earlier > theta).to(membrane.dtype)
            kept = earlier * (1 - fired) if reset == "zero" else earlier
            grad_beta = (later * kept).sum(dim=(0, 1))
            if kind != OTHER:
                u = membrane - theta
                given = surrogate.gradient(u, given, (u > 0).to(u.dtype))
            grad_theta = -given.sum(dim=(0, 1))
            if reset == "subtract":
                grad_theta = grad_theta - (later * fired).sum(dim=(0, 1))
            if beta.numel() == 1:
                grad_beta, grad_theta = grad_beta.sum().reshape(1), grad_theta.sum().reshape(1)
            if grad_x.shape != shape:
                grad_x = grad_x.sum(1, keepdim=True)
        return grad_x, grad_beta, grad_theta, None, None, None, None
