"""How programmed chips use the weights of each layer: on the crossbar, or in digital, as before programming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from hpml_sim.analog.experts import is_beside
from hpml_sim.analog.layers import crossbars


@dataclass(frozen=True)
class WeightUse:
    """What one call did with the weight of a layer.

    Attributes:
        layer: whether the layer multiplied with its tiles when it was called.
        product: whether it computed a product that forward() does with the weight, as `F.linear(x, self.a.weight)`.
        nominal: where the weight itself went into a digital operation; "" for nowhere.
    """

    layer: bool
    product: bool
    nominal: str


@dataclass
class WeightUses:
    """What the first call of any of some chips did with the weights of all layers.

    Attributes:
        found: by the dotted name of the layer; None before the first call.
    """

    found: dict[str, WeightUse] | None = field(default=None)

    def note(self, network: nn.Module, nominal: Mapping[str, str]) -> None:
        """After the first call.

        Args:
            network: what ran.
            nominal: layers whose weights went into digital operations, and where.
        """
        self.found = {
            name: WeightUse(
                crossbar.work.multiplied,
                crossbar.work.redirected or (crossbar.work.multiplied and is_beside(name)),
                nominal.get(name, ""),
            )
            for name, crossbar in crossbars(network).items()
        }
