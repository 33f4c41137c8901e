"""Standard normal numbers of many short streams, drawn inside the kernels that use them.

A stream is a row of a result: what it holds depends on its state alone, not on the rows drawn before it, so that noise
can be drawn by sample, in any order, in pieces, and by any number of threads.

    state    = mix(mix(base + sample * GOLDEN) + index * GOLDEN)
    pair i   = Box and Muller's pair of mix(state + (i + 1) * GOLDEN), as in `reference.py`

A stream goes in blocks of up to 2 * BLOCK numbers: first the cosines of the block's pairs, then their sines; a last
block of n numbers takes ceil(n / 2) pairs. `reference.stream` is the definition.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hpml_sim.kernels.random.cpu import radii, turn, uniform_bits
from hpml_sim.kernels.random.cpu import words as words
from hpml_sim.kernels.random.reference import BLOCK
from hpml_sim.kernels.random.splitmix import GOLDEN, mix

NUMBERS = 2 * BLOCK
"""Numbers that are drawn together at most."""
_GOLDEN = np.uint64(GOLDEN)


@njit(cache=True, nogil=True)
def stream_state(base, sample, index):
    """The state of one stream.

    Args:
        base: what all streams of a call have in common, uint64.
        sample: whose stream it is, uint64.
        index: which of the sample's streams, uint64.
    """
    return mix(mix(base + sample * _GOLDEN) + index * _GOLDEN)


@njit(cache=True, nogil=True)
def draw_pairs(state, first, high, low):
    """The random bits of some pairs of a stream.

    Args:
        state: of the stream, uint64.
        first: pairs of the stream before these, uint64.
        high: result, the upper halves, uint32.
        low: result, the lower halves, uint32, of the same length.
    """
    words(state + first * _GOLDEN, high, low)


@njit(cache=True, nogil=True)
def normal_pairs(work, count, first, second):
    """Pairs of normal numbers from random bits.

    Args:
        work: from `scratch`, the bits in its first two arrays.
        count: how many pairs, <= BLOCK.
        first: result, the cosines.
        second: result, the sines.
    """
    high, low, u, exponent, radius, mantissa = work
    uniform_bits(high[:count], u[:count], exponent[:count], mantissa[:count])
    radii(exponent[:count], mantissa[:count].view(np.float32), radius[:count])
    turn(low[:count], radius[:count], first[:count], second[:count])
