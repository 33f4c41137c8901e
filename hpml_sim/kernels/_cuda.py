"""What the CUDA kernels share: whether numba simulates, operations that are never fused, and the launch."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from numba import cuda
from torch import Tensor

SIMULATED: bool = "simulator" in cuda.to_device.__module__


def unfused(double: bool) -> tuple[Any, Any, Any, Any]:
    """The number type, and product, sum and quotient that are each rounded on their own, for float64 or float32."""
    from numba.cuda import libdevice

    if SIMULATED:  # plain Python on numpy scalars, which never fuses
        return (np.float64 if double else np.float32), operator.mul, operator.add, operator.truediv
    if double:
        return np.float64, libdevice.dmul_rn, libdevice.dadd_rn, libdevice.ddiv_rn
    return np.float32, libdevice.fmul_rn, libdevice.fadd_rn, libdevice.fdiv_rn


def launch(kernel: Any, like: Tensor, *arguments: Any) -> None:
    """Run a kernel with one thread for each chip and neuron of `like` (chips, steps, neurons)."""
    threads = like.shape[0] * like.shape[2]
    if threads == 0:
        return
    if SIMULATED:
        arguments = tuple(a.detach().numpy() if isinstance(a, Tensor) else a for a in arguments)
        kernel[-(-threads // 32), 32](*arguments)
        return
    stream = cuda.external_stream(torch.cuda.current_stream(like.device).cuda_stream)
    arguments = tuple(cuda.as_cuda_array(a.detach()) if isinstance(a, Tensor) else a for a in arguments)
    kernel[-(-threads // 128), 128, stream](*arguments)
