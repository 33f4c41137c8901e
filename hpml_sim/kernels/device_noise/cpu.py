"""Devices with given targets, on a CPU: their conductances and their drift exponents; the equations: `reference.py`."""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from hpml_sim.kernels.device_noise.blocks import (
    LENGTH,
    block_memory,
    devices_block,
    exponents_block,
    physics,
)
from hpml_sim.kernels.device_noise.law import NO_FAULTS, Aging, DeviceLaw, Faults


def conductances(
    law: DeviceLaw,
    target_us: Tensor,
    out: Tensor,
    *,
    seed: int,
    aging: Aging | None = None,
    read_seed: int = 0,
    faults: Faults = NO_FAULTS,
) -> None:
    """Conductances of devices after programming, or at a time.

    Args:
        law: of the devices.
        target_us: g_T, microsiemens, float32, contiguous, shape (devices, ...).
        out: result, microsiemens, float32, contiguous, of the targets' shape.
        seed: of what programming draws, in [0, 2^64).
        aging: what time has done; None: right after programming.
        read_seed: of what the time draws, in [0, 2^64).
        faults: stuck devices.
    """
    numbers = physics(law, aging, faults, seed, read_seed)
    for device, (target, result) in enumerate(zip(target_us, out, strict=True)):
        _conductances(_flat(target), numbers, device, _flat(result))


def drift_exponents(law: DeviceLaw, target_us: Tensor, out: Tensor, *, seed: int) -> None:
    """Drift exponents of the devices that `conductances` makes from the same seed.

    Args:
        law: of the devices.
        target_us: g_T, microsiemens, float32, contiguous, shape (devices, ...).
        out: result, float32, contiguous, of the targets' shape.
        seed: of what programming draws, in [0, 2^64).
    """
    numbers = physics(law, None, NO_FAULTS, seed, 0)
    for device, (target, result) in enumerate(zip(target_us, out, strict=True)):
        _exponents(_flat(target), numbers, device, _flat(result))


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.reshape(-1).numpy()


@njit(cache=True, nogil=True)
def _conductances(target, numbers, device, out):
    memory = block_memory()
    t, g = np.zeros(LENGTH, np.float32), np.empty(LENGTH, np.float32)
    for begin in range(0, out.size, LENGTH):
        n = min(LENGTH, out.size - begin)
        t[:n] = target[begin : begin + n]
        devices_block(t, numbers, device, begin // LENGTH, memory, g)
        out[begin : begin + n] = g[:n]


@njit(cache=True, nogil=True)
def _exponents(target, numbers, device, out):
    memory = block_memory()
    t, nu = np.zeros(LENGTH, np.float32), np.empty(LENGTH, np.float32)
    for begin in range(0, out.size, LENGTH):
        n = min(LENGTH, out.size - begin)
        t[:n] = target[begin : begin + n]
        exponents_block(t, numbers, device, begin // LENGTH, memory, nu)
        out[begin : begin + n] = nu[:n]
