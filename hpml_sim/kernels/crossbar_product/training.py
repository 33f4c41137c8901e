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
from hpml_sim.kernels.crossbar_product.cpu import bits_of, dac_codes, largest_bits
from hpml_sim.kernels.random.cpu import fill_sequence


@njit(cache=True, nogil=True, error_model="numpy")
def _noisy_tiles(weight, bits, mask, limit, rel, table, seed, noisy, matrix, scale, scale_bits):
    height, steps = matrix.shape[3], (table.size - 1) // 2
    if noisy:
        fill_sequence(seed, np.uint64(0), matrix.reshape(matrix.size))
    for g in range(matrix.shape[0]):
        for c in range(matrix.shape[2]):
            n = g * matrix.shape[2] + c
            for t in range(matrix.shape[1]):
                used = min(height, weight.shape[1] - t * height)
                part, out = slice(t * height, t * height + used), matrix[g, t, c]
                scale_bits[g, t, c] = largest_bits(bits[n, part], mask)
                largest = min(scale[g, t, c], limit)
                largest = largest if largest > 0 else weight.dtype.type(1)
                scale[g, t, c] = largest
                source, sigma = weight[n, part], rel * largest
                if noisy and steps > 0:
                    per_step = weight.dtype.type(steps) / largest
                    for i in range(used):
                        w = source[i]
                        w = limit if w > limit else w
                        w = -limit if w < -limit else w
                        place = (w + largest) * per_step
                        below = min(np.int32(place), np.int32(2 * steps - 1))
                        share = place - weight.dtype.type(below)
                        of_weight = table[below] + share * (table[below + 1] - table[below])
                        out[i] = w + largest * of_weight * out[i]
                    out[used:] = 0
                elif noisy:
                    for i in range(used):
                        w = source[i]
                        w = limit if w > limit else w
                        out[i] = (-limit if w < -limit else w) + sigma * out[i]
                    for i in range(used, height):
                        out[i] = sigma * out[i]
                else:
                    for i in range(used):
                        w = source[i]
                        w = limit if w > limit else w
                        out[i] = -limit if w < -limit else w
                    out[used:] = 0


def noisy_tiles(
    weight: np.ndarray,
    limit: float,
    noise: float | np.ndarray | None,
    seed: int,
    matrix: np.ndarray,
    scale: np.ndarray,
) -> None:
    """Clip a matrix, cut it into tiles, find each column's full scale, and add noise in units of it.

    Args:
        weight: shape (groups * cols, rows).
        limit: weights are clipped to [-limit, limit].
        noise: sigma of the noise, in units of a column's full scale; or a table of it over weights from -1 to 1 in
            units of that scale, an odd number of equally distant points, float32; None: no noise.
        seed: of the noise, in the order of `matrix`.
        matrix: result, shape (groups, tiles, cols, height), zero-padded.
        scale: result, the largest magnitude of each column, shape (groups, tiles, cols); 1 where all weights are 0.
    """
    real, (bits, mask) = weight.dtype.type, bits_of(weight)
    by_weight = isinstance(noise, np.ndarray)
    _noisy_tiles(
        weight,
        bits,
        mask,
        real(limit),
        real(0 if noise is None or by_weight else noise),
        noise.astype(real, copy=False) if by_weight else np.zeros(1, real),
        np.uint64(seed),
        noise is not None,
        matrix,
        scale,
        bits_of(scale)[0],
    )


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _moments(flat):
    # in any order, so that the compiler uses vector instructions
    total, squares = 0.0, 0.0
    for i in range(flat.size):
        value = np.float64(flat[i])
        total += value
        squares += value * value
    mean = total / flat.size
    return max(squares / flat.size - mean * mean, 0.0)


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
def _dac_training(x, bits, mask, places, gain, qmax, unit, unit_bits, codes):
    tiles, height = codes.shape[0] // max(1, x.shape[0]), codes.shape[2]
    for g in range(x.shape[0]):
        for v in range(x.shape[1]):
            if places > 0 and v % places == 0:
                largest = mask & 0
                for other in range(v, v + places):
                    largest = max(largest, largest_bits(bits[g, other], mask))
                unit_bits[g, v : v + places] = largest
                if largest == 0:
                    unit[g, v : v + places] = 1
            one = unit[g, v] if places > 0 else unit.dtype.type(1)
            for t in range(tiles):
                source, out = x[g, v, t * height : (t + 1) * height], codes[g * tiles + t, v]
                dac_codes(source, one, places > 0, gain, qmax, out)
                out[source.size :] = 0


def dac_training(x: np.ndarray, places: int, gain: float, qmax: int, unit: np.ndarray, codes: np.ndarray) -> None:
    """Cut vectors into tiles and turn them into codes, where asked each in units of the largest input of its sample.

    Args:
        x: inputs, shape (groups, vectors, rows).
        places: vectors of one sample, one after another, that share a unit; 0: none has one.
        gain: codes in one unit of x.
        qmax: largest code.
        unit: result, what each vector is divided by first, shape (groups, vectors); not written where places is 0.
        codes: result, whole numbers in [-qmax, qmax], shape (groups * tiles, vectors, height), zero-padded.
    """
    real, (bits, mask) = x.dtype.type, bits_of(x)
    _dac_training(x, bits, mask, places, real(gain), real(qmax), unit, bits_of(unit)[0], codes)


@njit(cache=True, nogil=True, error_model="numpy")
def adc_training(y, seed, sigma, gain, qmax, count, scale, unit, scaled, z, inside):
    """The ADC of `reference.py` with a gain for each column.

    Args:
        y: products, shape (groups * tiles, vectors, cols); written over.
        seed: of the noise, in the order of `y`, uint64.
        sigma: noise, in codes; 0: none.
        gain: codes in one unit of y and of a column's full scale.
        qmax: largest code.
        count: what one code counts, in units of a column's full scale.
        scale: full scale of each column, shape (groups, tiles, cols).
        unit: what each vector's results are multiplied with, shape (groups, vectors); not read if not `scaled`.
        scaled: whether vectors have units of their own.
        z: result, shape (groups, vectors, cols).
        inside: result, where the ADC did not clip, bool, of y's shape.
    """
    noisy = sigma > 0
    noise = np.empty(y.size if noisy else 0, y.dtype)
    if noisy:
        fill_sequence(seed, np.uint64(0), noise)
    factor, digit = np.empty(z.shape[2], y.dtype), np.empty(z.shape[2], y.dtype)
    tiles = scale.shape[1]
    for g in range(z.shape[0]):
        for t in range(tiles):
            for j in range(factor.size):
                factor[j] = gain / scale[g, t, j]
                digit[j] = scale[g, t, j] * count
            for v in range(z.shape[1]):
                read, kept, out = y[g * tiles + t, v], inside[g * tiles + t, v], z[g, v]
                if noisy:
                    first = ((g * tiles + t) * y.shape[1] + v) * y.shape[2]
                    drawn = noise[first : first + read.size]
                    for j in range(read.size):
                        read[j] = read[j] * factor[j] + drawn[j] * sigma
                else:
                    for j in range(read.size):
                        read[j] = read[j] * factor[j]
                for j in range(read.size):
                    kept[j] = abs(read[j]) <= qmax
                if t == 0:
                    for j in range(read.size):
                        k = np.rint(read[j])
                        k = qmax if k > qmax else k
                        out[j] = (-qmax if k < -qmax else k) * digit[j]
                else:
                    for j in range(read.size):
                        k = np.rint(read[j])
                        k = qmax if k > qmax else k
                        out[j] += (-qmax if k < -qmax else k) * digit[j]
                if scaled and t == tiles - 1:
                    one = unit[g, v]
                    for j in range(read.size):
                        out[j] *= one


@njit(cache=True, nogil=True, error_model="numpy")
def adc_backward(grad, factor, tiles, unit, scaled, inside, result):
    """Gradient of the products from that of the ADC's sums; rounding is passed by, clipping is not.

    Args:
        grad: gradient of z, shape (groups or 1, vectors or 1, cols or 1): of 1 where it is the same all along.
        factor: a column's gain times what its code counts, one number for all columns.
        tiles: row tiles of a group.
        unit: as in `adc_training`.
        scaled: whether vectors have units of their own.
        inside: from `adc_training`.
        result: gradient of y, shape (groups * tiles, vectors, cols).
    """
    zero = grad.dtype.type(0)
    for n in range(result.shape[0]):
        g = n // tiles
        for v in range(result.shape[1]):
            source = grad[min(g, grad.shape[0] - 1), min(v, grad.shape[1] - 1)]
            kept, out = inside[n, v], result[n, v]
            whole = factor * unit[g, v] if scaled else factor
            if source.size < out.size:
                one = source[0] * whole
                for j in range(out.size):
                    out[j] = one if kept[j] else zero
            else:
                for j in range(out.size):
                    out[j] = source[j] * whole if kept[j] else zero


@njit(cache=True, nogil=True, error_model="numpy")
def dac_backward(grad, x, unit, scaled, gain, qmax, result):
    """Gradient of the inputs from that of their codes; rounding is passed by, clipping is not.

    Args:
        grad: gradient of the codes, shape (groups * tiles, vectors, height).
        x: inputs, shape (groups, vectors, rows).
        unit: what each vector was divided by, a constant, shape (groups, vectors); not read if not `scaled`.
        scaled: whether vectors have units of their own.
        gain: codes in one unit of x.
        qmax: largest code.
        result: gradient of x, of its shape.
    """
    zero = grad.dtype.type(0)
    tiles, height = grad.shape[0] // max(1, x.shape[0]), grad.shape[2]
    for g in range(result.shape[0]):
        for v in range(result.shape[1]):
            for t in range(tiles):
                part = slice(t * height, min((t + 1) * height, x.shape[2]))
                source, drive, out = grad[g * tiles + t, v], x[g, v, part], result[g, v, part]
                if scaled:  # divided as the DAC does: the largest input of all must not fall out by a rounding
                    one = unit[g, v]
                    factor = gain / one
                    for i in range(out.size):
                        out[i] = source[i] * factor if abs(drive[i] / one * gain) <= qmax else zero
                else:
                    for i in range(out.size):
                        out[i] = source[i] * gain if abs(drive[i] * gain) <= qmax else zero
