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

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hpml_sim.cards import Quantity


@dataclass(frozen=True)
class Converters:
    """The converters of one product, in the units of `converters.py`.

    Attributes:
        dac_range: a, a full-scale input, > 0.
        dac_qmax: L_d, largest code of the DAC.
        adc_qmax: L_a, largest code of the ADC.
        adc_bound: b, range of the ADC, in full-scale products.
        output_noise: sigma, in full-scale products.
    """

    dac_range: float
    dac_qmax: int
    adc_qmax: int
    adc_bound: float
    output_noise: float

    @property
    def lsb(self) -> float:
        """One code of the ADC, in full-scale products."""
        return self.adc_bound / self.adc_qmax

    @property
    def dac_gain(self) -> float:
        """Codes of the DAC in one unit of its input."""
        return self.dac_qmax / self.dac_range

    @property
    def adc_gain(self) -> float:
        """Codes of the ADC in one product of a code and a full-scale weight."""
        return 1 / (self.dac_qmax * self.lsb)


def largest_code(bits: int | None) -> int | None:
    """Levels of a converter on either side of zero, 2^(bits-1) - 1.

    Args:
        bits: resolution, >= 2; None: an ideal converter, for which the result is None.

    Example:
        >>> largest_code(8)
        127
    """
    return None if bits is None else 2 ** (bits - 1) - 1


def resolution(asked: int | Literal["ideal"] | None, own: Quantity) -> int | None:
    """Bits of a converter; None: an ideal one.

    Args:
        asked: what the target says; None takes the card's.
        own: of the card.
    """
    return None if asked == "ideal" else int(own) if asked is None else asked


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


def managed_range(products: Tensor, bound: float) -> tuple[Tensor, Tensor | float]:
    """The range of an ADC that was never calibrated, for each vector and tile: its range, and what divides the inputs.

    A fixed range: the input is halved until the output fits, as aihwkit's bound management does. One that can be set:
    the next power of two.

    Args:
        products: before the ADC, in full-scale products, shape (..., vectors, cols).
        bound: the fixed range; 0: it can be set.
    """
    largest = products.abs().amax(-1, keepdim=True)
    if bound > 0:
        return torch.full_like(largest, bound), torch.exp2(torch.log2((largest / bound).clamp(min=1)).ceil())
    return torch.exp2(torch.log2(largest.clamp(min=2.0**-40)).ceil()), 1.0
