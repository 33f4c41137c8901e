"""Any neuron of `dynamics/` in numba on a CPU.

A kernel is made from the neuron's step when it is first used: about two seconds a neuron and type. Neurons go in blocks
whose states stay in the first-level cache from one step to the next.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels.common.threads import allow_threads
from hpml_sim.kernels.neurons.dynamics import DYNAMICS

_BLOCK = 256  # neurons a job


@lru_cache(maxsize=64)
def _kernels(name: str, double: bool, divides: bool, threads: bool) -> tuple[Any, Any]:
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


def forward(name: str, x: Tensor, states: Tensor, p: Tensor, spikes: Tensor) -> None:
    """Fill spikes and states.

    Args:
        name: a neuron in `DYNAMICS`.
        x: input currents, shape (chips, steps, neurons).
        states: slot 0 is given, the others are results, shape (states, chips, steps + 1, neurons).
        p: the neuron's parameters, shape (parameters, neurons).
        spikes: result, 0 or 1, shape (chips, steps, neurons).
    """
    run, _ = _kernels(name, x.dtype == torch.float64, False, allow_threads(x.numel()) > 1)
    run(*(tensor.detach().numpy() for tensor in (x, states, p, spikes)))


def backward(
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
    """Fill grad_x, and what the gradients of parameters and initial states are made of.

    Args:
        name: a neuron in `DYNAMICS`.
        divides: whether `slope` is a divisor.
        grad: gradient of the spikes, shape (chips, steps, neurons); times the surrogate's slope already, unless the
            spike is differentiated inside the neuron (`attached`).
        slope: the surrogate's slope, of grad's shape; read by neurons that are `attached` alone.
        direct: gradient of the states, shape (states, chips, steps, neurons); None: there is none.
        states: from `forward`, shape (states, chips, steps + 1, neurons).
        p: the neuron's parameters, shape (parameters, neurons).
        later: zeros, shape (states + 1, chips, neurons); becomes the gradients of the initial states, and behind them
            that of the spike before the first step.
        grads: zeros, shape (parameters, chips, neurons); becomes the gradients of the parameters, chip by chip.
        grad_x: result, shape (chips, steps, neurons).
    """
    _, run = _kernels(name, grad.dtype == torch.float64, divides, allow_threads(grad.numel()) > 1)
    has_direct = direct is not None
    some = direct if direct is not None else grad.new_empty(1, 1, 1, 1)  # numba wants an array, which nothing reads
    arrays = [tensor.detach().numpy() for tensor in (grad, slope, some)]
    run(*arrays, has_direct, *(tensor.detach().numpy() for tensor in (states, p, later, grads, grad_x)))
