"""Leaky neurons from the equations, in plain float64 numpy, and snnTorch's own, step by step."""

from __future__ import annotations

import numpy as np
import snntorch as snn
import torch
from torch import Tensor


def leaky_forward(x: np.ndarray, beta: float, theta: float, reset: str) -> tuple[np.ndarray, np.ndarray]:
    """x (steps, ...) -> spikes, membranes."""
    spikes, membranes = np.zeros_like(x), np.zeros_like(x)
    before = np.zeros_like(x[0])
    for t in range(len(x)):
        fired = (before - theta > 0).astype(x.dtype)
        if reset == "subtract":
            m = beta * before + x[t] - fired * theta
        elif reset == "zero":
            m = beta * (1 - fired) * before + x[t]
        else:
            m = beta * before + x[t]
        spikes[t], membranes[t], before = m - theta > 0, m, m
    return spikes, membranes


def slope(u: np.ndarray, surrogate: str, parameter: float) -> np.ndarray:
    if surrogate == "atan":
        return parameter / 2 / (1 + (np.pi / 2 * parameter * u) ** 2)
    return 1 / (parameter * np.abs(u) + 1) ** 2


def leaky_backward(
    membranes: np.ndarray,
    grad_spikes: np.ndarray,
    grad_membranes: np.ndarray,
    beta: float,
    theta: float,
    reset: str,
    surrogate: str,
    parameter: float,
) -> tuple[np.ndarray, float, float]:
    """Gradients of the input, of beta and of theta (both scalars)."""
    steps = len(membranes)
    grad_x = np.zeros_like(membranes)
    later = np.zeros_like(membranes[0])
    grad_beta = grad_theta = 0.0
    for t in reversed(range(steps)):
        u = membranes[t] - theta
        keep = 1 - (u > 0) if reset == "zero" else np.ones_like(u)
        from_spike = slope(u, surrogate, parameter) * grad_spikes[t]
        later = from_spike + grad_membranes[t] + later * beta * keep
        grad_x[t] = later
        before = membranes[t - 1] if t else np.zeros_like(u)
        fired = (before - theta > 0).astype(u.dtype)
        grad_beta += float((later * before * ((1 - fired) if reset == "zero" else 1)).sum())
        grad_theta -= float(from_spike.sum())
        if reset == "subtract":
            grad_theta -= float((later * fired).sum())
    return grad_x, grad_beta, grad_theta


def snntorch_leaky(
    x: Tensor,
    beta: Tensor | float,
    theta: Tensor | float,
    reset: str,
    surrogate: str,
    parameter: float,
    **options: bool,
) -> tuple[Tensor, Tensor, snn.Leaky]:
    """Spikes, membranes and the neuron itself, for x (steps, ...)."""
    gradient = getattr(snn.surrogate, surrogate)(parameter)
    neuron = snn.Leaky(beta, threshold=theta, reset_mechanism=reset, spike_grad=gradient, **options).to(x.dtype)
    membrane, spikes, membranes = torch.zeros_like(x[0].detach()), [], []
    for current in x.unbind(0):
        spike, membrane = neuron(current, membrane)
        spikes.append(spike.to(x.dtype))  # snnTorch 1.0 gives float32 spikes whatever goes in
        membranes.append(membrane)
    return torch.stack(spikes), torch.stack(membranes), neuron
