"""Surrogate gradients in torch: what stands in for the derivative of the step H(u) on the way back.

Every one of snnTorch 1.0's, with its operations in its order, so that gradients are equal bit for bit. Each function
takes u (the membrane potential above the threshold), the gradient of the spikes and the spikes, all of one shape, and
returns the gradient of u. Two are mended: `sigmoid` is NaN in snnTorch for slope * u below about -88 and 0 here;
`leaky` (snnTorch's LSO) raises there and has here the gradient that its documentation gives.

Source: snntorch 1.0.0, `surrogate.py` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ATAN, FAST_SIGMOID, OTHER = range(3)
"""How compiled kernels know a surrogate: the first two they compute themselves, the others are a pass in torch."""


def _atan(u: Tensor, grad: Tensor, spikes: Tensor, alpha: float) -> Tensor:
    """alpha/2 / (1 + (pi/2 alpha u)^2)."""
    return alpha / 2 / (1 + (torch.pi / 2 * alpha * u) ** 2) * grad


def _fast_sigmoid(u: Tensor, grad: Tensor, spikes: Tensor, slope: float) -> Tensor:
    """1 / (slope |u| + 1)^2."""
    return grad / (slope * u.abs() + 1.0) ** 2


def _sparse_fast_sigmoid(u: Tensor, grad: Tensor, spikes: Tensor, slope: float, B: float) -> Tensor:
    """1 / (slope |u| + 1)^2 where u > B, 0 elsewhere: snnTorch's SFS."""
    return grad / (slope * u.abs() + 1.0) ** 2 * (u > B).to(u.dtype)


def _sigmoid(u: Tensor, grad: Tensor, spikes: Tensor, slope: float) -> Tensor:
    """slope e / (e + 1)^2 with e = exp(-slope u)."""
    e = torch.exp(-slope * u)
    # where e overflows, e / (e + 1)^2 is inf / inf; its limit is 0
    return torch.where(torch.isinf(e), torch.zeros_like(e), grad * slope * e / ((e + 1) ** 2))


def _spike_rate_escape(u: Tensor, grad: Tensor, spikes: Tensor, beta: float, slope: float) -> Tensor:
    """slope exp(-beta |u - 1|)."""
    return grad * slope * torch.exp(-beta * torch.abs(u - 1))


def _triangular(u: Tensor, grad: Tensor, spikes: Tensor, threshold: float) -> Tensor:
    """threshold below the threshold, -threshold from there on."""
    scaled = grad * threshold
    return torch.where(u >= 0, -scaled, scaled)


def _straight_through(u: Tensor, grad: Tensor, spikes: Tensor) -> Tensor:
    """1."""
    return grad


def _heaviside(u: Tensor, grad: Tensor, spikes: Tensor) -> Tensor:
    """The spike: 1 above the threshold, 0 below."""
    return grad * spikes


def _leaky(u: Tensor, grad: Tensor, spikes: Tensor, slope: float) -> Tensor:
    """1 above the threshold, slope below: snnTorch's LSO."""
    return grad * spikes + (1 - spikes) * slope * grad


def _stochastic(u: Tensor, grad: Tensor, spikes: Tensor, mean: float, variance: float) -> Tensor:
    """1 above the threshold, (r - 1/2 + mean) variance below, r uniform in [0, 1): snnTorch's SSO."""
    below = (torch.rand_like(u) - 0.5 + mean) * variance
    return grad * spikes + (grad * (1 - spikes)) * below


SURROGATES: dict[str, tuple[Callable[..., Tensor], dict[str, float]]] = {
    "atan": (_atan, {"alpha": 2.0}),
    "fast_sigmoid": (_fast_sigmoid, {"slope": 25.0}),
    "straight_through_estimator": (_straight_through, {}),
    "triangular": (_triangular, {"threshold": 1.0}),
    "heaviside": (_heaviside, {}),
    "sigmoid": (_sigmoid, {"slope": 25.0}),
    "spike_rate_escape": (_spike_rate_escape, {"beta": 1.0, "slope": 25.0}),
    "SSO": (_stochastic, {"mean": 0.0, "variance": 0.2}),
    "LSO": (_leaky, {"slope": 0.1}),
    "SFS": (_sparse_fast_sigmoid, {"slope": 25.0, "B": 1.0}),
}
"""Name in snnTorch -> (gradient, its parameters with snnTorch's defaults, in the order of its arguments)."""
