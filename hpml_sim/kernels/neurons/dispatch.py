"""The call of any neuron of `dynamics/`: what it takes, which implementation runs, the way back through autograd."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels.common.engines import Engine, choose_engine
from hpml_sim.kernels.common.memory import BLOCKS
from hpml_sim.kernels.common.vmapping import with_mapped_axis
from hpml_sim.kernels.neurons import cpu, reference
from hpml_sim.kernels.neurons.dynamics import DYNAMICS, Dynamics
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate
from hpml_sim.kernels.surrogates.cpu import write_over
from hpml_sim.kernels.surrogates.reference import FAST_SIGMOID, OTHER


def _implementation(engine: str) -> Any:
    """The module with `forward` and `backward` of an engine."""
    if engine == "torch":
        return reference
    if engine == "numba":
        return cpu
    from hpml_sim.kernels.neurons import cuda  # here, because not everyone has numba-cuda

    return cuda


def multistep(
    name: str,
    x: Tensor,
    parameters: dict[str, Tensor | float],
    *,
    surrogate: str | Surrogate | Gradient = "atan",
    start: Mapping[str, Tensor | float] | None = None,
    time_dim: int = 0,
    engine: Engine = "auto",
) -> tuple[Tensor, Tensor]:
    """Spikes and states of neurons over all steps; the equations stand in `dynamics/`.

    Args:
        name: a neuron in `DYNAMICS`.
        x: input current of each step, floating point; `steps` at `time_dim`, all other dimensions are neurons.
        parameters: every parameter of the neuron by name, broadcastable to the dimensions after time.
        surrogate: what stands in for the derivative of a spike: a name in `SURROGATES`, a `Surrogate`, or a function.
        start: initial states by name, each of x's shape without its time, or a number; 0 where none is given. May
            require gradients.
        time_dim: where time is, >= 0.
        engine: "numba" (CPU, float32 and float64), "numba-cuda" (CUDA device or numba's simulator, float32 and
            float64), "torch" (anything); "auto" picks the fastest for the tensor at hand.

    Returns:
        Spikes (0 or 1) of x's shape, and states (number of states, *x.shape) after each step.

    Raises:
        UnknownNameError: no neuron or engine has this name, or a parameter is too many or missing.
        HpmlError: x is not floating point, has no step, or does not fit the engine.
    """
    if name not in DYNAMICS:
        raise UnknownNameError("neuron", name, DYNAMICS)
    neuron = DYNAMICS[name]
    for given in (*parameters, *(p for p in neuron.parameters if p not in parameters)):
        if given not in neuron.parameters or given not in parameters:
            raise UnknownNameError(f"parameter of {name}", given, neuron.parameters)
    if not x.is_floating_point():
        raise HpmlError(f"{name}: x has dtype {x.dtype}; it must be floating point (x.float())")
    if x.dim() <= time_dim or x.shape[time_dim] < 1:
        raise HpmlError(f"{name}: x of shape {tuple(x.shape)} has no time step at dimension {time_dim}")
    engine = choose_engine(name, x, engine)
    after = x.shape[time_dim + 1 :]
    chips, steps, neurons = math.prod(x.shape[:time_dim]), x.shape[time_dim], math.prod(after)
    p = torch.stack(
        [
            torch.as_tensor(value, device=x.device, dtype=x.dtype).expand(after).reshape(neurons)
            for value in (parameters[key] for key in neuron.parameters)
        ]
    )
    given = start or {}
    initial = torch.stack(
        [
            torch.as_tensor(given.get(state, 0.0), device=x.device, dtype=x.dtype)
            .expand(x.shape[:time_dim] + after)
            .reshape(chips, neurons)
            for state in neuron.states
        ]
    )
    flat = x.reshape(chips, steps, neurons)
    gradient = as_surrogate(surrogate)

    def run(x: Tensor, p: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        return _Multistep.apply(x, p, initial, name, gradient, engine)  # type: ignore[no-any-return]

    spikes, states = with_mapped_axis(run, (0, None, 1), (0, 1), flat, p, initial, merge=True)
    return spikes.reshape(x.shape), states.reshape(len(neuron.states), *x.shape)


class _Multistep(torch.autograd.Function):
    """x (chips, steps, neurons), p (parameters, neurons), initial (states, chips, neurons) -> spikes, states."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, p: Tensor, initial: Tensor, name: str, surrogate: Surrogate, engine: str
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        x, p = x.contiguous(), p.contiguous()
        chips, steps, neurons = x.shape
        states = BLOCKS.empty((len(initial), chips, steps + 1, neurons), x)
        states[:, :, 0] = initial
        spikes = BLOCKS.empty(x.shape, x)
        if x.numel() and not x.is_meta:
            _implementation(engine).forward(name, x, states, p, spikes)
        ctx.save_for_backward(states, p, spikes)
        ctx.constants = (name, surrogate, engine)
        return spikes, states[:, :, 1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_spikes, grad_states = grad_outputs
        states, p, spikes = ctx.saved_tensors
        name, surrogate, engine = ctx.constants
        if grad_spikes is None and grad_states is None:
            return (None,) * 6
        neuron = DYNAMICS[name]
        grad = torch.zeros_like(spikes) if grad_spikes is None else grad_spikes.contiguous()
        u = neuron.excess(states, p)
        if engine == "numba" and surrogate.compiled[0] != OTHER:
            # in one pass and in place: u is ours
            kind, parameter = surrogate.compiled
            slope, divides = u.contiguous(), neuron.attached and kind == FAST_SIGMOID
            write_over(slope.view(-1).numpy(), grad.view(-1).numpy(), neuron.attached, kind, parameter)
            grad = grad if neuron.attached else slope
        elif neuron.attached:
            slope, divides = surrogate.slopes(u, spikes)
        else:
            grad, divides = surrogate.gradient(u, grad, spikes), False
            slope = grad
        direct = None if grad_states is None else grad_states.contiguous()
        grad_x = BLOCKS.empty(spikes.shape, spikes)
        chips, _, neurons = spikes.shape
        later = spikes.new_zeros(len(neuron.states) + 1, chips, neurons)
        grads = spikes.new_zeros(len(neuron.parameters), chips, neurons)
        if spikes.numel():
            back = (name, divides, grad.contiguous(), slope.contiguous(), direct, states, p, later, grads, grad_x)
            _implementation(engine).backward(*back)
        grad_p = grads.sum(1) if ctx.needs_input_grad[1] else None
        grad_initial = None
        if ctx.needs_input_grad[2]:
            grad_initial = later[:-1]
            if neuron.attached:
                into_p, into_states = _through_first_spike(neuron, surrogate, p, states[:, :, 0], later[-1])
                grad_p = into_p if grad_p is None else grad_p + into_p
                grad_initial = grad_initial + into_states
        return grad_x, grad_p, grad_initial, None, None, None


def _through_first_spike(
    neuron: Dynamics, surrogate: Surrogate, p: Tensor, initial: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """What the spike of the step before the first one, known only by its states, passes on: (to p, to the states)."""
    with torch.enable_grad():
        p, initial = p.detach().requires_grad_(), initial.detach().requires_grad_()
        u = neuron.excess(initial[:, :, None].expand(-1, -1, 2, -1), p)  # `excess` leaves slot 0 out
        value = u.detach()
        passed = surrogate.gradient(value, grad[:, None], (value > 0).to(u.dtype))
        into_p, into_states = torch.autograd.grad(u, (p, initial), passed)
    return into_p, into_states
