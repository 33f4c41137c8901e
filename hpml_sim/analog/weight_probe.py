"""What mapping does to the weights of a layer, before any noise: those of training clipped, and rounded to levels.

The network runs twice with ideal converters, once with the weights as they are and once as the cells will hold them;
what lies between the two outputs is what mapping costs. In the first pass each layer compares its own products.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hpml_sim.analog.bit_slicing import to_levels
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.analog.effective_weights import clip_weights, full_scale
from hpml_sim.conversion.tiling import Tiling
from hpml_sim.targets import Analog

_VECTORS = 64
"""Input vectors on which a layer compares its products."""


class _Crossbar(Protocol):
    """What is used here of a `Crossbar`, whose file imports this one."""

    target: Analog
    tiling: Tiling

    def clipped(self, weight: Tensor) -> Tensor: ...

    def limit_at(self, weight: Tensor, sigmas: float) -> Tensor: ...

    def device_model(self) -> DeviceModel: ...


@dataclass
class WeightProbe:
    """What mapping does to one layer, while its network runs with ideal converters.

    Attributes:
        clips: whether the weights are clipped as training will clip them.
        rounds: whether they are rounded to the levels of the cells.
        mapped: whether this pass multiplies with the mapped weights, else with those that the layer has.
        signal: power of the products of the layer's own weights, on some of its inputs.
        error: power of what the mapped weights change of them.
    """

    clips: bool
    rounds: bool
    mapped: bool = False
    signal: float = 0.0
    error: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether mapping may change any weight."""
        return self.clips or self.rounds

    @property
    def signal_to_error_db(self) -> float:
        """Power of the layer's products over that of what mapping changes of them, decibels; infinite for nothing."""
        return 10 * math.log10(self.signal / self.error) if self.error > 0 and self.signal > 0 else math.inf

    def product(self, crossbar: _Crossbar, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's product in this pass.

        Args:
            crossbar: of the layer.
            x: shape (groups, vectors, rows).
            weight: the layer's weights, shape (groups * cols, rows).

        Returns:
            shape (groups, vectors, cols).
        """
        groups, own = crossbar.tiling.groups, crossbar.clipped(weight)
        if not self.changes:
            return x @ own.unflatten(0, (groups, -1)).mT
        held = self.held(crossbar, own)
        y = x @ (held if self.mapped else own).unflatten(0, (groups, -1)).mT
        if not self.mapped and x.shape[1]:
            every = -(-x.shape[1] // _VECTORS)
            change = x[:, ::every] @ (held - own).unflatten(0, (groups, -1)).mT
            self.signal += float(y[:, ::every].double().square().sum())
            self.error += float(change.double().square().sum())
        return y

    def held(self, crossbar: _Crossbar, weight: Tensor) -> Tensor:
        """Weights as the cells hold them, without noise.

        Args:
            crossbar: of the layer.
            weight: shape (groups * cols, rows).
        """
        target, tiling = crossbar.target, crossbar.tiling
        if self.clips and target.weight_clip is not None:
            weight = clip_weights(weight, crossbar.limit_at(weight, target.weight_clip).to(weight))
        if not self.rounds or target.levels is None:
            return weight
        tiles, signed = tiling.cut_weights(weight), crossbar.device_model().signed
        rounded = to_levels(tiles, full_scale(tiles).unsqueeze(-1), target.levels, target.slices, signed=signed)
        return rounded.transpose(1, 2).flatten(2)[..., : tiling.rows].flatten(0, 1)

    @torch.no_grad()
    def lost_of_weights(self, crossbar: _Crossbar, weight: Tensor) -> float:
        """Power of what mapping changes of the weights over the power of the weights; nothing is multiplied.

        Args:
            crossbar: of the layer.
            weight: shape (groups * cols, rows).
        """
        own = crossbar.clipped(weight).float()
        power = float(own.square().sum())
        return float((self.held(crossbar, own) - own).square().sum()) / power if power > 0 else 0.0
