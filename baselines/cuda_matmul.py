"""Step 3: C = A B, three times: naive, tiled in shared memory, tiled in registers.

A product of (M, K) by (K, N) is 2 M N K FLOP on 4 (M K + K N + M N) bytes: for M = N = K = n that is n / 6 FLOP a byte,
above the ridge point of any GPU from n = 150 on. So the arithmetic should decide, and what a kernel reaches depends on
how often it fetches a number that it could have kept. The three keep it nowhere, in shared memory, in registers.

Measured elsewhere, in C++, fp32, 4096 x 4096, RTX A6000: coalesced naive 8.5 %, shared memory 12.8 %, registers 68.7 %,
with 16-byte loads 78.4 % of cuBLAS. Here, H200: 3 %, 15 %, 55 % (`benchmarks/results/h200_baselines.json`).

Source: S. Boehm, "How to Optimize a CUDA Matmul Kernel for cuBLAS-like Performance: a Worklog", 2022,
https://siboehm.com/articles/22/CUDA-MMM. Limits from NVIDIA, "CUDA C++ Programming Guide", tables of arithmetic
throughput and shared memory: 128 fp32 FMA and 128 bytes of shared memory a cycle and SM (compute capability 8.6, 9.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numba.cuda
import numpy as np
from numba import float32
from torch import Tensor

from hpml_sim.baselines.cuda_launch import ceil_div, check_operands, cuda_backend, launch
from hpml_sim.errors import HpmlError

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write

_SIMULATED = cuda_backend() == "simulator"
TILE = 4 if _SIMULATED else 32  # side of a block, and of its tiles in shared memory
ALIGN = (
    None if _SIMULATED else 16
)  # bytes: lets the compiler load four floats at once; the simulator knows no alignment

zero = np.float32(0)  # a plain 0.0 would be float64


# ---------------------------------------------------------------------------------------------------------------- naive


@cuda.jit
def naive_kernel(a, b, c):
    """One thread an element of C, everything from global memory.

    2 FLOP for 8 bytes fetched: 0.25 FLOP a byte at the load units. Threads of a warp differ in the column, so B is read
    128 bytes in a row and A's element is the same for all 32 (swap row and column, and it is about 6 x slower).
    Limit: the caches bring 2 of 2 operands for each FMA, so at best 1/8 of the FMA rate. It reaches a fifth of that:
    for one FMA the compiled loop has 36 instructions, which work out 64-bit addresses and allow for negative indices.

    Args:
        a: the first factor, shape (M, K).
        b: the second factor, shape (K, N).
        c: result, shape (M, N).
    """
    column, row = cuda.grid(2)
    if row >= c.shape[0] or column >= c.shape[1]:
        return
    accumulated = zero
    for k in range(a.shape[1]):
        accumulated += a[row, k] * b[k, column]
    c[row, column] = accumulated


# ------------------------------------------------------------------------------------------------- tiled, shared memory


@cuda.jit
def tiled_kernel(a, b, c):
    """A block of TILE x TILE threads fetches a tile of A and one of B together, then each thread uses all of both.

    Each number fetched from global memory is used TILE times: TILE / 4 = 8 FLOP a byte instead of 0.25. Limit: now it
    is shared memory. A warp's FMA takes two operands from there, 2 cycles of its 128 bytes a cycle, while the SM could
    do 4 such FMAs in one: 1/8 of the peak, near the 12.8 % that were measured.

    Args:
        a: the first factor, shape (M, K).
        b: the second factor, shape (K, N).
        c: result, shape (M, N).

    Source: NVIDIA, "CUDA C++ Programming Guide", section "Shared Memory".
    """
    # One allocation a line: the simulator tells shared arrays apart by their line.
    tile_a = cuda.shared.array((TILE, TILE), float32)
    tile_b = cuda.shared.array((TILE, TILE), float32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    column, row = cuda.grid(2)
    inner = a.shape[1]
    accumulated = zero
    for k in range(0, inner, TILE):
        # Zeros beyond the edge add nothing. Every thread must come to the barriers, also those outside C.
        tile_a[ty, tx] = a[row, k + tx] if row < c.shape[0] and k + tx < inner else zero
        tile_b[ty, tx] = b[k + ty, column] if k + ty < inner and column < c.shape[1] else zero
        cuda.syncthreads()  # the tiles are complete
        for j in range(TILE):
            accumulated += tile_a[ty, j] * tile_b[j, tx]
        cuda.syncthreads()  # nobody needs them any more
    if row < c.shape[0] and column < c.shape[1]:
        c[row, column] = accumulated


# ----------------------------------------------------------------------------------------------------- tiled, registers


@dataclass(frozen=True)
class Tiling:
    """How a product is cut up.

    Attributes:
        rows: rows of C that one block computes.
        columns: columns of C that one block computes.
        depth: of the slices of A and B that a block holds in shared memory.
        side: each thread computes side x side elements of C.

    Raises:
        HpmlError: a size that is not a power of two, or tiles that the threads cannot share out evenly.
    """

    rows: int = 128
    columns: int = 128
    depth: int = 8
    side: int = 8

    def __post_init__(self) -> None:
        sizes = (self.rows, self.columns, self.depth, self.side)
        if any(n < 1 or n & (n - 1) for n in sizes) or self.side < 4 or min(self.rows, self.columns) < self.side:
            raise HpmlError(f"{self}: powers of two, side >= 4, rows and columns >= side")
        if (self.rows * self.depth) % self.threads or (self.columns * self.depth) % self.threads:
            raise HpmlError(f"{self}: {self.threads} threads cannot share out slices of depth {self.depth} evenly")
        if self.threads > 1024:
            raise HpmlError(f"{self}: {self.threads} threads a block; CUDA allows 1024")

    @property
    def threads_x(self) -> int:
        """Threads side by side, along the columns of C."""
        return self.columns // self.side

    @property
    def threads_y(self) -> int:
        """Threads along the rows of C."""
        return self.rows // self.side

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.threads_x * self.threads_y


GPU_LARGE, GPU_SMALL = Tiling(), Tiling(rows=32, columns=32, depth=8, side=4)
SIMULATED = Tiling(rows=8, columns=8, depth=4, side=4)  # few threads, several tiles even in a small product


@lru_cache(maxsize=64)
def register_tiled_kernel(
    tiling: Tiling, *, a_by_rows: bool = True, b_by_rows: bool = True, bias: bool = False, relu: bool = False
) -> Any:
    """The kernel for one tiling; everything given here is a constant for the compiler, which unrolls and prunes.

    Each thread keeps side x side sums in registers. For one step in depth it loads `side` numbers of A and of B from
    shared memory and makes side^2 FMAs of them: with side = 8 that is 64 FMAs on 16 numbers, not on 128. As 16-byte
    loads these take 6 cycles of shared memory where the FMAs take 16, so the FMA units decide at last. The limit is
    their peak less what else must be issued: the loads, the index arithmetic, the waits at barriers.
    From global memory a number is used 128 times: 32 FLOP a byte, above H200's ridge point (14).

    Args:
        tiling: sizes of blocks, slices and what a thread computes.
        a_by_rows: whether neighbors in memory are in one row of A (else in one column). It decides the order in which
            the threads fetch a slice, so that a warp reads in a row either way.
        b_by_rows: whether neighbors in memory are in one row of B.
        bias: add a bias (columns,) before C is written (`cuda_linear`): no traffic but the bias itself.
        relu: clip at 0 before C is written: no traffic at all.

    Returns:
        kernel(a (M, K), b (K, N), bias (N,), c (M, N)) for tiling.threads_x x tiling.threads_y threads.
    """
    rows, columns, depth, side = tiling.rows, tiling.columns, tiling.depth, tiling.side
    threads_x, threads_y, threads = tiling.threads_x, tiling.threads_y, tiling.threads
    parts_a, parts_b = rows * depth // threads, columns * depth // threads  # numbers that a thread fetches of a slice
    group = 4  # a thread's numbers lie in groups of 4 side by side (16 bytes); neighboring threads take the next group
    # Four more than needed shift the rows against each other: 8 threads that store a column would meet in one bank.
    slice_a_shape, slice_b_shape = (depth, rows + 4), (depth, columns + 4)

    @cuda.jit(**({} if _SIMULATED else {"max_registers": 128}))  # so that two blocks of 256 threads fit an SM
    def register_tiled(a, b, bias_vector, c):
        slice_a = cuda.shared.array(slice_a_shape, float32, ALIGN)  # transposed: a step in depth is one row
        slice_b = cuda.shared.array(slice_b_shape, float32, ALIGN)
        sums = cuda.local.array((side, side), float32)  # registers, once the loops over it are unrolled
        from_a = cuda.local.array(side, float32)
        from_b = cuda.local.array(side, float32)
        next_a = cuda.local.array(parts_a, float32)
        next_b = cuda.local.array(parts_b, float32)

        # The masks change nothing but tell the compiler that the numbers are not negative. It would otherwise provide
        # for Python's negative indices, and could not see that four loads are neighbors.
        tx = cuda.threadIdx.x & (threads_x - 1)
        ty = cuda.threadIdx.y & (threads_y - 1)
        thread = ty * threads_x + tx
        first_row = cuda.blockIdx.x * rows
        first_column = cuda.blockIdx.y * columns
        inner = a.shape[1]

        for i in range(side):
            for j in range(side):
                sums[i, j] = zero

        for start in range(-depth, inner, depth):
            # 1. Ask for the next slice; the numbers arrive while the FMAs below run. No branch may stand between the
            #    loads, or each would wait for the one before: outside the matrix they read its edge. What they get
            #    there counts nothing in rows and columns that C does not have, but in depth it must be zero.
            for part in range(parts_a):
                element = thread + part * threads
                m = element // depth if a_by_rows else element % rows
                k = (element % depth if a_by_rows else element // rows) + start + depth
                value = a[min(first_row + m, c.shape[0] - 1), min(k, inner - 1)]
                next_a[part] = value if k < inner else zero
            for part in range(parts_b):
                element = thread + part * threads
                n = element % columns if b_by_rows else element // depth
                k = (element // columns if b_by_rows else element % depth) + start + depth
                value = b[min(k, inner - 1), min(first_column + n, c.shape[1] - 1)]
                next_b[part] = value if k < inner else zero

            # 2. Use the slice that is there (the first turn has none).
            if start >= 0:
                for step in range(depth):
                    k = step & (depth - 1)
                    for i in range(side):
                        from_a[i] = slice_a[k, (i // group) * (threads_y * group) + ty * group + i % group]
                    for j in range(side):
                        from_b[j] = slice_b[k, (j // group) * (threads_x * group) + tx * group + j % group]
                    for i in range(side):
                        for j in range(side):
                            sums[i, j] += from_a[i] * from_b[j]
            cuda.syncthreads()  # nobody needs the slice any more

            # 3. Put the next one in its place.
            for part in range(parts_a):
                element = thread + part * threads
                m = element // depth if a_by_rows else element % rows
                k = element % depth if a_by_rows else element // rows
                slice_a[k, m] = next_a[part]
            for part in range(parts_b):
                element = thread + part * threads
                n = element % columns if b_by_rows else element // depth
                k = element // columns if b_by_rows else element % depth
                slice_b[k, n] = next_b[part]
            cuda.syncthreads()  # it is complete

        for i in range(side):
            row = first_row + (i // group) * (threads_y * group) + ty * group + i % group
            for j in range(side):
                column = first_column + (j // group) * (threads_x * group) + tx * group + j % group
                if row < c.shape[0] and column < c.shape[1]:
                    value = sums[i, j]
                    if bias:
                        value += bias_vector[column]
                    if relu:
                        value = zero if value < zero else value
                    c[row, column] = value

    return register_tiled


# ------------------------------------------------------------------------------------------------------------ the calls


def matmul_naive(a: Tensor, b: Tensor) -> Tensor:
    """A B by `naive_kernel`: (M, K), (K, N) -> (M, N), float32, any strides."""
    a, b, c = _factors("matmul_naive", a, b)
    launch(naive_kernel, (ceil_div(c.shape[1], TILE), ceil_div(c.shape[0], TILE)), (TILE, TILE), a, b, c)
    return c


def matmul_tiled(a: Tensor, b: Tensor) -> Tensor:
    """A B by `tiled_kernel`: (M, K), (K, N) -> (M, N), float32, any strides."""
    a, b, c = _factors("matmul_tiled", a, b)
    launch(tiled_kernel, (ceil_div(c.shape[1], TILE), ceil_div(c.shape[0], TILE)), (TILE, TILE), a, b, c)
    return c


def matmul_register_tiled(a: Tensor, b: Tensor, *, tiling: Tiling | None = None) -> Tensor:
    """A B by `register_tiled_kernel`: (M, K), (K, N) -> (M, N), float32, any strides.

    Args:
        a: the first factor, float32, shape (M, K).
        b: the second factor, float32, shape (K, N).
        tiling: sizes; None takes large blocks where there are enough of them to fill a GPU.
    """
    return fused_product(a, b, tiling=tiling)


def fused_product(
    a: Tensor, b: Tensor, *, bias: Tensor | None = None, relu: bool = False, tiling: Tiling | None = None
) -> Tensor:
    """A B + bias, clipped at 0 if `relu`, in one kernel.

    Args:
        a: the first factor, float32, shape (M, K), any strides.
        b: the second factor, float32, shape (K, N), any strides.
        bias: float32, shape (N,); None: there is none.
        relu: clip the result at 0.
        tiling: sizes; None takes large blocks where there are enough of them to fill a GPU.

    Returns:
        float32, shape (M, N).

    Raises:
        HpmlError: shapes that do not fit, another dtype, the wrong device, or a shape past the grid's limits.
    """
    a, b, c = _factors("matmul_register_tiled", a, b)
    check_operands("matmul_register_tiled", a=a, bias=bias)
    if bias is not None and bias.shape != c.shape[1:]:
        raise HpmlError(f"matmul_register_tiled: bias {tuple(bias.shape)} for a product of shape {tuple(c.shape)}")
    a, a_by_rows = _readable(a)
    b, b_by_rows = _readable(b)
    cut = tiling or _tiling(*c.shape)
    kernel = register_tiled_kernel(cut, a_by_rows=a_by_rows, b_by_rows=b_by_rows, bias=bias is not None, relu=relu)
    grid = (ceil_div(c.shape[0], cut.rows), ceil_div(c.shape[1], cut.columns))
    unused = c.new_empty(1) if bias is None else bias.contiguous()
    launch(kernel, grid, (cut.threads_x, cut.threads_y), a, b, unused, c)
    return c


def _factors(operation: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The factors, checked, and an empty result."""
    check_operands(operation, a=a, b=b)
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0]:
        raise HpmlError(f"{operation}: a {tuple(a.shape)} and b {tuple(b.shape)}; needs (M, K) and (K, N)")
    c = a.new_empty(a.shape[0], b.shape[1])
    if a.shape[1] == 0:  # a sum of nothing is 0; the kernels read at least one number of each factor
        a, b = a.new_zeros(a.shape[0], 1), b.new_zeros(1, b.shape[1])
    return a, b, c


def _readable(x: Tensor) -> tuple[Tensor, bool]:
    """The matrix, copied only where neither rows nor columns are contiguous, and whether rows are."""
    if x.stride(1) == 1:
        return x, True
    return (x, False) if x.stride(0) == 1 else (x.contiguous(), True)


def _tiling(rows: int, columns: int) -> Tiling:
    if _SIMULATED:
        return SIMULATED
    # Large blocks use their numbers more often, but a GPU has about a hundred SMs to feed.
    large = ceil_div(rows, GPU_LARGE.rows) * ceil_div(columns, GPU_LARGE.columns)
    return GPU_LARGE if large >= 128 else GPU_SMALL


MATMUL: dict[Literal["naive", "tiled", "register-tiled"], Any] = {
    "naive": matmul_naive,
    "tiled": matmul_tiled,
    "register-tiled": matmul_register_tiled,
}
"""The three steps by name."""
