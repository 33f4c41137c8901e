"""Where the samples lie in the input of a network, where the network itself knows it."""

from __future__ import annotations

from torch import nn

from hpml_sim.conversion.converted import Converted


class StepsFirst(nn.Module):
    """A network whose input and output are (steps, batch, ...)."""


def batch_dimension(model: nn.Module) -> int:
    """The dimension of the samples in a network's input: 1 for networks over time steps, 0 for all others.

    Args:
        model: any network; one on crossbars has the input of the network it was made from.
    """
    while isinstance(model, Converted) and not isinstance(model, StepsFirst):
        # a converted network that adds steps itself, such as a SpikingModel, takes (batch, ...) and holds no StepsFirst
        model = model.network
    return 1 if isinstance(model, StepsFirst) else 0
