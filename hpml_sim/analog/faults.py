"""Stuck devices: faults that hold a device at an end of its range, whatever is programmed, at every time."""

from __future__ import annotations

import torch
from torch import Tensor


def apply_stuck_faults(
    g_us: Tensor,
    *,
    stuck_at_g_min: float,
    stuck_at_g_max: float,
    g_min_us: float,
    g_max_us: float,
    seed: int,
) -> None:
    """Put some devices of one chip to the ends of their range, in place.

    One draw decides about both ends, each device for itself: so the same seed gives the same stuck devices at every
    time, and a larger share adds devices to those of a smaller one.

    Args:
        g_us: conductances, microsiemens, any shape.
        stuck_at_g_min: share of the devices that stay at `g_min_us`, 0 to 1.
        stuck_at_g_max: share of the devices that stay at `g_max_us`, 0 to 1; together with `stuck_at_g_min` at most 1.
        g_min_us: smallest conductance, microsiemens.
        g_max_us: largest conductance, microsiemens.
        seed: of the choice.
    """
    if stuck_at_g_min > 0 or stuck_at_g_max > 0:
        draw = torch.rand(g_us.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        g_us[draw < stuck_at_g_min] = g_min_us
        g_us[draw >= 1 - stuck_at_g_max] = g_max_us
