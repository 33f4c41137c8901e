"""What one forward pass multiplies with: the weights as the tiles hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class EffectiveWeights:
    """A matrix as the tiles hold it in one forward pass.

    Attributes:
        matrix: shape (chips or 1, groups, row tiles, cols, height).
        unit: full scale of its columns where `matrix` is in units of the weights, (1, groups, row tiles, 1, cols); None
            where it is in units of the full scale.
        scale: digital factor of each column, (chips or 1, groups, row tiles, 1, cols).
    """

    matrix: Tensor
    unit: Tensor | None
    scale: Tensor


def full_scale(tiles: Tensor) -> Tensor:
    """The largest magnitude of each column of each tile: the weight that a device holds at its largest conductance.

    Args:
        tiles: weights, shape (..., cols, height).

    Returns:
        shape (..., cols), without gradient; 1 where all weights of a column are zero.
    """
    largest = tiles.detach().abs().amax(-1)
    return torch.where(largest > 0, largest, torch.ones_like(largest))


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
        # a descent step moves the weight against its gradient: away from zero where the two have opposite signs
        outward = (weight - clipped) * grad < 0
        return grad.masked_fill(outward, 0.0), None


def clip_weights(weight: Tensor, limit: Tensor) -> Tensor:
    """Clip to [-limit, limit], for any optimizer.

    The gradient passes, except where a descent step would push a clipped weight further out: so the weight that the
    optimizer holds can always come back, as with clipping after each step.

    Args:
        weight: any shape.
        limit: largest magnitude, a scalar > 0; an infinite one clips nothing.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):  # nor can a vmap of the network's own carry the function
        return torch.clamp(weight, -limit, limit)
    return _Clip.apply(weight, limit)  # type: ignore[no-any-return]
