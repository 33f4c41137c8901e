"""Leaky neurons on a CUDA device, or on numba's simulator (NUMBA_ENABLE_CUDASIM=1); the equations stand in `lif.py`.

One thread a neuron, time inside it: the threads of a warp read neighbours in memory at every step. The compiler would
join products and sums into fused multiply-adds; libdevice's `_rn` operations round each on its own, so that spikes and
gradients equal those of the CPU bit for bit.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import cuda
from torch import Tensor

from hpml_sim.kernels._cuda import launch_each, unfused


@lru_cache(maxsize=2)
def _kernels(double: bool) -> tuple[Any, Any]:
    """The forward and the backward kernel for float64 or float32."""
    real, mul, add, div = unfused(double)
    zero, one = real(0), real(1)

    @cuda.jit
    def forward(x, beta, theta, subtracts, clears, spikes, membrane):
        thread = cuda.grid(1)  # pyright: ignore[reportCallIssue]
        c = thread // x.shape[2]
        n = thread - c * x.shape[2]
        if c >= x.shape[0]:
            return
        m = zero
        for t in range(x.shape[1]):
            fired = one if m > theta[n] else zero
            kept = mul(add(one, -mul(fired, clears)), m)
            m = add(add(mul(beta[n], kept), x[c, t, n]), -mul(mul(fired, subtracts), theta[n]))
            membrane[c, t, n] = m
            spikes[c, t, n] = one if m > theta[n] else zero

    @cuda.jit
    def backward(grad_s, grad_m, has_grad_m, membrane, beta, theta, clears, kind, half, steep, grad_x):
        thread = cuda.grid(1)  # pyright: ignore[reportCallIssue]
        c = thread // membrane.shape[2]
        n = thread - c * membrane.shape[2]
        if c >= membrane.shape[0]:
            return
        later = zero
        for step in range(membrane.shape[1]):
            t = membrane.shape[1] - 1 - step
            u = add(membrane[c, t, n], -theta[n])
            grad = grad_m[c, t, n] if has_grad_m else zero
            if step > 0:
                fired = one if u > zero else zero
                grad = add(grad, mul(mul(later, beta[n]), add(one, -mul(fired, clears))))
            if kind == 0:
                v = mul(steep, u)
                from_spike = mul(mul(div(one, add(one, mul(v, v))), half), grad_s[c, t, n])
            elif kind == 1:
                v = add(mul(steep, abs(u)), one)
                from_spike = div(grad_s[c, t, n], mul(v, v))
            else:
                from_spike = grad_s[c, t, n]
            later = add(grad, from_spike)
            grad_x[c, t, n] = later

    return forward, backward


def forward(x: Tensor, beta: Tensor, theta: Tensor, reset: str, spikes: Tensor, membrane: Tensor) -> None:
    """Fill spikes and membrane for x, all (chips, steps, neurons); beta and theta (neurons,)."""
    double = x.dtype == torch.float64
    real = np.float64 if double else np.float32
    kernel, _ = _kernels(double)
    launch_each(
        kernel,
        x.shape[0] * x.shape[2],
        x,
        beta,
        theta,
        real(reset == "subtract"),
        real(reset == "zero"),
        spikes,
        membrane,
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
    """Fill grad_x from the gradients of spikes and membrane (may be None), all (chips, steps, neurons)."""
    double = membrane.dtype == torch.float64
    real = np.float64 if double else np.float32
    _, kernel = _kernels(double)
    launch_each(
        kernel,
        membrane.shape[0] * membrane.shape[2],
        grad_spikes,
        grad_spikes if grad_membrane is None else grad_membrane,
        grad_membrane is not None,
        membrane,
        beta,
        theta,
        real(reset == "zero"),
        kind,
        real(slope / 2),
        real(np.pi / 2 * slope if kind == 0 else slope),
        grad_x,
    )
