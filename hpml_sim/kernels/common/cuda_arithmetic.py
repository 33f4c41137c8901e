"""Arithmetic of the CUDA kernels: operations that are never fused, and unsigned places in memory."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numba import cuda

SIMULATED: bool = "simulator" in cuda.to_device.__module__
"""Whether numba's simulator takes the place of a GPU in this process."""

unsigned = np.uint64
"""What kernels count places in memory with.

numba allows for Python's negative indices (`x[-1]`) wherever an index has a sign: it compares, adds the length and
chooses, about ten instructions before each load. An unsigned place needs none of them. Beware: numba makes a float of
the sum of an unsigned and a signed number, so every number in an index expression must be unsigned.
"""


def unfused(double: bool) -> tuple[Any, Any, Any, Any]:
    """The number type, and product, sum and quotient that are each rounded on their own.

    NVVM would join `a * b + c` into one fused multiply-add, which rounds once where a CPU rounds twice: the last bit
    differs, and a membrane potential just at its threshold fires on one device and not on the other.

    Args:
        double: float64 if true, float32 otherwise.
    """
    from numba.cuda import libdevice

    if SIMULATED:  # plain Python on numpy scalars, which never fuses
        return (np.float64 if double else np.float32), operator.mul, operator.add, operator.truediv
    if double:
        return np.float64, libdevice.dmul_rn, libdevice.dadd_rn, libdevice.ddiv_rn
    return np.float32, libdevice.fmul_rn, libdevice.fadd_rn, libdevice.fdiv_rn
