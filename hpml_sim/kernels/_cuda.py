"""What the CUDA kernels share: whether numba simulates, operations that are never fused, and the launch."""

from __future__ import annotations

import ctypes
import operator
import sys
import threading
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import cuda
from torch import Tensor

from hpml_sim.errors import HpmlError

MAX_BLOCKS = (2**31 - 1, 65535, 65535)
"""Blocks of a grid in x, y, z. Source: CUDA C++ Programming Guide, table "Technical Specifications per Compute
Capability", the same for compute capability 5.0 to 12.x."""

SIMULATED: bool = "simulator" in cuda.to_device.__module__

unsigned = np.uint64
"""What kernels count places in memory with. numba allows for Python's negative indices (`x[-1]`) wherever an index has
a sign, which took about ten instructions a load. Beware: numba makes a float of a sum of unsigned and signed numbers.
"""


def unfused(double: bool) -> tuple[Any, Any, Any, Any]:
    """The number type, and product, sum and quotient that are each rounded on their own, for float64 or float32."""
    from numba.cuda import libdevice

    if SIMULATED:  # plain Python on numpy scalars, which never fuses
        return (np.float64 if double else np.float32), operator.mul, operator.add, operator.truediv
    if double:
        return np.float64, libdevice.dmul_rn, libdevice.dadd_rn, libdevice.ddiv_rn
    return np.float32, libdevice.fmul_rn, libdevice.fadd_rn, libdevice.fdiv_rn


def launch_each(kernel: Any, threads: int, *arguments: Any) -> None:
    """Run a kernel on so many threads, in blocks of 128 (the last may have too many: the kernel must look)."""
    block = 32 if SIMULATED else 128
    launch(kernel, (-(-threads // block),), (block,), *arguments)


def launch(kernel: Any, blocks: tuple[int, ...], threads: tuple[int, ...], *arguments: Any) -> None:
    """Put a kernel on torch's current stream, on the tensors' own memory; nothing happens where there is no block.

    numba compiles it, but does not call it: its `kernel[blocks, threads](...)` wraps each array and looks its type up
    again in every call, which took 0.2 ms with two arrays and 0.5 ms with five (H200, numba-cuda 0.30), when torch
    takes 7 us. Here a tensor's type is three words, and its address, shape and strides go straight to the driver.

    Args:
        kernel: what `@cuda.jit` made. blocks, threads: of the grid and of a block, in x, y, z.
        arguments: tensors, of which at least one, each with an element; booleans, whole numbers, and floats (numpy's
            for single precision).

    Raises:
        HpmlError: more blocks than a grid can have.
    """
    if 0 in blocks:
        return
    if any(n > most for n, most in zip(blocks, MAX_BLOCKS, strict=False)):
        raise HpmlError(
            f"{kernel.py_func.__name__}: the shape needs a grid of {' x '.join(map(str, blocks))} blocks, CUDA allows "
            f"{' x '.join(map(str, MAX_BLOCKS[: len(blocks)]))}; split the batch"
        )
    if SIMULATED:
        _simulate(kernel, blocks, threads, arguments)
        return
    from cuda import core as cuda_core

    driver: Any = cuda_core  # compiled, so type checkers see nothing in it
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    values: list[Any] = []
    kinds = tuple([_flatten(argument, values) for argument in arguments])
    with torch.cuda.device(device):
        function = _compiled(kernel, kinds, device.index or 0)
        stream = _stream(torch.cuda.current_stream(device).cuda_stream, device.index or 0)
        driver.launch(stream, driver.LaunchConfig(grid=blocks, block=threads), function, *values)


Kind = Any
"""What the compiler must know of an argument: (dtype, dimensions, layout) of a tensor, the type of a number."""


def _flatten(argument: Any, values: list[Any]) -> Kind:
    """Append what numba's compiled code expects of an argument, and return its kind.

    Source: numba-cuda 0.30, `_Kernel._prepare_args` in dispatcher.py: of an array two unused pointers, the number of
    elements, the bytes of one, the address, the shape, and the strides in bytes.
    """
    if isinstance(argument, Tensor):
        size = argument.element_size()
        strides = [size * stride for stride in argument.stride()]
        values += [0, 0, argument.numel(), size, argument.data_ptr(), *argument.shape, *strides]
        if argument.is_contiguous():
            layout = "C"
        else:
            layout = "F" if argument.dim() == 2 and argument.t().is_contiguous() else "A"
        return argument.dtype, argument.dim(), layout
    if isinstance(argument, bool):
        values.append(argument)
        return bool
    if isinstance(argument, int):
        values.append(ctypes.c_int64(argument))
        return int
    if type(argument) is np.float32:
        values.append(ctypes.c_float(float(argument)))
        return np.float32
    values.append(ctypes.c_double(argument))
    return float


def signature(kinds: tuple[Kind, ...]) -> tuple[Any, ...]:
    """numba's types for arguments of these kinds."""
    from numba import from_dtype, types

    numbers = {bool: types.boolean, int: types.int64, float: types.float64, np.float32: types.float32}
    return tuple(
        types.Array(from_dtype(torch.empty(0, dtype=kind[0]).numpy().dtype), kind[1], kind[2], aligned=True)
        if isinstance(kind, tuple)
        else numbers[kind]
        for kind in kinds
    )


@lru_cache(maxsize=1024)
def _compiled(kernel: Any, kinds: tuple[Kind, ...], device: int) -> Any:
    """The kernel for arguments of these kinds, loaded on the current device (whose number is only for the cache)."""
    return kernel.compile(signature(kinds))._codelibrary.get_cufunc().kernel


@lru_cache(maxsize=256)
def _stream(handle: int, device: int) -> Any:
    from cuda import core as cuda_core

    driver: Any = cuda_core
    return driver.Stream.from_handle(handle)


def _simulate(kernel: Any, blocks: tuple[int, ...], threads: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
    """Run a kernel in numba's simulator, on views of the tensors; inputs that it cannot view are copied."""
    turn = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)  # its threads wait for each other by polling: short turns are several times faster
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # inf - inf: numpy warns, a GPU does not
            kernel[blocks, threads](*(_view(a) if isinstance(a, Tensor) else a for a in arguments))
    finally:
        sys.setswitchinterval(turn)


def _make_shared_arrays_once() -> None:
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


if SIMULATED:
    _make_shared_arrays_once()


def _view(x: Tensor) -> Any:
    array = x.detach().numpy()
    whole = array.flags["C_CONTIGUOUS"] or array.flags["F_CONTIGUOUS"]
    return array if whole else array.copy()  # the simulator knows no other strides; results are always contiguous
