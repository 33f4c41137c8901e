"""The passes of training through crossbar tiles, in numba on a CPU, each over its data once.

Operator by operator, torch would read and write every intermediate result: clip, cut, largest, noise for the weights;
scale, noise, round, clip, scale, sum for the ADC. Each function here does what lies between two matrix products in one
pass. `analog/training_passes.py` puts them together with torch.autograd; on other devices, and inside `torch.compile`,
crossbars run operator by operator and give the same numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from torch import Tensor

from hpml_sim.kernels.common.arrays import array_of
from hpml_sim.kernels.crossbar_product import cpu
from hpml_sim.kernels.crossbar_product.cpu import units_of as units_of


@njit(cache=True, nogil=True, error_model="numpy")
def _tile_row(weight, limit, rel, normal, noisy, g, c, matrix, scale, lanes):
    row, height = weight[g * matrix.shape[2] + c], matrix.shape[3]
    for t in range(matrix.shape[1]):
        out = matrix[g, t, c]
        used = min(height, row.size - t * height)
        source = row[t * height : t * height + used]
        for i in range(used):
            w = source[i]
            w = limit if w > limit else w
            out[i] = -limit if w < -limit else w
        # one maximum for each place of a vector: a single one would be found number by number
        lanes[:] = 0
        whole = used - used % lanes.size
        for begin in range(0, whole, lanes.size):
            part = out[begin : begin + lanes.size]
            for i in range(lanes.size):
                lanes[i] = abs(part[i]) if abs(part[i]) > lanes[i] else lanes[i]
        largest = lanes.max()
        for i in range(whole, used):
            largest = max(largest, abs(out[i]))
        largest = largest if largest > 0 else weight.dtype.type(1)
        scale[g, t, c] = largest
        for i in range(used, height):
            out[i] = 0
        if noisy:
            sigma, drawn = rel * largest, normal[g, t, c]
            for i in range(height):
                out[i] += sigma * drawn[i]


@njit(cache=True, nogil=True)
def noisy_tiles(weight, limit, rel, normal, noisy, matrix, scale):
    """Clip a matrix, cut it into tiles, find each column's full scale, and add noise in units of it.

    Args:
        weight: shape (groups * cols, rows).
        limit: weights are clipped to [-limit, limit].
        rel: sigma of the noise, in units of a column's full scale.
        normal: standard normal numbers, of the shape of `matrix`; not read if not `noisy`.
        noisy: whether noise is added.
        matrix: result, shape (groups, tiles, cols, height), zero-padded.
        scale: result, the largest magnitude of each column, shape (groups, tiles, cols); 1 where all weights are 0.
    """
    lanes = np.empty(32, weight.dtype)
    for g in range(matrix.shape[0]):
        for c in range(matrix.shape[2]):
            _tile_row(weight, limit, rel, normal, noisy, g, c, matrix, scale, lanes)


@njit(cache=True, nogil=True, error_model="numpy")
def _moments(flat):
    total, squares = np.zeros(32), np.zeros(32)
    whole = flat.size - flat.size % 32
    for begin in range(0, whole, 32):
        part = flat[begin : begin + 32]
        for i in range(32):
            total[i] += np.float64(part[i])
        for i in range(32):
            squares[i] += np.float64(part[i]) * np.float64(part[i])
    for i in range(whole, flat.size):
        total[0] += np.float64(flat[i])
        squares[0] += np.float64(flat[i]) * np.float64(flat[i])
    mean = total.sum() / flat.size
    return max(squares.sum() / flat.size - mean * mean, 0.0)


def spread(weight: Tensor) -> float:
    """Standard deviation of all numbers of a tensor on the CPU, accumulated in float64."""
    flat = weight.detach().contiguous().view(-1)
    return math.sqrt(_moments(array_of(flat)))


@njit(cache=True, nogil=True, error_model="numpy")
def tiles_backward(grad, weight, limit, result):
    """Gradient of the weights from that of their tiles; 0 where a descent step would push a clipped weight further out.

    Args:
        grad: gradient of the tiles, shape (groups, tiles, cols, height).
        weight: before clipping, shape (groups * cols, rows).
        limit: weights were clipped to [-limit, limit].
        result: gradient of the weights, shape (groups * cols, rows).
    """
    zero = weight.dtype.type(0)
    height = grad.shape[3]
    for g in range(grad.shape[0]):
        for c in range(grad.shape[2]):
            row, out = weight[g * grad.shape[2] + c], result[g * grad.shape[2] + c]
            for t in range(grad.shape[1]):
                used = min(height, row.size - t * height)
                w, slope = row[t * height : t * height + used], grad[g, t, c]
                target = out[t * height : t * height + used]
                for i in range(used):
                    d = slope[i]
                    d = zero if w[i] > limit and d < zero else d
                    target[i] = zero if w[i] < -limit and d > zero else d


@njit(cache=True, nogil=True, error_model="numpy")
def adc_training(y, noise, noisy, sigma, gain, qmax, scale, unit, scaled, z, inside):
    """The ADC of `reference.py` with a gain for each column.

    Args:
        y: products, shape (groups, tiles, vectors, cols); written over.
        noise: standard normal numbers, of y's shape; not read if not `noisy`.
        noisy: whether noise is added.
        sigma: noise, in codes.
        gain: codes in one unit of y, shape (groups, tiles, cols).
        qmax: largest code.
        scale: what one code of each column counts, shape (groups, tiles, cols).
        unit: what each vector's results are multiplied with, shape (groups, vectors); not read if not `scaled`.
        scaled: whether vectors have units of their own.
        z: result, shape (groups, vectors, cols).
        inside: result, where the ADC did not clip, bool, of y's shape.
    """
    for g in range(z.shape[0]):
        for v in range(z.shape[1]):
            out = z[g, v]
            out[:] = 0
            for t in range(y.shape[1]):
                read, drawn, kept = y[g, t, v], noise[g, t, v], inside[g, t, v]
                factor, count = gain[g, t], scale[g, t]
                if noisy:
                    for j in range(out.size):
                        read[j] = read[j] * factor[j] + drawn[j] * sigma
                else:
                    for j in range(out.size):
                        read[j] = read[j] * factor[j]
                for j in range(out.size):
                    kept[j] = abs(read[j]) <= qmax
                for j in range(out.size):
                    k = np.rint(read[j])
                    k = qmax if k > qmax else k
                    k = -qmax if k < -qmax else k
                    out[j] += k * count[j]
            if scaled:
                one = unit[g, v]
                for j in range(out.size):
                    out[j] *= one


@njit(cache=True, nogil=True, error_model="numpy")
def adc_backward(grad, factor, unit, scaled, inside, result):
    """Gradient of the products from that of the ADC's sums; rounding is passed by, clipping is not.

    Args:
        grad: gradient of z, shape (groups, vectors, cols).
        factor: a column's gain times what its code counts, one number for all columns.
        unit: as in `adc_training`.
        scaled: whether vectors have units of their own.
        inside: from `adc_training`.
        result: gradient of y, shape (groups, tiles, vectors, cols).
    """
    zero = grad.dtype.type(0)
    for g in range(result.shape[0]):
        for t in range(result.shape[1]):
            for v in range(result.shape[2]):
                source, kept, out = grad[g, v], inside[g, t, v], result[g, t, v]
                whole = factor * unit[g, v] if scaled else factor
                for j in range(out.size):
                    out[j] = source[j] * whole if kept[j] else zero


@njit(cache=True, nogil=True, error_model="numpy")
def dac_backward(grad, x, unit, scaled, gain, qmax, result):
    """Gradient of the inputs from that of their codes; rounding is passed by, clipping is not.

    Args:
        grad: gradient of the codes, shape (groups, tiles, vectors, height).
        x: inputs, shape (groups, vectors, tiles, height).
        unit: what each vector was divided by, a constant, shape (groups, vectors); not read if not `scaled`.
        scaled: whether vectors have units of their own.
        gain: codes in one unit of x.
        qmax: largest code.
        result: gradient of x, of its shape.
    """
    zero = grad.dtype.type(0)
    for g in range(result.shape[0]):
        for v in range(result.shape[1]):
            for t in range(result.shape[2]):
                source, drive, out = grad[g, t, v], x[g, v, t], result[g, v, t]
                if scaled:  # divided as the DAC does: the largest input of all must not fall out by a rounding
                    one = unit[g, v]
                    factor = gain / one
                    for i in range(out.size):
                        out[i] = source[i] * factor if abs(drive[i] / one * gain) <= qmax else zero
                else:
                    for i in range(out.size):
                        out[i] = source[i] * gain if abs(drive[i] * gain) <= qmax else zero


def dac_training(x: Tensor, unit: Tensor | None, gain: float, qmax: int, codes: Tensor) -> None:
    """The DAC of `reference.py` on one chip.

    Args:
        x: inputs, shape (groups, vectors, tiles, height).
        unit: what each vector is divided by first, shape (groups, vectors); None: nothing.
        gain: codes in one unit of x.
        qmax: largest code.
        codes: result, shape (groups, tiles, vectors, height).
    """
    cpu.dac(x, unit, gain, qmax, codes)
