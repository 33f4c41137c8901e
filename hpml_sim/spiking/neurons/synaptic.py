"""Neurons behind a synaptic current: snnTorch's `Synaptic` and `Alpha`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError, check_switch
from hpml_sim.spiking.neurons.multistep import MultistepNeurons
from hpml_sim.spiking.neurons.parameters import check_options, decay_of, text_of


class SynapticNeurons(MultistepNeurons):
    """Leaky neurons behind a synaptic current that decays: snnTorch's `Synaptic`.

    With current i, membrane m, input x and the reset R of the step: i' = alpha i + x; v = beta m + i'; then m' = v - v
    R (reset "zero"), v - theta R ("subtract") or v ("none").

    Source: snntorch 1.0.0, `Synaptic` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).

    Args:
        alpha: decay of the synaptic current in one step, 0 to 1; a number, or a tensor that broadcasts to one sample.
        beta: decay of the membrane in one step, 0 to 1; a number, or a tensor that broadcasts to one sample.
        threshold: firing threshold, > 0; a number, or a tensor that broadcasts to one sample.
        learn_alpha: make alpha a parameter.
        others: arguments of `LeakyNeurons` by name, but `engine` and `initial`.

    Raises:
        HpmlError: a parameter of the wrong type or out of its range, or an option that these neurons do not have.
        UnknownNameError: an option that no neurons have.

    Example:
        >>> import torch, hpml_sim as hs
        >>> neurons = hs.spiking.SynapticNeurons(alpha=0.5, beta=0.5, steps=4)
        >>> current = torch.tensor([[1.0], [0.0], [0.0], [0.0]])  # (steps x batch, neurons)
        >>> spikes, synaptic, membrane = neurons(current, with_states=True)
        >>> synaptic.flatten().tolist(), membrane.flatten().tolist()
        ([1.0, 0.5, 0.25, 0.125], [1.0, 1.0, 0.75, 0.5])
    """

    alpha: Tensor

    def __init__(
        self,
        alpha: float | Tensor = 0.9,
        beta: float | Tensor = 0.95,
        threshold: float | Tensor = 1.0,
        *,
        learn_alpha: bool = False,
        **others: Any,
    ):
        who = type(self).__name__
        check_options(type(self), others, lacks=("engine", "initial"))
        super().__init__(beta, threshold, **others)
        # One step late, the reset takes the membrane of the step before, as snnTorch's does; in the step of the spike
        # it is differentiated. These are two recursions, not one with a switch.
        self.dynamics = "synaptic" if self.reset_delay or self.reset == "none" else "synaptic_immediate"
        self._hold("alpha", decay_of(who, "alpha", alpha), check_switch(f"{who}: learn_alpha", learn_alpha))

    def dynamics_parameters(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by their names there."""
        return {**super().dynamics_parameters(), "alpha": self.alpha.clamp(0, 1)}


class AlphaNeurons(SynapticNeurons):
    """Neurons whose membrane answers an input with an alpha function, up and then down: snnTorch's `Alpha`.

    The membrane is the difference of an excitatory current, which decays by alpha, and an inhibitory one, which decays
    by the smaller beta: 0 in the step of an input, then it rises, then it falls.

    Source: snntorch 1.0.0, `Alpha` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).

    Args:
        alpha: decay of the excitatory current in one step, above beta and below 1.
        beta: decay of the inhibitory current in one step, above 0.
        threshold: firing threshold, > 0; a number, or a tensor that broadcasts to one sample.
        reset: what a spike does to membrane and currents: "subtract" the threshold, set them to "zero", or "none".
        learn_alpha: make alpha a parameter.
        others: arguments of `LeakyNeurons` by name, but `reset_delay`, `engine` and `initial`.

    Raises:
        HpmlError: not 0 < beta < alpha < 1, another parameter of the wrong type or out of its range, or an option that
            these neurons do not have.
        UnknownNameError: an option that no neurons have.

    Example:
        >>> import torch, hpml_sim as hs
        >>> neurons = hs.spiking.AlphaNeurons(alpha=0.9, beta=0.8, threshold=5.0, steps=6)
        >>> current = torch.zeros(6, 1)
        >>> current[0] = 1.0
        >>> membrane = neurons(current, with_states=True)[-1].flatten()
        >>> float(membrane[0]), bool(membrane[1] < membrane[4])  # 0 in the step of the input, then it rises
        (0.0, True)
    """

    def __init__(
        self,
        alpha: float | Tensor = 0.9,
        beta: float | Tensor = 0.8,
        threshold: float | Tensor = 1.0,
        *,
        reset: Literal["subtract", "zero", "none"] = "zero",
        learn_alpha: bool = False,
        **others: Any,
    ):
        check_options(type(self), others, lacks=("reset_delay", "engine", "initial"))
        super().__init__(alpha, beta, threshold, reset=reset, learn_alpha=learn_alpha, **others)
        self.dynamics = "alpha"
        if not bool(((self.alpha > self.beta) & (self.beta > 0) & (self.alpha < 1)).all()):
            raise HpmlError(
                f"AlphaNeurons: alpha={text_of(alpha)}, beta={text_of(beta)}: 0 < beta < alpha < 1 is needed"
            )

    def dynamics_parameters(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by their names there."""
        # tau scales the membrane so that the largest answer to one input is about 1, as in snnTorch.
        alpha, beta = torch.log(self.alpha.clamp(0, 1)), torch.log(self.beta.clamp(0, 1))
        return {**super().dynamics_parameters(), "tau": alpha / (beta - alpha) + 1}
