"""Bernoulli (rate) spike encoding with a counter-based generator: torch reference and numba CPU, equal bit for bit.

Each sample has its own stream of random numbers, keyed by its content and a seed, so its spikes are the same in
whatever batch, order or process, and on whatever device it is encoded:

    key = mix(seed' + sum_j mix(bits(x_j) + (j + 1) * GOLDEN)),  seed' = mix(seed)
    r[t, j] = mix(key + (t * features + j + 1) * GOLDEN) / 2^64,  spike[t, j] = r[t, j] < x_j  (upper 24 bits of r)

Source: SplitMix64: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels._splitmix import mix
from hpml_sim.kernels._threads import allow_threads

GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def rate_spikes(x: Tensor, steps: int, seed: int, *, engine: str = "auto") -> Tensor:
    """Bernoulli spikes, drawn independently at each step.

    Args:
        x: probabilities of a spike, in [0, 1], shape (chips, batch, features).
        steps: time steps, >= 1.
        seed: any integer.
        engine: "numba" (CPU), "torch", or "auto".

    Returns:
        0 or 1 in x's dtype, shape (chips, steps, batch, features).
    """
    if engine == "auto" and torch.compiler.is_compiling():
        return _operator(x.detach(), steps, seed)
    values = x.detach().to(torch.float32).contiguous()
    chips, batch, features = values.shape
    if engine == "numba" or (engine == "auto" and values.device.type == "cpu"):
        spikes = torch.empty((chips, steps, batch, features), dtype=torch.float32)
        run = _spikes_parallel if allow_threads(spikes.numel()) > 1 else _spikes_serial
        array = values.numpy()
        run(array, array.view(np.uint32), np.uint64(seed % 2**64), spikes.numpy())
    else:
        spikes = _torch_spikes(values, steps, seed)
    return spikes.to(x.dtype)


@torch.library.custom_op("hpml_sim::rate_spikes", mutates_args=(), schema="(Tensor x, int steps, int seed) -> Tensor")
def _operator(x: Tensor, steps: int, seed: int) -> Tensor:
    """The draws as one operator: inductor cannot fold the constants of the torch reference."""
    return rate_spikes(x, steps, seed)


@_operator.register_fake
def _(x: Tensor, steps: int, seed: int) -> Tensor:
    return x.new_empty((x.shape[0], steps, *x.shape[1:]))


# ------------------------------------------------------------------------------------------------------ torch reference


def _signed(value: int) -> int:
    """The 64 bits of an unsigned number as torch's int64 holds them."""
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def _shifted(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _torch_mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _signed(_FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(_SECOND)
    return z ^ _shifted(z, 31)


def _torch_spikes(values: Tensor, steps: int, seed: int) -> Tensor:
    _, _, features = values.shape
    device = values.device
    start = _torch_mix(torch.tensor(_signed(seed), device=device))
    counter = (torch.arange(steps * features, device=device) + 1) * _signed(GOLDEN)
    bits = values.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    key = _torch_mix(start + _torch_mix(bits + counter[:features]).sum(dim=-1))
    draws = _torch_mix(key[:, None, :, None] + counter.view(steps, 1, features))
    return (_shifted(draws, 40).to(torch.float32) * 2.0**-24 < values[:, None]).to(torch.float32)


# ----------------------------------------------------------------------------------------------------------- numba CPU


@njit(cache=True, nogil=True)
def _sample(values, bits, seed, c, b, spikes):
    golden = np.uint64(0x9E3779B97F4A7C15)
    features = values.shape[2]
    total = np.uint64(0)
    counter = np.uint64(0)
    for j in range(features):
        counter += golden
        total += mix(np.uint64(bits[c, b, j]) + counter)
    counter = mix(mix(seed) + total)
    for t in range(spikes.shape[1]):
        for j in range(features):
            counter += golden
            draw = np.float32(mix(counter) >> np.uint64(40)) * np.float32(2.0**-24)
            spikes[c, t, b, j] = np.float32(1) if draw < values[c, b, j] else np.float32(0)


@njit(cache=True, nogil=True)
def _spikes_serial(values, bits, seed, spikes):
    for c in range(values.shape[0]):
        for b in range(values.shape[1]):
            _sample(values, bits, seed, c, b, spikes)


@njit(cache=True, nogil=True, parallel=True)
def _spikes_parallel(values, bits, seed, spikes):
    batch = values.shape[1]
    for job in prange(values.shape[0] * batch):
        c = job // batch
        _sample(values, bits, seed, c, job - c * batch, spikes)
