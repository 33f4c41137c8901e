"""Programming, drift and read noise of memory devices, in numpy and float64: the definition.

For each device, with the tables of its law at the target conductance g_T, and standard normal numbers of its own:

    g  = max(low, g_T + sigma(g_T) xi_1)                 after programming
    nu = |mu(g_T) + spread(g_T) xi_2|                    its drift exponent
    q  = g + shift + relax xi_2                          relaxed
    G  = min(high, max(low, exp(-nu L) (q + rho(q) xi_3)))    as it is read at a time

Phase-change devices drift by a power law (L = ln((t + t_0) / t_0); shift = relax = 0); filamentary ones relax (L = 0);
of some only the spread around the target is known at each time (xi_1 is drawn anew). Then some devices are stuck at an
end of their range, by a uniform number of each device.

Every number is addressed by what it is for: number i of stream s in the sequence of a seed (`kernels/random`). i is the
place of the weight in its layer, s is the device (0: G+ or the only one, 1: G-), and two more for xi_2 and xi_3. xi_1
and xi_2 come from the programming seed, xi_3 from the read seed. So a chip needs no memory but its seeds, times can be
asked in any order, and any part of a layer can be drawn alone.

Source: aihwkit, `PCMLikeNoiseModel`, `HermesNoiseModel`, `ReRamWan2022NoiseModel`, `ReRamCMONoiseModel`.
"""

from __future__ import annotations

import numpy as np

from hpml_sim.kernels.device_noise.law import Aging, DeviceLaw, Faults
from hpml_sim.kernels.random import reference
from hpml_sim.kernels.random.splitmix import GOLDEN, mix_exactly

STREAM = 1 << 40
"""Pairs of normal numbers from one stream of a seed's sequence to the next: no layer has as many weights."""


def target_conductances(law: DeviceLaw, weight: np.ndarray) -> np.ndarray:
    """What the devices of weights are told to hold.

    Args:
        law: of the devices.
        weight: values in [-1, 1], shape (weights,).

    Returns:
        Microsiemens, shape (devices, weights).
    """
    span = law.g_max_us - law.g_min_us
    if law.devices == 1:
        return (law.g_min_us + 0.5 * span * (np.clip(weight, -1, 1) + 1))[None]
    return np.stack([np.clip(weight, 0, 1), np.clip(-weight, 0, 1)]) * span + law.g_min_us


def read_weights(law: DeviceLaw, g_us: np.ndarray) -> np.ndarray:
    """What conductances amount to as weights.

    Args:
        law: of the devices.
        g_us: microsiemens, shape (devices, weights).

    Returns:
        shape (weights,).
    """
    span = law.g_max_us - law.g_min_us
    if law.devices == 1:
        return (g_us[0] - law.g_min_us) * 2 / span - 1
    return (g_us[0] - g_us[1]) / span


def program_devices(law: DeviceLaw, target_us: np.ndarray, seed: int) -> np.ndarray:
    """Conductances after programming.

    Args:
        law: of the devices.
        target_us: g_T, microsiemens, shape (devices, weights).
        seed: of xi_1.

    Returns:
        g, microsiemens, shape (devices, weights).
    """
    return np.maximum(law.low_us, target_us + _at(law.sigma_us, law, target_us) * _normal(target_us, seed, 0))


def drift_exponents(law: DeviceLaw, target_us: np.ndarray, seed: int) -> np.ndarray:
    """Drift exponents of the devices that `program_devices` makes from the same seed.

    Args:
        law: of the devices.
        target_us: g_T, microsiemens, shape (devices, weights).
        seed: of xi_2.

    Returns:
        nu, shape (devices, weights).
    """
    xi = _normal(target_us, seed, 2)
    return np.abs(_at(law.mean, law, target_us) + _at(law.spread, law, target_us) * xi)


def age_devices(law: DeviceLaw, aging: Aging, target_us: np.ndarray, seed: int, read_seed: int) -> np.ndarray:
    """Conductances at a time after programming.

    Args:
        law: of the devices.
        aging: what the time has done.
        target_us: g_T, microsiemens, shape (devices, weights).
        seed: of xi_1 and xi_2.
        read_seed: of xi_3, and of xi_1 where it is drawn anew.

    Returns:
        G, microsiemens, shape (devices, weights).
    """
    if aging.redrawn_us is None:
        g = program_devices(law, target_us, seed)
    else:
        sigma = _at(aging.redrawn_us, law, target_us)
        g = np.maximum(law.low_us, target_us + sigma * _normal(target_us, read_seed, 0))
    relaxed = g + aging.shift_us + aging.relax_us * _normal(target_us, seed, 2)
    noise = _at(aging.rho_us, law, relaxed) * _normal(target_us, read_seed, 2)
    decay = np.exp(-drift_exponents(law, target_us, seed) * aging.log_time)
    return np.clip(decay * (relaxed + noise), aging.low_us, aging.high_us)


def stick_devices(law: DeviceLaw, faults: Faults, g_us: np.ndarray) -> np.ndarray:
    """Conductances with the stuck devices at the ends of their range.

    One number decides about both ends, each device for itself: the same seed gives the same stuck devices at every
    time, and a larger share adds devices to those of a smaller one.

    Args:
        law: of the devices.
        faults: how many are stuck, and the seed of the choice.
        g_us: microsiemens, shape (devices, weights).

    Returns:
        Microsiemens, shape (devices, weights).
    """
    state = mix_exactly(faults.seed)
    u = np.array(
        [
            [mix_exactly((state + (s * STREAM + i + 1) * GOLDEN) % 2**64) >> 11 for i in range(row.size)]
            for s, row in enumerate(g_us)
        ]
    )
    u = u * 2.0**-53
    stuck = np.where(u < faults.at_g_min, law.g_min_us, g_us)
    return np.where(u >= 1 - faults.at_g_max, law.g_max_us, stuck)


def _at(table: np.ndarray, law: DeviceLaw, g_us: np.ndarray) -> np.ndarray:
    return np.interp(g_us, law.step_us * np.arange(table.size), table)


def _normal(like: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """One number for each device, shape (devices, weights)."""
    return np.stack([reference.normal(row.size, seed, (stream + s) * STREAM) for s, row in enumerate(like)])
