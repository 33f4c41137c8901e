"""The built-in spiking network: `hs.models.build("spiking", ...)`, two layers of leaky integrate-and-fire neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from hpml_sim.errors import HpmlError, check_whole, shown
from hpml_sim.networks.models import register_built_in
from hpml_sim.spiking.fused_network import FusedNetwork
from hpml_sim.spiking.neurons.lif import LeakyNeurons

STEPS = 16
"""Time steps of an input that has none of its own."""
_BETA = 0.9


class SpikeCounts(nn.Module):
    """A network of two spiking layers; its logits are the spikes of the output neurons, counted over the steps.

    Frames (batch, steps, ...) run step by step. Any other input is the same current at each of 16 steps.

    Args:
        input_shape: of a sample: frames (steps, channels, height, width) or (steps, features) with more than one step;
            or an image (channels, height, width), or features (n,).
        classes: number of outputs, >= 1.
        width: hidden neurons, >= 1.

    Attributes:
        steps: time steps.
        frames: whether a sample brings its own steps.
        network: the network of one step, run over all steps at once.

    Raises:
        HpmlError: a shape of another kind, or a number that is no whole number >= 1.

    Example:
        >>> import hpml_sim as hs, torch
        >>> hs.models.build("spiking", (12, 2, 16, 16), 4)(torch.rand(5, 12, 2, 16, 16).round()).shape
        torch.Size([5, 4])

    Source: the neurons are snnTorch's `Leaky` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023); counting the spikes
        of the output is its rate code.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, *, width: int = 128):
        super().__init__()
        if not isinstance(input_shape, Sequence) or isinstance(input_shape, (str, bytes)) or len(input_shape) > 4:
            raise HpmlError(
                f"spiking: input_shape={shown(input_shape)}: must be frames (steps, channels, height, width) or "
                "(steps, features), an image (channels, height, width), or (features,)"
            )
        sizes = [check_whole("spiking: input_shape", size, low=1) for size in input_shape]
        classes, width = check_whole("spiking: classes", classes, low=1), check_whole("spiking: width", width, low=1)
        self.frames = len(sizes) in (2, 4) and sizes[0] > 1
        self.steps = sizes[0] if self.frames else STEPS
        layers = (
            nn.Flatten(),
            nn.Linear(math.prod(sizes[1:] if self.frames else sizes), width),
            LeakyNeurons(_BETA),
            nn.Linear(width, classes),
            LeakyNeurons(_BETA),
        )
        self.network = FusedNetwork(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        """Spike counts, (batch, classes).

        Args:
            x: (batch, *input_shape).
        """
        steps = x.transpose(0, 1) if self.frames else x.expand(self.steps, *x.shape)
        return self.network(steps).sum(0)


register_built_in("spiking", SpikeCounts)
