"""The drift read-out: what the ADCs read of known inputs, from which drift compensation finds its factor; numba CPU."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hpml_sim.kernels.common.threads import in_threads
from hpml_sim.kernels.random.cpu import draw_block, scratch
from hpml_sim.kernels.random.reference import BLOCK

_LENGTH = 2 * BLOCK
_WORK = 4
"""What one weight costs, in elements of a plain pass."""


@njit(cache=True, nogil=True, error_model="numpy")
def _readout(weight, seed, sigma, gain, qmax, used, first, last, total):
    """Columns `first` to `last`. Sums of whole numbers where there is an ADC: their order changes no bit.

    weight: (columns x height,) of all columns. used: of each column. total: result, a number a column.
    """
    height = weight.size // total.size
    work, xi = scratch(), np.empty(_LENGTH, np.float32)
    read = np.empty(_LENGTH, np.float32)
    drawn = -1
    for c in range(first, last):
        value, count, h = 0.0, np.int64(0), 0
        while h < used[c]:
            place = c * height + h
            # numbers are drawn by the block, as `fill_normal` draws them for all weights of the layer
            if place // _LENGTH != drawn:
                drawn = place // _LENGTH
                draw_block(seed, np.uint64(drawn * BLOCK), work, xi)
            begin = place % _LENGTH
            n = min(used[c] - h, _LENGTH - begin)
            w, noise, k = weight[place : place + n], xi[begin : begin + n], read[:n]
            if qmax == 0:
                for i in range(n):
                    value += abs(np.float64(w[i] + noise[i] * sigma)) * gain
            else:
                for i in range(n):
                    code = abs(np.rint((w[i] + noise[i] * sigma) * gain))
                    k[i] = code if code < qmax else qmax
                for i in range(n):
                    count += np.int64(k[i])
            h += n
        total[c] = value if qmax == 0 else count


def readout(weight: Tensor, seed: int, *, sigma: float, gain: float, qmax: int, used: list[int]) -> Tensor:
    """What the ADCs read, in magnitude and summed over the rows, when each row in turn gets a full-scale input.

    One row's input is at full scale and all others are 0, so a column's product is that row's weight alone: nothing has
    to be added up but codes.

    Args:
        weight: of one chip, in units of the column's full scale, float32, contiguous, on the CPU, (groups, tiles, cols,
            height).
        seed: of the noise.
        sigma: noise before the ADC, in units of a full-scale weight.
        gain: codes in one such unit.
        qmax: the largest code; 0: an ideal converter.
        used: rows of each tile that are in use.

    Returns:
        Codes, shape (groups, tiles, cols), float32.
    """
    f = np.float32
    total = torch.empty(weight.shape[:-1], dtype=torch.float32)
    groups, _, cols = total.shape
    flat, sums = weight.reshape(-1).numpy(), total.view(-1).numpy()
    rows = np.tile(np.repeat(np.array(used, np.int64), cols), groups)
    numbers = np.uint64(seed), f(sigma), f(gain), f(qmax), rows

    def columns(first: int, last: int) -> None:
        _readout(flat, *numbers, first, last, sums)

    in_threads(columns, sums.size, flat.size * _WORK)
    return total
