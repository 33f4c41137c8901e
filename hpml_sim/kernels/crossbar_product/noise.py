"""Where the output noise of a product comes from: a stream of its own for each sample, position and tile.

So a sample gets the same noise in a batch of any size, in any piece of it, and by any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels.common.noise_keys import NoiseKeys
from hpml_sim.kernels.common.threads import allow_threads
from hpml_sim.kernels.random.cpu import scratch
from hpml_sim.kernels.random.reference import BLOCK
from hpml_sim.kernels.random.streams import NUMBERS, draw_pairs, normal_pairs, stream_state


@njit(cache=True, nogil=True)
def sample_place(row, keys):
    """The number of a row's sample, and the row's position in it."""
    row, samples, inner = np.uint64(row) + keys[5], keys[2], keys[3]
    if samples == 0:
        return keys[1] + row, np.uint64(0)
    block = row // inner
    return keys[1] + block % samples, block // samples * inner + row % inner


@njit(cache=True, nogil=True)
def row_state(keys, row, stream):
    """The state of one row's stream.

    Args:
        keys: `NoiseKeys.array`.
        row: number of the row.
        stream: which of the streams of its position.
    """
    sample, position = sample_place(row, keys)
    return stream_state(keys[0], sample, position * keys[4] + np.uint64(stream))


@njit(cache=True, nogil=True)
def draw_rows(keys, stream, first, count, width, work, noise):
    """Draw short rows together: numbers of row i lie at `noise[0, i]` and go on at `noise[1, i]`.

    Args:
        keys: `NoiseKeys.array`.
        stream: which of the streams of a position.
        first: number of the first row.
        count: how many rows; count * ceil(width / 2) <= BLOCK.
        width: numbers of a row.
        work: from `scratch`.
        noise: result, float32, shape (2, at least count * ceil(width / 2)).
    """
    pairs = (width + 1) // 2
    high, low = work[0], work[1]
    for i in range(count):
        part = slice(i * pairs, (i + 1) * pairs)
        draw_pairs(row_state(keys, first + i, stream), np.uint64(0), high[part], low[part])
    normal_pairs(work, count * pairs, noise[0], noise[1])


@njit(cache=True, nogil=True)
def draw_long_row(keys, stream, row, work, noise, out):
    """Draw one row of any length.

    Args:
        keys: `NoiseKeys.array`.
        stream: which of the streams of a position.
        row: its number.
        work: from `scratch`.
        noise: memory, float32, shape (2, BLOCK).
        out: result, floating point, shape (numbers,).
    """
    state = row_state(keys, row, stream)
    for low in range(0, out.size, NUMBERS):
        some = min(NUMBERS, out.size - low)
        pairs = (some + 1) // 2
        draw_pairs(state, np.uint64(low // 2), work[0][:pairs], work[1][:pairs])
        normal_pairs(work, pairs, noise[0], noise[1])
        out[low : low + pairs] = noise[0, :pairs]
        out[low + pairs : low + some] = noise[1, : some - pairs]


@njit(cache=True, nogil=True)
def _fill_job(keys, job, jobs, out):
    vectors, width = out.shape[2], out.shape[3]
    rows = max(1, BLOCK // max(1, (width + 1) // 2))  # that are drawn together
    work, noise = scratch(), np.empty((2, BLOCK), np.float32)
    begin, end = vectors * job // jobs, vectors * (job + 1) // jobs
    for g in range(out.shape[0]):
        for t in range(out.shape[1]):
            stream = g * out.shape[1] + t
            for first in range(begin, end, rows):
                count = min(rows, end - first)
                if width > NUMBERS:
                    draw_long_row(keys, stream, first, work, noise, out[g, t, first])
                else:
                    pairs = (width + 1) // 2
                    draw_rows(keys, stream, first, count, width, work, noise)
                    for i in range(count):
                        row = out[g, t, first + i]
                        row[:pairs] = noise[0, i * pairs : (i + 1) * pairs]
                        row[pairs:] = noise[1, i * pairs : i * pairs + width - pairs]


@njit(cache=True, nogil=True)
def _fill_serial(keys, out):
    _fill_job(keys, 0, 1, out)


@njit(cache=True, nogil=True, parallel=True)
def _fill_parallel(keys, jobs, out):
    for job in prange(jobs):
        _fill_job(keys, job, jobs, out)


def fill_noise(buffer: Tensor, keys: NoiseKeys) -> None:
    """Fill a tensor with the noise of one product.

    Args:
        buffer: contiguous, float32 or float64, on the CPU, shape (groups, tiles, rows, width).
        keys: of the product.
    """
    if keys.quiet:
        buffer.zero_()
        return
    array = keys.array(buffer.shape[0] * buffer.shape[1])
    threads = allow_threads(buffer.numel())
    if threads > 1:
        _fill_parallel(array, threads, buffer.numpy())
    else:
        _fill_serial(array, buffer.numpy())
