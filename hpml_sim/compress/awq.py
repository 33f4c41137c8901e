"""AWQ: inputs that are large on average get larger weights before rounding, and their factor is taken back after it.

W' = round(W diag(s)) diag(s)^-1 with s = mean|x|^a, for the a in 0, 0.05 .. 0.95 that changes the outputs least. The
factors belong to the norm or layer before, or to the input itself: the stored weights are W' in floating point here,
which gives the same products.

Source: J. Lin et al., "AWQ", arXiv:2306.00978, 2023, equations 4 and 5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.compress.rounding import rounded
from hpml_sim.conversion.compression import NumberFormat

_STEPS = 20


def awq(matrix: Tensor, hessian: Tensor, mean_abs: Tensor, numbers: NumberFormat) -> Tensor:
    """A matrix in numbers of few bits with a factor for each input.

    Args:
        matrix: (outputs, inputs).
        hessian: X^T X of input vectors X (vectors, inputs), of any scale.
        mean_abs: mean |x| of each input, (inputs,).
        numbers: the format.

    Returns:
        (outputs, inputs).
    """
    weights, hessian = matrix.double(), hessian.double()
    typical = mean_abs.double().clamp(min=1e-8)
    best, least = rounded(weights, numbers), torch.inf
    for step in range(_STEPS):
        factor = typical ** (step / _STEPS)
        factor = factor / (factor.max() * factor.min()).sqrt()
        tried = rounded(weights * factor, numbers) / factor
        difference = tried - weights
        lost = float(((difference @ hessian) * difference).sum())
        if lost < least:
            best, least = tried, lost
    return best.to(matrix.dtype)
