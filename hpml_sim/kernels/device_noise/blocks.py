"""One block of devices in numba: what programming, time and faults make of their targets; equations in `reference.py`.

A block is `LENGTH` weights beside each other in a layer. The exponential is the float32 polynomial of Cephes, exact to
2e-7; everything is written in products and sums that are rounded one by one, so a seed gives the same bits on every
CPU, with any number of threads.

Source: S. L. Moshier, Cephes, `expf.c`; the equations and their source stand in `reference.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from hpml_sim.kernels.device_noise.law import Aging, DeviceLaw, Faults
from hpml_sim.kernels.device_noise.reference import STREAM
from hpml_sim.kernels.random.cpu import draw_block, scratch
from hpml_sim.kernels.random.reference import BLOCK
from hpml_sim.kernels.random.splitmix import GOLDEN, mix

LENGTH = 2 * BLOCK
"""Weights of a block: as many as normal numbers are drawn together."""
WORK = 16
"""What one weight costs, in elements of a plain pass."""
_GOLDEN, _STREAM, _PAIRS = np.uint64(GOLDEN), np.uint64(STREAM), np.uint64(BLOCK)


class Physics(NamedTuple):
    """Everything that a pass reads beside targets and places, as numba takes it.

    Attributes:
        seed: of what programming drew.
        read_seed: of what the time draws.
        per_step: points of the tables for each microsiemens.
        sigma: table of the programming noise, microsiemens.
        has_sigma: whether any of it is not zero.
        mean: table of the means of the drift exponents.
        spread: table of their standard deviations.
        low_programmed: a programmed conductance is not smaller.
        ages: whether time has passed: all that follows counts.
        redrawn: whether xi_1 is that of the read seed.
        log_time: L.
        shift: microsiemens.
        relax: microsiemens.
        rho: table of the read noise, microsiemens.
        has_rho: whether any of it is not zero.
        low: a conductance that is read is not smaller.
        high: a conductance that is read is not larger.
        stuck_low: share of devices stuck at `g_min`.
        stuck_high: share of devices stuck at `g_max`.
        fault_seed: which ones.
        g_min: smallest target, microsiemens.
        g_max: largest target, microsiemens.
    """

    seed: Any
    read_seed: Any
    per_step: Any
    sigma: Any
    has_sigma: Any
    mean: Any
    spread: Any
    low_programmed: Any
    ages: Any
    redrawn: Any
    log_time: Any
    shift: Any
    relax: Any
    rho: Any
    has_rho: Any
    low: Any
    high: Any
    stuck_low: Any
    stuck_high: Any
    fault_seed: Any
    g_min: Any
    g_max: Any


def physics(law: DeviceLaw, aging: Aging | None, faults: Faults, seed: int, read_seed: int) -> Physics:
    """What a pass over the devices of one chip reads.

    Args:
        law: of the devices.
        aging: what time has done; None: they are as programmed.
        faults: stuck devices.
        seed: of what programming drew.
        read_seed: of what the time draws; not used where `aging` is None.
    """
    f = np.float32
    aged = Aging(0.0, np.zeros(2, f)) if aging is None else aging
    sigma = law.sigma_us if aged.redrawn_us is None else aged.redrawn_us
    return Physics(
        seed=np.uint64(seed),
        read_seed=np.uint64(read_seed),
        per_step=f(1 / law.step_us),
        sigma=sigma,
        has_sigma=bool(sigma.any()),
        mean=law.mean,
        spread=law.spread,
        low_programmed=f(law.low_us),
        ages=aging is not None,
        redrawn=aged.redrawn_us is not None,
        log_time=f(aged.log_time),
        shift=f(aged.shift_us),
        relax=f(aged.relax_us),
        rho=aged.rho_us,
        has_rho=bool(aged.rho_us.any()),
        low=f(aged.low_us),
        high=f(aged.high_us),
        stuck_low=float(faults.at_g_min),
        stuck_high=1 - float(faults.at_g_max),
        fault_seed=np.uint64(faults.seed),
        g_min=f(law.g_min_us),
        g_max=f(law.g_max_us),
    )


@njit(cache=True, nogil=True)
def block_memory():
    """Memory that `devices_block` works in, one for each thread."""
    f = np.float32
    return (
        scratch(),
        np.empty((3, LENGTH), f),
        np.empty(LENGTH, f),
        np.empty(LENGTH, f),
        np.empty(LENGTH, f),
        np.empty(LENGTH, np.int32),
    )


@njit(cache=True, nogil=True)
def _draw(p, device, block, programs, work, xi):
    """Those of xi_1, xi_2 and xi_3 of a block that count; a loop, so that the compiler sees one call."""
    for k in range(3):
        needed = programs and p.has_sigma
        if k == 1:
            needed = not programs or (p.ages and (p.log_time > 0 or p.relax > 0))
        elif k == 2:
            needed = programs and p.ages and p.has_rho
        if needed:
            seed = p.read_seed if k == 2 or (k == 0 and p.redrawn) else p.seed
            stream = np.uint64(device + (2 if k > 0 else 0))
            draw_block(seed, stream * _STREAM + np.uint64(block) * _PAIRS, work, xi[k])


@njit(cache=True, nogil=True)
def _places(g, per_step, last, index, part):
    """Where conductances lie between the points of a table: the point before, and the share of the step beyond it."""
    f = np.float32
    for i in range(LENGTH):
        place = g[i] * per_step
        place = place if place > f(0) else f(0)
        place = place if place < f(last + 1) else f(last + 1)
        whole = np.int32(place)
        whole = whole if whole < last else last
        index[i] = whole
        part[i] = place - f(whole)


@njit(cache=True, nogil=True)
def _exponents(target, p, xi, part, index, nu):
    _places(target, p.per_step, np.int32(p.mean.size - 2), index, part)
    for i in range(LENGTH):
        j = index[i]
        mean = p.mean[j] + part[i] * (p.mean[j + 1] - p.mean[j])
        spread = p.spread[j] + part[i] * (p.spread[j + 1] - p.spread[j])
        nu[i] = abs(mean + spread * xi[i])


@njit(cache=True, nogil=True)
def exponents_block(target, p, device, block, memory, nu):
    """Drift exponents of one device of each weight of a block.

    Args:
        target: microsiemens, shape (LENGTH,).
        p: the `Physics`.
        device: 0 or 1.
        block: number of the block.
        memory: from `block_memory`.
        nu: result, shape (LENGTH,).
    """
    work, xi, part, _, _, index = memory
    _draw(p, device, block, False, work, xi)
    _exponents(target, p, xi[1], part, index, nu)


@njit(cache=True, nogil=True)
def _exp(x, whole, power, out):
    """exp of numbers in [-80, 0]. whole: int32, power: its float32 view."""
    f = np.float32
    for i in range(LENGTH):
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
    for i in range(LENGTH):
        out[i] *= power[i]


@njit(cache=True, nogil=True)
def _age(target, p, memory, g):
    """From programmed conductances to those that are read; in place."""
    f = np.float32
    _, xi, part, decay, x, index = memory
    for i in range(LENGTH):
        decay[i] = f(1)
    if p.log_time > f(0):
        _exponents(target, p, xi[1], part, index, x)
        for i in range(LENGTH):
            power = x[i] * p.log_time
            x[i] = -power if power < f(80) else f(-80)
        _exp(x, index, index.view(np.float32), decay)
    if p.relax > f(0):
        xi_2 = xi[1]
        for i in range(LENGTH):
            g[i] = g[i] + p.shift + p.relax * xi_2[i]
    if p.has_rho:
        xi_3 = xi[2]
        _places(g, p.per_step, np.int32(p.rho.size - 2), index, part)
        for i in range(LENGTH):
            j = index[i]
            rho = p.rho[j] + part[i] * (p.rho[j + 1] - p.rho[j])
            g[i] = g[i] + rho * xi_3[i]
    for i in range(LENGTH):
        aged = decay[i] * g[i]
        aged = aged if aged > p.low else p.low
        g[i] = aged if aged < p.high else p.high


@njit(cache=True, nogil=True)
def devices_block(target, p, device, block, memory, g):
    """Conductances of one device of each weight of a block.

    Args:
        target: microsiemens, shape (LENGTH,).
        p: the `Physics`.
        device: 0 or 1.
        block: number of the block.
        memory: from `block_memory`.
        g: result, microsiemens, shape (LENGTH,).
    """
    work, xi, part, _, _, index = memory
    _draw(p, device, block, True, work, xi)
    if p.has_sigma:
        xi_1 = xi[0]
        _places(target, p.per_step, np.int32(p.sigma.size - 2), index, part)
        for i in range(LENGTH):
            j = index[i]
            sigma = p.sigma[j] + part[i] * (p.sigma[j + 1] - p.sigma[j])
            value = target[i] + sigma * xi_1[i]
            g[i] = value if value > p.low_programmed else p.low_programmed
    else:
        g[:] = target
    if p.ages:
        _age(target, p, memory, g)
    if p.stuck_low > 0 or p.stuck_high < 1:
        first = mix(p.fault_seed) + (np.uint64(device) * _STREAM + np.uint64(block * LENGTH)) * _GOLDEN
        for i in range(LENGTH):
            u = np.float64(mix(first + np.uint64(i + 1) * _GOLDEN) >> np.uint64(11)) * 2.0**-53
            if u < p.stuck_low:
                g[i] = p.g_min
            if u >= p.stuck_high:
                g[i] = p.g_max
