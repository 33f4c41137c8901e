"""GPTQ: weights are rounded one input after the other, and those not rounded yet make up for the error.

With H = 2 X X^T of a layer's inputs X, damped by 1 % of its mean diagonal, and U the upper Cholesky factor of H^-1: for
input i, e = (w_i - q_i) / U_ii, and w_j -= e U_ij for all j > i. A group's scales are found when its first input is
reached, on weights that have made up for all before them. The inputs of largest H_ii come first ("activation order").

Source: E. Frantar et al., "GPTQ", arXiv:2210.17323, 2022, algorithm 1 and section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hpml_sim.compress.rounding import nearest, scales
from hpml_sim.conversion.compression import NumberFormat

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it. Source: the paper's section 4.1, "Additional details"."""
_BLOCK = 128
"""Inputs whose errors are passed on to all later ones together: the same result, in fewer and larger products."""


def gptq(matrix: Tensor, hessian: Tensor, numbers: NumberFormat) -> Tensor:
    """A matrix in numbers of few bits, so that the layer's outputs change little on inputs as those it was given.

    Args:
        matrix: (outputs, inputs).
        hessian: X^T X of input vectors X (vectors, inputs), of any scale.
        numbers: the format.

    Returns:
        (outputs, inputs), on the format's grid.
    """
    weights, hessian = matrix.double().clone(), hessian.double().clone()
    inputs = weights.shape[1]
    never = hessian.diagonal() == 0
    hessian.diagonal()[never] = 1.0
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    group = min(numbers.group or inputs, inputs)
    if group < inputs:  # each group keeps its inputs, so that its scale is stored once; groups in order of importance
        parts = torch.arange(inputs).split(group)
        importance = torch.stack([hessian.diagonal()[part].sum() for part in parts])
        order = torch.cat([parts[k] for k in importance.argsort(descending=True).tolist()])
    else:
        order = hessian.diagonal().argsort(descending=True, stable=True)
    back = order.argsort()
    weights, hessian = weights[:, order], hessian[order][:, order]
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    scale = scales(weights, numbers) if group >= inputs else torch.empty_like(weights)
    found = torch.empty_like(weights)
    bounds = _bounds(order, group, inputs)
    for start, stop in bounds:
        if group < inputs:
            scale[:, start:stop] = scales(weights[:, start:stop], NumberFormat(numbers.numbers, None))
        errors = torch.empty_like(weights[:, start:stop])
        for i in range(start, stop):
            column = weights[:, i]
            found[:, i] = nearest(column / scale[:, i], numbers) * scale[:, i]
            error = (column - found[:, i]) / upper[i, i]
            weights[:, i:stop] -= error[:, None] * upper[i, i:stop][None]
            errors[:, i - start] = error
        weights[:, stop:] -= errors @ upper[start:stop, stop:]
    return found[:, back].to(matrix.dtype)


def _bounds(order: Tensor, group: int, inputs: int) -> list[tuple[int, int]]:
    """Where blocks of inputs begin and end: at groups, or every 128 where an output has one scale."""
    if group >= inputs:
        return [(start, min(start + _BLOCK, inputs)) for start in range(0, inputs, _BLOCK)]
    heads = [place for place, index in enumerate(order.tolist()) if index % group == 0]
    return list(zip(heads, [*heads[1:], inputs], strict=True))
