"""The converters of a crossbar product on a CUDA device, or on numba's simulator (NUMBA_ENABLE_CUDASIM=1).

cuBLAS makes the product between them; the equations stand in `reference.py`.

libdevice's `_rn` operations round each product and sum on their own, so that equal products give the same bits as on
the CPU.

Arithmetic intensity: DAC 4 FLOP on 8 bytes (product, rounding, two comparisons), 0.5 FLOP a byte; ADC with noise 8 FLOP
on 8 bytes read, and 4 bytes written for all tiles and slices of a column: about 1 FLOP a byte. Limit: memory, where an
H200 needs 14 (67 TFLOP/s over 4.8 TB/s).

What a memory-bound kernel must do is keep enough on its way: bandwidth x latency, 4.8 TB/s x 0.7 us over 132
multiprocessors, is 25 kB each. So a thread keeps to one column and goes down some vectors: the threads of a warp read
neighbors in memory, and no thread divides to find its place in every value (four 64-bit divisions cost five times what
the memory took on an H200). The DAC's loads stand before its stores, which none may overtake. The ADC adds up tiles and
stores nothing until the end, and there the compiler moved each load down to its use: 5 at a time of 8, and 0.66 of a
copy's bandwidth (H200). So it fetches the next tile's readings while it converts this one's: these cannot move.
`tools/compile_kernels.py` reads from the machine code what is in flight: 64 kB a multiprocessor now.

Source: roofline, S. Williams et al., CACM 52(4):65, 2009; Little's law, J. D. C. Little, Oper. Res. 9:383, 1961.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba.cuda
import numpy as np
import torch
from torch import Tensor

from hpml_sim.kernels.common.cuda_arithmetic import SIMULATED, unfused, unsigned
from hpml_sim.kernels.common.cuda_launch import launch

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write

_THREADS = 4 if SIMULATED else 128  # side by side, along the columns
_DAC_VECTORS = 3 if SIMULATED else 4  # of one thread
_ADC_VECTORS = 3 if SIMULATED else 8


@lru_cache(maxsize=2)
def _dac_kernel(double: bool) -> Any:
    """The DAC for float64 or float32."""
    from numba.cuda import libdevice

    _, mul, _, _ = unfused(double)
    number = numba.float64 if double else numba.float32
    rint = np.rint if SIMULATED else libdevice.rint if double else libdevice.rintf

    @cuda.jit
    def dac(x, gain, qmax, codes):
        read = cuda.local.array(_DAC_VECTORS, number)
        first, t, g = cuda.blockIdx.x * _DAC_VECTORS, cuda.blockIdx.y, cuda.blockIdx.z
        last = x.shape[1] - 1
        for i in range(cuda.threadIdx.x, x.shape[3], _THREADS):
            for k in range(_DAC_VECTORS):  # no branch between the loads: beyond the end they read the last vector
                read[k] = x[g, min(first + k, last), t, i]
            for k in range(_DAC_VECTORS):
                code = rint(mul(read[k], gain))
                code = qmax if code > qmax else code
                code = -qmax if code < -qmax else code
                if first + k <= last:
                    codes[g, t, first + k, i] = code

    return dac


@lru_cache(maxsize=4)
def _adc_kernel(double: bool, noisy: bool) -> Any:
    """The ADC for float64 or float32; without noise it does not read what it is given for it."""
    from numba.cuda import libdevice

    real, mul, add, _ = unfused(double)
    zero, number = real(0), numba.float64 if double else numba.float32
    rint = np.rint if SIMULATED else libdevice.rint if double else libdevice.rintf
    one, side, down = unsigned(1), unsigned(_THREADS), unsigned(_ADC_VECTORS)

    @cuda.jit
    def adc(y, noise, sigma, gain, qmax, scale, tiles, slices, vectors, cols, z):
        # Everything flat. y, noise: groups x tiles x vectors x slices x cols; scale the same without vectors.
        read = cuda.local.array(_ADC_VECTORS, number)
        drawn = cuda.local.array(_ADC_VECTORS, number)
        total = cuda.local.array(_ADC_VECTORS, number)
        place = cuda.local.array(_ADC_VECTORS, numba.uint64)
        tiles, slices, vectors, cols = unsigned(tiles), unsigned(slices), unsigned(vectors), unsigned(cols)
        columns, turns = slices * cols, tiles * slices
        # Blocks that start together read one vector's neighbors, not the same columns of vectors far apart.
        across = (cols + side - one) // side
        block, g = unsigned(cuda.blockIdx.x), unsigned(cuda.blockIdx.y)
        first = block // across * down
        j = block % across * side + unsigned(cuda.threadIdx.x)
        if j >= cols:
            return
        start = g * tiles * vectors * columns
        level = g * tiles * columns + j
        for k in range(_ADC_VECTORS):
            place[k] = min(first + unsigned(k), vectors - one) * columns + j  # beyond the end: the last one
            read[k] = y[start + place[k]]
            if noisy:
                drawn[k] = noise[start + place[k]]
            total[k] = zero
        count = scale[level]
        done = one  # slices of this tile
        for turn in range(turns):
            now, more = count, unsigned(turn) + one < turns
            start, level = start + cols, level + cols
            if done == slices:  # on to the next tile
                start, done = start + (vectors - one) * columns, one
            else:
                done += one
            if more:
                count = scale[level]
            for k in range(_ADC_VECTORS):
                code = mul(read[k], gain)
                if noisy:
                    code = add(code, mul(drawn[k], sigma))
                if more:
                    read[k] = y[start + place[k]]
                    if noisy:
                        drawn[k] = noise[start + place[k]]
                code = rint(code)
                code = qmax if code > qmax else code
                code = -qmax if code < -qmax else code
                total[k] = add(total[k], mul(code, now))
        for k in range(_ADC_VECTORS):
            if first + unsigned(k) < vectors:
                z[(g * vectors + first + unsigned(k)) * cols + j] = total[k]

    return adc


def dac(x: Tensor, unit: Tensor | None, gain: float, qmax: int, codes: Tensor) -> None:
    """Fill codes.

    Args:
        x: inputs, shape (groups, vectors, tiles, height).
        unit: what each vector is divided by first, shape (groups, vectors); None: nothing.
        gain: codes in one unit of x.
        qmax: largest code.
        codes: result, whole numbers in [-qmax, qmax] of x's type, shape (groups, tiles, vectors, height).
    """
    double = x.dtype == torch.float64
    real = np.float64 if double else np.float32
    groups, vectors, tiles, height = x.shape
    x = x if unit is None else x / unit[..., None, None]
    grid = (-(-vectors // _DAC_VECTORS), tiles, groups if height else 0)
    launch(_dac_kernel(double), grid, (_THREADS,), x, real(gain), real(qmax), codes)


def adc(
    y: Tensor,
    noise: Tensor,
    noisy: bool,
    sigma: float,
    gain: float,
    qmax: int,
    scale: Tensor,
    unit: Tensor | None,
    z: Tensor,
) -> None:
    """Fill z.

    Args:
        y: products, shape (groups, tiles, vectors, slices * cols).
        noise: standard normal numbers, of y's shape; not read if not `noisy`.
        noisy: whether noise is added.
        sigma: noise, in codes.
        gain: codes in one unit of y.
        qmax: largest code.
        scale: what one code of each column counts, shape (groups, tiles, slices * cols).
        unit: what each result is multiplied with, shape (groups, vectors); None: nothing.
        z: result, shape (groups, vectors, cols).
    """
    double = y.dtype == torch.float64
    real = np.float64 if double else np.float32
    groups, vectors, cols = z.shape
    if z.numel() == 0 or y.numel() == 0:
        z.zero_()
        return
    tiles, slices = y.shape[1], y.shape[3] // cols
    grid = (-(-vectors // _ADC_VECTORS) * -(-cols // _THREADS), groups)
    inputs = (y.view(-1), noise.view(-1), real(sigma), real(gain), real(qmax), scale.view(-1))
    launch(_adc_kernel(double, noisy), grid, (_THREADS,), *inputs, tiles, slices, vectors, cols, z.view(-1))
    if unit is not None:
        z *= unit.unsqueeze(-1)
