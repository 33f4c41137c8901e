"""Delays in torch: the definition.

A neuron's values x[t] arrive d steps later, d = k + f with k whole and 0 <= f < 1. Between two steps they are divided:

    y[t] = (1 - f) x[t - k] + f x[t - k - 1],  x[t] = 0 for t < 0

Backwards, with g[t] = dL/dy[t]:

    dL/dx[t] = (1 - f) g[t + k] + f g[t + k + 1],  g[t] = 0 behind the last step
    dL/dd = sum over t of g[t] (x[t - k - 1] - x[t - k])

The three implementations (this one, `cpu.py`, `cuda.py`) have the same two functions on contiguous tensors.

Source: I. Hammouamri et al., ICLR 2024, arXiv:2306.17670 (delays that are learned by interpolation).
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(x: Tensor, whole: Tensor, share: Tensor, out: Tensor) -> None:
    """Fill out.

    Args:
        x: values, shape (rows, steps, neurons).
        whole: whole steps of each delay, k >= 0, int64, shape (neurons,).
        share: the rest of it, f, shape (neurons,).
        out: result, shape (rows, steps, neurons).
    """
    out.copy_((1 - share) * _shifted(x, whole) + share * _shifted(x, whole + 1))


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
    grad_x.copy_((1 - share) * _shifted(grad, -whole) + share * _shifted(grad, -whole - 1))
    grad_delay.copy_((grad * (_shifted(x, whole + 1) - _shifted(x, whole))).sum((0, 1)))


def _shifted(x: Tensor, later: Tensor) -> Tensor:
    """x[t - later] of each neuron, 0 outside."""
    steps = x.shape[1]
    at = torch.arange(steps, device=x.device)[:, None] - later
    inside = (at >= 0) & (at < steps)
    return x.gather(1, at.clamp(0, steps - 1).expand(x.shape)) * inside
