"""The converters of `mvm.py` on a CUDA device, or on numba's simulator (NUMBA_ENABLE_CUDASIM=1); cuBLAS multiplies.

Memory limits both: 8 bytes a value for a handful of operations. So a thread keeps to one column and goes down some
vectors: the threads of a warp read neighbours in memory, several loads are on their way before the first is needed, and
no thread divides to find its place (four 64-bit divisions a value cost five times what the memory took on an H200).
libdevice's `_rn` operations round each product and sum on their own, so that equal products give the same bits as on
the CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba.cuda
import numpy as np
import torch
from torch import Tensor

from hpml_sim.kernels._cuda import SIMULATED, launch, unfused

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write

_THREADS = 4 if SIMULATED else 128  # side by side, along the columns
_VECTORS = 3 if SIMULATED else 4  # of one thread


@lru_cache(maxsize=4)
def _kernels(double: bool, noisy: bool = False) -> tuple[Any, Any]:
    """The kernels of the DAC and the ADC for float64 or float32; `noisy` is for the ADC."""
    from numba.cuda import libdevice

    real, mul, add, _ = unfused(double)
    zero, number = real(0), numba.float64 if double else numba.float32
    rint = np.rint if SIMULATED else libdevice.rint if double else libdevice.rintf

    @cuda.jit
    def dac(x, gain, top, codes):
        read = cuda.local.array(_VECTORS, number)
        first, t, g = cuda.blockIdx.x * _VECTORS, cuda.blockIdx.y, cuda.blockIdx.z
        last = x.shape[1] - 1
        for i in range(cuda.threadIdx.x, x.shape[3], _THREADS):
            for k in range(_VECTORS):  # no branch between the loads: beyond the end they read the last vector
                read[k] = x[g, min(first + k, last), t, i]
            for k in range(_VECTORS):
                code = rint(mul(read[k], gain))
                code = top if code > top else code
                code = -top if code < -top else code
                if first + k <= last:
                    codes[g, t, first + k, i] = code

    @cuda.jit
    def adc(y, noise, sigma, gain, top, scale, z):
        # y and noise: (groups * tiles, vectors * columns), so that a step to the next vector is one addition
        read = cuda.local.array(_VECTORS, number)
        drawn = cuda.local.array(_VECTORS, number)
        total = cuda.local.array(_VECTORS, number)
        last, cols, columns = z.shape[1] - 1, z.shape[2], scale.shape[2]
        # Blocks that start together read one vector's neighbours, not the same columns of vectors far apart.
        across = (cols + _THREADS - 1) // _THREADS
        first, g = cuda.blockIdx.x // across * _VECTORS, cuda.blockIdx.y
        j = cuda.blockIdx.x % across * _THREADS + cuda.threadIdx.x
        if j >= cols:
            return
        for k in range(_VECTORS):
            total[k] = zero
        for t in range(scale.shape[1]):
            line = g * scale.shape[1] + t
            for column in range(j, columns, cols):
                count = scale[g, t, column]
                start, end = first * columns + column, last * columns + column
                for k in range(_VECTORS):
                    read[k] = y[line, min(start + k * columns, end)]
                if noisy:
                    for k in range(_VECTORS):
                        drawn[k] = noise[line, min(start + k * columns, end)]
                for k in range(_VECTORS):
                    code = mul(read[k], gain)
                    if noisy:
                        code = add(code, mul(drawn[k], sigma))
                    code = rint(code)
                    code = top if code > top else code
                    code = -top if code < -top else code
                    total[k] = add(total[k], mul(code, count))
        for k in range(_VECTORS):
            if first + k <= last:
                z[g, first + k, j] = total[k]

    return dac, adc


def dac(x: Tensor, gain: float, top: int, codes: Tensor) -> None:
    """Fill codes (groups, tiles, vectors, height) from x (groups, vectors, tiles, height)."""
    double = x.dtype == torch.float64
    real = np.float64 if double else np.float32
    groups, vectors, tiles, height = x.shape
    grid = (-(-vectors // _VECTORS), tiles, groups if height else 0)
    launch(_kernels(double)[0], grid, (_THREADS,), x, real(gain), real(top), codes)


def adc(y: Tensor, noise: Tensor, noisy: bool, sigma: float, gain: float, top: int, scale: Tensor, z: Tensor) -> None:
    """Fill z (groups, vectors, cols) from y (groups, tiles, vectors, slices * cols)."""
    double = y.dtype == torch.float64
    real = np.float64 if double else np.float32
    groups, vectors, cols = z.shape
    grid = (-(-vectors // _VECTORS) * -(-cols // _THREADS), groups)
    if z.numel() == 0 or y.numel() == 0:
        z.zero_()
        return
    lines = (x.reshape(groups * x.shape[1], -1) for x in (y, noise))
    numbers = (real(sigma), real(gain), real(top))
    launch(_kernels(double, noisy)[1], grid, (_THREADS,), *lines, *numbers, scale, z)
