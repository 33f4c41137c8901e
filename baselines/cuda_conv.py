"""Step 6: convolution and average pooling in two dimensions, direct: a thread an output, no copy of the input.

    y[n, o, h, w] = b[o] + sum over c, i, j of  x[n, c, h * stride - pad + i, w * stride - pad + j] * W[o, c, i, j]

2 C_in k^2 FLOP an output. Counted at the memory it is compute-bound: a 3 x 3 layer of 64 to 64 channels on 32 x 32
makes 75 MFLOP of 0.67 MB, 112 FLOP a byte. Counted at the load units it is the naive product again, 0.25 FLOP a byte:
both factors of each FMA are loaded, mostly from the cache. Limit: 1/8 of the FMA rate, as for
`cuda_matmul.naive_kernel`, less four integer divisions an output (they take tens of cycles, and weigh in small layers).
What would lift it is the same as there: either tiles of x and W in shared memory, or the gather into a matrix (im2col)
and `matmul_register_tiled`, which buys its speed with k^2 times the input's memory. cuDNN does it without the memory,
by computing the addresses of the matrix it never makes ("implicit GEMM").

Backward: dL/dx gathers what each input pixel has contributed to (a scatter would need atomics, whose order and so whose
rounding changes from run to run). dL/dW: a block for each weight, its threads share out batch x positions.

Source: S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning", arXiv:1410.0759, 2014.
"""

from __future__ import annotations

from typing import Any

import numba.cuda
import numpy as np
import torch
from numba import float32
from torch import Tensor

from hpml_sim.baselines.cuda_elementwise import THREADS, blocks_for, relu_backward
from hpml_sim.baselines.cuda_launch import check_operands, cuda_backend, launch
from hpml_sim.baselines.cuda_reduction import sum_of_block
from hpml_sim.errors import HpmlError

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write

BLOCK = 8 if cuda_backend() == "simulator" else 128  # threads that share out one weight's gradient; a power of two

zero = np.float32(0)
Pair = tuple[int, int]


@cuda.jit
def conv2d_kernel(x, weight, bias, has_bias, relu, stride_h, stride_w, pad_h, pad_w, y):
    """Forward, a thread an output.

    Args:
        x: images, shape (N, C, H, W).
        weight: kernels, shape (O, C, kH, kW).
        bias: shape (O,); not read if not `has_bias`.
        has_bias: whether the bias is added.
        relu: whether the result is clipped at 0.
        stride_h: rows from one output to the next.
        stride_w: columns from one output to the next.
        pad_h: rows of zeros above and below the image.
        pad_w: columns of zeros left and right of it.
        y: result, shape (N, O, H', W').
    """
    channels, height, width = x.shape[1], x.shape[2], x.shape[3]
    outputs, out_height, out_width = y.shape[1], y.shape[2], y.shape[3]
    for index in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        w = index % out_width  # neighbors in a warp are neighbors in a row of the image: coalesced, and they share x
        h = index // out_width % out_height
        o = index // (out_width * out_height) % outputs
        n = index // (out_width * out_height * outputs)
        value = bias[o] if has_bias else zero
        for c in range(channels):
            for i in range(weight.shape[2]):
                row = h * stride_h - pad_h + i
                if row < 0 or row >= height:
                    continue  # padding: zeros add nothing
                for j in range(weight.shape[3]):
                    column = w * stride_w - pad_w + j
                    if 0 <= column < width:
                        value += x[n, c, row, column] * weight[o, c, i, j]
        y[n, o, h, w] = zero if relu and value < zero else value


@cuda.jit
def conv2d_input_grad_kernel(grad, weight, stride_h, stride_w, pad_h, pad_w, result):
    """dL/dx, a thread an input pixel.

    Args:
        grad: dL/dy, shape (N, O, H', W').
        weight: kernels, shape (O, C, kH, kW).
        stride_h: rows from one output to the next.
        stride_w: columns from one output to the next.
        pad_h: rows of zeros above and below the image.
        pad_w: columns of zeros left and right of it.
        result: dL/dx, shape (N, C, H, W).
    """
    channels, height, width = result.shape[1], result.shape[2], result.shape[3]
    outputs, out_height, out_width = grad.shape[1], grad.shape[2], grad.shape[3]
    for index in range(cuda.grid(1), result.size, cuda.gridsize(1)):
        column = index % width
        row = index // width % height
        c = index // (width * height) % channels
        n = index // (width * height * channels)
        value = zero
        for i in range(weight.shape[2]):
            below = row + pad_h - i  # = h * stride for the output rows h that this pixel went into with weight row i
            h = below // stride_h
            if below < 0 or below % stride_h != 0 or h >= out_height:
                continue
            for j in range(weight.shape[3]):
                right = column + pad_w - j
                w = right // stride_w
                if right < 0 or right % stride_w != 0 or w >= out_width:
                    continue
                for o in range(outputs):
                    value += grad[n, o, h, w] * weight[o, c, i, j]
        result[n, c, row, column] = value


@cuda.jit
def conv2d_weight_grad_kernel(grad, x, stride_h, stride_w, pad_h, pad_w, result):
    """dL/dW, a block a weight.

    Args:
        grad: dL/dy, shape (N, O, H', W').
        x: images, shape (N, C, H, W).
        stride_h: rows from one output to the next.
        stride_w: columns from one output to the next.
        pad_h: rows of zeros above and below the image.
        pad_w: columns of zeros left and right of it.
        result: dL/dW, shape (O, C, kH, kW).
    """
    shared = cuda.shared.array(BLOCK, float32)
    channels, kernel_h, kernel_w = result.shape[1], result.shape[2], result.shape[3]
    j = cuda.blockIdx.x % kernel_w
    i = cuda.blockIdx.x // kernel_w % kernel_h
    c = cuda.blockIdx.x // (kernel_w * kernel_h) % channels
    o = cuda.blockIdx.x // (kernel_w * kernel_h * channels)
    out_height, out_width = grad.shape[2], grad.shape[3]
    mine = zero
    for position in range(cuda.threadIdx.x, grad.shape[0] * out_height * out_width, BLOCK):
        w = position % out_width
        h = position // out_width % out_height
        n = position // (out_width * out_height)
        row = h * stride_h - pad_h + i
        column = w * stride_w - pad_w + j
        if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
            mine += grad[n, o, h, w] * x[n, c, row, column]
    everyone = sum_of_block(mine, shared)
    if cuda.threadIdx.x == 0:
        result[o, c, i, j] = everyone


@cuda.jit
def channel_sum_kernel(grad, result):
    """dL/db, a block a channel: grad (N, O, H', W'), result (O,). 0.25 FLOP a byte."""
    shared = cuda.shared.array(BLOCK, float32)
    positions = grad.shape[2] * grad.shape[3]
    mine = zero
    for index in range(cuda.threadIdx.x, grad.shape[0] * positions, BLOCK):
        inside = index % positions
        mine += grad[index // positions, cuda.blockIdx.x, inside // grad.shape[3], inside % grad.shape[3]]
    everyone = sum_of_block(mine, shared)
    if cuda.threadIdx.x == 0:
        result[cuda.blockIdx.x] = everyone


@cuda.jit
def avg_pool2d_kernel(x, y):
    """Mean of each window: x (N * C, H, W), y (N * C, H', W'), windows side by side. At most 0.25 FLOP a byte."""
    out_height, out_width = y.shape[1], y.shape[2]
    high, wide = x.shape[1] // out_height, x.shape[2] // out_width
    for index in range(cuda.grid(1), y.size, cuda.gridsize(1)):
        w = index % out_width
        h = index // out_width % out_height
        n = index // (out_width * out_height)
        value = zero
        for i in range(high):
            for j in range(wide):
                value += x[n, h * high + i, w * wide + j]
        y[n, h, w] = value / np.float32(high * wide)


@cuda.jit
def avg_pool2d_backward_kernel(grad, result):
    """Each pixel of a window gets the same share: grad (N * C, H', W'), result (N * C, H, W)."""
    height, width = result.shape[1], result.shape[2]
    high, wide = height // grad.shape[1], width // grad.shape[2]
    for index in range(cuda.grid(1), result.size, cuda.gridsize(1)):
        column = index % width
        row = index // width % height
        n = index // (width * height)
        result[n, row, column] = grad[n, row // high, column // wide] / np.float32(high * wide)


# ------------------------------------------------------------------------------------------------------------ the calls


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, relu: bool
    ) -> Tensor:
        size = _out_size(x, weight, stride, padding)
        y = x.new_empty(x.shape[0], weight.shape[0], *size)
        some = x.new_empty(1) if bias is None else bias.contiguous()
        arguments = (x, weight, some, bias is not None, relu, *stride, *padding, y)
        launch(conv2d_kernel, blocks_for(y.numel()), THREADS, *arguments)
        ctx.save_for_backward(x, weight, y if relu else None)
        ctx.geometry = (*stride, *padding)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y = ctx.saved_tensors
        grad = grad.contiguous() if y is None else relu_backward(grad, y)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            blocks = blocks_for(x.numel())
            launch(conv2d_input_grad_kernel, blocks, THREADS, grad, weight, *ctx.geometry, grad_x)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.zeros_like(weight)
            blocks = weight.numel() if x.shape[0] else 0  # an empty batch adds nothing
            launch(conv2d_weight_grad_kernel, blocks, BLOCK, grad, x, *ctx.geometry, grad_weight)
        if ctx.needs_input_grad[2]:
            grad_bias = weight.new_zeros(weight.shape[0])
            launch(channel_sum_kernel, weight.shape[0] if x.shape[0] else 0, BLOCK, grad, grad_bias)
        return grad_x, grad_weight, grad_bias, None, None, None


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    relu: bool = False,
) -> Tensor:
    """Convolution (torch's: not flipped), differentiable (once): (N, C, H, W), (O, C, kH, kW), (O,) -> (N, O, H', W').

    Args:
        x: images, float32, shape (N, C, H, W).
        weight: kernels, float32, shape (O, C, kH, kW).
        bias: float32, shape (O,); None: there is none.
        stride: from one output to the next, in height and width, >= 1.
        padding: zeros on each side of the image, in height and width, >= 0.
        relu: clip the result at 0.

    Raises:
        HpmlError: shapes that do not fit, a kernel larger than the padded image, the wrong dtype or device.
    """
    check_operands("conv2d", x=x, weight=weight, bias=bias)
    if x.dim() != 4 or weight.dim() != 4 or x.shape[1] != weight.shape[1] or 0 in weight.shape:
        raise HpmlError(
            f"conv2d: x {tuple(x.shape)} and weight {tuple(weight.shape)}; needs (N, C, H, W), (O, C, kH, kW)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise HpmlError(f"conv2d: bias {tuple(bias.shape)} for {weight.shape[0]} outputs")
    strides, pads = _pair(stride), _pair(padding)
    if min(strides) < 1 or min(pads) < 0:
        raise HpmlError(f"conv2d: stride={stride!r} must be >= 1, padding={padding!r} >= 0")
    if min(_out_size(x, weight, strides, pads)) < 1:
        raise HpmlError(
            f"conv2d: a kernel of {tuple(weight.shape[2:])} does not fit an image of {tuple(x.shape[2:])} "
            f"padded by {pads}"
        )
    return _Conv2d.apply(x.contiguous(), weight.contiguous(), bias, strides, pads, relu)  # type: ignore[return-value]


class _AvgPool2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Pair) -> Tensor:
        size = (x.shape[2] // window[0], x.shape[3] // window[1])
        y = x.new_empty(*x.shape[:2], *size)
        launch(avg_pool2d_kernel, blocks_for(y.numel()), THREADS, x.flatten(0, 1), y.flatten(0, 1))
        ctx.shape = x.shape
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        result = grad.new_empty(ctx.shape)
        grads = grad.contiguous().flatten(0, 1)
        launch(avg_pool2d_backward_kernel, blocks_for(result.numel()), THREADS, grads, result.flatten(0, 1))
        return result, None


def avg_pool2d(x: Tensor, window: int | Pair) -> Tensor:
    """Mean of windows that lie side by side, differentiable (once): (N, C, H, W) -> (N, C, H / wH, W / wW), float32.

    Raises:
        HpmlError: an image that the windows do not fill exactly, the wrong dtype or device.
    """
    check_operands("avg_pool2d", x=x)
    size = _pair(window)
    if x.dim() != 4 or min(size) < 1 or x.shape[2] % size[0] or x.shape[3] % size[1]:
        raise HpmlError(
            f"avg_pool2d: x {tuple(x.shape)} and window {size}; needs (N, C, H, W), multiples of the window"
        )
    return _AvgPool2d.apply(x.contiguous(), size)  # type: ignore[return-value]


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _out_size(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Pair:
    """(H', W'): how many places the kernel fits in the padded image, `stride` apart."""
    height, width = (
        (n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
    )
    return height, width
