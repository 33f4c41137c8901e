"""Programming noise, drift and read noise in numba on a CPU, one pass over the devices of a chip.

The exponential is the float32 polynomial of Cephes, exact to 2e-7; everything is written in products and sums that are
rounded one by one, so a seed gives the same bits on every CPU, with any number of threads. Devices go in the blocks
of the normal numbers, so that a thread knows its place in the seed's sequence without having drawn what is before it.

Source: S. L. Moshier, Cephes, `expf.c`; the equations and their source stand in `reference.py`.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from torch import Tensor

from hpml_sim.kernels.common.threads import allow_threads
from hpml_sim.kernels.random.cpu import draw_block, scratch
from hpml_sim.kernels.random.reference import BLOCK

_LENGTH = 2 * BLOCK
_WORK = 8
"""What one device costs, in elements of a plain pass."""


def program_devices(target: Tensor, sigma: Tensor, seed: int, out: Tensor) -> None:
    """Conductances after programming.

    Args:
        target: g_T, microsiemens, float32, contiguous, any shape.
        sigma: standard deviation of the programming noise, microsiemens, float32, contiguous, of the target's shape.
        seed: of xi_1, in [0, 2^64).
        out: result, microsiemens, float32, contiguous, of the target's shape.
    """
    run = _program_parallel if allow_threads(target.numel() * _WORK) > 1 else _program_serial
    run(_flat(target), _flat(sigma), np.uint64(seed), _flat(out))


def drift_exponents(mean: Tensor, spread: Tensor, seed: int, out: Tensor) -> None:
    """Drift exponents of the devices that `program_devices` makes from the same seed.

    Args:
        mean: mu of each device, float32, contiguous, any shape.
        spread: its standard deviation, float32, contiguous, of the mean's shape.
        seed: of xi_2, in [0, 2^64).
        out: result, float32, contiguous, of the mean's shape.
    """
    _exponents(_flat(mean), _flat(spread), np.uint64(seed), _flat(out))


def age_devices(
    target: Tensor,
    sigma: Tensor,
    mean: Tensor,
    spread: Tensor,
    *,
    seed: int,
    read_seed: int,
    log_time: float,
    read: Tensor,
    read_step: float,
    out: Tensor,
) -> None:
    """Conductances at a time after programming.

    Args:
        target: g_T, microsiemens, float32, contiguous, any shape.
        sigma: standard deviation of the programming noise, microsiemens, float32, contiguous, of the target's shape.
        mean: mu of each device, float32, contiguous, of the target's shape.
        spread: standard deviation of the drift exponents, float32, contiguous, of the target's shape.
        seed: of xi_1 and xi_2, in [0, 2^64).
        read_seed: of xi_3, in [0, 2^64).
        log_time: L, >= 0.
        read: rho at the conductances 0, read_step, 2 read_step, ..., microsiemens, float32, shape (at least 2,); the
            last holds beyond.
        read_step: microsiemens, > 0.
        out: result, microsiemens, float32, contiguous, of the target's shape.
    """
    run = _age_parallel if allow_threads(target.numel() * _WORK) > 1 else _age_serial
    f = np.float32
    tables = _flat(target), _flat(sigma), _flat(mean), _flat(spread)
    run(*tables, np.uint64(seed), np.uint64(read_seed), f(log_time), read.numpy(), f(1 / read_step), _flat(out))


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.view(-1).numpy()


@njit(cache=True, nogil=True)
def _after(size):
    """Pairs that the programming noise of so many devices takes: the drift exponents are drawn from there on."""
    return np.uint64(-(-size // _LENGTH) * BLOCK)


@njit(cache=True, nogil=True)
def _program_block(target, sigma, seed, begin, work, xi, out):
    zero = np.float32(0)
    draw_block(seed, np.uint64(begin // 2), work, xi)
    t, s, o = target[begin : begin + _LENGTH], sigma[begin : begin + _LENGTH], out[begin : begin + _LENGTH]
    for i in range(t.size):
        g = t[i] + s[i] * xi[i]
        o[i] = g if g > zero else zero


@njit(cache=True, nogil=True)
def _exponents(mean, spread, seed, out):
    work, xi = scratch(), np.empty(_LENGTH, np.float32)
    for begin in range(0, out.size, _LENGTH):
        draw_block(seed, _after(out.size) + np.uint64(begin // 2), work, xi)
        m, s, o = mean[begin : begin + _LENGTH], spread[begin : begin + _LENGTH], out[begin : begin + _LENGTH]
        for i in range(m.size):
            o[i] = abs(m[i] + s[i] * xi[i])


@njit(cache=True, nogil=True)
def _exp(x, whole, power, out):
    """exp of numbers in [-80, 0]. whole: int32, power: its float32 view."""
    f = np.float32
    for i in range(out.size):
        k = np.rint(x[i] * f(1.44269504088896341))
        whole[i] = (np.int32(k) + np.int32(127)) << np.int32(23)
        # ln 2 in two parts: the first has few bits, so that its product with k is exact
        r = (x[i] - k * f(0.693359375)) - k * f(-2.12194440e-4)
        p = f(1.9875691500e-4)
        p = p * r + f(1.3981999507e-3)
        p = p * r + f(8.3334519073e-3)
        p = p * r + f(4.1665795894e-2)
        p = p * r + f(1.6666665459e-1)
        p = p * r + f(5.0000001201e-1)
        out[i] = p * (r * r) + r + f(1)
    for i in range(out.size):
        out[i] *= power[i]


@njit(cache=True, nogil=True)
def _age_block(target, sigma, mean, spread, seed, read_seed, log_time, read, per_step, begin, work, space, out):
    f = np.float32
    xi, g, x, decay, whole = space
    _program_block(target, sigma, seed, begin, work, xi, out)
    g, o = out[begin : begin + _LENGTH], out[begin : begin + _LENGTH]
    n = g.size
    draw_block(seed, _after(target.size) + np.uint64(begin // 2), work, xi)
    m, s = mean[begin : begin + _LENGTH], spread[begin : begin + _LENGTH]
    for i in range(n):
        power = abs(m[i] + s[i] * xi[i]) * log_time
        x[i] = -power if power < f(80) else f(-80)
    _exp(x[:n], whole[:n], whole[:n].view(np.float32), decay[:n])
    draw_block(read_seed, np.uint64(begin // 2), work, xi)
    last = np.int32(read.size - 2)
    for i in range(n):
        place = g[i] * per_step
        place = place if place < f(read.size - 1) else f(read.size - 1)
        j = np.int32(place)
        j = j if j < last else last
        rho = read[j] + (place - f(j)) * (read[j + 1] - read[j])
        aged = decay[i] * (g[i] + rho * xi[i])
        o[i] = aged if aged > f(0) else f(0)


@njit(cache=True, nogil=True)
def _space():
    f = np.float32
    return (
        np.empty(_LENGTH, f),
        np.empty(_LENGTH, f),
        np.empty(_LENGTH, f),
        np.empty(_LENGTH, f),
        np.empty(_LENGTH, np.int32),
    )


@njit(cache=True, nogil=True)
def _program_serial(target, sigma, seed, out):
    work, xi = scratch(), np.empty(_LENGTH, np.float32)
    for begin in range(0, out.size, _LENGTH):
        _program_block(target, sigma, seed, begin, work, xi, out)


@njit(cache=True, nogil=True, parallel=True)
def _program_parallel(target, sigma, seed, out):
    for part in prange(-(-out.size // (16 * _LENGTH))):
        work, xi = scratch(), np.empty(_LENGTH, np.float32)
        for begin in range(part * 16 * _LENGTH, min((part + 1) * 16 * _LENGTH, out.size), _LENGTH):
            _program_block(target, sigma, seed, begin, work, xi, out)


@njit(cache=True, nogil=True)
def _age_serial(target, sigma, mean, spread, seed, read_seed, log_time, read, per_step, out):
    work, space = scratch(), _space()
    for begin in range(0, out.size, _LENGTH):
        _age_block(target, sigma, mean, spread, seed, read_seed, log_time, read, per_step, begin, work, space, out)


@njit(cache=True, nogil=True, parallel=True)
def _age_parallel(target, sigma, mean, spread, seed, read_seed, log_time, read, per_step, out):
    for part in prange(-(-out.size // (16 * _LENGTH))):
        work, space = scratch(), _space()
        for begin in range(part * 16 * _LENGTH, min((part + 1) * 16 * _LENGTH, out.size), _LENGTH):
            _age_block(target, sigma, mean, spread, seed, read_seed, log_time, read, per_step, begin, work, space, out)
