"""What the devices of one kind draw from, in numbers that a compiled pass reads.

Means and standard deviations depend on a conductance alone. They are tabulated over equal steps of it and interpolated
linearly: so every model of programming noise, drift and read noise is read by the same passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS = 4096
"""Equal steps from a conductance of 0 to the largest one. A table of one standard deviation takes 16 KB, and a line
between two of its points is off by less than 1e-4 of the value where a published curve has a kink, else by 1e-6."""


@dataclass(frozen=True)
class DeviceLaw:
    """How devices are programmed, and how each of them drifts.

    Attributes:
        devices: devices that hold a weight: 2, a differential pair, or 1, read against the middle of its range.
        g_min_us: smallest target conductance, microsiemens, >= 0.
        g_max_us: largest target conductance, microsiemens.
        step_us: distance of two points of the tables, microsiemens.
        sigma_us: standard deviation of the programming noise at the target conductances 0, step_us, 2 step_us, ...,
            microsiemens, float32.
        mean: mean of the drift exponents at the same targets, float32.
        spread: standard deviation of the drift exponents at the same targets, float32.
        low_us: a programmed conductance is not smaller, microsiemens; may be -inf.
    """

    devices: int
    g_min_us: float
    g_max_us: float
    step_us: float
    sigma_us: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    low_us: float


@dataclass(frozen=True)
class Aging:
    """What time has done to programmed devices when they are read.

    Attributes:
        log_time: L = ln((t + t_0) / t_0), >= 0: a conductance has fallen by exp(-nu L).
        rho_us: standard deviation of the read noise at the conductances 0, step_us, 2 step_us, ... of the law,
            microsiemens, float32; the last holds beyond.
        shift_us: what all conductances have moved by, microsiemens.
        relax_us: standard deviation of what each conductance has moved by beside that, microsiemens, >= 0.
        low_us: a conductance that is read is not smaller, microsiemens; may be -inf.
        high_us: a conductance that is read is not larger, microsiemens; may be inf.
        redrawn_us: standard deviation around the targets, as a table like the law's, where a model has data about that
            alone; each time then draws the programming noise anew from it. None: the devices keep what they drew.
    """

    log_time: float
    rho_us: np.ndarray
    shift_us: float = 0.0
    relax_us: float = 0.0
    low_us: float = 0.0
    high_us: float = np.inf
    redrawn_us: np.ndarray | None = None


@dataclass(frozen=True)
class Faults:
    """Devices that stay at an end of their range, whatever is programmed.

    Attributes:
        at_g_min: share of them at the smallest conductance, 0 to 1.
        at_g_max: share of them at the largest conductance, 0 to 1; with `at_g_min` at most 1.
        seed: decides which devices, in [0, 2^63).
    """

    at_g_min: float
    at_g_max: float
    seed: int


NO_FAULTS = Faults(0.0, 0.0, 0)
