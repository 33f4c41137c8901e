"""SplitMix64: the hash from which all seeded draws are made, in numba and in plain Python.

    mix(z): z = (z ^ z >> 30) * FIRST;  z = (z ^ z >> 27) * SECOND;  z ^ z >> 31          modulo 2^64
    the n-th number of a sequence: mix(state + n * GOLDEN)

It is a counter and a hash: every number can be computed alone, so that the draws of a seed do not depend on how the
work is cut into blocks, threads or processes.

Source: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import numpy as np
from numba import njit

GOLDEN = 0x9E3779B97F4A7C15
"""Steps of the counter: 2^64 over the golden ratio, odd, so that 2^64 steps visit every state once."""
FIRST = 0xBF58476D1CE4E5B9
SECOND = 0x94D049BB133111EB
"""Factors of the hash: D. Stafford's variant 13 of MurmurHash3's finalizer."""

_FIRST, _SECOND = np.uint64(FIRST), np.uint64(SECOND)  # numba would make a float of an unsigned and a Python number


@njit(cache=True, nogil=True)
def mix(z):
    """64 well-mixed bits of 64 bits: a bijection of uint64."""
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


def mix_exactly(z: int) -> int:
    """The same of a Python number in [0, 2^64), in unbounded integers: the definition."""
    z = (z ^ (z >> 30)) * FIRST % 2**64
    z = (z ^ (z >> 27)) * SECOND % 2**64
    return z ^ (z >> 31)
