"""Leaky neurons in numba on a CPU; the equations stand in `reference.py`.

Time is the outer loop and neurons the inner one, in blocks that fit the cache. Each inner loop runs over vectors and
writes one of them, or the compiler would give up proving that they do not overlap and use no vector instructions
(eight times slower). `one` and `zero` have the data's type, or numba would compute in float64. beta and theta are
numbers where all neurons share them, which saves two of six reads, and arrays otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange, types
from numba.extending import overload
from torch import Tensor

from hpml_sim.kernels.common.threads import allow_threads
from hpml_sim.kernels.surrogates.reference import ATAN, FAST_SIGMOID

_BLOCK = 2048  # neurons a job: their four rows of one step stay in the first-level cache
_LONG_BLOCK = 8192  # where everything comes from memory: long rows suit the prefetcher better
_FITS_CACHE = 1 << 22  # elements
_LIGHT = 4  # an element costs a quarter of other kernels': 2^21 take one thread about 0.3 ms


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
    steep = membrane.dtype.type(np.pi / 2 * slope if kind == ATAN else slope)
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
        m = membrane[c, t, low:high]
        from_spike = grad_s[min(c, grad_s.shape[0] - 1), min(t, grad_s.shape[1] - 1), low:high]
        direct = grad_m[min(c, grad_m.shape[0] - 1), min(t, grad_m.shape[1] - 1), low:high]
        grad = spare[step % 2] if summed else grad_x[c, t, low:high]
        for n in range(m.size):
            u = m[n] - _of(bound, n)
            fired = one if m[n] > _of(bound, n) else zero
            # autograd's order: the membrane's own gradient, then what comes from the step after, then the spike's
            past = later[n] * _of(decay, n) * (one - fired * clears)
            if has_grad_m:
                past = direct[n] + past
            if kind == ATAN:
                v = steep * u
                grad[n] = past + one / (one + v * v) * half * from_spike[n]
            elif kind == FAST_SIGMOID:
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
        grad_spikes: gradient of the spikes, shape (chips or 1, steps or 1, neurons), of 1 where it is the same for all;
            with kind OTHER it has been multiplied by the surrogate's slope already.
        grad_membrane: gradient of the membrane potentials, of such a shape; None: there is none.
        membrane: potentials after each step, shape (chips, steps, neurons).
        beta: decay in one step, shape (neurons,) or (1,).
        theta: threshold, of beta's shape.
        reset: "subtract", "zero" or "none".
        kind: the surrogate: ATAN, FAST_SIGMOID or OTHER.
        slope: its parameter; not read if OTHER.
        grad_x: result, shape (chips, steps, neurons), or (chips, 1, neurons) for the sum over all steps.
    """
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
