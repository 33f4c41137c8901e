"""The passes of one training step on a CPU, compiled: weights cut into tiles with noise, and the product itself.

They compute what `converters.py` documents, forwards and backwards, in one pass over the memory each; operator by
operator the same takes several times as long. On other devices, inside `torch.compile` and under autocast, the crossbar
runs operator by operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hpml_sim.analog.converters import Converters
from hpml_sim.kernels.common.arrays import array_of, expanded_parts

# The compiled passes are imported where they run: numba takes half a second to import.


_COMPILED = (torch.float32, torch.float64)


def takes_compiled_pass(*tensors: Tensor) -> bool:
    """Whether the compiled passes take these tensors: float32 or float64 on the CPU.

    Args:
        tensors: all of one operation.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._are_functorch_transforms_active():  # `torch.func.grad` and others see no memory
        return False
    return all(t.dtype in _COMPILED and t.device.type == "cpu" for t in tensors)


def noise_base() -> int:
    """What the noise of one product in training is drawn from; torch's global generator gives it."""
    return int(torch.randint(2**62, ()))


class _NoisyTiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, limit: float, noise: float, shape: tuple[int, int, int, int]
    ) -> tuple[Tensor, Tensor]:
        from hpml_sim.kernels.crossbar_product import training as kernel

        matrix, scale = weight.new_empty(shape), weight.new_empty(shape[:3])
        own = weight.detach().contiguous()
        seed = noise_base() if noise > 0 else 0
        kernel.noisy_tiles(array_of(own), limit, noise, seed, matrix.numpy(), scale.numpy())
        ctx.save_for_backward(weight)
        ctx.limit = limit
        ctx.mark_non_differentiable(scale)
        return matrix, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from hpml_sim.kernels.crossbar_product import training as kernel

        (weight,) = ctx.saved_tensors
        own = weight.contiguous()
        array = array_of(own)
        result = torch.empty(weight.shape, dtype=weight.dtype)
        kernel.tiles_backward(grads[0].contiguous().numpy(), array, array.dtype.type(ctx.limit), result.numpy())
        return result, None, None, None


def noisy_tiles(weight: Tensor, limit: float, noise: float, shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """What training sees of a weight matrix on a CPU: clipped (as `clip_weights` does), cut into tiles, with noise.

    Args:
        weight: shape (groups * cols, rows), float32 or float64.
        limit: largest magnitude, > 0.
        noise: sigma of the weight noise, in units of the largest weight of a column on its tile, >= 0.
        shape: (groups, row tiles, cols, height).

    Returns:
        The tiles, zero-padded, and the full scale of each column, shape (groups, row tiles, cols).
    """
    return _NoisyTiles.apply(weight, limit, noise, shape)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        unit: Tensor | None,
        matrix: Tensor,
        scale: Tensor,
        converters: Converters,
        watch: Callable[[Tensor], None] | None,
        log2_range: Tensor | None,
    ) -> Tensor:
        from hpml_sim.kernels.crossbar_product import training as kernel

        groups, vectors, tiles, height = x.shape
        cols = matrix.shape[2]
        x = x.detach().contiguous()
        codes = x.new_empty((groups, tiles, vectors, height))
        kernel.dac(x, unit, converters.dac_gain, converters.dac_qmax, codes)
        y = torch.bmm(codes.flatten(0, 1), matrix.flatten(0, 1).mT).view(groups, tiles, vectors, cols)
        if watch is not None:
            watch(y)
        sigma, real = converters.output_noise / converters.lsb, np.float64 if y.dtype == torch.float64 else np.float32
        z, inside = x.new_empty((groups, vectors, cols)), torch.empty(y.shape, dtype=torch.bool)
        kernel.adc_training(
            y.numpy(),
            np.uint64(noise_base() if sigma > 0 else 0),
            real(sigma),
            real(converters.adc_gain),
            real(converters.adc_qmax),
            real(converters.dac_range * converters.lsb),
            scale.numpy(),
            *kernel.units_of(unit, x),
            z.numpy(),
            inside.numpy(),
        )
        # y is not kept: where the ADC did not clip, its gradient does not depend on the value
        ctx.save_for_backward(x, unit, matrix, codes, inside, None if log2_range is None else z)
        ctx.dac_range, ctx.dac_qmax, ctx.real = converters.dac_range, converters.dac_qmax, real
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from hpml_sim.kernels.crossbar_product import training as kernel

        if torch.is_grad_enabled():  # of gradients that are differentiated again, as where the loss is an equation
            return _Product._backward_in_torch(ctx, grads[0])
        x, unit, matrix, codes, inside, z = ctx.saved_tensors
        real, dac_range, dac_qmax = ctx.real, ctx.dac_range, ctx.dac_qmax
        grad_y = torch.empty(inside.shape, dtype=x.dtype)
        # the column's gain and what its codes count cancel but for the DAC's
        factor, units = real(dac_range / dac_qmax), kernel.units_of(unit, x)
        kernel.adc_backward(expanded_parts(grads[0]).numpy(), factor, *units, inside.numpy(), grad_y.numpy())
        flat = grad_y.flatten(0, 1)
        grad_x = grad_matrix = grad_range = None
        if ctx.needs_input_grad[2]:
            # with the codes, not with x: the devices see what the DAC made of the input
            grad_matrix = torch.bmm(flat.mT, codes.flatten(0, 1)).view(matrix.shape)
        if ctx.needs_input_grad[0] or z is not None:
            grad_codes = torch.bmm(flat, matrix.flatten(0, 1)).view(codes.shape)
            grad_x = torch.empty_like(x)
            kernel.dac_backward(
                grad_codes.numpy(), x.numpy(), *units, real(dac_qmax / dac_range), real(dac_qmax), grad_x.numpy()
            )
        if z is not None:
            # z = a f(x / a) in the range a: what scales with it, less what x itself brings through both converters
            assert grad_x is not None
            grad_range = math.log(2) * ((grads[0] * z).sum() - (grad_x * x).sum())
        return grad_x, None, grad_matrix, None, None, None, grad_range

    @staticmethod
    def _backward_in_torch(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The same gradients, made of operations that torch differentiates."""
        x, unit, matrix, codes, inside, z = ctx.saved_tensors
        dac_range, dac_qmax = ctx.dac_range, ctx.dac_qmax
        each = x.new_ones(1, 1, 1, 1) if unit is None else unit[:, None, :, None]
        grad_y = grad.unsqueeze(1) * inside * (each * (dac_range / dac_qmax))
        scaled = x.transpose(1, 2) / each * (dac_qmax / dac_range)
        passed = scaled.clamp(-dac_qmax, dac_qmax)
        grad_matrix = grad_y.mT @ (passed + (codes - passed).detach())
        grad_codes = (grad_y @ matrix) * (dac_qmax / dac_range) / each
        grad_x = (grad_codes * (scaled.abs() <= dac_qmax)).transpose(1, 2)
        grad_range = None
        if z is not None:
            grad_range = math.log(2) * ((grad * z).sum() - (grad_x * x).sum())
        return grad_x, None, grad_matrix, None, None, None, grad_range


def product(
    x: Tensor,
    unit: Tensor | None,
    matrix: Tensor,
    scale: Tensor,
    *,
    converters: Converters,
    watch: Callable[[Tensor], None] | None = None,
    log2_range: Tensor | None = None,
) -> Tensor:
    """One product in training on a CPU: the equations of `converters.py`, forwards and backwards in a pass each.

    Args:
        x: inputs, shape (groups, vectors, row tiles, height).
        unit: what each vector is divided by before the DAC, and multiplied with after the ADC, a constant, shape
            (groups, vectors); None: nothing.
        matrix: weights, shape (groups, row tiles, cols, height).
        scale: full scale of each column, shape (groups, row tiles, cols).
        converters: of the layer.
        watch: is shown the products before the ADC, in codes times weights, shape (groups, row tiles, vectors, cols).
        log2_range: a scalar that gets the gradient of the loss by the logarithm to the base 2 of the input range.

    Returns:
        shape (groups, vectors, cols).
    """
    return _Product.apply(x, unit, matrix, scale, converters, watch, log2_range)  # type: ignore[no-any-return]
