"""Which engine runs a kernel: torch, numba on a CPU, or numba-CUDA."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError

Engine = Literal["auto", "torch", "numba", "numba-cuda"]
ENGINES: tuple[Engine, ...] = ("auto", "torch", "numba", "numba-cuda")


def choose_engine(operation: str, x: Tensor, engine: Engine) -> Engine:
    """The engine itself, or for "auto" the fastest for x.

    Args:
        operation: the function that was called; error messages begin with it.
        x: the tensor that the kernel works on.
        engine: one of `ENGINES`.

    Returns:
        "torch", "numba" or "numba-cuda".

    Raises:
        UnknownNameError: there is no such engine.
        HpmlError: the engine does not take x's type, or x lies on another device than it runs on.
    """
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine == "auto" and torch.compiler.is_compiling():  # its graphs hold torch's operators only
        return "torch"
    compiled = x.dtype in (torch.float32, torch.float64)
    if engine == "auto":
        if compiled and x.device.type == "cpu":
            return "numba"
        return "numba-cuda" if compiled and x.device.type == "cuda" and _cuda_works() else "torch"
    if engine == "torch":
        return engine
    if not compiled:
        raise HpmlError(
            f"{operation}: engine={engine!r} does not take {x.dtype}; it takes float32 and float64. Convert the input "
            "(x.float()), or take engine='torch'"
        )
    if engine == "numba" and x.device.type != "cpu":
        raise HpmlError(
            f"{operation}: engine='numba' runs on the CPU, the input lies on {x.device}; move it (x.cpu()), or take "
            "engine='auto'"
        )
    if engine == "numba-cuda" and x.device.type != "cuda" and not _simulated():
        raise HpmlError(
            f"{operation}: engine='numba-cuda' needs a CUDA tensor, the input lies on {x.device}; move it (x.cuda()), "
            "or set NUMBA_ENABLE_CUDASIM=1 before Python starts to run the kernel in numba's simulator"
        )
    return engine


def _simulated() -> bool:
    from hpml_sim.kernels.common.cuda_arithmetic import SIMULATED  # here, because not everyone has numba-cuda

    return SIMULATED


@lru_cache(maxsize=1)
def _cuda_works() -> bool:
    try:
        from numba import cuda
    except ImportError:
        return False
    return bool(cuda.is_available())
