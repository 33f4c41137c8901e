"""Neurons that get back their own spikes: snnTorch's `RLeaky` and `RSynaptic`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, check_switch, shown
from hpml_sim.spiking.neurons.lif import States
from hpml_sim.spiking.neurons.multistep import MultistepNeurons
from hpml_sim.spiking.neurons.parameters import as_tensor, check_options, decay_of


class RecurrentNeurons(MultistepNeurons):
    """Leaky neurons that get back their own spikes one step later: snnTorch's `RLeaky`.

    Source: snntorch 1.0.0, `RLeaky` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).

    Args:
        recurrent: what the spikes come back through: the weight of each neuron's own spike (`V`), a number or a tensor
            of one for each neuron; an `nn.Linear` over the last dimension, all to all; or an `nn.Conv2d` that keeps the
            shape.
        beta: decay of the membrane in one step, 0 to 1; a number, or a tensor that broadcasts to one sample.
        threshold: firing threshold, > 0; a number, or a tensor that broadcasts to one sample.
        learn_recurrent: make V a parameter; a layer keeps its own.
        others: arguments of `LeakyNeurons` by name, but `engine` and `initial`.

    Raises:
        HpmlError: a layer that does not lead from neurons to the same neurons, a parameter of the wrong type or out of
            its range, or an option that these neurons do not have.
        UnknownNameError: an option that no neurons have.

    Example:
        >>> import torch, hpml_sim as hs
        >>> neurons = hs.spiking.RecurrentNeurons(recurrent=1.5, beta=0.0, reset="zero", steps=3)
        >>> current = torch.tensor([[2.0], [0.0], [0.0]])  # one input; each spike brings the next
        >>> neurons(current).flatten().tolist()
        [1.0, 0.0, 0.0]
        >>> hs.spiking.RecurrentNeurons(1.5, 0.0, reset="none", steps=3)(current).flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    V: Tensor
    dynamics = "recurrent"

    def __init__(
        self,
        recurrent: float | Tensor | nn.Linear | nn.Conv2d = 1.0,
        beta: float | Tensor = 0.95,
        threshold: float | Tensor = 1.0,
        *,
        learn_recurrent: bool = True,
        **others: Any,
    ):
        who = type(self).__name__
        check_options(type(self), others, lacks=("engine", "initial"))
        super().__init__(beta, threshold, **others)
        check_switch(f"{who}: learn_recurrent", learn_recurrent)
        self.recurrent = recurrent if isinstance(recurrent, nn.Module) else None
        if not isinstance(recurrent, nn.Module):
            self._hold("V", as_tensor(f"{who}: recurrent", recurrent, self.beta.dtype), learn_recurrent)
        elif not isinstance(recurrent, (nn.Linear, nn.Conv2d)):
            raise HpmlError(
                f"{who}: recurrent={shown(recurrent)}: must be a number, a tensor, an nn.Linear or an nn.Conv2d"
            )
        elif isinstance(recurrent, nn.Linear) and recurrent.in_features != recurrent.out_features:
            raise HpmlError(f"{who}: recurrent={recurrent!r}: it must be square, neurons to neurons")
        elif isinstance(recurrent, nn.Conv2d) and recurrent.in_channels != recurrent.out_channels:
            raise HpmlError(f"{who}: recurrent={recurrent!r}: it must keep the number of channels")

    def dynamics_parameters(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by their names there."""
        return {**super().dynamics_parameters(), "V": self.V}

    def run_steps(self, currents: Tensor, start: States | None = None) -> States:
        """Spikes, then the synaptic current where there is one, then the membrane.

        Args:
            currents: currents (chips, steps, batch, ...); or (chips, 1, batch, ...), the same at every step.
            start: what `final_states` gave for the steps before, each (chips, batch, ...); None: rest.

        Returns:
            Spikes and states, each (chips, steps, batch, ...).
        """
        if self.recurrent is None and self.reset_delay and type(self) is RecurrentNeurons:
            # One to one, each neuron depends on itself alone, and the compiled kernel of the other neurons runs it.
            # It takes the last spike from the membrane, which comes last in the state.
            return super().run_steps(currents, None if start is None else start[-1:])
        from hpml_sim.kernels.recurrent import recurrent

        names = ("spikes", "membrane") if self.current_decay() is None else ("spikes", "current", "membrane")
        product, weights = self._product()
        return recurrent(
            self.expand_steps(currents),
            product,
            weights,
            self.beta.clamp(0, 1),
            self.threshold,
            alpha=self.current_decay(),
            reset=self.reset,
            reset_delay=self.reset_delay,
            surrogate=self.surrogate,
            start=None if start is None else dict(zip(names, start, strict=True)),
            time_dim=1,
        )

    def final_states(self, spikes: Tensor, *states: Tensor) -> States:
        """What the steps after these start from: the last spikes as well, which are still on their way back.

        Args:
            spikes: as `run_steps` gave them, (chips, steps, batch, ...).
            states: as `run_steps` gave them, each (chips, steps, batch, ...).

        Returns:
            Each (chips, batch, ...).
        """
        return tuple(state[:, -1] for state in (spikes, *states))

    def current_decay(self) -> Tensor | None:
        """Decay of the synaptic current; None where there is none."""
        return None

    def _product(self) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
        """The connection as (spikes, *weights) -> currents, and its weights."""
        layer = self.recurrent
        if layer is None:
            return torch.mul, (self.V,)
        weights = (layer.weight,) if layer.bias is None else (layer.weight, layer.bias)
        if isinstance(layer, nn.Linear):
            return nn.functional.linear, weights

        def convolve(spikes: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            flat = layer._conv_forward(spikes.flatten(0, -4), weight, bias)
            return flat.reshape(*spikes.shape[:-3], *flat.shape[1:])

        return convolve, weights


class RecurrentSynapticNeurons(RecurrentNeurons):
    """Recurrent neurons behind a synaptic current that decays: snnTorch's `RSynaptic`.

    Source: snntorch 1.0.0, `RSynaptic` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).

    Args:
        alpha: decay of the synaptic current in one step, 0 to 1; a number, or a tensor that broadcasts to one sample.
        recurrent: what the spikes come back through: a number or tensor (`V`), a square `nn.Linear`, or an `nn.Conv2d`
            that keeps the shape.
        beta: decay of the membrane in one step, 0 to 1; a number, or a tensor that broadcasts to one sample.
        threshold: firing threshold, > 0; a number, or a tensor that broadcasts to one sample.
        learn_alpha: make alpha a parameter.
        learn_recurrent: make V a parameter; a layer keeps its own.
        others: arguments of `LeakyNeurons` by name, but `engine` and `initial`.

    Raises:
        HpmlError: a layer that does not lead from neurons to the same neurons, a parameter of the wrong type or out of
            its range, or an option that these neurons do not have.
        UnknownNameError: an option that no neurons have.

    Example:
        >>> import torch, hpml_sim as hs
        >>> neurons = hs.spiking.RecurrentSynapticNeurons(0.5, torch.nn.Linear(7, 7), beta=0.9, steps=10)
        >>> neurons(torch.rand(10 * 4, 7)).shape  # (steps x batch, neurons)
        torch.Size([40, 7])
    """

    alpha: Tensor

    def __init__(
        self,
        alpha: float | Tensor = 0.9,
        recurrent: float | Tensor | nn.Linear | nn.Conv2d = 1.0,
        beta: float | Tensor = 0.95,
        threshold: float | Tensor = 1.0,
        *,
        learn_alpha: bool = False,
        learn_recurrent: bool = True,
        **others: Any,
    ):
        super().__init__(recurrent, beta, threshold, learn_recurrent=learn_recurrent, **others)
        who = type(self).__name__
        self._hold("alpha", decay_of(who, "alpha", alpha), check_switch(f"{who}: learn_alpha", learn_alpha))

    def current_decay(self) -> Tensor | None:
        """Decay of the synaptic current."""
        return self.alpha.clamp(0, 1)
