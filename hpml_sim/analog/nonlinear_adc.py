"""An ADC whose steps are not equally wide: a polynomial in front of it, or the thresholds that were measured."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpml_sim.analog.converters import quantize
from hpml_sim.targets import Analog


def codes_of_adc(y: Tensor, gain: Tensor, qmax: int | None, noise: Tensor | None, target: Analog) -> Tensor:
    """Codes of the ADC of a target, linear or not.

    Args:
        y: products, any shape.
        gain: codes in one unit of y; broadcasts against y.
        qmax: largest code; None: an ideal ADC.
        noise: at its input, in codes, same shape as y; None: no noise.
        target: the configuration.
    """
    if qmax is None or target.linear_adc:
        return quantize(y, gain, qmax, noise)
    return read_nonlinear(y, gain, qmax, noise, polynomial=target.adc_polynomial, thresholds=target.adc_thresholds)


def read_nonlinear(
    y: Tensor,
    gain: Tensor,
    qmax: int,
    noise: Tensor | None,
    *,
    polynomial: Sequence[float] | None = None,
    thresholds: Sequence[float] | None = None,
) -> Tensor:
    """Codes of an ADC that is not linear; what it sees is clipped to its range first.

    With v = clip((y gain + noise) / qmax, -1, 1):

        polynomial c:  code = clip(round(qmax (c_1 v + c_2 v^2 + c_3 v^3 + ...)), -qmax, qmax)
        thresholds t:  code = (number of t_i <= v) - qmax

    Args:
        y: products, any shape.
        gain: codes of a linear ADC in one unit of y; broadcasts against y.
        qmax: largest code.
        noise: at the input of the ADC, in codes, same shape as y; None: no noise.
        polynomial: c, from the first power on; (1,) is a linear ADC.
        thresholds: t, 2 qmax of them, increasing, in units of the range.

    Returns:
        Integers in the type of y. The gradient passes rounding by: it is that of the polynomial, or of a linear ADC.

    Example:
        >>> y = torch.tensor([-1.0, 0.5, 1.0])
        >>> read_nonlinear(y, torch.tensor(7.0), 7, None, polynomial=(1.0, 0.0, -0.2))  # saturates
        tensor([-6.,  3.,  6.])
    """
    seen = y * gain
    if noise is not None:
        seen = seen + noise
    v = (seen / qmax).clamp(-1, 1)
    if thresholds is not None:
        steps = torch.tensor(thresholds, dtype=v.dtype, device=v.device)
        exact = v * qmax
        codes = torch.bucketize(v.detach().contiguous(), steps, right=True).to(v.dtype) - qmax
    else:
        exact = torch.zeros_like(v)
        for coefficient in reversed(polynomial or (1.0,)):
            exact = (exact + coefficient) * v
        exact = (exact * qmax).clamp(-qmax, qmax)
        codes = exact.detach().round()
    return exact + (codes - exact.detach())
