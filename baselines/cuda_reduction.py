"""Step 2: many numbers into one. Threads of a block talk through shared memory and wait for each other.

One addition for each 4 bytes read is 0.25 FLOP a byte: again the memory decides, and the goal is the speed of a copy's
read half. The order of additions is fixed (no atomics), so the same input gives the same bits every time; and it is a
tree, whose rounding error grows with the logarithm of the length where a running sum's grows with the length.

Source: M. Harris, "Optimizing Parallel Reduction in CUDA", NVIDIA, 2007 (kernel 3, sequential addressing). N. Higham,
"The accuracy of floating point summation", SIAM J. Sci. Comput. 14:783, 1993.
"""

from __future__ import annotations

from typing import Any

import numba.cuda
import numpy as np
from numba import float32
from torch import Tensor

from hpml_sim.baselines.cuda_launch import ceil_div, check_operands, cuda_backend, launch
from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.cuda_arithmetic import unsigned

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write

_SIMULATED = cuda_backend() == "simulator"
THREADS = 8 if _SIMULATED else 256  # of a block; a power of two, so that the tree halves evenly
AT_ONCE = 2 if _SIMULATED else 8  # sums of one thread
MAX_BLOCKS = 4 if _SIMULATED else 2048  # partial sums that the second kernel adds up
COLUMNS = 4 if _SIMULATED else 32  # columns of a block: 32 neighbors make one 128-byte access
ROWS = 2 if _SIMULATED else 8

zero = np.float32(0)


@cuda.jit(device=True)
def sum_of_block(value, shared):
    """The sum of `value` over all threads of a block (a power of two of them), known to every thread.

    log2(threads) rounds: the first half adds the second half's numbers, then a quarter, ... Threads that work lie side
    by side, so whole warps retire early and no two threads of a warp want the same memory bank.
    """
    thread = cuda.threadIdx.x
    shared[thread] = value
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half:
            shared[thread] += shared[thread + half]
        cuda.syncthreads()
        half //= 2
    total = shared[0]
    cuda.syncthreads()  # or a thread that is ahead would overwrite shared[0] before all have read it
    return total


@cuda.jit
def total_kernel(x, scale, partial):
    """One partial sum a block. Each thread first adds its own elements, a grid apart, then the block adds its threads.

    A thread keeps AT_ONCE sums that do not wait for each other, and fetches the next elements while it adds these (one
    sum and one load at a time reached 27 % of torch's on an H200). The loads must be for the next round: those of this
    one the compiler moves down to where they are needed, one behind the other, as nothing is stored between them.
    Run once over the data and once, as a single block, over the partial sums: blocks cannot wait for each other, the
    end of a kernel is where they all meet.

    Args:
        x: numbers, shape (elements,), at least one.
        scale: factor of each partial sum, float32.
        partial: result, shape (blocks,).
    """
    shared = cuda.shared.array(THREADS, float32)
    mine = cuda.local.array(AT_ONCE, float32)
    read = cuda.local.array(AT_ONCE, float32)
    size, step = unsigned(x.size), unsigned(cuda.gridsize(1))
    i, last = unsigned(cuda.grid(1)), size - unsigned(1)
    for k in range(AT_ONCE):
        mine[k] = zero
        read[k] = x[min(i + unsigned(k) * step, last)]  # no branch between the loads
    while i < size:
        for k in range(AT_ONCE):
            value = read[k]
            read[k] = x[min(i + unsigned(AT_ONCE + k) * step, last)]
            mine[k] += value if i + unsigned(k) * step < size else zero
        i += unsigned(AT_ONCE) * step
    for k in range(1, AT_ONCE):
        mine[0] += mine[k]
    block = sum_of_block(mine[0], shared)
    if cuda.threadIdx.x == 0:
        partial[cuda.blockIdx.x] = block * scale


@cuda.jit
def column_sum_kernel(x, result):
    """Sums over the rows of x (rows, columns): ROWS x COLUMNS threads walk down together, then add up their ROWS sums.

    A thread for each column alone would be right too, but leave the machine idle: 128 columns are 4 warps.
    """
    shared = cuda.shared.array((ROWS, COLUMNS), float32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    column = cuda.blockIdx.x * COLUMNS + tx
    mine = zero
    if column < x.shape[1]:
        for row in range(ty, x.shape[0], ROWS):
            mine += x[row, column]
    shared[ty, tx] = mine
    cuda.syncthreads()  # every thread comes here, also those beyond the last column
    half = ROWS // 2
    while half > 0:
        if ty < half:
            shared[ty, tx] += shared[ty + half, tx]
        cuda.syncthreads()
        half //= 2
    if ty == 0 and column < x.shape[1]:
        result[column] = shared[0, tx]


def total(x: Tensor, *, scale: float = 1.0) -> Tensor:
    """scale * sum of all elements: float32 of any shape -> a scalar tensor; 0 for an empty one."""
    check_operands("total", x=x)
    flat = x.contiguous().view(-1)
    if flat.numel() == 0:
        return x.new_zeros(())
    blocks = min(ceil_div(flat.numel(), THREADS), MAX_BLOCKS)
    partial = x.new_empty(blocks)
    result = x.new_empty(1)
    launch(total_kernel, blocks, THREADS, flat, np.float32(1), partial)
    launch(total_kernel, 1, THREADS, partial, np.float32(scale), result)
    return result[0]


def column_sum(x: Tensor) -> Tensor:
    """Sums over the rows: (rows, columns) -> (columns,), float32; 0 where there are no rows."""
    check_operands("column_sum", x=x)
    if x.dim() != 2:
        raise HpmlError(f"column_sum: x of shape {tuple(x.shape)}; needs (rows, columns)")
    if x.shape[0] == 0:
        return x.new_zeros(x.shape[1])
    result = x.new_empty(x.shape[1])
    launch(column_sum_kernel, ceil_div(x.shape[1], COLUMNS), (COLUMNS, ROWS), x.contiguous(), result)
    return result
