"""Rate encoding in numba on a CPU; the equations stand in `reference.py`."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels.common.threads import allow_threads
from hpml_sim.kernels.random.splitmix import GOLDEN, mix

_GOLDEN = np.uint64(GOLDEN)


def spikes_of(values: Tensor, steps: int, seed: int) -> Tensor:
    """Spikes of all steps.

    Args:
        values: probabilities of a spike, float32 in [0, 1], shape (chips, batch, features).
        steps: time steps, >= 1.
        seed: any integer.

    Returns:
        0 or 1, float32, shape (chips, steps, batch, features).
    """
    chips, batch, features = values.shape
    spikes = torch.empty((chips, steps, batch, features), dtype=torch.float32)
    run = _spikes_parallel if allow_threads(spikes.numel()) > 1 else _spikes_serial
    array = values.numpy()
    run(array, array.view(np.uint32), np.uint64(seed % 2**64), spikes.numpy())
    return spikes


@njit(cache=True, nogil=True)
def _sample(values, bits, seed, c, b, spikes):
    features = values.shape[2]
    total = np.uint64(0)
    counter = np.uint64(0)
    for j in range(features):
        counter += _GOLDEN
        total += mix(np.uint64(bits[c, b, j]) + counter)
    counter = mix(mix(seed) + total)
    for t in range(spikes.shape[1]):
        for j in range(features):
            counter += _GOLDEN
            draw = np.float32(mix(counter) >> np.uint64(40)) * np.float32(2.0**-24)
            spikes[c, t, b, j] = np.float32(1) if draw < values[c, b, j] else np.float32(0)


@njit(cache=True, nogil=True)
def _spikes_serial(values, bits, seed, spikes):
    for c in range(values.shape[0]):
        for b in range(values.shape[1]):
            _sample(values, bits, seed, c, b, spikes)


@njit(cache=True, nogil=True, parallel=True)
def _spikes_parallel(values, bits, seed, spikes):
    batch = values.shape[1]
    for job in prange(values.shape[0] * batch):
        c = job // batch
        _sample(values, bits, seed, c, job - c * batch, spikes)
