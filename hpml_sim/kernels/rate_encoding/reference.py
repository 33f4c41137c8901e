"""Bernoulli (rate) spikes from a counter-based generator, in torch: the definition.

Each sample has its own stream of random numbers, keyed by its content and a seed, so its spikes are the same in
whatever batch, order or process, and on whatever device it is encoded:

    key = mix(seed' + sum_j mix(bits(x_j) + (j + 1) * GOLDEN)),  seed' = mix(seed)
    r[t, j] = mix(key + (t * features + j + 1) * GOLDEN) / 2^64,  spike[t, j] = r[t, j] < x_j  (upper 24 bits of r)

Source: SplitMix64: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.kernels.random.splitmix import FIRST, GOLDEN, SECOND


def _signed(value: int) -> int:
    """The 64 bits of an unsigned number as torch's int64 holds them."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def _shifted(z: Tensor, bits: int) -> Tensor:
    """z >> bits of an unsigned number: torch's own shift would bring in copies of the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mix(z: Tensor) -> Tensor:
    """SplitMix64's hash of int64, which torch multiplies modulo 2^64 as the hash needs it."""
    z = (z ^ _shifted(z, 30)) * _signed(FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(SECOND)
    return z ^ _shifted(z, 31)


def spikes_of(values: Tensor, steps: int, seed: int) -> Tensor:
    """Spikes of all steps.

    Args:
        values: probabilities of a spike, float32 in [0, 1], shape (chips, batch, features).
        steps: time steps, >= 1.
        seed: any integer.

    Returns:
        0 or 1, float32, shape (chips, steps, batch, features).
    """
    _, _, features = values.shape
    device = values.device
    start = mix(torch.tensor(_signed(seed), device=device))
    counter = (torch.arange(steps * features, device=device) + 1) * _signed(GOLDEN)
    bits = values.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    key = mix(start + mix(bits + counter[:features]).sum(dim=-1))
    draws = mix(key[:, None, :, None] + counter.view(steps, 1, features))
    return (_shifted(draws, 40).to(torch.float32) * 2.0**-24 < values[:, None]).to(torch.float32)
