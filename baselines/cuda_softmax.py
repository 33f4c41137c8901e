r"""Step 5: softmax and cross-entropy. A block a row; its threads find the largest logit, then the sum, together.

    loss = mean over rows of  log(sum_j exp(x_j)) - x_label         dloss/dx_j = (softmax(x)_j - [j = label]) / rows

exp overflows float32 from 88.8 on, so the largest logit is taken out first: log sum exp(x) = m + log sum exp(x - m).

Forward reads the row twice and writes one number: about 4 FLOP and one exp for 4 bytes (the second read hits the
cache). Backward reads it once and writes it once: 8 bytes, one exp. Memory decides in both; the exps run on units of
their own (16 a cycle and SM). With 10 classes a row is 40 bytes, most threads of the block have nothing to do and the
launch costs more than the work: at such sizes a kernel's worth lies in replacing four (max, exp, sum, pick).

Source: M. Milakov, N. Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867, 2018 (this is its
"safe softmax"; the online form saves one of the two reads).
"""

from __future__ import annotations

import math
from typing import Any

import numba.cuda
import numpy as np
import torch
from numba import float32
from torch import Tensor

from hpml_sim.baselines.cuda_launch import check_operands, cuda_backend, launch
from hpml_sim.baselines.cuda_reduction import sum_of_block, total
from hpml_sim.errors import HpmlError

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write

THREADS = 8 if cuda_backend() == "simulator" else 128  # of a block, that is of a row; a power of two

zero = np.float32(0)
lowest = np.float32(-np.inf)
undefined = np.float32(np.nan)


@cuda.jit(device=True)
def largest_of_block(value, shared):
    """The largest `value` of a block's threads (a power of two of them); the same tree as `sum_of_block`."""
    thread = cuda.threadIdx.x
    shared[thread] = value
    cuda.syncthreads()
    half = cuda.blockDim.x // 2
    while half > 0:
        if thread < half and shared[thread + half] > shared[thread]:
            shared[thread] = shared[thread + half]
        cuda.syncthreads()
        half //= 2
    largest = shared[0]
    cuda.syncthreads()
    return largest


@cuda.jit
def cross_entropy_kernel(logits, labels, norm, losses):
    """Loss of each row of logits (rows, classes), NaN where the label is no class, and what its softmax needs.

    Args:
        logits: shape (rows, classes).
        labels: class of each row, int64, shape (rows,).
        norm: result, the largest logit and the logarithm of the sum, apart, because their sum would round off the small
            one; shape (rows, 2).
        losses: result, shape (rows,).
    """
    shared = cuda.shared.array(THREADS, float32)
    row, thread = cuda.blockIdx.x, cuda.threadIdx.x
    classes = logits.shape[1]
    largest = lowest
    for j in range(thread, classes, THREADS):
        if logits[row, j] > largest:
            largest = logits[row, j]
    largest = largest_of_block(largest, shared)
    mine = zero
    for j in range(thread, classes, THREADS):
        mine += math.exp(logits[row, j] - largest)
    everyone = sum_of_block(mine, shared)
    if thread == 0:
        norm[row, 0] = largest
        norm[row, 1] = math.log(everyone)
        label = labels[row]
        losses[row] = norm[row, 1] - (logits[row, label] - largest) if 0 <= label < classes else undefined


@cuda.jit
def cross_entropy_backward_kernel(logits, labels, norm, upstream, result):
    """dloss/dlogits: exp(x - m - log sum) is the softmax, so two numbers a row are all that was kept.

    Args:
        logits: shape (rows, classes).
        labels: class of each row, int64, shape (rows,).
        norm: from `cross_entropy_kernel`, shape (rows, 2).
        upstream: dL/dloss, shape (1,).
        result: gradient of the logits, shape (rows, classes).
    """
    row = cuda.blockIdx.x
    scale = upstream[0] / np.float32(logits.shape[0])
    for j in range(cuda.threadIdx.x, logits.shape[1], THREADS):
        hit = np.float32(1) if j == labels[row] else zero
        result[row, j] = (math.exp(logits[row, j] - norm[row, 0] - norm[row, 1]) - hit) * scale


def check_cross_entropy(logits: Tensor, labels: Tensor) -> None:
    """Refuse what the kernels would misread; see `cross_entropy`."""
    check_operands("cross_entropy", logits=logits)
    check_operands("cross_entropy", dtype=torch.int64, labels=labels)
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or logits.shape[1] < 1:
        raise HpmlError(
            f"cross_entropy: logits {tuple(logits.shape)} and labels {tuple(labels.shape)}; needs (rows, classes) with "
            "at least one class, and (rows,)"
        )
    if labels.device != logits.device:
        raise HpmlError(f"cross_entropy: logits are on {logits.device}, labels on {labels.device}; move both to one")


def cross_entropy_forward(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss (a scalar; NaN for an empty batch) and norm (rows, 2), which `cross_entropy_backward` takes."""
    rows = logits.shape[0]
    norm, losses = logits.new_empty(rows, 2), logits.new_empty(rows)
    launch(cross_entropy_kernel, rows, THREADS, logits, labels, norm, losses)
    return total(losses, scale=1 / rows) if rows else losses.new_tensor(math.nan), norm


def cross_entropy_backward(logits: Tensor, labels: Tensor, norm: Tensor, upstream: Tensor | None = None) -> Tensor:
    """Gradient of the logits.

    Args:
        logits: float32, shape (rows, classes).
        labels: class of each row, int64, shape (rows,).
        norm: from `cross_entropy_forward`, shape (rows, 2).
        upstream: dL/dloss, a scalar tensor; None: 1.

    Returns:
        float32, shape (rows, classes).
    """
    result = torch.empty_like(logits)
    grad = logits.new_ones(1) if upstream is None else upstream.reshape(1)
    launch(cross_entropy_backward_kernel, logits.shape[0], THREADS, logits, labels, norm, grad, result)
    return result


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        loss, norm = cross_entropy_forward(logits, labels)
        ctx.save_for_backward(logits, labels, norm)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits, labels, norm = ctx.saved_tensors
        return cross_entropy_backward(logits, labels, norm, grad), None


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy, differentiable (once): (rows, classes) float32, (rows,) int64 -> a scalar.

    A label outside [0, classes) makes the loss NaN: an error would have to wait for the GPU in every call.

    Raises:
        HpmlError: shapes that do not fit, no class, the wrong dtype or device.
    """
    check_cross_entropy(logits, labels)
    return _CrossEntropy.apply(logits.contiguous(), labels.contiguous())  # type: ignore[return-value]
