r"""Leaky integrate-and-fire neurons over all time steps in one pass: torch reference, numba CPU, numba-CUDA.

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

Source: snntorch 1.0.0, `_neurons/leaky.py` and `surrogate.py` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from numba import njit, prange, types
from numba.extending import overload
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels._engines import Engine, choose_engine
from hpml_sim.kernels._memory import BLOCKS
from hpml_sim.kernels._threads import allow_threads
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate

Reset = Literal["subtract", "zero", "none"]

RESETS: tuple[str, ...] = ("subtract", "zero", "none")
_BLOCK = 2048  # neurons a job: their four rows of one step stay in the first-level cache
_LONG_BLOCK = 8192  # where everything comes from memory: long rows suit the prefetcher better
_FITS_CACHE = 1 << 22  # elements
_LIGHT = 4  # an element costs a quarter of other kernels': 2^21 take one thread about 0.3 ms


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
    """Spikes and membrane potentials of leaky integrate-and-fire neurons over all steps; the equations stand above.

    Args:
        x: input current of each step, floating point; the shape has `steps` at `time_dim`, all other dimensions are
            neurons.
        beta: decay in one step, broadcastable to the dimensions after time; values outside [0, 1] are clamped, as
            snnTorch does. May require gradients.
        threshold: theta, likewise.
        reset: what a spike does to the membrane.
        surrogate: slope used for H on the way back: atan (alpha/2) / (1 + (pi/2 alpha u)^2), fast_sigmoid
            1 / (k |u| + 1)^2, or any other of `surrogates.py`, whose gradient is one more pass in torch.
        slope: its first parameter; None takes snnTorch's default.
        reset_delay: the reset acts at the next step and is not differentiated. False: in the step of the spike, and
            it is; membrane potentials are those after it (`immediate` in `dynamics.py`).
        start: membrane potentials before the first step, of x's shape without its time; None: 0. May require gradients.
        steps: so many steps with the same current: x has one step, which is neither copied nor given more than one
            gradient (the sum, from the last step to the first, as autograd forms it); None: as many as x has.
        time_dim: where time is, >= 0.
        engine: "numba" (CPU, float32 and float64), "numba-cuda" (CUDA device or numba's simulator, float32 and
            float64), "torch" (anything); "auto" picks the fastest for the tensor at hand.

    Returns:
        spikes (0 or 1) and membrane potentials, each of x's dtype and shape (with `steps` in its time, if given).

    Raises:
        HpmlError: x is not floating point, has no step or other than `steps`, or does not fit the engine.
        UnknownNameError: reset, surrogate.
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
    engine = choose_engine(x, engine)
    immediate = not reset_delay and reset != "none"
    steps = x.shape[time_dim] if steps is None else steps
    if immediate or start is not None:  # not constant, or no kernel for it
        x = x.expand(*x.shape[:time_dim], steps, *x.shape[time_dim + 1 :])
    if immediate:
        from hpml_sim.kernels.multistep import multistep

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
    spikes, membrane = (
        out.reshape(*before, steps, *after)
        for out in _Leaky.apply(flat, decay, theta, steps, reset, gradient, engine)  # type: ignore[misc]
    )
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
        _FORWARD[engine](x, beta, theta, reset, spikes, membrane)
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
        from_spikes = torch.zeros_like(membrane) if grad_spikes is None else grad_spikes.contiguous()
        kind, slope = surrogate.compiled
        if kind == 2:  # in torch, before the kernel, which then only adds it
            u = membrane - theta
            from_spikes = surrogate.gradient(u, from_spikes, (u > 0).to(u.dtype)).contiguous()
        direct = None if grad_membrane is None else grad_membrane.contiguous()
        learned = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]  # needs the gradient of every step
        grad_x = BLOCKS.empty(membrane.shape if learned else shape, membrane)
        _BACKWARD[engine](from_spikes, direct, membrane, beta, theta, reset, kind, slope, grad_x)
        grad_beta = grad_theta = None
        if learned:
            # Parameters are few and seldom learned: plain torch over what is there already.
            earlier, later = membrane[:, :-1], grad_x[:, 1:]
            fired = (earlier > theta).to(membrane.dtype)
            kept = earlier * (1 - fired) if reset == "zero" else earlier
            grad_beta = (later * kept).sum(dim=(0, 1))
            if kind != 2:
                u = membrane - theta
                from_spikes = surrogate.gradient(u, from_spikes, (u > 0).to(u.dtype))
            grad_theta = -from_spikes.sum(dim=(0, 1))
            if reset == "subtract":
                grad_theta = grad_theta - (later * fired).sum(dim=(0, 1))
            if beta.numel() == 1:
                grad_beta, grad_theta = grad_beta.sum().reshape(1), grad_theta.sum().reshape(1)
            if grad_x.shape != shape:
                grad_x = grad_x.sum(1, keepdim=True)
        return grad_x, grad_beta, grad_theta, None, None, None, None


# ------------------------------------------------------------------------------------------------------ torch reference


def _torch_forward(x: Tensor, beta: Tensor, theta: Tensor, reset: str, spikes: Tensor, membrane: Tensor) -> None:
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


def _torch_backward(
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
    summed = grad_x.shape[1] < membrane.shape[1]
    if summed:
        grad_x.zero_()
    later = torch.zeros_like(membrane[:, 0])
    for t in range(membrane.shape[1] - 1, -1, -1):
        m, grad = membrane[:, t], grad_spikes[:, t]
        u = m - theta
        if kind == 0:
            grad = (1 + (torch.pi / 2 * slope * u) ** 2).reciprocal() * (slope / 2) * grad
        elif kind == 1:
            grad = grad / (slope * u.abs() + 1) ** 2
        # autograd's order: the membrane's own gradient, then what comes from the step after, then the spike's
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


# ----------------------------------------------------------------------------------------------------------- numba CPU
#
# Time is the outer loop and neurons the inner one, in blocks that fit the cache. Each inner loop runs over vectors and
# writes one of them, or the compiler would give up proving that they do not overlap and use no vector instructions
# (eight times slower). `one` and `zero` have the data's type, or numba would compute in float64. beta and theta are
# numbers where all neurons share them, which saves two of six reads, and arrays otherwise.


def _of(value, n):
    """The value of neuron n, where `value` is one for each neuron or one for all."""
    return value[n] if isinstance(value, np.ndarray) else value


@overload(_of, inline="always")
def _compiled_of(value, n):
    if isinstance(value, types.Array):
        return lambda value, n: value[n]
    return lambda value, n: value


def _part(value, low, high):
    """Those of neurons low to high."""
    return value[low:high] if isinstance(value, np.ndarray) else value


@overload(_part, inline="always")
def _compiled_part(value, low, high):
    if isinstance(value, types.Array):
        return lambda value, low, high: value[low:high]
    return lambda value, low, high: value


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _forward_job(x, beta, theta, is_subtract, is_zero, block, job, spikes, membrane):
    one = x.dtype.type(1)
    zero = x.dtype.type(0)
    # One formula for the three resets: multiplying by 1 and subtracting 0 change no bit.
    subtracts = one if is_subtract else zero
    clears = one if is_zero else zero
    blocks = (x.shape[2] + block - 1) // block
    c = job // blocks
    low = (job - c * blocks) * block
    high = min(low + block, x.shape[2])
    decay, bound = _part(beta, low, high), _part(theta, low, high)
    before = np.zeros(high - low, x.dtype)
    for t in range(spikes.shape[1]):
        drive = x[c, min(t, x.shape[1] - 1), low:high]
        now, out = membrane[c, t, low:high], spikes[c, t, low:high]
        for n in range(drive.size):
            fired = one if before[n] > _of(bound, n) else zero
            kept = (one - fired * clears) * before[n]
            now[n] = _of(decay, n) * kept + drive[n] - fired * subtracts * _of(bound, n)
        for n in range(drive.size):
            out[n] = one if now[n] > _of(bound, n) else zero
        before = now


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _backward_job(grad_s, grad_m, has_grad_m, membrane, beta, theta, is_zero, kind, slope, block, job, grad_x):
    one = membrane.dtype.type(1)
    zero = membrane.dtype.type(0)
    clears = one if is_zero else zero
    half = membrane.dtype.type(slope / 2)
    steep = membrane.dtype.type(np.pi / 2 * slope if kind == 0 else slope)
    blocks = (membrane.shape[2] + block - 1) // block
    c = job // blocks
    low = (job - c * blocks) * block
    high = min(low + block, membrane.shape[2])
    decay, bound = _part(beta, low, high), _part(theta, low, high)
    later = np.zeros(high - low, membrane.dtype)
    summed = grad_x.shape[1] < membrane.shape[1]  # one current for all steps
    spare = np.empty((2, high - low if summed else 0), membrane.dtype)
    total = grad_x[c, 0, low:high]
    if summed:
        total[:] = zero
    for step in range(membrane.shape[1]):
        t = membrane.shape[1] - 1 - step
        m, from_spike, direct = membrane[c, t, low:high], grad_s[c, t, low:high], grad_m[c, t, low:high]
        grad = spare[step % 2] if summed else grad_x[c, t, low:high]
        for n in range(m.size):
            u = m[n] - _of(bound, n)
            fired = one if m[n] > _of(bound, n) else zero
            # autograd's order: the membrane's own gradient, then what comes from the step after, then the spike's
            past = later[n] * _of(decay, n) * (one - fired * clears)
            if has_grad_m:
                past = direct[n] + past
            if kind == 0:
                v = steep * u
                grad[n] = past + one / (one + v * v) * half * from_spike[n]
            elif kind == 1:
                v = steep * abs(u) + one
                grad[n] = past + from_spike[n] / (v * v)
            else:
                grad[n] = past + from_spike[n]
        if summed:
            for n in range(m.size):
                total[n] += grad[n]
        later = grad


@njit(cache=True, nogil=True)
def _forward_serial(jobs, x, beta, theta, is_subtract, is_zero, block, spikes, membrane):
    for job in range(jobs):
        _forward_job(x, beta, theta, is_subtract, is_zero, block, job, spikes, membrane)


@njit(cache=True, nogil=True, parallel=True)
def _forward_parallel(jobs, x, beta, theta, is_subtract, is_zero, block, spikes, membrane):
    for job in prange(jobs):
        _forward_job(x, beta, theta, is_subtract, is_zero, block, job, spikes, membrane)


@njit(cache=True, nogil=True)
def _backward_serial(jobs, grad_s, grad_m, has_grad_m, membrane, beta, theta, is_zero, kind, slope, block, grad_x):
    for job in range(jobs):
        _backward_job(grad_s, grad_m, has_grad_m, membrane, beta, theta, is_zero, kind, slope, block, job, grad_x)


@njit(cache=True, nogil=True, parallel=True)
def _backward_parallel(jobs, grad_s, grad_m, has_grad_m, membrane, beta, theta, is_zero, kind, slope, block, grad_x):
    for job in prange(jobs):
        _backward_job(grad_s, grad_m, has_grad_m, membrane, beta, theta, is_zero, kind, slope, block, job, grad_x)


def _split(x: Tensor, threads: int) -> tuple[int, int]:
    """Jobs, and neurons a job takes: few enough for the cache, and work for every thread."""
    chips, _, neurons = x.shape
    block = _BLOCK if x.numel() <= _FITS_CACHE else _LONG_BLOCK
    block = min(block, max(1, -(-neurons // threads)))
    return chips * -(-neurons // block), block


def _values(parameter: Tensor) -> Any:
    """An array for the kernels, or a number of the same type where there is one for all neurons."""
    array = parameter.detach().numpy()
    return array[0] if array.size == 1 else array


def _numba_forward(x: Tensor, beta: Tensor, theta: Tensor, reset: str, spikes: Tensor, membrane: Tensor) -> None:
    threads = allow_threads(spikes.numel() // _LIGHT)
    run = _forward_parallel if threads > 1 else _forward_serial
    jobs, block = _split(spikes, threads)
    run(
        jobs,
        x.detach().numpy(),
        _values(beta),
        _values(theta),
        reset == "subtract",
        reset == "zero",
        block,
        spikes.numpy(),
        membrane.numpy(),
    )


def _numba_backward(
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
    threads = allow_threads(membrane.numel() // _LIGHT)
    run = _backward_parallel if threads > 1 else _backward_serial
    direct = grad_spikes if grad_membrane is None else grad_membrane  # any array of the right type when there is none
    jobs, block = _split(membrane, threads)
    run(
        jobs,
        grad_spikes.detach().numpy(),
        direct.detach().numpy(),
        grad_membrane is not None,
        membrane.detach().numpy(),
        _values(beta),
        _values(theta),
        reset == "zero",
        kind,
        slope,
        block,
        grad_x.numpy(),
    )


# ---------------------------------------------------------------------------------------------------------- numba-CUDA


def _cuda() -> Any:
    """The CUDA kernels: in a file of their own, because not everyone has numba-cuda."""
    from hpml_sim.kernels import lif_cuda

    return lif_cuda


def _cuda_forward(x: Tensor, beta: Tensor, theta: Tensor, reset: str, spikes: Tensor, membrane: Tensor) -> None:
    _cuda().forward(x, beta, theta, reset, spikes, membrane)


def _cuda_backward(*arguments: Any) -> None:
    _cuda().backward(*arguments)


_FORWARD = {"torch": _torch_forward, "numba": _numba_forward, "numba-cuda": _cuda_forward}
_BACKWARD = {"torch": _torch_backward, "numba": _numba_backward, "numba-cuda": _cuda_backward}
