"""The converters around a library's convolution, in numba on a CPU: each pass once over its data.

The convolution takes and gives channels last, (images, places, channels), which is what libraries compute in; networks
keep channels first. So the passes that convert also turn one into the other, in blocks that stay in the first-level
cache. A row tile is a convolution over the channels that its rows belong to; the tiles come one after the other, and
the digital sum over them is kept in one array.

The equations stand in `reference.py`, with a gain for each column as in `training.py`; the noise in
`random/streams.py`: one stream for each image and tile.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels.common.noise_keys import NoiseKeys
from hpml_sim.kernels.common.threads import allow_threads
from hpml_sim.kernels.crossbar_product.noise import row_state
from hpml_sim.kernels.random.cpu import scratch
from hpml_sim.kernels.random.streams import NUMBERS, draw_pairs, normal_pairs

_BLOCK = 64
"""Channels and places of a block that is transposed: 16 kB of float32."""
_VALUES, _FEW = 4096, 8
"""The values of a block of all channels; so few channels are not worth a vector."""


@njit(cache=True, nogil=True)
def _places_in_block(channels):
    return max(16, _VALUES // max(1, channels))


@njit(cache=True, nogil=True, error_model="numpy")
def _dac_image(x, groups, first, gains, qmax, n, codes):
    whole, span = x.shape[1] // groups, codes.shape[2] // groups
    length = _places_in_block(span)
    block = np.empty((span, length + 8), x.dtype)  # rows that do not all fall on the same lines of the cache
    for g in range(groups):
        gain = gains[min(n, gains.shape[0] - 1), min(g, gains.shape[1] - 1)]
        for p in range(0, x.shape[2], length):
            places = min(length, x.shape[2] - p)
            for c in range(span):
                source, out = x[n, g * whole + first + c, p : p + places], block[c]
                for j in range(source.size):
                    k = np.rint(source[j] * gain)
                    k = qmax if k > qmax else k
                    out[j] = -qmax if k < -qmax else k
            if span < _FEW:  # too few for a vector
                for c in range(span):
                    for j in range(places):
                        codes[n, p + j, g * span + c] = block[c, j]
            else:
                for j in range(places):
                    target = codes[n, p + j]
                    for c in range(span):
                        target[g * span + c] = block[c, j]


@njit(cache=True, nogil=True)
def _dac_serial(x, groups, first, gains, qmax, codes):
    for n in range(x.shape[0]):
        _dac_image(x, groups, first, gains, qmax, n, codes)


@njit(cache=True, nogil=True, parallel=True)
def _dac_parallel(x, groups, first, gains, qmax, codes):
    for n in prange(x.shape[0]):
        _dac_image(x, groups, first, gains, qmax, n, codes)


def dac(x: Tensor, groups: int, first: int, gains: Tensor, qmax: int, codes: Tensor) -> None:
    """Fill codes.

    Args:
        x: inputs, contiguous, shape (images, groups * channels, places).
        groups: groups of the convolution.
        first: of each group, the first channel of the row tile.
        gains: codes in one unit of x, shape (images or 1, groups or 1).
        qmax: largest code.
        codes: result, whole numbers in [-qmax, qmax] of x's type, shape (images, places, groups * the tile's channels).
    """
    array = x.numpy()
    real = array.dtype.type
    run = _dac_parallel if allow_threads(codes.numel()) > 1 else _dac_serial
    run(array, groups, first, gains.numpy(), real(qmax), codes.numpy())


@njit(cache=True, nogil=True, error_model="numpy")
def _adc_image(y, gain, count, keys, index, sigma, noisy, qmax, adds, marks, n, z, inside):
    size, cols = y.shape[1] * y.shape[2], y.shape[2]
    read, total, kept = y[n].reshape(size), z[n].reshape(size), inside[n].reshape(inside[n].size)
    work, noise = scratch(), np.zeros(NUMBERS, np.float32)
    value = np.empty(NUMBERS, y.dtype)
    state = np.uint64(0)
    if noisy:
        state = row_state(keys, n, index)
    for begin in range(0, size, NUMBERS):
        some = min(NUMBERS, size - begin)
        if noisy:
            pairs = (some + 1) // 2
            draw_pairs(state, np.uint64(begin // 2), work[0][:pairs], work[1][:pairs])
            normal_pairs(work, pairs, noise[:pairs], noise[pairs : 2 * pairs])
        shift = begin % cols
        source, factor = read[begin : begin + some], gain[shift : shift + some]
        digit, out = count[shift : shift + some], total[begin : begin + some]
        if noisy:
            for j in range(some):
                value[j] = source[j] * factor[j] + noise[j] * sigma
        else:
            for j in range(some):
                value[j] = source[j] * factor[j]
        if marks:
            mark = kept[begin : begin + some]
            for j in range(some):
                mark[j] = abs(value[j]) <= qmax
        if adds:
            for j in range(some):
                k = np.rint(value[j])
                k = qmax if k > qmax else k
                k = -qmax if k < -qmax else k
                out[j] += k * digit[j]
        else:
            for j in range(some):
                k = np.rint(value[j])
                k = qmax if k > qmax else k
                k = -qmax if k < -qmax else k
                out[j] = k * digit[j]


@njit(cache=True, nogil=True)
def _repeated(values, y):
    """The values of all columns again and again, as long as a block that begins anywhere in them."""
    result = np.empty(min(NUMBERS, y.shape[1] * y.shape[2]) + values.size, values.dtype)
    for begin in range(0, result.size, values.size):
        part = result[begin : begin + values.size]
        part[:] = values[: part.size]
    return result


@njit(cache=True, nogil=True)
def _adc_serial(y, gain, count, keys, index, sigma, noisy, qmax, adds, marks, z, inside):
    gain, count = _repeated(gain, y), _repeated(count, y)
    for n in range(y.shape[0]):
        _adc_image(y, gain, count, keys, index, sigma, noisy, qmax, adds, marks, n, z, inside)


@njit(cache=True, nogil=True, parallel=True)
def _adc_parallel(y, gain, count, keys, index, sigma, noisy, qmax, adds, marks, z, inside):
    gain, count = _repeated(gain, y), _repeated(count, y)
    for n in prange(y.shape[0]):
        _adc_image(y, gain, count, keys, index, sigma, noisy, qmax, adds, marks, n, z, inside)


def adc(
    y: Tensor,
    gain: Tensor,
    count: Tensor,
    qmax: int,
    z: Tensor,
    *,
    keys: NoiseKeys,
    tile: int,
    tiles: int,
    sigma: float,
    adds: bool,
    inside: Tensor | None = None,
) -> None:
    """Read the products of one row tile, and add what they count to the digital sum.

    Args:
        y: products, contiguous, shape (images, places, cols).
        gain: codes in one unit of y, shape (cols,).
        count: what one code of each column counts, shape (cols,).
        qmax: largest code.
        z: the sum, of y's shape.
        keys: of the noise.
        tile: number of the row tile.
        tiles: how many row tiles there are.
        sigma: noise, in codes; 0: none.
        adds: whether z already holds tiles; else it is written over.
        inside: result, where the ADC did not clip, bool, of y's shape; None: not wanted.
    """
    array = y.numpy()
    real = array.dtype.type
    run = _adc_parallel if allow_threads(y.numel()) > 1 else _adc_serial
    marks = y.new_empty((len(y), 0, 0)).bool() if inside is None else inside
    run(
        array,
        gain.numpy(),
        count.numpy(),
        keys.array(tiles),
        tile,
        real(sigma),
        sigma > 0 and not keys.quiet,
        real(qmax),
        adds,
        inside is not None,
        z.numpy(),
        marks.numpy(),
    )


@njit(cache=True, nogil=True)
def _first_image(values, factors, adds, n, result):
    # values (images, places, channels) -> result (images, channels, places)
    each = values.shape[2] // factors.shape[1]
    length = _places_in_block(values.shape[2])
    for p in range(0, values.shape[1], length):
        places = min(length, values.shape[1] - p)
        source = values[n, p : p + places]
        for c in range(values.shape[2]):
            out = result[n, c, p : p + places]
            factor, bias = factors[min(n, factors.shape[0] - 1), c // each], adds[c]
            for j in range(out.size):
                out[j] = source[j, c] * factor + bias


@njit(cache=True, nogil=True)
def _first_serial(values, factors, adds, result):
    for n in range(values.shape[0]):
        _first_image(values, factors, adds, n, result)


@njit(cache=True, nogil=True, parallel=True)
def _first_parallel(values, factors, adds, result):
    for n in prange(values.shape[0]):
        _first_image(values, factors, adds, n, result)


def channels_first(values: Tensor, factors: Tensor, bias: Tensor | None, result: Tensor) -> None:
    """Turn channels last into channels first, times a factor, and add the bias.

    Args:
        values: contiguous, shape (images, places, channels).
        factors: multiply them, shape (images or 1, groups or 1): groups of neighboring channels.
        bias: shape (channels,); None: nothing is added.
        result: contiguous, shape (images, channels, places).
    """
    adds = values.new_zeros(values.shape[2]) if bias is None else bias
    run = _first_parallel if allow_threads(values.numel()) > 1 else _first_serial
    run(values.numpy(), factors.numpy(), adds.numpy(), result.numpy())


@njit(cache=True, nogil=True)
def _last_image(values, factors, n, result):
    # values (images or 1, channels or 1, places or 1) -> result (images, places, channels)
    block = np.empty((_BLOCK, _BLOCK + 8), values.dtype)
    image = min(n, values.shape[0] - 1)
    same, each = values.shape[2] < result.shape[1], result.shape[2] // factors.shape[1]
    for p in range(0, result.shape[1], _BLOCK):
        places = min(_BLOCK, result.shape[1] - p)
        for low in range(0, result.shape[2], _BLOCK):
            channels = min(_BLOCK, result.shape[2] - low)
            for c in range(channels):
                row, out = values[image, min(low + c, values.shape[1] - 1)], block[c]
                factor = factors[min(n, factors.shape[0] - 1), (low + c) // each]
                if same:
                    out[:places] = row[0] * factor
                else:
                    source = row[p : p + places]
                    for j in range(source.size):
                        out[j] = source[j] * factor
            for j in range(places):
                target = result[n, p + j, low : low + channels]
                for c in range(target.size):
                    target[c] = block[c, j]


@njit(cache=True, nogil=True)
def _last_serial(values, factors, result):
    for n in range(result.shape[0]):
        _last_image(values, factors, n, result)


@njit(cache=True, nogil=True, parallel=True)
def _last_parallel(values, factors, result):
    for n in prange(result.shape[0]):
        _last_image(values, factors, n, result)


def channels_last(values: Tensor, factors: Tensor, result: Tensor) -> None:
    """Turn channels first into channels last, times a factor.

    Args:
        values: contiguous, shape (images, channels, places); a dimension of size 1 is the same all along.
        factors: multiply them, shape (images or 1, groups or 1): groups of neighboring channels.
        result: contiguous, shape (images, places, channels).
    """
    run = _last_parallel if allow_threads(result.numel()) > 1 else _last_serial
    run(values.numpy(), factors.numpy(), result.numpy())


@njit(cache=True, nogil=True)
def _masked(grad, inside, result):
    zero = grad.dtype.type(0)
    for i in range(result.size):
        result[i] = grad[i] if inside[i] else zero


def adc_backward(grad: Tensor, inside: Tensor, result: Tensor) -> None:
    """Gradient of a tile's products from that of the digital sum: passed where the ADC did not clip.

    Args:
        grad: contiguous, any shape.
        inside: from `adc`, of its shape.
        result: of its shape.
    """
    _masked(grad.view(-1).numpy(), inside.view(-1).numpy(), result.view(-1).numpy())


@njit(cache=True, nogil=True, error_model="numpy")
def _dac_back_image(grad, x, groups, first, overlaps, gains, qmax, n, result):
    whole, span = x.shape[1] // groups, grad.shape[2] // groups
    zero = x.dtype.type(0)
    block = np.empty((_BLOCK, _BLOCK + 8), x.dtype)
    for g in range(groups):
        gain = gains[min(n, gains.shape[0] - 1), min(g, gains.shape[1] - 1)]
        for low in range(0, span, _BLOCK):
            channels = min(_BLOCK, span - low)
            for p in range(0, x.shape[2], _BLOCK):
                places = min(_BLOCK, x.shape[2] - p)
                for j in range(places):
                    begin = g * span + low
                    source = grad[n, p + j, begin : begin + channels]
                    for c in range(source.size):
                        block[c, j] = source[c]
                for c in range(channels):
                    channel = g * whole + first + low + c
                    drive, out = x[n, channel, p : p + places], result[n, channel, p : p + places]
                    ready = block[c]
                    if overlaps and low + c == 0:
                        for j in range(out.size):
                            out[j] += ready[j] * gain if abs(drive[j] * gain) <= qmax else zero
                    else:
                        for j in range(out.size):
                            out[j] = ready[j] * gain if abs(drive[j] * gain) <= qmax else zero


@njit(cache=True, nogil=True)
def _dac_back_serial(grad, x, groups, first, overlaps, gains, qmax, result):
    for n in range(x.shape[0]):
        _dac_back_image(grad, x, groups, first, overlaps, gains, qmax, n, result)


@njit(cache=True, nogil=True, parallel=True)
def _dac_back_parallel(grad, x, groups, first, overlaps, gains, qmax, result):
    for n in prange(x.shape[0]):
        _dac_back_image(grad, x, groups, first, overlaps, gains, qmax, n, result)


def dac_backward(
    grad: Tensor, x: Tensor, groups: int, first: int, overlaps: bool, gains: Tensor, qmax: int, result: Tensor
) -> None:
    """Gradient of the inputs of one row tile from that of their codes; rounding is passed by, clipping is not.

    Args:
        grad: gradient of the codes, contiguous, shape (images, places, groups * the tile's channels).
        x: inputs, contiguous, shape (images, groups * channels, places).
        groups: groups of the convolution.
        first: of each group, the first channel of the row tile.
        overlaps: whether this channel belongs to the row tile before as well: its gradient is added to what is there.
        gains: codes in one unit of x, shape (images or 1, groups or 1).
        qmax: largest code.
        result: gradient of x, of its shape; the channels of this row tile are written.
    """
    array = x.numpy()
    real = array.dtype.type
    run = _dac_back_parallel if allow_threads(grad.numel()) > 1 else _dac_back_serial
    run(grad.numpy(), array, groups, first, overlaps, gains.numpy(), real(qmax), result.numpy())
