"""Programming, drift and read noise of phase-change devices, in numpy and float64: the definition.

For each device, with the mean and standard deviation of its model at the target conductance g_T, and three standard
normal numbers of its own:

    g  = max(0, g_T + sigma xi_1)                        after programming
    nu = |mu + spread xi_2|                              its drift exponent
    G  = max(0, exp(-nu L) (g + rho(g) xi_3))            L = ln((t + t_0) / t_0); rho: read noise at time t

xi_1 and xi_2 follow each other in the sequence of the programming seed (`kernels/random`), xi_3 comes from that of the
read seed: a chip needs no memory but its seeds, and times can be asked in any order. rho is a table, interpolated
linearly.

Source: aihwkit, `PCMLikeNoiseModel` and `HermesNoiseModel`.
"""

from __future__ import annotations

import numpy as np

from hpml_sim.kernels.random import reference
from hpml_sim.kernels.random.reference import BLOCK


def program_devices(target: np.ndarray, sigma: np.ndarray, seed: int) -> np.ndarray:
    """Conductances after programming.

    Args:
        target: g_T, microsiemens, shape (devices,).
        sigma: standard deviation of the programming noise, microsiemens, shape (devices,).
        seed: of xi_1.

    Returns:
        g, microsiemens, shape (devices,).
    """
    return np.maximum(0, target + sigma * reference.normal(target.size, seed))


def drift_exponents(mean: np.ndarray, spread: np.ndarray, seed: int) -> np.ndarray:
    """Drift exponents of the devices that `program_devices` makes from the same seed.

    Args:
        mean: mu of each device, shape (devices,).
        spread: its standard deviation, shape (devices,).
        seed: of xi_2, which follows xi_1 in the seed's sequence: whole blocks of pairs further on.

    Returns:
        nu, shape (devices,).
    """
    programming = -(-mean.size // (2 * BLOCK)) * BLOCK
    return np.abs(mean + spread * reference.normal(mean.size, seed, programming))


def age_devices(
    target: np.ndarray,
    sigma: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    *,
    seed: int,
    read_seed: int,
    log_time: float,
    read: np.ndarray,
    read_step: float,
) -> np.ndarray:
    """Conductances at a time after programming.

    Args:
        target: g_T, microsiemens, shape (devices,).
        sigma: standard deviation of the programming noise, microsiemens, shape (devices,).
        mean: mu of each device, shape (devices,).
        spread: standard deviation of the drift exponents, shape (devices,).
        seed: of xi_1 and xi_2.
        read_seed: of xi_3.
        log_time: L, >= 0.
        read: rho at the conductances 0, read_step, 2 read_step, ..., microsiemens; the last holds beyond.
        read_step: microsiemens, > 0.

    Returns:
        G, microsiemens, shape (devices,).
    """
    g = program_devices(target, sigma, seed)
    rho = np.interp(g, read_step * np.arange(read.size), read)
    decay = np.exp(-drift_exponents(mean, spread, seed) * log_time)
    return np.maximum(0, decay * (g + rho * reference.normal(target.size, read_seed)))
