"""Bit slicing: a weight held by several cells as digits, each with a column and an ADC reading of its own.

A cell that can be programmed to B conductances holds one digit to the base B; k cells together hold B^k values. The
readings of the slices are shifted and added in digital.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bit_slices(weight: Tensor, levels: int, slices: int, *, signed: bool) -> list[Tensor]:
    """Weights as digits to the base `levels`, most significant first, each again a weight in [-1, 1].

    The sum of `significance` x digit is the weight again, up to rounding (half to even).

    Args:
        weight: values in [-1, 1], any shape.
        levels: base B, >= 2: conductances that a cell can be programmed to.
        slices: digits k, >= 1.
        signed: whether each cell is a differential pair, which holds the sign and the digits of |w| (B^k - 1). Else a
            cell is one device read against the middle of its range, and the digits are those of (w + 1) / 2 (B^k - 1).

    Returns:
        `slices` tensors of the shape and type of `weight`.

    Example:
        >>> bit_slices(torch.tensor([0.2, -1.0]), levels=4, slices=2, signed=True)  # 0.2 x 15 = 3 = 0 x 4 + 3
        [tensor([ 0., -1.]), tensor([ 1., -1.])]
    """
    exact = weight.double().clamp(-1, 1)
    number = ((exact.abs() if signed else (exact + 1) / 2) * (levels**slices - 1)).round()
    found = []
    for place in range(slices - 1, -1, -1):
        digit = torch.div(number, levels**place, rounding_mode="floor")
        number = number - digit * levels**place
        share = digit / (levels - 1)
        found.append((share * exact.sign() if signed else 2 * share - 1).to(weight.dtype))
    return found


def significance(levels: int, slices: int) -> list[float]:
    """What each digit counts, most significant first: (B - 1) B^i / (B^k - 1); together 1.

    Args:
        levels: base B, >= 2.
        slices: digits k, >= 1.

    Example:
        >>> significance(levels=2, slices=2)
        [0.6666666666666666, 0.3333333333333333]
    """
    return [(levels - 1) * levels**place / (levels**slices - 1) for place in range(slices - 1, -1, -1)]


def to_levels(tiles: Tensor, scale: Tensor, levels: int, slices: int, *, signed: bool) -> Tensor:
    """The weights that cells of finite levels hold; the gradient goes straight through the rounding.

    Args:
        tiles: weights, shape (..., cols, height).
        scale: full scale of each column, shape (..., cols, 1).
        levels: base B, >= 2.
        slices: digits k, >= 1.
        signed: as in `bit_slices`.

    Example:
        >>> to_levels(torch.tensor([[0.4, -2.0]]), torch.tensor([[2.0]]), levels=2, slices=1, signed=True)
        tensor([[ 0., -2.]])
    """
    with torch.no_grad():
        digits = bit_slices(tiles / scale, levels, slices, signed=signed)
        held = scale * torch.stack([a * d for a, d in zip(significance(levels, slices), digits, strict=True)]).sum(0)
    return tiles + (held - tiles).detach()
