"""The arithmetic of one analog matrix-vector product: DAC, product, noise, ADC. Documented to the rounding.

A converter of n bits has 2^n - 1 symmetric levels, L = 2^(n-1) - 1 on either side of zero, and rounds half to even.

    DAC    c = clip(round(x L_d / a), -L_d, L_d)                    a: input range (a full-scale input)
    array  y = W c / (L_d s)                                        s: full-scale weight of the column
    ADC    k = clip(round((y + sigma xi) L_a / b), -L_a, L_a)       b: ADC range, sigma: output noise, both in units of
    out    z = k a s b / L_a                                        one full-scale input times one full-scale weight

Gradients are straight-through: the converters count as the identity inside their range and as a constant outside. That
of the range a follows from the same rule: dz/da = (z - [gradient of z by x] x) / a, as for the step of LSQ and TQT.

Where the array itself disturbs the product, in units of full-scale weights w and full-scale inputs x, of n rows:

    read noise    y += r sqrt(sum_j |w_ij| x_j^2) xi
    IR drop       y -= d c_i sum_j w_ij x_j (1 - (1 - j/n)^2),   c = A (A (0.05 A - 0.2) + 0.5),
                  A_i = n R g_max sum_j |w_ij| |x_j|,            R: resistance from cell to cell

Sources: S. K. Esser et al., ICLR 2020 (LSQ); S. R. Jain et al., arXiv:1903.08066 (TQT); and aihwkit's forward pass
(`rpu_forward_backward_pass.cpp`) with `inp_res = out_res = 1 / (2^n - 2)`, `w_noise_type=PCM_READ` and `ir_drop`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# The compiled passes are imported where they run: numba takes half a second to import.


def levels(bits: int | None) -> int | None:
    """Levels on either side of zero, 2^(bits-1) - 1; None (an ideal converter) stays None."""
    return None if bits is None else 2 ** (bits - 1) - 1


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, top: int, noise: Tensor | None) -> Tensor:
        y = x * gain
        if noise is not None:
            y = y.add_(noise)
        ctx.save_for_backward(gain, y.abs() <= top, x if ctx.needs_input_grad[1] else None)
        return y.round_().clamp_(-top, top)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gain, inside, x = ctx.saved_tensors
        passed = grads[0] * inside
        return passed * gain, None if x is None else (passed * x).sum_to_size(gain.shape), None, None


def quantize(x: Tensor, gain: Tensor, top: int | None, noise: Tensor | None = None) -> Tensor:
    """Codes of a converter: clip(round(x gain + noise), -top, top); without rounding and clipping if `top` is None.

    Args:
        x: any shape.
        gain: broadcasts against x.
        top: levels on either side of zero.
        noise: in codes, same shape as x.

    Returns:
        Integers in x's dtype. The gradient is that of x gain inside the range and 0 outside.
    """
    if top is None:
        y = x * gain
        return y if noise is None else y + noise
    if torch.is_grad_enabled() and (x.requires_grad or gain.requires_grad):
        return _Quantize.apply(x, gain, top, noise)  # type: ignore[no-any-return]
    y = x * gain
    if noise is not None:
        y = y.add_(noise)
    return y.round_().clamp_(-top, top)


class _Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, limit: Tensor) -> Tensor:
        clipped = torch.clamp(weight, -limit, limit)
        ctx.save_for_backward(weight, clipped)
        return clipped

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, clipped = ctx.saved_tensors
        grad = grads[0]
        outward = (weight - clipped) * grad < 0
        return grad.masked_fill(outward, 0.0), None


def clip(weight: Tensor, limit: Tensor) -> Tensor:
    """Clip to [-limit, limit], for any optimizer.

    The gradient passes, except where a descent step would push a clipped weight further out: so the weight that the
    optimizer holds can always come back, as with clipping after each step.
    """
    return _Clip.apply(weight, limit)  # type: ignore[no-any-return]


def fits(*tensors: Tensor) -> bool:
    """Whether the compiled passes take these tensors: float32 or float64 on the CPU.

    Inside `torch.compile` and autocast everything runs operator by operator.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return all(t.device.type == "cpu" and t.dtype in (torch.float32, torch.float64) for t in tensors)


def _normal(like: Tensor) -> Tensor:
    """Standard normal numbers; torch's global generator gives the seed."""
    from hpml_sim.kernels.normal import fill_normal

    noise = torch.empty_like(like, memory_format=torch.contiguous_format)
    fill_normal(noise, int(torch.randint(2**62, ())))
    return noise


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, limit: float, rel: float, shape: tuple[int, int, int, int]
    ) -> tuple[Tensor, Tensor]:
        from hpml_sim.kernels import mvm as kernel

        groups, tiles, cols, _ = shape
        matrix, scale = weight.new_empty(shape), weight.new_empty((groups, tiles, cols))
        normal = _normal(matrix) if rel > 0 else matrix
        array = weight.detach().contiguous().numpy()
        real = array.dtype.type
        kernel.noisy_tiles(array, real(limit), real(rel), normal.numpy(), rel > 0, matrix.numpy(), scale.numpy())
        ctx.save_for_backward(weight)
        ctx.limit = limit
        ctx.mark_non_differentiable(scale)
        return matrix, scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from hpml_sim.kernels import mvm as kernel

        (weight,) = ctx.saved_tensors
        array = weight.contiguous().numpy()
        result = torch.empty(weight.shape, dtype=weight.dtype)
        kernel.tiles_backward(grads[0].contiguous().numpy(), array, array.dtype.type(ctx.limit), result.numpy())
        return result, None, None, None


def noisy_tiles(weight: Tensor, limit: float, rel: float, shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """What training sees of a weight matrix on a CPU: clipped (as `clip` does), cut into tiles, with noise.

    Args:
        weight: (groups * cols, rows), float32 or float64. limit: as of `clip`.
        rel: sigma of the noise, in units of the largest weight of a column on its tile.
        shape: (groups, tiles, cols, height).

    Returns:
        The tiles, zero-padded, and the full scale of each column, (groups, tiles, cols).
    """
    return _Tiles.apply(weight, limit, rel, shape)  # type: ignore[no-any-return]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        matrix: Tensor,
        scale: Tensor,
        full: float,
        tops: tuple[int, int],
        bound: float,
        sigma: float,
        watch: Callable[[Tensor], None] | None,
        log2_range: Tensor | None,
    ) -> Tensor:
        from hpml_sim.kernels import mvm as kernel

        groups, vectors, tiles, height = x.shape
        (dac_qmax, adc_qmax), cols, lsb = tops, matrix.shape[2], bound / tops[1]
        x = x.detach().contiguous()
        codes = x.new_empty((groups, tiles, vectors, height))
        kernel.dac_training(x, dac_qmax / full, dac_qmax, codes)
        y = torch.bmm(codes.flatten(0, 1), matrix.flatten(0, 1).mT).view(groups, tiles, vectors, cols)
        if watch is not None:
            watch(y)
        noise = _normal(y) if sigma > 0 else y
        z, inside = x.new_empty((groups, vectors, cols)), torch.empty(y.shape, dtype=torch.bool)
        real = np.float64 if y.dtype == torch.float64 else np.float32
        gain = (1 / (dac_qmax * lsb)) / scale
        kernel.adc_training(
            y.numpy(),
            noise.numpy(),
            sigma > 0,
            real(sigma / lsb),
            gain.numpy(),
            real(adc_qmax),
            (scale * (full * lsb)).numpy(),
            z.numpy(),
            inside.numpy(),
        )
        ctx.save_for_backward(x, matrix, codes, inside, None if log2_range is None else z)
        ctx.full, ctx.dac_qmax, ctx.real = full, dac_qmax, real
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        from hpml_sim.kernels import mvm as kernel

        x, matrix, codes, inside, z = ctx.saved_tensors
        real, full, top = ctx.real, ctx.full, ctx.dac_qmax
        grad_y = torch.empty(inside.shape, dtype=x.dtype)
        # the column's gain and what its codes count cancel but for the DAC's
        kernel.adc_backward(grads[0].contiguous().numpy(), real(full / top), inside.numpy(), grad_y.numpy())
        flat = grad_y.flatten(0, 1)
        grad_x = grad_matrix = grad_range = None
        if ctx.needs_input_grad[1]:
            grad_matrix = torch.bmm(flat.mT, codes.flatten(0, 1)).view(matrix.shape)
        if ctx.needs_input_grad[0] or z is not None:
            grad_codes = torch.bmm(flat, matrix.flatten(0, 1)).view(codes.shape)
            grad_x = torch.empty_like(x)
            kernel.dac_backward(grad_codes.numpy(), x.numpy(), real(top / full), real(top), grad_x.numpy())
        if z is not None:
            # z = a f(x / a) in the range a: what scales with it, less what x itself brings through both converters
            assert grad_x is not None
            grad_range = math.log(2) * ((grads[0] * z).sum() - (grad_x * x).sum())
        return grad_x, grad_matrix, None, None, None, None, None, None, grad_range


def product(
    x: Tensor,
    matrix: Tensor,
    scale: Tensor,
    *,
    full: float,
    tops: tuple[int, int],
    bound: float,
    sigma: float,
    watch: Callable[[Tensor], None] | None = None,
    log2_range: Tensor | None = None,
) -> Tensor:
    """One product in training on a CPU: the equations above, forwards and backwards in a pass each.

    Args:
        x: (groups, vectors, tiles, height). matrix: weights, (groups, tiles, cols, height). scale: full scale of each
            column, (groups, tiles, cols).
        full: input range. tops: L_d and L_a. bound: b. sigma: output noise.
        watch: is shown the products before the ADC, in codes times weights, (groups, tiles, vectors, cols).
        log2_range: a scalar that gets the gradient of the loss by the logarithm to the base 2 of `full`.

    Returns:
        shape (groups, vectors, cols).
    """
    return _Product.apply(x, matrix, scale, full, tops, bound, sigma, watch, log2_range)  # type: ignore[no-any-return]
