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
        bits = mix_exactly((state + (start + n + 1) * GOLDEN) % 2**64)
        radius = math.sqrt(-2 * math.log(((bits >> 40) + 0.5) / 2**24))
        low = bits % 2**30
        signed = (low - 2**30 if low >= 2**29 else low) / 2**29
        angle = math.pi / 4 * signed + math.pi / 2 * (bits >> 30 & 3)
        out[n // BLOCK, :, n % BLOCK] = radius * math.cos(angle), radius * math.sin(angle)
    return out.reshape(-1)[:count]
