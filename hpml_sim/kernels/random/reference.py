"""Standard normal numbers by the method of Box and Muller, from SplitMix64: the definition, in Python and float64.

    r[n]   = mix(mix(seed) + (start + n + 1) * GOLDEN)                                     64 bits for each pair
    u      = (upper 24 bits of r + 1/2) / 2^24
    phi    = pi / 4 * (bits 0..29 of r, as a signed number in [-1, 1)) + pi / 2 * (bits 30 and 31 of r)
    pair   = sqrt(-2 ln u) cos(phi), sqrt(-2 ln u) sin(phi)

Pairs are drawn BLOCK at a time: first their cosines, then their sines. The largest number is sqrt(50 ln 2) = 5.89;
among a billion normal numbers, four are larger.

Source: SplitMix64: G. L. Steele, D. Lea, C. H. Flood, OOPSLA 2014; G. E. P. Box, M. E. Muller, Ann. Math. Stat. 29:610,
1958.
"""

from __future__ import annotations

import math

import numpy as np

from hpml_sim.kernels.random.splitmix import GOLDEN, mix_exactly

BLOCK = 512
"""Pairs that are drawn together: `2 * BLOCK` numbers."""


def normal(count: int, seed: int, start: int = 0) -> np.ndarray:
    """What `fill_normal` writes, one pair after the other.

    Args:
        count: how many numbers.
        seed: of the sequence, any integer.
        start: pairs of the sequence to skip.

    Returns:
        float64, shape (count,).
    """
    blocks = -(-count // (2 * BLOCK))
    out = np.empty((blocks, 2, BLOCK))
    state = mix_exactly(seed % 2**64)
    for n in range(blocks * BLOCK):
        out[n // BLOCK, :, n % BLOCK] = _pair(state + (start + n) * GOLDEN)
    return out.reshape(-1)[:count]


def stream(count: int, base: int, sample: int, index: int) -> np.ndarray:
    """What kernels that draw noise by sample add to one row (`streams.py`).

    Args:
        count: how many numbers.
        base: what all streams of a call have in common, any integer.
        sample: whose stream it is, >= 0.
        index: which of the sample's streams, >= 0.

    Returns:
        float64, shape (count,).
    """
    state = mix_exactly((mix_exactly((base + sample * GOLDEN) % 2**64) + index * GOLDEN) % 2**64)
    parts = []
    for begin in range(0, count, 2 * BLOCK):
        pairs = -(-min(2 * BLOCK, count - begin) // 2)
        drawn = np.array([_pair(state + (begin // 2 + n) * GOLDEN) for n in range(pairs)])
        parts.append(drawn.T.reshape(-1)[: count - begin])
    return np.concatenate([np.empty(0), *parts])


def _pair(state: int) -> tuple[float, float]:
    """The two numbers that follow a state."""
    bits = mix_exactly((state + GOLDEN) % 2**64)
    radius = math.sqrt(-2 * math.log(((bits >> 40) + 0.5) / 2**24))
    low = bits % 2**30
    signed = (low - 2**30 if low >= 2**29 else low) / 2**29
    angle = math.pi / 4 * signed + math.pi / 2 * (bits >> 30 & 3)
    return radius * math.cos(angle), radius * math.sin(angle)
