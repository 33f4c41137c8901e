"""Step 1: element by element. One thread an element, neighbors in a warp read neighbors in memory.

These kernels do almost nothing with what they read, so the memory decides: their arithmetic intensity is 0 to 0.2 FLOP
a byte, where a GPU needs 5 to 25 to be busy computing (its ridge point: peak FLOP/s over bytes/s; H200 in fp32:
67e12 / 4.8e12 = 14). A good copy reaches 85 to 95 % of the data sheet's bandwidth; that is all they can reach, too.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4):65, 2009. H200: NVIDIA H200 data sheet, 67 TFLOP/s fp32 and 4.8 TB/s.
"""

from __future__ import annotations

from typing import Any

import numba.cuda
import numpy as np
import torch
from numba import float32
from torch import Tensor

from hpml_sim.baselines.cuda_launch import ceil_div, check_operands, cuda_backend, launch
from hpml_sim.errors import HpmlError

cuda: Any = numba.cuda  # Any: the annotations there describe the host's side, not what kernels may write

THREADS = 32 if cuda_backend() == "simulator" else 256  # the simulator starts a Python thread for each
MAX_GRID = 4 if cuda_backend() == "simulator" else 4096  # enough to fill any GPU; each thread takes several elements
AT_ONCE = 4  # elements that a thread of the copy has on their way

zero = np.float32(0)  # a plain 0.0 is float64: numba would then compute the whole line in double precision


def blocks_for(elements: int) -> int:
    """Blocks of a grid-stride kernel over so many elements."""
    return min(ceil_div(elements, THREADS), MAX_GRID)


@cuda.jit
def copy_kernel(source, target):
    """The yardstick: 8 bytes an element and no arithmetic.

    A grid-stride loop: the grid need not match the data, and the next element of a thread is a whole grid away, so that
    the 32 threads of a warp always read 128 bytes in a row (one "coalesced" access).
    Each thread asks for AT_ONCE elements before it stores the first: memory takes about 0.7 us to answer, and 4.8 TB/s
    times 0.7 us are 3.4 MB that must be on their way all the time. One load a thread is not enough (67 % of torch's
    copy on an H200), because no load may overtake a store that could have changed what it reads.
    Source: M. Harris, "CUDA Pro Tip: Write Flexible Kernels with Grid-Stride Loops", NVIDIA developer blog, 2013;
    Little's law, J. D. C. Little, Operations Research 9:383, 1961.
    """
    step, last = cuda.gridsize(1), source.size - 1
    read = cuda.local.array(AT_ONCE, float32)  # registers
    for i in range(cuda.grid(1), source.size, AT_ONCE * step):
        for k in range(AT_ONCE):
            read[k] = source[min(i + k * step, last)]  # no branch between the loads
        for k in range(AT_ONCE):
            if i + k * step <= last:
                target[i + k * step] = read[k]


@cuda.jit
def relu_kernel(x, y):
    """y = max(x, 0): 1 FLOP on 8 bytes. Written so that NaN stays NaN, as in torch: a lost NaN hides a bug."""
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        y[i] = zero if x[i] < zero else x[i]


@cuda.jit
def relu_backward_kernel(grad, y, result):
    """dL/dx = dL/dy where y > 0, else 0: 1 FLOP on 12 bytes.

    Args:
        grad: dL/dy, shape (elements,).
        y: result of the ReLU, shape (elements,).
        result: dL/dx, shape (elements,).
    """
    for i in range(cuda.grid(1), grad.size, cuda.gridsize(1)):
        result[i] = zero if y[i] <= zero else grad[i]


@cuda.jit
def bias_relu_kernel(x, bias, y):
    """y = max(x + bias, 0) for x (rows, columns): 2 FLOP on 8 bytes; the bias stays in the cache.

    As a kernel of its own it reads and writes the whole product once more. `cuda_linear` does the same work while the
    product is still in registers, for nothing. A grid in two dimensions spares a slow i % columns.

    Args:
        x: shape (rows, columns).
        bias: shape (columns,).
        y: result, shape (rows, columns).
    """
    column, row = cuda.grid(2)
    if row < x.shape[0] and column < x.shape[1]:
        value = x[row, column] + bias[column]
        y[row, column] = zero if value < zero else value


@cuda.jit
def sgd_kernel(weight, grad, velocity, lr, momentum):
    """velocity = momentum * velocity + grad, weight -= lr * velocity: 4 FLOP on 20 bytes, fused into one pass.

    Args:
        weight: parameters, shape (elements,); changed in place.
        grad: their gradient, shape (elements,).
        velocity: running sum of gradients, shape (elements,); changed in place.
        lr: learning rate, float32.
        momentum: share of the velocity that is kept, float32.

    Source: B. Polyak 1964, in the form of torch.optim.SGD (the learning rate outside the velocity).
    """
    for i in range(cuda.grid(1), weight.size, cuda.gridsize(1)):
        v = momentum * velocity[i] + grad[i]
        velocity[i] = v
        weight[i] = weight[i] - lr * v


def copy(x: Tensor) -> Tensor:
    """A contiguous copy, float32, any shape."""
    check_operands("copy", x=x)
    source = x.contiguous()
    target = torch.empty_like(source)
    launch(copy_kernel, blocks_for(x.numel()), THREADS, source.view(-1), target.view(-1))
    return target


def relu_forward(x: Tensor) -> Tensor:
    """max(x, 0), float32, any shape."""
    check_operands("relu", x=x)
    source = x.contiguous()
    y = torch.empty_like(source)
    launch(relu_kernel, blocks_for(x.numel()), THREADS, source.view(-1), y.view(-1))
    return y


def relu_backward(grad: Tensor, y: Tensor) -> Tensor:
    """Gradient of max(x, 0) with respect to x, from the gradient and the value of its result (equal shapes)."""
    check_operands("relu_backward", grad=grad, y=y)
    if grad.shape != y.shape:
        raise HpmlError(f"relu_backward: grad of shape {tuple(grad.shape)} for a result of shape {tuple(y.shape)}")
    grad, y = grad.contiguous(), y.contiguous()
    result = torch.empty_like(grad)
    launch(relu_backward_kernel, blocks_for(y.numel()), THREADS, grad.view(-1), y.view(-1), result.view(-1))
    return result


def bias_relu(x: Tensor, bias: Tensor) -> Tensor:
    """max(x + bias, 0) for x (rows, columns) and bias (columns,)."""
    check_operands("bias_relu", x=x, bias=bias)
    if x.dim() != 2 or bias.shape != x.shape[1:]:
        raise HpmlError(
            f"bias_relu: x {tuple(x.shape)} and bias {tuple(bias.shape)}; needs (rows, columns) and (columns,)"
        )
    source = x.contiguous()
    y = torch.empty_like(source)
    grid = (ceil_div(x.shape[1], 32), ceil_div(x.shape[0], THREADS // 32))
    launch(bias_relu_kernel, grid, (32, THREADS // 32), source, bias.contiguous(), y)
    return y


def sgd_step(weight: Tensor, grad: Tensor, velocity: Tensor, *, lr: float, momentum: float = 0.0) -> None:
    """One step of gradient descent with momentum.

    Args:
        weight: parameters, float32, contiguous, any shape; changed in place.
        grad: their gradient, float32, of the same shape.
        velocity: running sum of gradients, float32, contiguous, of the same shape; changed in place.
        lr: learning rate, > 0.
        momentum: share of the velocity that is kept, in [0, 1).

    Raises:
        HpmlError: shapes that differ, tensors that are not contiguous, the wrong dtype or device.
    """
    check_operands("sgd_step", weight=weight, grad=grad, velocity=velocity)
    if not (weight.shape == grad.shape == velocity.shape and weight.is_contiguous() and velocity.is_contiguous()):
        raise HpmlError("sgd_step: weight, grad and velocity need equal shapes; weight and velocity must be contiguous")
    flat = (weight.detach().view(-1), grad.contiguous().view(-1), velocity.view(-1))
    launch(sgd_kernel, blocks_for(weight.numel()), THREADS, *flat, np.float32(lr), np.float32(momentum))
    # autograd did not see the kernel write: tell it, so that it refuses values that it has saved and that are gone
    torch.autograd.graph.increment_version((weight, velocity))
