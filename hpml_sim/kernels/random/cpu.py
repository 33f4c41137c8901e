"""The normal numbers of `reference.py` in numba, on float32 vectors.

Logarithm, sine and cosine are the float32 polynomials of Cephes, exact to 2e-7 of the radius; everything is written in
products and sums that are rounded one by one, so a seed gives the same bits on every CPU. The last bits of the standard
library's functions differ between systems, and files of chips hold seeds in place of numbers.

Source: S. L. Moshier, Cephes, `logf.c` and `sinf.c`.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from hpml_sim.kernels.random.reference import BLOCK
from hpml_sim.kernels.random.splitmix import GOLDEN, mix

_GOLDEN = np.uint64(GOLDEN)


def fill_normal(buffer: Tensor, seed: int, start: int = 0) -> int:
    """Fill a tensor with standard normal numbers.

    Args:
        buffer: contiguous, float32 or float64, on the CPU.
        seed: of the sequence, any integer.
        start: pairs to skip: what the call before returned continues its sequence.

    Returns:
        Where the next call starts.
    """
    flat = buffer.detach().view(-1).numpy()
    blocks = -(-flat.size // (2 * BLOCK))
    fill_sequence(np.uint64(seed % 2**64), np.uint64(start), flat)
    return start + blocks * BLOCK


# Each loop over a block writes vectors and calls nothing, so that the compiler uses vector instructions; where bits of
# integers are read as numbers, the loop before has written them into the same memory.


@njit(cache=True, nogil=True)
def words(state, high, low):
    """The random bits that follow a state, in two halves.

    Args:
        state: uint64.
        high: result, the upper halves, uint32.
        low: result, the lower halves, uint32, of the same length.
    """
    for i in range(high.size):
        z = mix(state + np.uint64(i + 1) * _GOLDEN)
        high[i] = np.uint32(z >> np.uint64(32))
        low[i] = np.uint32(z)


@njit(cache=True, nogil=True)
def _uniform(high, u):
    for i in range(high.size):
        u[i] = (np.float32(np.int32(high[i] >> np.uint32(8))) + np.float32(0.5)) * np.float32(2.0**-24)


@njit(cache=True, nogil=True)
def _split(pattern, exponent, mantissa):
    """Numbers in (0, 1) by their bits: exponent, and the bits of the mantissa in [0.5, 1)."""
    for i in range(pattern.size):
        exponent[i] = np.float32((pattern[i] >> np.int32(23)) - np.int32(126))
        mantissa[i] = (pattern[i] & np.int32(0x7FFFFF)) | np.int32(0x3F000000)


@njit(cache=True, nogil=True)
def uniform_bits(high, u, exponent, mantissa):
    """Uniform numbers in (0, 1) of random bits, and the parts of them that `radii` takes.

    Args:
        high: random bits, uint32.
        u: result, the numbers, float32.
        exponent: result, their exponents, float32.
        mantissa: result, the bits of their mantissas, int32.
    """
    _uniform(high, u)
    _split(u.view(np.int32), exponent, mantissa)


@njit(cache=True, nogil=True)
def radii(exponent, mantissa, radius):
    """sqrt(-2 ln(mantissa * 2^exponent)).

    Args:
        exponent: from `uniform_bits`.
        mantissa: from `uniform_bits`, as float32.
        radius: result, float32.
    """
    f = np.float32  # a plain number would be float64, and numba would compute the whole line in it
    for i in range(mantissa.size):
        small = mantissa[i] < f(0.70710678)
        e = exponent[i] - (f(1) if small else f(0))
        x = (mantissa[i] + mantissa[i] if small else mantissa[i]) - f(1)
        z = x * x
        p = f(7.0376836292e-2)
        p = p * x + f(-1.1514610310e-1)
        p = p * x + f(1.1676998740e-1)
        p = p * x + f(-1.2420140846e-1)
        p = p * x + f(1.4249322787e-1)
        p = p * x + f(-1.6668057665e-1)
        p = p * x + f(2.0000714765e-1)
        p = p * x + f(-2.4999993993e-1)
        p = p * x + f(3.3333331174e-1)
        # ln 2 in two parts: the first has few bits, so that its product with e is exact
        log = x + (x * z * p - f(0.5) * z + e * f(-2.12194440e-4)) + e * f(0.693359375)
        radius[i] = np.sqrt(f(-2) * log)


@njit(cache=True, nogil=True)
def turn(low, radius, first, second):
    """The cosine and the sine of a random angle, times the radius.

    Args:
        low: random bits, uint32.
        radius: from `radii`.
        first: result, the cosines.
        second: result, the sines.
    """
    f = np.float32
    for i in range(radius.size):
        phi = f(np.int32(np.uint32(low[i] << np.uint32(2)))) * f(0.7853981633974483 * 2.0**-31)
        quarter = low[i] >> np.uint32(30)
        z = phi * phi
        s = phi + phi * z * (f(-1.6666654611e-1) + z * (f(8.3321608736e-3) + z * f(-1.9515295891e-4)))
        c = f(4.166664568298827e-2) + z * (f(-1.388731625493765e-3) + z * f(2.443315711809948e-5))
        c = f(1) - f(0.5) * z + z * z * c
        odd = (quarter & np.uint32(1)) != 0
        x, y = (-s if odd else c), (c if odd else s)
        back = quarter >= np.uint32(2)
        first[i] = radius[i] * (-x if back else x)
        second[i] = radius[i] * (-y if back else y)


@njit(cache=True, nogil=True)
def scratch():
    """Memory that `draw_block` works in."""
    return (
        np.empty(BLOCK, np.uint32),
        np.empty(BLOCK, np.uint32),
        np.empty(BLOCK, np.float32),
        np.empty(BLOCK, np.float32),
        np.empty(BLOCK, np.float32),
        np.empty(BLOCK, np.int32),
    )


@njit(cache=True, nogil=True)
def draw_block(seed, start, work, out):
    """Fill one block of a sequence with what `fill_normal` writes there.

    Args:
        seed: of the sequence, uint64.
        start: pairs of the sequence before this block, uint64.
        work: memory from `scratch`, one a thread.
        out: result, float32 or float64, shape (2 * BLOCK,).
    """
    high, low, u, exponent, radius, mantissa = work
    words(mix(seed) + start * _GOLDEN, high, low)
    uniform_bits(high, u, exponent, mantissa)
    radii(exponent, mantissa.view(np.float32), radius)
    turn(low, radius, out[:BLOCK], out[BLOCK:])


@njit(cache=True, nogil=True)
def fill_sequence(seed, start, out):
    """Fill an array with what `fill_normal` writes.

    Args:
        seed: of the sequence, uint64.
        start: pairs to skip, uint64.
        out: result, float32 or float64, shape (numbers,).
    """
    work, last = scratch(), np.empty(2 * BLOCK, out.dtype)
    for begin in range(0, out.size, 2 * BLOCK):
        left = out.size - begin
        draw_block(
            seed, start + np.uint64(begin // 2), work, out[begin : begin + 2 * BLOCK] if left >= 2 * BLOCK else last
        )
        if left < 2 * BLOCK:
            out[begin:] = last[:left]
