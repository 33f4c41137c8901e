"""Leaky neurons on a CUDA device, or on numba's simulator (NUMBA_ENABLE_CUDASIM=1); the equations stand in `lif.py`.

One thread a neuron, time inside it: the threads of a warp read neighbours in memory at every step. Memory limits the
kernels (3 x 4 bytes a neuron and step each way against some twenty operations), and what keeps memory busy is how much
is asked for at once: a thread reads several steps into registers before it computes the first of them, because no
load may overtake the stores of the step before (for all that the compiler knows they may overlap).

The compiler would join products and sums into fused multiply-adds; libdevice's `_rn` operations round each on its own,
so that spikes and gradients equal those of the CPU bit for bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import cuda
from torch import Tensor

from hpml_sim.kernels._cuda import launch_each, unfused


def _ahead(neurons: int) -> int:
    """Steps that a thread reads ahead: few neurons leave multiprocessors idle when their threads need more registers.

    H200, share of a copy's bandwidth, forward: 4 million neurons 0.81 with 8 steps, 0.86 with 16; 131 thousand 0.78
    with 8, 0.72 with 16.
    """
    return 16 if neurons >= 1 << 20 else 8


@lru_cache(maxsize=4)
def _forward_kernel(double: bool, ahead: int) -> Any:
    real, mul, add, _ = unfused(double)
    zero, one = real(0), real(1)

    @cuda.jit
    def forward(x, beta, theta, subtracts, clears, spikes, membrane):
        thread = cuda.grid(1)  # pyright: ignore[reportCallIssue]
        steps = spikes.shape[1]
        last = x.shape[1] - 1
        c = thread // x.shape[2]
        n = thread - c * x.shape[2]
        if c >= x.shape[0]:
            return
        drive = cuda.local.array(ahead, real)
        decay = beta[n if beta.size > 1 else 0]
        bound = theta[n if theta.size > 1 else 0]
        m = zero
        for first in range(0, steps, ahead):
            for k in range(ahead):
                drive[k] = x[c, min(first + k, last), n]
            for k in range(ahead):
                if first + k < steps:
                    fired = one if m > bound else zero
                    kept = mul(add(one, -mul(fired, clears)), m)
                    m = add(add(mul(decay, kept), drive[k]), -mul(mul(fired, subtracts), bound))
                    membrane[c, first + k, n] = m
                    spikes[c, first + k, n] = one if m > bound else zero

    return forward


@lru_cache(maxsize=32)
def _backward_kernel(double: bool, ahead: int, kind: int, has_grad_m: bool) -> Any:
    real, mul, add, div = unfused(double)
    zero, one = real(0), real(1)

    @cuda.jit
    def backward(grad_s, grad_m, membrane, beta, theta, clears, half, steep, grad_x):
        thread = cuda.grid(1)  # pyright: ignore[reportCallIssue]
        last = membrane.shape[1] - 1
        c = thread // membrane.shape[2]
        n = thread - c * membrane.shape[2]
        if c >= membrane.shape[0]:
            return
        states = cuda.local.array(ahead, real)
        from_spikes = cuda.local.array(ahead, real)
        direct = cuda.local.array(ahead, real)
        decay = beta[n if beta.size > 1 else 0]
        bound = theta[n if theta.size > 1 else 0]
        summed = grad_x.shape[1] <= last  # one current for all steps
        later, total = zero, zero
        for first in range(0, last + 1, ahead):
            for k in range(ahead):
                t = max(last - first - k, 0)
                states[k] = membrane[c, t, n]
                from_spikes[k] = grad_s[c, t, n]
                if has_grad_m:
                    direct[k] = grad_m[c, t, n]
            for k in range(ahead):
                t = last - first - k
                if t >= 0:
                    u = add(states[k], -bound)
                    fired = one if u > zero else zero
                    past = mul(mul(later, decay), add(one, -mul(fired, clears)))
                    if has_grad_m:
                        past = add(direct[k], past)
                    if kind == 0:
                        v = mul(steep, u)
                        spike = mul(mul(div(one, add(one, mul(v, v))), half), from_spikes[k])
                    elif kind == 1:
                        v = add(mul(steep, abs(u)), one)
                        spike = div(from_spikes[k], mul(v, v))
                    else:
                        spike = from_spikes[k]
                    later = add(past, spike)
                    if summed:
                        total = add(total, later)
                    else:
                        grad_x[c, t, n] = later
        if summed:
            grad_x[c, 0, n] = total

    return backward


def forward(x: Tensor, beta: Tensor, theta: Tensor, reset: str, spikes: Tensor, membrane: Tensor) -> None:
    """Fill spikes and membrane, (chips, steps, neurons), for x (same, or one step); beta, theta (neurons,) or (1,)."""
    double = x.dtype == torch.float64
    real = np.float64 if double else np.float32
    subtracts, clears = real(reset == "subtract"), real(reset == "zero")
    threads = x.shape[0] * x.shape[2]
    launch_each(_forward_kernel(double, _ahead(threads)), threads, x, beta, theta, subtracts, clears, spikes, membrane)


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
    """Fill grad_x (or its sum, where it has one step) from the gradients of spikes and membrane (may be None)."""
    double = membrane.dtype == torch.float64
    real = np.float64 if double else np.float32
    threads = membrane.shape[0] * membrane.shape[2]
    launch_each(
        _backward_kernel(double, _ahead(threads), kind, grad_membrane is not None),
        threads,
        grad_spikes,
        grad_spikes if grad_membrane is None else grad_membrane,
        membrane,
        beta,
        theta,
        real(reset == "zero"),
        real(slope / 2),
        real(np.pi / 2 * slope if kind == 0 else slope),
        grad_x,
    )
