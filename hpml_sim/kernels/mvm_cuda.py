"""The converters of `mvm.py` on a CUDA device, or on numba's simulator (NUMBA_ENABLE_CUDASIM=1); cuBLAS multiplies.

One thread a value of the result: the threads of a warp read neighbours in memory. libdevice's `_rn` operations round
each product and sum on their own, so that equal products give the same bits as on the CPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import cuda
from torch import Tensor

from hpml_sim.kernels._cuda import SIMULATED, launch_each, unfused


@lru_cache(maxsize=2)
def _kernels(double: bool) -> tuple[Any, Any]:
    """The kernels of the DAC and the ADC for float64 or float32."""
    from numba.cuda import libdevice

    real, mul, add, _ = unfused(double)
    zero = real(0)
    rint = np.rint if SIMULATED else libdevice.rint if double else libdevice.rintf

    @cuda.jit
    def dac(x, gain, top, codes):
        thread = cuda.grid(1)  # pyright: ignore[reportCallIssue]
        i = thread % x.shape[3]
        rest = thread // x.shape[3]
        t = rest % x.shape[2]
        rest = rest // x.shape[2]
        v = rest % x.shape[1]
        g = rest // x.shape[1]
        if g >= x.shape[0]:
            return
        k = rint(mul(x[g, v, t, i], gain))
        k = top if k > top else k
        codes[g, t, v, i] = -top if k < -top else k

    @cuda.jit
    def adc(y, noise, noisy, sigma, gain, top, scale, z):
        thread = cuda.grid(1)  # pyright: ignore[reportCallIssue]
        cols = z.shape[2]
        j = thread % cols
        rest = thread // cols
        v = rest % z.shape[1]
        g = rest // z.shape[1]
        if g >= z.shape[0]:
            return
        total = zero
        for t in range(y.shape[1]):
            for part in range(y.shape[3] // cols):
                column = part * cols + j
                k = mul(y[g, t, v, column], gain)
                if noisy:
                    k = add(k, mul(noise[g, t, v, column], sigma))
                k = rint(k)
                k = top if k > top else k
                k = -top if k < -top else k
                total = add(total, mul(k, scale[g, t, column]))
        z[g, v, j] = total

    return dac, adc


def dac(x: Tensor, gain: float, top: int, codes: Tensor) -> None:
    """Fill codes (groups, tiles, vectors, height) from x (groups, vectors, tiles, height)."""
    double = x.dtype == torch.float64
    real = np.float64 if double else np.float32
    launch_each(_kernels(double)[0], x.numel(), x, real(gain), real(top), codes)


def adc(y: Tensor, noise: Tensor, noisy: bool, sigma: float, gain: float, top: int, scale: Tensor, z: Tensor) -> None:
    """Fill z (groups, vectors, cols) from y (groups, tiles, vectors, slices * cols)."""
    double = y.dtype == torch.float64
    real = np.float64 if double else np.float32
    launch_each(_kernels(double)[1], z.numel(), y, noise, noisy, real(sigma), real(gain), real(top), scale, z)
