"""Kernels in numba's CUDA simulator: every CUDA thread is a Python thread, so numbers are right and times are not."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import Any

from torch import Tensor


def run_simulated(kernel: Any, blocks: tuple[int, ...], threads: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
    """Run a kernel on views of the tensors; inputs that the simulator cannot view are copied.

    Args:
        kernel: what `@cuda.jit` made.
        blocks: of the grid, in x, y, z.
        threads: of a block, in x, y, z.
        arguments: CPU tensors and numbers.
    """
    turn = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)  # its threads wait for each other by polling: short turns are several times faster
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # inf - inf: numpy warns, a GPU does not
            kernel[blocks, threads](*(_view(a) if isinstance(a, Tensor) else a for a in arguments))
    finally:
        sys.setswitchinterval(turn)


def make_shared_arrays_once() -> None:
    """Let the threads of a simulated block that ask for a shared array at the same moment get the same one.

    numba looks it up and makes it without a lock, so on a loaded machine two threads may get one each, and the block
    a wrong sum (numba-cuda 0.30, `FakeCUDAShared.array` in simulator/kernelapi.py).
    """
    from numba.cuda.simulator import kernelapi

    shared: Any = kernelapi.FakeCUDAShared
    allocate, lock = shared.array, threading.Lock()

    def array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
        asks = sys._getframe(1)
        place = asks.f_code, asks.f_lasti
        with lock:
            made = self.__dict__.setdefault("made", {})
            if place not in made:
                self._allocations.clear()  # numba's own table, by the line that calls it: now always the next one
                made[place] = allocate(self, shape, dtype, alignment)
            return made[place]

    shared.array = array


def _view(x: Tensor) -> Any:
    array = x.detach().numpy()
    whole = array.flags["C_CONTIGUOUS"] or array.flags["F_CONTIGUOUS"]
    return array if whole else array.copy()  # the simulator knows no other strides; results are always contiguous
