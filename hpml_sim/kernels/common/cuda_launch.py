"""The one launch of all CUDA kernels: on torch's current stream, on the tensors' own memory."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.cuda_arithmetic import SIMULATED
from hpml_sim.kernels.common.cuda_simulator import make_shared_arrays_once, run_simulated

MAX_BLOCKS = (2**31 - 1, 65535, 65535)
"""Blocks of a grid in x, y, z. Source: CUDA C++ Programming Guide, table "Technical Specifications per Compute
Capability", the same for compute capability 5.0 to 12.x."""

if SIMULATED:
    make_shared_arrays_once()


def launch_each(kernel: Any, threads: int, *arguments: Any) -> None:
    """Run a kernel with one thread an element, in blocks of 128.

    Args:
        kernel: what `@cuda.jit` made. Its last block may have more threads than elements: the kernel must compare its
            place with the number of elements.
        threads: how many there must be at least.
        arguments: as for `launch`.
    """
    block = 32 if SIMULATED else 128
    launch(kernel, -(-threads // block), block, *arguments)


def launch(kernel: Any, blocks: int | tuple[int, ...], threads: int | tuple[int, ...], *arguments: Any) -> None:
    """Put a kernel on torch's current stream; nothing happens where there is no block to run.

    numba compiles it, but does not call it: its `kernel[blocks, threads](...)` wraps each array and looks its type up
    again in every call, which took 0.2 ms with two arrays and 0.5 ms with five (H200, numba-cuda 0.30), when torch
    takes 7 us. Here a tensor's type is three words, and its address, shape and strides go straight to the driver.

    Args:
        kernel: what `@cuda.jit` made.
        blocks: of the grid, in x, y, z.
        threads: of a block, in x, y, z.
        arguments: tensors, of which at least one, each with an element, handed over without a copy; booleans, whole
            numbers, and floats (numpy's for single precision).

    Raises:
        HpmlError: more blocks than a grid can have.
    """
    grid = (blocks,) if isinstance(blocks, int) else blocks
    block = (threads,) if isinstance(threads, int) else threads
    if 0 in grid:
        return
    if any(n > most for n, most in zip(grid, MAX_BLOCKS, strict=False)):
        raise HpmlError(
            f"{kernel.py_func.__name__}: the shape needs a grid of {' x '.join(map(str, grid))} blocks, CUDA allows "
            f"{' x '.join(map(str, MAX_BLOCKS[: len(grid)]))}; split the batch"
        )
    # An empty tensor has no address that a GPU could be given; callers know the result without a kernel.
    assert all(a.numel() > 0 for a in arguments if isinstance(a, Tensor))
    if SIMULATED:
        run_simulated(kernel, grid, block, arguments)
        return
    from cuda import core as cuda_core

    driver: Any = cuda_core  # compiled, so type checkers see nothing in it
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    values: list[Any] = []
    kinds = tuple([_flatten(argument, values) for argument in arguments])
    with torch.cuda.device(device):
        function = _compiled(kernel, kinds, device.index or 0)
        stream = _stream(torch.cuda.current_stream(device).cuda_stream, device.index or 0)
        driver.launch(stream, driver.LaunchConfig(grid=grid, block=block), function, *values)


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
