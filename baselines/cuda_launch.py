"""From torch tensors to numba-CUDA kernels: where kernels can run, and how one is launched.

On a GPU a kernel works on the tensor's own memory (`__cuda_array_interface__`, nothing is copied) and is put on torch's
current stream, so that it waits for the torch work before it, and the torch work after it waits for the kernel. Without
a GPU the same kernels run in numba's simulator: one Python thread for every CUDA thread, right numbers, no speed.

This module does not import numba by itself: `import hpml_sim` stays cheap, and numba's simulator has to be switched on
(NUMBA_ENABLE_CUDASIM=1) before numba.cuda is first imported.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import metadata
from typing import Any, Literal

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, needs

Backend = Literal["gpu", "simulator"]


@lru_cache(maxsize=1)
def cuda_backend() -> Backend:
    """Where numba-CUDA kernels run in this process.

    Returns:
        "gpu", or "simulator" where NUMBA_ENABLE_CUDASIM=1 was set before numba.cuda was imported.

    Raises:
        HpmlError: neither a GPU nor the simulator; the message says what is missing and what to do.

    Example:
        >>> import hpml_sim as hs
        >>> try:
        ...     where = hs.baselines.cuda_backend()
        ... except hs.HpmlError as error:  # it says what is missing
        ...     where = "nowhere"
        >>> where in ("gpu", "simulator", "nowhere")
        True
    """
    with needs("numba-CUDA", "hpml_sim[cuda]"):
        from numba import cuda
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
    try:
        _try_a_kernel()
    except Exception as error:  # whatever a driver, a toolkit or two versions that do not go together may raise
        first = " ".join(str(error).split())[:200]
        raise HpmlError(
            f"numba-cuda {metadata.version('numba-cuda')} finds {torch.cuda.get_device_name()} but cannot run a kernel "
            f"there ({type(error).__name__}: {first}). torch is built for CUDA {torch.version.cuda}, numpy is "
            f"{metadata.version('numpy')}. Usual causes: a driver older than the CUDA toolkit that numba-cuda found, "
            "or no toolkit (pip install 'numba-cuda[cu12]' or '[cu13]', whichever `nvidia-smi` shows); a numpy newer "
            "than numba-cuda knows (0.30 needs numpy < 2.5). Everything of torch still works (engine='torch'). "
            + instead
        ) from error
    return "gpu"


def _try_a_kernel() -> None:
    """Compile the smallest kernel and run it: what is missing shows here, not in the middle of a network."""
    from numba import cuda

    def write_one(x):
        x[0] = 1

    x = torch.zeros(1, dtype=torch.int32, device="cuda")
    launch(cuda.jit(write_one), 1, 1, x)
    if int(x) != 1:
        raise RuntimeError("it ran and wrote nothing")


def check_operands(operation: str, dtype: torch.dtype = torch.float32, **operands: Tensor | None) -> None:
    """Refuse what kernels would misread: another dtype, a tensor that is not where the kernels run, mixed devices.

    Args:
        operation: the call, with which the message begins.
        dtype: type that all operands must have.
        operands: tensors by the name of the argument; None is passed by.

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

    How an address gets to the driver stands in `hpml_sim/kernels/common/cuda_launch.py`.

    Args:
        kernel: what `@cuda.jit` made.
        blocks: of the grid, in x, y, z.
        threads: of one block, in x, y, z.
        arguments: tensors with at least one element each, handed over without a copy, and numbers.

    Raises:
        HpmlError: more blocks than a grid can have.
    """
    from hpml_sim.kernels.common import cuda_launch  # here, because it imports numba

    cuda_launch.launch(kernel, blocks, threads, *arguments)
