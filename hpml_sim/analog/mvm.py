"""The arithmetic of one analog matrix-vector product: DAC, product, noise, ADC. Documented to the rounding.

A converter of n bits has 2^n - 1 symmetric levels, L = 2^(n-1) - 1 on either side of zero, and rounds half to even.

    DAC    c = clip(round(x L_d / a), -L_d, L_d)                    a: input range (a full-scale input)
    array  y = W c / (L_d s)                                        s: full-scale weight of the column
    ADC    k = clip(round((y + sigma xi) L_a / b), -L_a, L_a)       b: ADC range, sigma: output noise, both in units of
    out    z = k a s b / L_a                                        one full-scale input times one full-scale weight

Gradients are straight-through: the converters count as the identity inside their range and as a constant outside.
Source: the forward pass of aihwkit (`rpu_forward_backward_pass.cpp`) with `inp_res = out_res = 1 / (2^n - 2)`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def levels(bits: int | None) -> int | None:
    """Levels on either side of zero, 2^(bits-1) - 1; None (an ideal converter) stays None."""
    return None if bits is None else 2 ** (bits - 1) - 1


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, top: int, noise: Tensor | None) -> Tensor:
        y = x * gain
        if noise is not None:
            y = y.add_(noise)
        ctx.save_for_backward(gain, y.abs() <= top)
        return y.round_().clamp_(-top, top)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gain, inside = ctx.saved_tensors
        return grads[0] * gain * inside, None, None, None


def quantise(x: Tensor, gain: Tensor, top: int | None, noise: Tensor | None = None) -> Tensor:
    """Codes of a converter: clip(round(x gain + noise), -top, top); without rounding and clipping if `top` is None.

    Args:
        x: any shape.
        gain: broadcasts against x; no gradient flows into it.
        top: levels on either side of zero.
        noise: in codes, same shape as x.

    Returns:
        Integers in x's dtype. The gradient is `gain` inside the range and 0 outside.
    """
    if top is None:
        y = x * gain
        return y if noise is None else y + noise
    if torch.is_grad_enabled() and x.requires_grad:
        return _Quantise.apply(x, gain, top, noise)  # type: ignore[no-any-return]
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
    """Clip to [-limit, limit], for any optimiser.

    The gradient passes, except where a descent step would push a clipped weight further out: so the weight that the
    optimiser holds can always come back, as with clipping after each step.
    """
    return _Clip.apply(weight, limit)  # type: ignore[no-any-return]
