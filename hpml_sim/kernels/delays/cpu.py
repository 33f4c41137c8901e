"""Delays in numba on a CPU; the equations stand in `reference.py`.

A job is a block of neurons over all rows and steps, so that what it sums into a delay's gradient is its own.
"""

from __future__ import annotations

from typing import Any

from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels.common.threads import allow_threads

_BLOCK = 1024


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _forward_job(job, x, whole, share, out):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    low = job * _BLOCK
    high = min(low + _BLOCK, x.shape[2])
    for c in range(x.shape[0]):
        for t in range(x.shape[1]):
            for n in range(low, high):
                at, f = t - whole[n], share[n]
                now = x[c, at, n] if at >= 0 else zero
                before = x[c, at - 1, n] if at >= 1 else zero
                out[c, t, n] = (one - f) * now + f * before


@njit(cache=True, nogil=True, fastmath=False, error_model="numpy")
def _backward_job(job, grad, x, whole, share, grad_x, grad_delay):
    zero, one = x.dtype.type(0), x.dtype.type(1)
    low = job * _BLOCK
    high = min(low + _BLOCK, x.shape[2])
    steps = x.shape[1]
    for n in range(low, high):
        grad_delay[n] = zero
    for c in range(x.shape[0]):
        for t in range(steps):
            for n in range(low, high):
                k, f = whole[n], share[n]
                soon = grad[c, t + k, n] if t + k < steps else zero
                later = grad[c, t + k + 1, n] if t + k + 1 < steps else zero
                grad_x[c, t, n] = (one - f) * soon + f * later
                # this step's value arrives at t + k, or one step later: d/dd takes it from one to the other
                grad_delay[n] += x[c, t, n] * (later - soon)


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
