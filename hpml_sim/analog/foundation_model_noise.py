"""The weight noise on which Analog Foundation Models are evaluated: two polynomials, fitted to a chip of PCM."""

from __future__ import annotations

import torch
from torch import Tensor

G_MAX_US = 180.0
"""A column's largest weight, in the units of the polynomials."""
_TURN_US = 52.5
"""Above it the second polynomial holds."""
_LEAST_US = 0.6
"""Targets below it are exactly zero."""
_LOW = (2.939751381126213e-05, -0.00371581208142707, 0.22419685954327148, 2.5797410660159494)
_HIGH = (1.2329755395573392e-05, -0.003054993405157235, 0.2453487119885723, 2.110295720240385)


class FoundationModelNoise:
    """Gaussian programming noise whose sigma is a cubic polynomial of the target; no drift and no read noise.

    A weight has noise on one device of its pair alone, and may change its sign by it; a weight of zero has none.

    Args:
        scale: multiplies sigma, >= 0.

    Source: J. Buechel et al., "Analog Foundation Models", arXiv:2505.09663; `add_PCM_noise` in `apply_noise_model.py`
    of github.com/IBM/analog-foundation-models.
    """

    def __init__(self, scale: float = 1.0):
        if scale < 0:
            raise ValueError(f"prog_noise_scale must be >= 0, got {scale!r}")
        self._scale = scale

    def sigma_us(self, g_target: Tensor) -> Tensor:
        """Standard deviation of the programming noise, same unit and shape.

        Args:
            g_target: target conductances, microsiemens.
        """
        sigma = torch.where(g_target > _TURN_US, _cubic(_HIGH, g_target), _cubic(_LOW, g_target))
        return self._scale * torch.where(g_target < _LEAST_US, torch.zeros_like(sigma), sigma)

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        """Conductances right after programming.

        Args:
            g_target: target conductances, microsiemens.
        """
        kept = torch.where(g_target < _LEAST_US, torch.zeros_like(g_target), g_target)
        return kept + self.sigma_us(g_target) * torch.randn_like(g_target)

    def generate_drift_coefficients(self, g_target: Tensor) -> Tensor:
        """Zeros: nothing drifts.

        Args:
            g_target: target conductances, microsiemens.
        """
        return torch.zeros_like(g_target)

    def apply_drift_noise_to_conductance(self, g_prog: Tensor, drift: Tensor, t_inference: float) -> Tensor:
        """What was programmed, at any time.

        Args:
            g_prog: conductances right after programming.
            drift: not used.
            t_inference: not used.
        """
        return g_prog.clone()


def _cubic(coefficients: tuple[float, ...], g_us: Tensor) -> Tensor:
    value = torch.zeros_like(g_us)
    for coefficient in coefficients:
        value = value * g_us + coefficient
    return value
