"""DAC and ADC, and the arithmetic of one analog matrix-vector product, documented to the rounding.

A converter of n bits has 2^n - 1 symmetric levels, L = 2^(n-1) - 1 on either side of zero, and rounds half to even.

    DAC    c = clip(round(x L_d / a), -L_d, L_d)                    a: input range (a full-scale input)
    array  y = W c / (L_d s)                                        s: full-scale weight of the column
    ADC    k = clip(round((y + sigma xi) L_a / b), -L_a, L_a)       b: ADC range, sigma: output noise, both in units of
    out    z = k a s b / L_a                                        one full-scale input times one full-scale weight

Gradients are straight-through: the converters count as the identity inside their range and as a constant outside. That
of the range a follows from the same rule: dz/da = (z - [gradient of z by x] x) / a, as for the step of LSQ and TQT.

Where the array itself disturbs the product (read noise, IR drop): `array_physics.py`.

Sources: S. K. Esser et al., ICLR 2020 (LSQ); S. R. Jain et al., arXiv:1903.08066 (TQT); and aihwkit's forward pass
(`rpu_forward_backward_pass.cpp`) with `inp_res = out_res = 1 / (2^n - 2)`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def largest_code(bits: int | None) -> int | None:
    """Levels of a converter on either side of zero, 2^(bits-1) - 1.

    Args:
        bits: resolution, >= 2; None: an ideal converter, for which the result is None.

    Example:
        >>> largest_code(8)
        127
    """
    return None if bits is None else 2 ** (bits - 1) - 1


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, qmax: int, noise: Tensor | None) -> Tensor:
        y = x * gain
        if noise is not None:
            y = y.add_(noise)
        ctx.save_for_backward(gain, y.abs() <= qmax, x if ctx.needs_input_grad[1] else None)
        return y.round_().clamp_(-qmax, qmax)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # straight-through: rounding has a gradient of zero almost everywhere, with which nothing would train
        gain, inside, x = ctx.saved_tensors
        passed = grads[0] * inside
        return passed * gain, None if x is None else (passed * x).sum_to_size(gain.shape), None, None


def quantize(x: Tensor, gain: Tensor, qmax: int | None, noise: Tensor | None = None) -> Tensor:
    """Codes of a converter: clip(round(x gain + noise), -qmax, qmax).

    Args:
        x: values, any shape.
        gain: codes in one unit of x; broadcasts against x.
        qmax: largest code; None: an ideal converter, which neither rounds nor clips.
        noise: added before rounding, in codes, same shape as x; None: no noise.

    Returns:
        Integers in the type of x. The gradient is that of x gain inside the range and 0 outside.

    Example:
        >>> quantize(torch.tensor([0.26, -2.0]), torch.tensor(10.0), qmax=7)
        tensor([ 3., -7.])
    """
    if qmax is None:
        y = x * gain
        return y if noise is None else y + noise
    if torch.is_grad_enabled() and (x.requires_grad or gain.requires_grad):
        return _Quantize.apply(x, gain, qmax, noise)  # type: ignore[no-any-return]
    # without gradients: the same in place, which saves two tensors of the size of all products
    y = x * gain
    if noise is not None:
        y = y.add_(noise)
    return y.round_().clamp_(-qmax, qmax)
