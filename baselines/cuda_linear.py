"""Step 4: a layer, y = relu(x W^T + b), forward and backward, and how torch's autograd calls it.

Three kernels in a row (product, bias, ReLU) write and read the (batch, out) result twice more than one: 16 bytes an
element for 2 FLOP, at the speed of memory. Fused, bias and ReLU are applied while the sums are in registers and cost
nothing. For (M, K) by (K, N) the arithmetic intensity is 2 M N K / 4 (M K + K N + M N) FLOP a byte fused, with 4 M N
more numbers below the line otherwise: at batch 256, 128 to 128 neurons 26 instead of 12. At batch 1 it is 0.5 either
way: reading the weights is all there is, and only their bytes count.

Backward, with g = dL/dy where y > 0 and 0 elsewhere:

    dL/dx = g W          (batch, out) by (out, in)
    dL/dW = g^T x        (out, batch) by (batch, in): the sum over the batch is the product's inner dimension
    dL/db = column sums of g

that is two more products of the same size: a training step costs 3 x the FLOP of inference.

Source: D. Rumelhart, G. Hinton, R. Williams, Nature 323:533, 1986. Fused epilogues: NVIDIA CUTLASS, "Efficient GEMM in
CUDA".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hpml_sim.baselines.cuda_elementwise import bias_relu, relu_backward, relu_forward
from hpml_sim.baselines.cuda_launch import check_operands
from hpml_sim.baselines.cuda_matmul import fused_product, matmul_register_tiled
from hpml_sim.baselines.cuda_reduction import column_sum
from hpml_sim.errors import HpmlError


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """relu(x W^T + b) or x W^T + b in one kernel. No gradient; see `linear` for that.

    The transposed weight is a view: the kernel fetches it column by column instead.

    Args:
        x: float32, shape (batch, in).
        weight: W, float32, shape (out, in).
        bias: b, float32, shape (out,); None: there is none.
        relu: clip the result at 0.

    Returns:
        float32, shape (batch, out).
    """
    return fused_product(x, weight.t(), bias=bias, relu=relu)


def linear_forward_unfused(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(x W^T + b) in two kernels, to compare with: the same result, the product written and read once more.

    Args:
        x: float32, shape (batch, in).
        weight: W, float32, shape (out, in).
        bias: b, float32, shape (out,).
    """
    return bias_relu(matmul_register_tiled(x, weight.t()), bias)


def linear_backward(
    grad: Tensor, x: Tensor, weight: Tensor, y: Tensor | None, *, needs: tuple[bool, bool, bool] = (True, True, True)
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias.

    Args:
        grad: dL/dy, float32, shape (batch, out).
        x: the layer's input, float32, shape (batch, in).
        weight: W, float32, shape (out, in).
        y: the layer's output where it had a ReLU, float32, shape (batch, out); else None.
        needs: which of the three gradients are wanted.

    Returns:
        Gradients of the shapes of x, weight and bias; None for those that are not wanted.
    """
    g = grad if y is None else relu_backward(grad, y)
    return (
        matmul_register_tiled(g, weight) if needs[0] else None,
        matmul_register_tiled(g.t(), x) if needs[1] else None,
        column_sum(g) if needs[2] else None,
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
        y = linear_forward(x, weight, bias, relu=relu)
        ctx.save_for_backward(x, weight, y if relu else None)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, y = ctx.saved_tensors
        return *linear_backward(grad, x, weight, y, needs=ctx.needs_input_grad[:3]), None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """relu(x W^T + b) or x W^T + b, differentiable (once).

    Args:
        x: float32, shape (..., in).
        weight: W, float32, shape (out, in).
        bias: b, float32, shape (out,); None: there is none.
        relu: clip the result at 0.

    Returns:
        float32, shape (..., out).

    Raises:
        HpmlError: shapes that do not fit, a dtype other than float32, tensors that are not where the kernels run.
    """
    check_operands("linear", x=x, weight=weight, bias=bias)
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1]:
        raise HpmlError(f"linear: x {tuple(x.shape)} and weight {tuple(weight.shape)}; needs (..., in) and (out, in)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise HpmlError(f"linear: bias {tuple(bias.shape)} for {weight.shape[0]} outputs")
    rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    return _Linear.apply(rows, weight, bias, relu).reshape(*x.shape[:-1], weight.shape[0])  # type: ignore[union-attr]


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = relu_forward(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return relu_backward(grad, ctx.saved_tensors[0])


def relu(x: Tensor) -> Tensor:
    """max(x, 0), differentiable (once), float32 of any shape."""
    return _Relu.apply(x)  # type: ignore[return-value]
