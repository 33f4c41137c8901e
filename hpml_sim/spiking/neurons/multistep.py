"""What all neurons but the leaky ones share: their equations are in `kernels/neurons/dynamics/`, by name."""

from __future__ import annotations

from torch import Tensor

from hpml_sim.spiking.neurons.lif import LeakyNeurons, States


class MultistepNeurons(LeakyNeurons):
    """Neurons whose dynamics are in `kernels/neurons/dynamics/`; its subclasses give the parameters names.

    Time is folded and spikes are counted as in `LeakyNeurons`, whose arguments they take.

    Attributes:
        dynamics: name of the equations in `hpml_sim.kernels.neurons.DYNAMICS`.
    """

    dynamics = "first_order"

    def input_current(self, currents: Tensor) -> Tensor:
        """The current that reaches the membranes, of the shape of `currents`."""
        return currents

    def dynamics_parameters(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by their names there."""
        # A learned decay may leave [0, 1] in training; the neuron uses the nearest value in it, as snnTorch's does.
        return {
            "beta": self.beta.clamp(0, 1),
            "threshold": self.threshold,
            "subtracts": float(self.reset == "subtract"),
            "clears": float(self.reset == "zero"),
        }

    def rest_states(self) -> dict[str, float]:
        """States at rest, by name, that are not 0."""
        return {}

    def run_steps(self, currents: Tensor, start: States | None = None) -> States:
        """Spikes, then all states in snnTorch's order, the membrane last.

        Args:
            currents: currents (chips, steps, batch, ...); or (chips, 1, batch, ...), the same at every step.
            start: what `final_states` gave for the steps before, each (chips, batch, ...); None: rest.

        Returns:
            Spikes and states, each (chips, steps, batch, ...).
        """
        from hpml_sim.kernels.neurons import DYNAMICS, multistep

        # The dynamics have the membrane first; "before" is a helper of theirs, not a state of the neuron.
        membrane, *others = (name for name in DYNAMICS[self.dynamics].states if name != "before")
        order = (*others, membrane)
        spikes, states = multistep(
            self.dynamics,
            self.expand_steps(self.input_current(currents)),
            self.dynamics_parameters(),
            surrogate=self.surrogate,
            start=self.rest_states() if start is None else dict(zip(order, start, strict=True)),
            time_dim=1,
        )
        return (spikes, *states[1 : len(order)], states[0])
