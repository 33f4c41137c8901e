"""Delays on a CUDA device, or on numba's simulator (NUMBA_ENABLE_CUDASIM=1); the equations stand in `reference.py`.

One thread a neuron and row, time inside it: the threads of a warp read neighbors in memory wherever their delays are
equal. A value is read once and kept for the next step. Arithmetic intensity 3 FLOP on 8 bytes: memory limits it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba.cuda
import torch
from torch import Tensor

from hpml_sim.kernels.common.cuda_arithmetic import unfused, unsigned
from hpml_sim.kernels.common.cuda_launch import launch_each

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write


@lru_cache(maxsize=2)
def _arrive_kernel(double: bool) -> Any:
    real, mul, add, _ = unfused(double)
    zero, one = real(0), real(1)

    @cuda.jit
    def arrive(x, whole, share, rows, steps, neurons, out):
        neurons, steps = unsigned(neurons), unsigned(steps)
        thread = unsigned(cuda.grid(1))
        c = thread // neurons
        n = thread - c * neurons
        if c >= unsigned(rows):
            return
        f, k = share[n], unsigned(whole[n])
        start = c * steps * neurons + n
        before = zero
        for t in range(steps):
            now = zero
            if unsigned(t) >= k:
                now = x[start + (unsigned(t) - k) * neurons]
            out[start + unsigned(t) * neurons] = add(mul(add(one, -f), now), mul(f, before))
            before = now

    return arrive


@lru_cache(maxsize=2)
def _return_kernel(double: bool) -> Any:
    real, mul, add, _ = unfused(double)
    zero, one = real(0), real(1)

    @cuda.jit
    def give_back(grad, x, whole, share, rows, steps, neurons, grad_x, sums):
        neurons, steps = unsigned(neurons), unsigned(steps)
        thread = unsigned(cuda.grid(1))
        c = thread // neurons
        n = thread - c * neurons
        if c >= unsigned(rows):
            return
        f, k = share[n], unsigned(whole[n])
        start = c * steps * neurons + n
        soon, total = zero, zero
        if k < steps:
            soon = grad[start + k * neurons]
        for t in range(steps):
            later = zero
            if unsigned(t) + k + unsigned(1) < steps:
                later = grad[start + (unsigned(t) + k + unsigned(1)) * neurons]
            grad_x[start + unsigned(t) * neurons] = add(mul(add(one, -f), soon), mul(f, later))
            total = add(total, mul(x[start + unsigned(t) * neurons], add(later, -soon)))
            soon = later
        sums[c * neurons + n] = total

    return give_back


def forward(x: Tensor, whole: Tensor, share: Tensor, out: Tensor) -> None:
    """Fill out.

    Args:
        x: values, shape (rows, steps, neurons).
        whole: whole steps of each delay, int64, shape (neurons,).
        share: the rest of it, shape (neurons,).
        out: result, shape (rows, steps, neurons).
    """
    rows, steps, neurons = x.shape
    kernel = _arrive_kernel(x.dtype == torch.float64)
    launch_each(kernel, rows * neurons, x.view(-1), whole, share, rows, steps, neurons, out.view(-1))


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
    rows, steps, neurons = x.shape
    sums = x.new_empty(rows, neurons)
    kernel = _return_kernel(x.dtype == torch.float64)
    sizes = (rows, steps, neurons)
    launch_each(kernel, rows * neurons, grad.view(-1), x.view(-1), whole, share, *sizes, grad_x.view(-1), sums.view(-1))
    grad_delay.copy_(sums.sum(0))
