"""The neurons of `dynamics.py` on a CUDA device, or on numba's simulator: one thread a neuron, nothing fused."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from numba import cuda
from torch import Tensor

from hpml_sim.kernels._cuda import SIMULATED, launch_each, unfused
from hpml_sim.kernels.dynamics import DYNAMICS


@lru_cache(maxsize=64)
def _kernels(name: str, double: bool, divides: bool) -> tuple[Any, Any]:
    real, mul, add, div = unfused(double)
    zero, one = real(0), real(1)

    def jit(function: Any) -> Any:
        return function if SIMULATED else cuda.jit(device=True)(function)

    above = jit(lambda a, b: one if a > b else zero)
    step, back = (jit(f) for f in DYNAMICS[name].make(mul, add, above, div if divides else mul))

    @cuda.jit
    def forward(x, states, p, spikes):
        thread = cuda.grid(1)  # pyright: ignore[reportCallIssue]
        c = thread // x.shape[2]
        n = thread - c * x.shape[2]
        if c >= x.shape[0]:
            return
        for t in range(x.shape[1]):
            spikes[c, t, n] = step(x[c, t, n], states, c, t, n, p)

    @cuda.jit
    def backward(grad, slope, direct, has_direct, states, p, later, grads, grad_x):
        thread = cuda.grid(1)  # pyright: ignore[reportCallIssue]
        c = thread // grad.shape[2]
        n = thread - c * grad.shape[2]
        if c >= grad.shape[0]:
            return
        for reverse in range(grad.shape[1]):
            t = grad.shape[1] - 1 - reverse
            if has_direct:
                for k in range(direct.shape[0]):
                    later[k, c, n] = add(direct[k, c, t, n], later[k, c, n])
            grad_x[c, t, n] = back(grad[c, t, n], slope[c, t, n], states, c, t, n, p, later, grads)

    return forward, backward


def forward(name: str, x: Tensor, *rest: Tensor) -> None:
    """Fill states and spikes; arguments as for the other engines."""
    kernel, _ = _kernels(name, x.dtype == torch.float64, False)
    launch_each(kernel, x.shape[0] * x.shape[2], x, *rest)


def backward(name: str, divides: bool, grad: Tensor, slope: Tensor, direct: Tensor | None, *rest: Tensor) -> None:
    """Fill the gradients; arguments as for the other engines."""
    _, kernel = _kernels(name, grad.dtype == torch.float64, divides)
    some = direct if direct is not None else grad.new_empty(1, 1, 1, 1)
    launch_each(kernel, grad.shape[0] * grad.shape[2], grad, slope, some, direct is not None, *rest)
