"""From torch tensors to numba-CUDA kernels: where kernels can run, and how one is launched.

On a GPU a kernel works on the tensor's own memory (`__cuda_array_interface__`, nothing is copied) and is put on torch's
current stream, so that it waits for the torch work before it, and the torch work after it waits for the kernel. Without
a GPU the same kernels run in numba's simulator: one Python thread for every CUDA thread, right numbers, no speed.

This module does not import numba by itself: `import hpml_sim` stays cheap, and numba's simulator has to be switched on
(NUMBA_ENABLE_CUDASIM=1) before numba.cuda is first imported.
"""

from __future__ import annotations

import sys
import warnings
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError

Backend = Literal["gpu", "simulator"]
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
"""Blocks of a grid in x, y, z. Source: CUDA C++ Programming Guide, table "Technical Specifications per Compute
Capability", the same for compute capability 5.0 to 12.x."""


@lru_cache(maxsize=1)
def cuda_backend() -> Backend:
    """Where numba-CUDA kernels run in this process.

    Raises:
        HpmlError: neither a GPU nor the simulator; the message says what is missing and what to do.
    """
    try:
        from numba import cuda
    except ImportError as error:
        raise HpmlError(f"numba-CUDA cannot be imported ({error}); pip install 'hpml_sim[cuda]'") from error
    if "simulator" in cuda.to_device.__module__:
        return "simulator"
    instead = (
        "To run the kernels slowly on the CPU, set NUMBA_ENABLE_CUDASIM=1 in the environment before Python starts "
        "(numba.cuda is imported already: it is too late in this process)"
    )
    if not cuda.is_available():
        reason = " ".join(str(cuda.cuda_error() or "no CUDA device").split())
        raise HpmlError(
            f"numba-CUDA finds no GPU that it can use ({reason}). With an NVIDIA GPU in the machine, "
            f"`hpml-sim doctor` says what to mend. {instead}"
        )
    if not torch.cuda.is_available():
        build = "a CPU build" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        raise HpmlError(
            f"numba finds a GPU, but torch {torch.__version__} ({build}) does not: its tensors cannot lie there. "
            f"Install torch's build for this driver (https://pytorch.org). {instead}"
        )
    return "gpu"


def check_operands(operation: str, dtype: torch.dtype = torch.float32, **operands: Tensor | None) -> None:
    """Refuse what kernels would misread: another dtype, a tensor that is not where the kernels run, mixed devices.

    Args:
        operation: for the message. dtype: that all must have. operands: by the name of the argument; None is passed by.

    Raises:
        HpmlError: names the argument, what it is, and the call that mends it.
    """
    wanted = "cuda" if cuda_backend() == "gpu" else "cpu"
    first: tuple[str, torch.device] | None = None
    for name, operand in operands.items():
        if operand is None:
            continue
        if not isinstance(operand, Tensor):
            raise HpmlError(f"{operation}: {name} is a {type(operand).__name__}; it must be a torch tensor")
        if operand.dtype != dtype:
            raise HpmlError(f"{operation}: {name} is {operand.dtype}; this kernel takes {dtype} ({name}.to({dtype}))")
        if operand.device.type != wanted:
            where = "on the GPU" if wanted == "cuda" else "in numba's simulator, on the CPU"
            raise HpmlError(
                f"{operation}: {name} is on {operand.device}; kernels run {where} here ({name}.to({wanted!r}))"
            )
        if first is None:
            first = (name, operand.device)
        elif operand.device != first[1]:
            raise HpmlError(
                f"{operation}: {first[0]} is on {first[1]}, {name} on {operand.device}; move both to one device"
            )


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def launch(kernel: Any, blocks: int | tuple[int, ...], threads: int | tuple[int, ...], *arguments: Any) -> None:
    """Put one kernel on torch's current stream; does nothing where there is no block to run.

    Args:
        kernel: what `@cuda.jit` made. blocks: the grid, in x, y, z. threads: of one block.
        arguments: tensors with at least one element each, handed over without a copy, and numbers.

    Raises:
        HpmlError: more blocks than a grid can have.
    """
    grid = (blocks,) if isinstance(blocks, int) else blocks
    if any(n == 0 for n in grid):
        return
    # An empty tensor has no address that a GPU could be given; callers know the result without a kernel.
    assert all(a.numel() > 0 for a in arguments if isinstance(a, Tensor))
    if any(n > most for n, most in zip(grid, MOST_BLOCKS, strict=False)):
        raise HpmlError(
            f"{kernel.py_func.__name__}: the shape needs a grid of {' x '.join(map(str, grid))} blocks, CUDA allows "
            f"{' x '.join(map(str, MOST_BLOCKS[: len(grid)]))}; split the batch"
        )
    from numba import cuda

    if cuda_backend() == "simulator":
        _simulate(kernel, grid, threads, arguments)
        return
    device = next(a.device for a in arguments if isinstance(a, Tensor))
    with cuda.gpus[device.index or 0]:  # numba keeps a current device of its own
        stream = cuda.external_stream(torch.cuda.current_stream(device).cuda_stream)
        on_device = (cuda.as_cuda_array(a.detach()) if isinstance(a, Tensor) else a for a in arguments)
        kernel[grid, threads, stream](*on_device)


def _simulate(kernel: Any, grid: tuple[int, ...], threads: int | tuple[int, ...], arguments: tuple[Any, ...]) -> None:
    """Run a kernel in numba's simulator, on views of the tensors; inputs that it cannot view are copied."""
    # Its threads wait for each other by polling: short turns make it about 6 x faster.
    turn = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # inf - inf: numpy warns, a GPU does not
            kernel[grid, threads](*(_view(a) if isinstance(a, Tensor) else a for a in arguments))
    finally:
        sys.setswitchinterval(turn)


def _view(x: Tensor) -> Any:
    array = x.detach().numpy()
    whole = array.flags["C_CONTIGUOUS"] or array.flags["F_CONTIGUOUS"]
    return array if whole else array.copy()  # the simulator knows no other strides; results are always contiguous
