"""A range for each input channel of a layer: the channel is divided by a scale, and its weights are multiplied by it.

A row of a crossbar adds to all columns before anything is converted, so what a converter did to one row alone cannot be
undone behind the array. A range by channel is therefore a scale in front of the converters that the weights take back:

    W x = (W diag(s)) (x / s),    s_j = max|x_j|^a / max|W_j|^(1 - a),    a = 0.5

The channels of x / s are alike, so that one full scale suits them all; the price is paid by the weights, which are less
alike than before: a column's largest one sets the conductance of all others. The division is digital work.

Source: G. Xiao et al., "SmoothQuant", arXiv:2211.10438, equation 4, with their default a = 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hpml_sim.analog.layers import gathered

if TYPE_CHECKING:
    from hpml_sim.analog.crossbar import Crossbar

_SHARE = 0.5
"""a, how much of the differences between channels goes into the weights."""


class OnCrossbar(nn.Module):
    """What layers on crossbars share: their weights as a matrix, with the scales of the input channels in it.

    Attributes:
        crossbar: the tiles.
        weight: the layer's own weights, without any scale.
    """

    crossbar: Crossbar
    weight: Tensor

    def plain_matrix(self) -> Tensor:
        """The layer's own weights as a matrix, (groups * cols, rows)."""
        raise NotImplementedError

    def from_plain_matrix(self, matrix: Tensor) -> Tensor:
        """A matrix as the layer's weight has it; the other way of `plain_matrix`.

        Args:
            matrix: shape (groups * cols, rows).
        """
        raise NotImplementedError

    def matrix(self) -> Tensor:
        """The weights as the crossbar takes them, (groups * cols, rows)."""
        matrix = self.plain_matrix()
        if self.crossbar.channel_scale is None:
            return matrix
        matrix = gathered(matrix)
        scaled = matrix * row_scales(self.crossbar)
        # gradient checkpointing runs forward without gradients first; that weights are trained must still be seen
        return scaled.requires_grad_() if matrix.requires_grad and not scaled.requires_grad else scaled

    def from_matrix(self, matrix: Tensor) -> Tensor:
        """A matrix as the crossbar takes it, as the layer's weight has it; the other way of `matrix`.

        Args:
            matrix: shape (groups * cols, rows).
        """
        if self.crossbar.channel_scale is not None:
            matrix = matrix / row_scales(self.crossbar).to(matrix)
        return self.from_plain_matrix(matrix)

    def multiplied_matrix(self) -> Tensor:
        """What the crossbar is called with: `matrix`, or where chips are programmed any tensor, which is not used."""
        return self.matrix() if self.crossbar.programmed is None else self.weight

    def by_channel(self, x: Tensor, dim: int, *, begins: bool = True) -> Tensor:
        """The input with each channel divided by its scale, which the first data in training or calibration set.

        Args:
            x: input of the layer.
            dim: where its channels are.
            begins: whether these may be the first data.
        """
        crossbar, scale = self.crossbar, self.crossbar.channel_scale
        if scale is None or x.is_meta:
            return x
        dim %= x.dim()
        if begins and x.numel() and _begins(crossbar):
            scale.copy_(_balancing(crossbar, gathered(self.plain_matrix()), x, dim))
        return x / scale.view(-1, *[1] * (x.dim() - 1 - dim))


def add_channel_scale(crossbar: Crossbar, channels: int) -> None:
    """Give a crossbar a scale for each input channel, where its target asks for them.

    Args:
        crossbar: of a layer.
        channels: inputs of the layer, of all groups; each has as many rows.
    """
    if crossbar.target.input_range_by == "channel":
        crossbar.channel_scale = torch.ones_like(crossbar.input_range).repeat(channels)


def row_scales(crossbar: Crossbar) -> Tensor:
    """The scale of each weight's row, (1, rows), or of several groups (groups * cols, rows).

    Args:
        crossbar: one that has scales.
    """
    tiling = crossbar.tiling
    assert crossbar.channel_scale is not None
    by_group = crossbar.channel_scale.view(tiling.groups, -1)
    by_row = by_group.repeat_interleave(tiling.rows // by_group.shape[1], 1)
    return by_row if tiling.groups == 1 else by_row.repeat_interleave(tiling.cols, 0)


def _begins(crossbar: Crossbar) -> bool:
    if crossbar.calibrated or crossbar.programmed is not None:
        return False
    return crossbar.training or crossbar.calibrating is not None


@torch.no_grad()
def _balancing(crossbar: Crossbar, matrix: Tensor, x: Tensor, dim: int) -> Tensor:
    """The scale of each channel; 1 of a channel that is always zero, or whose weights are."""
    tiling = crossbar.tiling
    inputs = x.detach().abs().movedim(dim, 0).flatten(1).amax(1)
    rows = matrix.detach().unflatten(0, (tiling.groups, -1)).abs().amax(1)  # (groups, rows)
    weights = rows.reshape(len(inputs), -1).amax(1)
    scale = inputs.to(weights).pow(_SHARE) / weights.pow(1 - _SHARE)
    return torch.where((inputs > 0) & (weights > 0), scale, torch.ones_like(scale))
