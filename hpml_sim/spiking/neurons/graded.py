"""Leaky neurons whose spikes carry a value."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.neurons.parameters import positive
from hpml_sim.spiking.option_names import option_names_checked


class GradedNeurons(LeakyNeurons):
    """Leaky neurons whose spikes have a height of their own instead of 1: graded spikes, as Loihi 2 sends them.

    Conversion needs them where spikes reach a sum without a layer between, whose weights would hold the height. Spikes
    that lie behind one another in a network of layers need none: the weights of the layer that reads them hold it.

    Args:
        neurons: leaky neurons, whose parameters, steps and chips these take over.
        height: of a spike, > 0; a number, or a tensor that broadcasts to one sample.

    Raises:
        HpmlError: a height that is not above 0, or not finite.

    Example:
        >>> import torch, hpml_sim as hs
        >>> neurons = hs.spiking.GradedNeurons(hs.spiking.LeakyNeurons(1.0, steps=3), 0.25)
        >>> neurons(torch.full((3, 1), 0.6)).flatten().tolist()  # (steps x batch, neurons)
        [0.0, 0.25, 0.0]
    """

    height: Tensor

    @option_names_checked
    def __init__(self, neurons: LeakyNeurons, height: float | Tensor):
        super().__init__(
            neurons.beta,
            neurons.threshold,
            reset=neurons.reset,
            surrogate=neurons.surrogate,
            reset_delay=neurons.reset_delay,
            initial=neurons.initial,
            steps=neurons.steps,
            chips=neurons.chips,
            engine=neurons.engine,
        )
        self._hold("height", positive("GradedNeurons", "height", height, "or spikes are silent", neurons.beta.dtype))

    def forward(self, x: Tensor, **options: Any) -> Tensor | tuple[Tensor, ...]:
        """Spikes of all steps, each 0 or its height.

        Args:
            x: currents (chips x steps x batch, ...); or, with `static_input`, (chips x batch, ...).
            options: `with_states` and `static_input`, as of `LeakyNeurons`.
        """
        given = super().forward(x, **options)
        height = self.height.to(x.dtype)
        return given * height if isinstance(given, Tensor) else (given[0] * height, *given[1:])
