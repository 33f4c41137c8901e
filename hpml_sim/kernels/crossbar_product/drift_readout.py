"""The drift read-out: what the ADCs read of known inputs, from which drift compensation finds its factor; numba CPU."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hpml_sim.kernels.random import fill_normal


@njit(cache=True, nogil=True, error_model="numpy")
def _readout(weight, normal, sigma, gain, qmax, used, total):
    """Sums of whole numbers where there is an ADC: their order changes no bit."""
    for g in range(weight.shape[0]):
        for t in range(weight.shape[1]):
            for c in range(weight.shape[2]):
                w, xi = weight[g, t, c, : used[t]], normal[g, t, c, : used[t]]
                if qmax == 0:
                    value = 0.0
                    for i in range(w.size):
                        value += abs(np.float64(w[i] + xi[i] * sigma)) * gain
                    total[g, t, c] = value
                else:
                    count = np.int64(0)
                    for i in range(w.size):
                        k = np.rint((w[i] + xi[i] * sigma) * gain)
                        k = qmax if k > qmax else k
                        k = -qmax if k < -qmax else k
                        count += np.int64(abs(k))
                    total[g, t, c] = count


def readout(weight: Tensor, seed: int, *, sigma: float, gain: float, qmax: int, used: list[int]) -> Tensor:
    """What the ADCs read, in magnitude and summed over the rows, when each row in turn gets a full-scale input.

    One row's input is at full scale and all others are 0, so a column's product is that row's weight alone: nothing has
    to be added up but codes.

    Args:
        weight: of one chip, in units of the column's full scale, float32 on the CPU, (groups, tiles, cols, height).
        seed: of the noise.
        sigma: noise before the ADC, in units of a full-scale weight.
        gain: codes in one such unit.
        qmax: the largest code; 0: an ideal converter.
        used: rows of each tile that are in use.

    Returns:
        Codes, shape (groups, tiles, cols), float32.
    """
    normal = torch.empty_like(weight)
    fill_normal(normal, seed)
    f = np.float32
    total = torch.empty(weight.shape[:-1], dtype=torch.float32)
    _readout(weight.numpy(), normal.numpy(), f(sigma), f(gain), f(qmax), np.array(used), total.numpy())
    return total
