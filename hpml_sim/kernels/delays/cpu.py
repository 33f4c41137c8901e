"""Delays in numba on a CPU; the equations stand in `reference.py`.

A job is a block of neurons over all rows and steps, so that what it sums into a delay's gradient is its own. Each inner
loop writes one vector, or the compiler would use no vector instructions. What arrives is read from as many places as
there are delays: two thirds of the time goes there, once for each value, which is kept for the step after it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels.common.threads import allow_threads

_BLOCK = 1024


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _collect(values, start, offset, found):
    """Values at unsigned places: of signed ones numba asks whether they count from the end."""
    for n in range(len(found)):
        found[n] = values[start + offset[n]]


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _divided(rest, first, share, second, out):
    for n in range(len(out)):
        out[n] = rest[n] * first[n] + share[n] * second[n]


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _slope(x, soon, later, total):
    for n in range(len(total)):
        total[n] += x[n] * (later[n] - soon[n])


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _forward_job(job, x, whole, share, out):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    rows, steps, neurons = x.shape
    low = job * _BLOCK
    high = min(low + _BLOCK, neurons)
    values, late, f = x.reshape(x.size), whole[low:high], share[low:high]
    rest, longest = one - f, late.max()
    offset = ((longest - late) * neurons + np.arange(high - low)).astype(np.uint64)
    before, now = np.empty(high - low, x.dtype), np.empty(high - low, x.dtype)
    for c in range(rows):
        before[:] = zero
        for t in range(steps):
            if t >= longest:
                _collect(values, np.uint64((c * steps + t - longest) * neurons + low), offset, now)
            else:
                for n in range(high - low):
                    at = t - late[n]
                    now[n] = x[c, at, low + n] if at >= 0 else zero
            _divided(rest, now, f, before, out[c, t, low:high])
            before, now = now, before


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _backward_job(job, grad, x, whole, share, grad_x, grad_delay):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    rows, steps, neurons = x.shape
    low = job * _BLOCK
    high = min(low + _BLOCK, neurons)
    values, late, f = grad.reshape(grad.size), whole[low:high], share[low:high]
    rest, longest, total = one - f, late.max(), grad_delay[low:high]
    offset = (late * neurons + np.arange(high - low)).astype(np.uint64)
    soon, later = np.empty(high - low, x.dtype), np.empty(high - low, x.dtype)
    total[:] = zero
    for c in range(rows):
        for n in range(high - low):
            soon[n] = grad[c, late[n], low + n] if late[n] < steps else zero
        for t in range(steps):
            if t + longest + 1 < steps:
                _collect(values, np.uint64((c * steps + t + 1) * neurons + low), offset, later)
            else:
                for n in range(high - low):
                    at = t + late[n] + 1
                    later[n] = grad[c, at, low + n] if at < steps else zero
            _divided(rest, soon, f, later, grad_x[c, t, low:high])
            # this step's value arrives at t + k, or one step later: d/dd takes it from one to the other
            _slope(x[c, t, low:high], soon, later, total)
            soon, later = later, soon


@njit(cache=True, nogil=True)
def _forward_serial(jobs, x, whole, share, out):
    for job in range(jobs):
        _forward_job(job, x, whole, share, out)


@njit(cache=True, nogil=True, parallel=True)
def _forward_parallel(jobs, x, whole, share, out):
    for job in prange(jobs):
        _forward_job(job, x, whole, share, out)


@njit(cache=True, nogil=True)
def _backward_serial(jobs, grad, x, whole, share, grad_x, grad_delay):
    for job in range(jobs):
        _backward_job(job, grad, x, whole, share, grad_x, grad_delay)


@njit(cache=True, nogil=True, parallel=True)
def _backward_parallel(jobs, grad, x, whole, share, grad_x, grad_delay):
    for job in prange(jobs):
        _backward_job(job, grad, x, whole, share, grad_x, grad_delay)


def forward(x: Tensor, whole: Tensor, share: Tensor, out: Tensor) -> None:
    """Fill out.

    Args:
        x: values, shape (rows, steps, neurons).
        whole: whole steps of each delay, int64, shape (neurons,).
        share: the rest of it, shape (neurons,).
        out: result, shape (rows, steps, neurons).
    """
    run: Any = _forward_parallel if allow_threads(x.numel()) > 1 else _forward_serial
    run(-(-x.shape[2] // _BLOCK), *(tensor.detach().numpy() for tensor in (x, whole, share, out)))


def backward(grad: Tensor, x: Tensor, whole: Tensor, share: Tensor, grad_x: Tensor, grad_delay: Tensor) -> None:
    """Fill grad_x and grad_delay.

    Args:
        grad: gradient of the result, shape (rows, steps, neurons).
        x: values, shape (rows, steps, neurons).
        whole: whole steps of each delay, int64, shape (neurons,).
        share: the rest of it, shape (neurons,).
        grad_x: result, shape (rows, steps, neurons).
        grad_delay: result, shape (neurons,).
    """
    run: Any = _backward_parallel if allow_threads(x.numel()) > 1 else _backward_serial
    tensors = (grad, x, whole, share, grad_x, grad_delay)
    run(-(-x.shape[2] // _BLOCK), *(tensor.detach().numpy() for tensor in tensors))
