"""Which of the engines runs a neuron's kernel: torch, numba on a CPU, or numba-CUDA."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, UnknownNameError

Engine = Literal["auto", "torch", "numba", "numba-cuda"]


def choose_engine(x: Tensor, engine: Engine) -> Engine:
    """The engine itself, or for "auto" the fastest for x.

    Raises:
        UnknownNameError: no such engine. HpmlError: it does not take x's type or device.
    """
    if engine == "auto" and torch.compiler.is_compiling():  # its graphs hold torch's operators only
        return "torch"
    compiled = x.dtype in (torch.float32, torch.float64)
    if engine == "auto":
        if compiled and x.device.type == "cpu":
            return "numba"
        return "numba-cuda" if compiled and x.device.type == "cuda" and _cuda_works() else "torch"
    if engine not in ("torch", "numba", "numba-cuda"):
        raise UnknownNameError("engine", engine, ("auto", "torch", "numba", "numba-cuda"))
    wrong_device = x.device.type != "cpu" if engine == "numba" else x.device.type != "cuda" and not _simulated()
    if engine != "torch" and (not compiled or wrong_device):
        raise HpmlError(f"engine={engine!r} does not take {x.dtype} on {x.device}; take engine='torch'")
    return engine


def _simulated() -> bool:
    from hpml_sim.kernels._cuda import SIMULATED  # here, because not everyone has numba-cuda

    return SIMULATED


@lru_cache(maxsize=1)
def _cuda_works() -> bool:
    try:
        from numba import cuda
    except ImportError:
        return False
    return bool(cuda.is_available())
