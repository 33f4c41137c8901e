"""The converters of a crossbar product in numba on a CPU; the equations stand in `reference.py`.

The inner loops run over numbers that lie one behind the other, write one vector, and hold no branch but selections,
so that the compiler uses vector instructions (numpy.rint rounds halves to even). Scalars have the data's type, or
numba would compute in float64. The selections let NaN pass, as torch's clamp does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels.common.noise_keys import NoiseKeys
from hpml_sim.kernels.common.threads import allow_threads
from hpml_sim.kernels.crossbar_product.noise import draw_long_row, draw_rows
from hpml_sim.kernels.random.cpu import scratch
from hpml_sim.kernels.random.reference import BLOCK


@njit(cache=True, nogil=True, error_model="numpy")
def dac_codes(source, one, scaled, gain, qmax, out):
    """What the DAC makes of one vector: its values times `gain`, rounded, in [-qmax, qmax].

    Args:
        source: the values, shape (rows,).
        one: what they are divided by first, if `scaled`.
        scaled: whether they are.
        gain: codes a unit.
        qmax: the largest code.
        out: result, of at least as many rows; the others stay as they are.
    """
    if scaled:
        for i in range(source.size):
            k = np.rint(source[i] / one * gain)
            k = qmax if k > qmax else k
            out[i] = -qmax if k < -qmax else k
    else:
        for i in range(source.size):
            k = np.rint(source[i] * gain)
            k = qmax if k > qmax else k
            out[i] = -qmax if k < -qmax else k


@njit(cache=True, nogil=True, error_model="numpy")
def _dac_vector(x, unit, scaled, gain, qmax, g, v, codes):
    one = unit[g, v] if scaled else unit.dtype.type(1)
    for t in range(x.shape[2]):
        dac_codes(x[g, v, t], one, scaled, gain, qmax, codes[g, t, v])


@njit(cache=True, nogil=True, error_model="numpy")
def _adc_vector(y, noise, noisy, sigma, gain, qmax, scale, unit, scaled, g, v, z):
    out = z[g, v]
    for j in range(out.size):
        out[j] = 0
    for t in range(y.shape[1]):
        for low in range(0, y.shape[3], out.size):
            read, drawn = y[g, t, v, low : low + out.size], noise[g, t, v, low : low + out.size]
            count = scale[g, t, low : low + out.size]
            if noisy:
                for j in range(out.size):
                    k = np.rint(read[j] * gain + drawn[j] * sigma)
                    k = qmax if k > qmax else k
                    k = -qmax if k < -qmax else k
                    out[j] += k * count[j]
            else:
                for j in range(out.size):
                    k = np.rint(read[j] * gain)
                    k = qmax if k > qmax else k
                    k = -qmax if k < -qmax else k
                    out[j] += k * count[j]
    if scaled:
        one = unit[g, v]
        for j in range(out.size):
            out[j] *= one


@njit(cache=True, nogil=True)
def _dac_serial(x, unit, scaled, gain, qmax, codes):
    for g in range(x.shape[0]):
        for v in range(x.shape[1]):
            _dac_vector(x, unit, scaled, gain, qmax, g, v, codes)


@njit(cache=True, nogil=True, parallel=True)
def _dac_parallel(x, unit, scaled, gain, qmax, codes):
    vectors = x.shape[1]
    for job in prange(x.shape[0] * vectors):
        g = job // vectors
        _dac_vector(x, unit, scaled, gain, qmax, g, job - g * vectors, codes)


@njit(cache=True, nogil=True)
def _adc_serial(y, noise, noisy, sigma, gain, qmax, scale, unit, scaled, z):
    for g in range(z.shape[0]):
        for v in range(z.shape[1]):
            _adc_vector(y, noise, noisy, sigma, gain, qmax, scale, unit, scaled, g, v, z)


@njit(cache=True, nogil=True, parallel=True)
def _adc_parallel(y, noise, noisy, sigma, gain, qmax, scale, unit, scaled, z):
    vectors = z.shape[1]
    for job in prange(z.shape[0] * vectors):
        g = job // vectors
        _adc_vector(y, noise, noisy, sigma, gain, qmax, scale, unit, scaled, g, job - g * vectors, z)


@njit(cache=True, nogil=True, error_model="numpy")
def _adc_drawn(y, keys, sigma, gain, qmax, scale, unit, scaled, g, begin, end, z):
    """Some vectors of one group, with the noise of their streams, which never leaves the first cache."""
    groups, columns, cols = z.shape[0] // keys.shape[0], y.shape[3], z.shape[2]
    chip, tiles = g // groups, y.shape[1]
    pairs = (columns + 1) // 2
    work, noise = scratch(), np.empty((2, BLOCK), np.float32)
    drawn = np.empty(columns, np.float32)
    together = max(1, BLOCK // max(1, pairs))
    for first in range(begin, end, together):
        count = min(together, end - first)
        z[g, first : first + count] = 0
        for t in range(tiles):
            stream = (g - chip * groups) * tiles + t
            if pairs <= BLOCK:
                draw_rows(keys[chip], stream, first, count, columns, work, noise)
            for i in range(count):
                v = first + i
                if pairs <= BLOCK:
                    drawn[:pairs] = noise[0, i * pairs : (i + 1) * pairs]
                    drawn[pairs:] = noise[1, i * pairs : i * pairs + columns - pairs]
                else:
                    draw_long_row(keys[chip], stream, v, work, noise, drawn)
                for low in range(0, columns, cols):
                    read, numbers = y[g, t, v, low : low + cols], drawn[low : low + cols]
                    number, out = scale[g, t, low : low + cols], z[g, v]
                    for j in range(cols):
                        k = np.rint(read[j] * gain + numbers[j] * sigma)
                        k = qmax if k > qmax else k
                        k = -qmax if k < -qmax else k
                        out[j] += k * number[j]
        if scaled:
            for v in range(first, first + count):
                one, out = unit[g, v], z[g, v]
                for j in range(cols):
                    out[j] *= one


@njit(cache=True, nogil=True)
def _adc_drawn_serial(y, keys, sigma, gain, qmax, scale, unit, scaled, jobs, z):
    for g in range(z.shape[0]):
        _adc_drawn(y, keys, sigma, gain, qmax, scale, unit, scaled, g, 0, z.shape[1], z)


@njit(cache=True, nogil=True, parallel=True)
def _adc_drawn_parallel(y, keys, sigma, gain, qmax, scale, unit, scaled, jobs, z):
    vectors = z.shape[1]
    for job in prange(z.shape[0] * jobs):
        g = job // jobs
        part = job - g * jobs
        _adc_drawn(
            y, keys, sigma, gain, qmax, scale, unit, scaled, g, vectors * part // jobs, vectors * (part + 1) // jobs, z
        )


@njit(cache=True, nogil=True)
def largest_bits(bits, mask):
    """The bits of the largest magnitude of some numbers, by their bits.

    Magnitudes are ordered as their bits are, and the compiler finds the largest whole number with vector instructions,
    but not the largest floating-point number, in which NaN has no order.

    Args:
        bits: of the numbers, int32 or int64, shape (numbers,).
        mask: all bits but that of the sign, of the same type.
    """
    largest = mask & 0
    for i in range(bits.size):
        largest = max(largest, bits[i] & mask)
    return largest


@njit(cache=True, nogil=True)
def _largest_of_rows(bits, mask, one, result):
    for n in range(bits.shape[0]):
        largest = largest_bits(bits[n], mask)
        result[n] = largest if largest > 0 else one


_BITS = {
    np.dtype(np.float32): (np.int32, np.int32(0x7FFFFFFF), np.float32(1).view(np.int32)),
    np.dtype(np.float64): (np.int64, np.int64(0x7FFFFFFFFFFFFFFF), np.float64(1).view(np.int64)),
}
"""By type of numbers: that of their bits, the mask that `largest_bits` takes, and the bits of 1."""


def bits_of(array: np.ndarray) -> tuple[np.ndarray, Any]:
    """The same memory as whole numbers, and the mask that `largest_bits` takes.

    Args:
        array: contiguous, float32 or float64.
    """
    kind, mask, _ = _BITS[array.dtype]
    return array.view(kind), mask


def largest_magnitudes(x: Tensor) -> Tensor:
    """The largest magnitude of each row; 1 where all numbers are zero.

    Args:
        x: float32 or float64 on the CPU, shape (..., numbers).

    Returns:
        shape (...).
    """
    rows = x.detach().reshape(-1, x.shape[-1]).contiguous().numpy()
    kind, mask, one = _BITS[rows.dtype]
    result = np.empty(len(rows), rows.dtype)
    _largest_of_rows(rows.view(kind), mask, one, result.view(kind))
    return torch.from_numpy(result).view(x.shape[:-1])


def units_of(unit: Tensor | None, like: Tensor) -> tuple[Any, bool]:
    """What a kernel takes for the units of the vectors, and whether it reads them.

    Args:
        unit: shape (groups, vectors); None: no vector has one.
        like: gives the type: numba needs an array there, read or not.
    """
    return (like.new_empty((1, 1)) if unit is None else unit).numpy(), unit is not None


def dac(x: Tensor, unit: Tensor | None, gain: float, qmax: int, codes: Tensor) -> None:
    """Fill codes.

    Args:
        x: inputs, shape (groups, vectors, tiles, height).
        unit: what each vector is divided by first, shape (groups, vectors); None: nothing.
        gain: codes in one unit of x.
        qmax: largest code.
        codes: result, whole numbers in [-qmax, qmax] of x's type, shape (groups, tiles, vectors, height).
    """
    array = x.numpy()
    real = array.dtype.type
    run = _dac_parallel if allow_threads(x.numel()) > 1 else _dac_serial
    run(array, *units_of(unit, x), real(gain), real(qmax), codes.numpy())


def adc(
    y: Tensor,
    noise: Tensor,
    noisy: bool,
    sigma: float,
    gain: float,
    qmax: int,
    scale: Tensor,
    unit: Tensor | None,
    z: Tensor,
) -> None:
    """Fill z.

    Args:
        y: products, shape (groups, tiles, vectors, slices * cols).
        noise: standard normal numbers, of y's shape; not read if not `noisy`.
        noisy: whether noise is added.
        sigma: noise, in codes.
        gain: codes in one unit of y.
        qmax: largest code.
        scale: what one code of each column counts, shape (groups, tiles, slices * cols).
        unit: what each result is multiplied with, shape (groups, vectors); None: nothing.
        z: result, shape (groups, vectors, cols).
    """
    array = y.numpy()
    real = array.dtype.type
    run = _adc_parallel if allow_threads(y.numel()) > 1 else _adc_serial
    run(
        array,
        noise.numpy(),
        noisy,
        real(sigma),
        real(gain),
        real(qmax),
        scale.numpy(),
        *units_of(unit, y),
        z.numpy(),
    )


def adc_with_noise(
    y: Tensor,
    keys: Sequence[NoiseKeys],
    sigma: float,
    gain: float,
    qmax: int,
    scale: Tensor,
    unit: Tensor | None,
    z: Tensor,
) -> None:
    """Fill z as `adc` does, with the noise of some chips that `fill_noise` would draw.

    Args:
        y: products, shape (chips * groups, tiles, vectors, slices * cols).
        keys: of the noise, one for each chip; either all or none of them are quiet.
        sigma: noise, in codes.
        gain: codes in one unit of y.
        qmax: largest code.
        scale: what one code of each column counts, shape (chips * groups, tiles, slices * cols).
        unit: what each result is multiplied with, shape (chips * groups, vectors); None: nothing.
        z: result, shape (chips * groups, vectors, cols).
    """
    if keys[0].quiet:
        adc(y, y, False, 0.0, gain, qmax, scale, unit, z)
        return
    array = y.numpy()
    real = array.dtype.type
    streams = len(y) // len(keys) * y.shape[1]
    numbers = np.stack([one.array(streams) for one in keys])
    jobs = allow_threads(y.numel())
    run = _adc_drawn_parallel if jobs > 1 else _adc_drawn_serial
    of_vectors = units_of(unit, y)
    run(array, numbers, real(sigma), real(gain), real(qmax), scale.numpy(), *of_vectors, jobs, z.numpy())
