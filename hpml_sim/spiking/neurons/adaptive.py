"""Neurons whose threshold adapts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.spiking.neurons.multistep import MultistepNeurons
from hpml_sim.spiking.neurons.parameters import as_tensor, check_options, decay_of, text_of


class AdaptiveNeurons(MultistepNeurons):
    """Leaky neurons whose threshold rises with every spike and falls back slowly (ALIF).

    With membrane m, input x, spikes S and a trace a of past spikes: m' = beta m + x - S theta; a' = rho a + S;
    S' = 1 where m' > theta + kappa a'. A spike subtracts the base threshold, one step late.

    Source: G. Bellec et al., Nat. Commun. 11:3625 (2020), eqs. (6)-(9).

    Args:
        beta: decay of the membrane in one step, 0 to 1; a number, or a tensor that broadcasts to one sample.
        threshold: base threshold theta, > 0; a number, or a tensor that broadcasts to one sample.
        adaptation: kappa, by how much one spike raises the threshold, >= 0; a number, or a tensor that broadcasts to
            one sample.
        adaptation_decay: rho, the decay of what was added in one step, 0 to 1; a number, or a tensor that broadcasts to
            one sample.
        others: arguments of `LeakyNeurons` by name, but `reset`, `engine`, `initial` and `reset_delay`.

    Raises:
        HpmlError: a parameter of the wrong type or out of its range, or an option that these neurons do not have.
        UnknownNameError: an option that no neurons have.

    Example:
        >>> import torch, hpml_sim as hs
        >>> current = torch.full((50, 1), 0.6)  # (steps x batch, neurons)
        >>> [int(hs.spiking.AdaptiveNeurons(adaptation=a, steps=50)(current).sum()) for a in (0.0, 0.5)]
        [27, 17]
    """

    adaptation: Tensor
    adaptation_decay: Tensor
    dynamics = "adaptive"

    def __init__(
        self,
        beta: float | Tensor = 0.95,
        threshold: float | Tensor = 1.0,
        adaptation: float | Tensor = 0.2,
        adaptation_decay: float | Tensor = 0.97,
        **others: Any,
    ):
        who = type(self).__name__
        check_options(type(self), others, lacks=("reset", "engine", "reset_delay", "initial"))
        super().__init__(beta, threshold, **others)
        rise = as_tensor(f"{who}: adaptation", adaptation, self.beta.dtype)
        if not bool((rise >= 0).all()):
            raise HpmlError(f"{who}: adaptation={text_of(adaptation)} must be >= 0: a spike raises the threshold")
        self._hold("adaptation_decay", decay_of(who, "adaptation_decay", adaptation_decay))
        self._hold("adaptation", rise)

    def dynamics_parameters(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by their names there."""
        return {
            "beta": self.beta.clamp(0, 1),
            "threshold": self.threshold,
            "rho": self.adaptation_decay,
            "kappa": self.adaptation,
        }
