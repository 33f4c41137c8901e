"""The passes of one training step on a CPU, compiled: weights cut into tiles with noise, and the product itself.

They compute what `converters.py` documents, forwards and backwards, in one pass over the memory each; operator by
operator the same takes several times as long. Under autocast to bfloat16 the products run in it: the codes of a DAC of
up to 8 bits are exact in it, weights and results are rounded. On other devices, inside `torch.compile` and under other
autocast, the crossbar runs operator by operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hpml_sim.analog.converters import Converters
from hpml_sim.conversion.tiling import Tiling
from hpml_sim.kernels.common.arrays import array_of, expanded_parts

_COMPILED = (torch.float32, torch.float64)


def takes_compiled_pass(tensor: Tensor, *, trains: bool = False) -> bool:
    """Whether the compiled passes take a tensor: float32 or float64 on the CPU.

    Args:
        tensor: of the operation.
        trains: whether it is one of training, whose passes also run under autocast to bfloat16.
    """
    if torch.compiler.is_compiling() or tensor.device.type != "cpu":
        return False
    if torch._C._are_functorch_transforms_active():  # `torch.func.grad` and others see no memory
        return False
    if torch.is_autocast_enabled("cpu"):
        half = torch.get_autocast_dtype("cpu")
        return trains and half == torch.bfloat16 and tensor.dtype in (torch.float32, half)
    return tensor.dtype in _COMPILED


def noise_base() -> int:
    """What the noise of one product in training is drawn from; torch's global generator gives it."""
    return int(torch.randint(2**62, ()))


@cache
def _passes() -> Any:
    """The compiled passes, imported where they first run: numba takes half a second to import."""
    from hpml_sim.kernels.crossbar_product import training

    return training


class _NoisyTiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, limit: float, noise: float | np.ndarray | None, shape: tuple[int, int, int, int]
    ) -> tuple[Tensor, Tensor]:
        matrix, scale = weight.new_empty(shape), weight.new_empty(shape[:3])
        own = weight.detach().contiguous()
        seed = 0 if noise is None else noise_base()
        _passes().noisy_tiles(array_of(own), limit, noise, seed, matrix.numpy(), scale.numpy())
        ctx.save_for_backward(weight)
        ctx.limit = limit
        ctx.mark_non_differentiable(scale)
        return matrix, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (weight,) = ctx.saved_tensors
        own = weight.contiguous()
        array = array_of(own)
        result = torch.empty(weight.shape, dtype=weight.dtype)
        _passes().tiles_backward(grads[0].contiguous().numpy(), array, array.dtype.type(ctx.limit), result.numpy())
        return result, None, None, None


def noisy_tiles(
    weight: Tensor, limit: float, noise: float | np.ndarray | None, shape: tuple[int, int, int, int]
) -> tuple[Tensor, Tensor]:
    """What training sees of a weight matrix on a CPU: clipped (as `clip_weights` does), cut into tiles, with noise.

    Args:
        weight: shape (groups * cols, rows), float32 or float64.
        limit: largest magnitude, > 0.
        noise: sigma of the weight noise, in units of the largest weight of a column on its tile, > 0; or a table of it
            over weights from -1 to 1, in the same units and equal steps; None: no noise.
        shape: (groups, row tiles, cols, height).

    Returns:
        The tiles, zero-padded, and the full scale of each column, shape (groups, row tiles, cols).
    """
    return _NoisyTiles.apply(weight, limit, noise, shape)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: Tensor,
        scale: Tensor,
        tiling: Tiling,
        converters: Converters,
        places: int,
        watch: Callable[[Tensor, Tensor], None] | None,
        log2_range: Tensor | None,
    ) -> Tensor:
        passes, c, x = _passes(), converters, x.detach().contiguous()
        (groups, vectors, _), (_, tiles, cols, height) = x.shape, matrix.shape
        unit = x.new_empty((groups, vectors) if places else (1, 1))
        codes = x.new_empty((groups * tiles, vectors, height))
        inputs, units = x.numpy(), unit.numpy()
        passes.dac_training(inputs, places, c.dac_gain, c.dac_qmax, units, codes.numpy())
        # autocast decides the type of the product; what is around it keeps its own
        y = torch.bmm(codes, matrix.flatten(0, 1).mT).to(x.dtype)
        if watch is not None:
            watch(y.view(groups, tiles, vectors, cols), unit)
        sigma, real = c.output_noise / c.lsb, inputs.dtype.type
        z, inside = x.new_empty((groups, vectors, cols)), torch.empty(y.shape, dtype=torch.bool)
        passes.adc_training(
            y.numpy(),
            np.uint64(noise_base() if sigma > 0 else 0),
            real(sigma),
            real(c.adc_gain),
            real(c.adc_qmax),
            real(c.dac_range * c.lsb),
            scale.numpy(),
            units,
            places > 0,
            z.numpy(),
            inside.numpy(),
        )
        # y is not kept: where the ADC did not clip, its gradient does not depend on the value
        ctx.save_for_backward(x, unit, matrix, codes, inside, None if log2_range is None else z)
        ctx.constants = tiling, c, places
        return z

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():  # of gradients that are differentiated again, as where the loss is an equation
            return _Product._backward_in_torch(ctx, grads[0])
        x, unit, matrix, codes, inside, z = ctx.saved_tensors
        tiling, c, places = ctx.constants
        passes, units, scaled = _passes(), unit.numpy(), places > 0
        grad_y, real = torch.empty(inside.shape, dtype=x.dtype), units.dtype.type
        # the column's gain and what its codes count cancel but for the DAC's
        given, factor = expanded_parts(grads[0]).numpy(), real(1 / c.dac_gain)
        passes.adc_backward(given, factor, tiling.row_tiles, units, scaled, inside.numpy(), grad_y.numpy())
        grad_x = grad_matrix = grad_range = None
        if ctx.needs_input_grad[1]:
            # with the codes, not with x: the devices see what the DAC made of the input
            grad_matrix = torch.bmm(grad_y.mT, codes).to(x.dtype).view(matrix.shape)
        if ctx.needs_input_grad[0] or z is not None:
            grad_codes, grad_x = torch.bmm(grad_y, matrix.flatten(0, 1)).to(x.dtype), torch.empty_like(x)
            gain, qmax = real(c.dac_gain), real(c.dac_qmax)
            passes.dac_backward(grad_codes.numpy(), x.numpy(), units, scaled, gain, qmax, grad_x.numpy())
        if z is not None:
            # z = a f(x / a) in the range a: what scales with it, less what x itself brings through both converters
            assert grad_x is not None
            grad_range = math.log(2) * ((grads[0] * z).sum() - (grad_x * x).sum())
        return grad_x, grad_matrix, None, None, None, None, None, grad_range

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def _backward_in_torch(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The same gradients, made of operations that torch differentiates."""
        x, unit, matrix, codes, inside, z = ctx.saved_tensors
        tiling, c, places = ctx.constants
        codes, inside = (one.unflatten(0, matrix.shape[:2]) for one in (codes, inside))
        each = unit[:, None, :, None] if places else x.new_ones(1, 1, 1, 1)
        grad_y = grad.unsqueeze(1) * inside * (each / c.dac_gain)
        scaled = tiling.cut_inputs(x).transpose(1, 2) / each * c.dac_gain
        passed = scaled.clamp(-c.dac_qmax, c.dac_qmax)
        grad_matrix = grad_y.mT @ (passed + (codes - passed).detach())
        grad_codes = (grad_y @ matrix) * c.dac_gain / each
        grad_x = (grad_codes * (scaled.abs() <= c.dac_qmax)).transpose(1, 2).flatten(2)[..., : tiling.rows]
        grad_range = None
        if z is not None:
            grad_range = math.log(2) * ((grad * z).sum() - (grad_x * x).sum())
        return grad_x, grad_matrix, None, None, None, None, None, grad_range


def product(
    x: Tensor,
    matrix: Tensor,
    scale: Tensor,
    *,
    tiling: Tiling,
    converters: Converters,
    places: int = 0,
    watch: Callable[[Tensor, Tensor], None] | None = None,
    log2_range: Tensor | None = None,
) -> Tensor:
    """One product in training on a CPU: the equations of `converters.py`, forwards and backwards in a pass each.

    Args:
        x: inputs, shape (groups, vectors, rows); under autocast also bfloat16.
        matrix: weights, shape (groups, row tiles, cols, height).
        scale: full scale of each column, shape (groups, row tiles, cols).
        tiling: of the layer.
        converters: of the layer.
        places: vectors of one sample, one after another, that are divided by the largest input of them before the DAC
            and multiplied with it after the ADC, a constant; 0: vectors stay as they are.
        watch: is shown the products before the ADC, in codes times weights, shape (groups, row tiles, vectors, cols),
            and what vectors were divided by, shape (groups, vectors), which holds nothing where places is 0.
        log2_range: a scalar that gets the gradient of the loss by the logarithm to the base 2 of the input range.

    Returns:
        shape (groups, vectors, cols).
    """
    return _Product.apply(x.to(matrix.dtype), matrix, scale, tiling, converters, places, watch, log2_range)  # type: ignore[no-any-return]
