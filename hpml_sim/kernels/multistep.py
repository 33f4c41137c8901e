"""Any neuron of `dynamics.py` over all time steps in one pass: torch reference, numba CPU and numba-CUDA.

Kernels are made from the neuron's step when it is first used: about two seconds a neuron and type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels._engines import Engine, choose_engine
from hpml_sim.kernels._memory import BLOCKS
from hpml_sim.kernels._threads import allow_threads
from hpml_sim.kernels.dynamics import DYNAMICS, Dynamics
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate

_BLOCK = 256  # neurons a job


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
    """Spikes and states of neurons over all steps; the equations stand in `dynamics.py`.

    Args:
        name: a neuron in `DYNAMICS`.
        x: input current of each step, floating point; `steps` at `time_dim`, all other dimensions are neurons.
        parameters: every parameter of the neuron by name, broadcastable to the dimensions after time.
        surrogate: the spike's gradient.
        start: initial states by name, each of x's shape without its time, or a number; 0 where none is given. May
            require gradients.
        time_dim: where time is, >= 0.
        engine: as for `lif.leaky`.

    Returns:
        spikes (0 or 1) of x's shape, and states (number of states, *x.shape) after each step.

    Raises:
        UnknownNameError: the neuron, or a parameter too many or missing. HpmlError: x does not fit.
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
    engine = choose_engine(x, engine)
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
    spikes, states = _Multistep.apply(flat, p, initial, name, as_surrogate(surrogate), engine)  # type: ignore[misc]
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
            _FORWARD[engine](name, x, states, p, spikes)
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
        if engine == "numba" and surrogate.compiled[0] < 2:
            # in one pass and in place: u is ours
            kind, parameter = surrogate.compiled
            slope, divides = u.contiguous(), neuron.attached and kind == 1
            _numba_surrogate(slope.view(-1).numpy(), grad.view(-1).numpy(), neuron.attached, kind, parameter)
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
            _BACKWARD[engine](*back)
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


# ------------------------------------------------------------------------------------------------------ torch reference


def _torch_step(name: str, divides: bool) -> Any:
    return DYNAMICS[name].make(
        torch.mul, torch.add, lambda a, b: (a > b).to(a.dtype), torch.div if divides else torch.mul
    )


def _torch_forward(name: str, x: Tensor, states: Tensor, p: Tensor, spikes: Tensor) -> None:
    step, _ = _torch_step(name, False)
    everything = slice(None)
    for t in range(x.shape[1]):
        spikes[:, t] = step(x[:, t], states, everything, t, everything, p)


def _torch_backward(
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
    _, back = _torch_step(name, divides)
    every = slice(None)
    for t in range(grad.shape[1] - 1, -1, -1):
        if direct is not None:
            later[:-1] = direct[:, :, t] + later[:-1]
        grad_x[:, t] = back(grad[:, t], slope[:, t], states, every, t, every, p, later, grads)


# ----------------------------------------------------------------------------------------------------------- numba CPU


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _numba_surrogate(u, grad, slopes, kind, parameter):
    """Surrogate.gradient, or with `slopes` Surrogate.slopes, of atan (0) and fast_sigmoid (1), written over u."""
    one = u.dtype.type(1)
    half = u.dtype.type(parameter / 2)
    steep = u.dtype.type(np.pi / 2 * parameter if kind == 0 else parameter)
    if kind == 0:
        for n in range(u.size):
            v = steep * u[n]
            u[n] = one / (one + v * v) * half
        if not slopes:
            for n in range(u.size):
                u[n] *= grad[n]
    else:
        for n in range(u.size):
            v = steep * abs(u[n]) + one
            u[n] = v * v
        if not slopes:
            for n in range(u.size):
                u[n] = grad[n] / u[n]


@lru_cache(maxsize=64)
def _numba_kernels(name: str, double: bool, divides: bool, threads: bool) -> tuple[Any, Any]:
    real = np.float64 if double else np.float32
    zero, one = real(0), real(1)
    jit = njit(nogil=True, error_model="numpy")
    mul, add = jit(lambda a, b: a * b), jit(lambda a, b: a + b)
    above = jit(lambda a, b: one if a > b else zero)
    apply = jit(lambda g, s: g / s) if divides else mul
    step, back = (jit(function) for function in DYNAMICS[name].make(mul, add, above, apply))
    block = _BLOCK

    @jit
    def forward_block(x, states, p, spikes, c, low, high):
        for t in range(x.shape[1]):
            for n in range(low, high):
                spikes[c, t, n] = step(x[c, t, n], states, c, t, n, p)

    @jit
    def backward_block(grad, slope, direct, has_direct, states, p, later, grads, grad_x, c, low, high):
        for reverse in range(grad.shape[1]):
            t = grad.shape[1] - 1 - reverse
            if has_direct:
                for k in range(direct.shape[0]):
                    for n in range(low, high):
                        later[k, c, n] = direct[k, c, t, n] + later[k, c, n]
            for n in range(low, high):
                grad_x[c, t, n] = back(grad[c, t, n], slope[c, t, n], states, c, t, n, p, later, grads)

    def forward(x, states, p, spikes):
        blocks = (x.shape[2] + block - 1) // block
        for job in prange(x.shape[0] * blocks):
            low = (job % blocks) * block
            forward_block(x, states, p, spikes, job // blocks, low, min(low + block, x.shape[2]))

    def backward(grad, slope, direct, has_direct, states, p, later, grads, grad_x):
        blocks = (grad.shape[2] + block - 1) // block
        for job in prange(grad.shape[0] * blocks):
            low = (job % blocks) * block
            high = min(low + block, grad.shape[2])
            backward_block(grad, slope, direct, has_direct, states, p, later, grads, grad_x, job // blocks, low, high)

    outer = njit(nogil=True, parallel=threads)
    return outer(forward), outer(backward)


def _numba_forward(name: str, x: Tensor, states: Tensor, p: Tensor, spikes: Tensor) -> None:
    run, _ = _numba_kernels(name, x.dtype == torch.float64, False, allow_threads(x.numel()) > 1)
    run(*(tensor.detach().numpy() for tensor in (x, states, p, spikes)))


def _numba_backward(
    name: str, divides: bool, grad: Tensor, slope: Tensor, direct: Tensor | None, *rest: Tensor
) -> None:
    _, run = _numba_kernels(name, grad.dtype == torch.float64, divides, allow_threads(grad.numel()) > 1)
    has_direct = direct is not None
    some = direct if direct is not None else grad.new_empty(1, 1, 1, 1)
    arrays = [tensor.detach().numpy() for tensor in (grad, slope, some)]
    run(*arrays, has_direct, *(tensor.detach().numpy() for tensor in rest))


# ---------------------------------------------------------------------------------------------------------- numba-CUDA


def _cuda_forward(*arguments: Any) -> None:
    from hpml_sim.kernels import multistep_cuda  # in a file of its own, because not everyone has numba-cuda

    multistep_cuda.forward(*arguments)


def _cuda_backward(*arguments: Any) -> None:
    from hpml_sim.kernels import multistep_cuda

    multistep_cuda.backward(*arguments)


_FORWARD = {"torch": _torch_forward, "numba": _numba_forward, "numba-cuda": _cuda_forward}
_BACKWARD = {"torch": _torch_backward, "numba": _numba_backward, "numba-cuda": _cuda_backward}
