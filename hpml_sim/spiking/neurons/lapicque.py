"""Neurons given by a circuit: snnTorch's `Lapicque`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.spiking.neurons.multistep import MultistepNeurons
from hpml_sim.spiking.neurons.parameters import as_tensor, check_options, text_of


class LapicqueNeurons(MultistepNeurons):
    """Neurons given by resistance, capacitance and time step (forward Euler): snnTorch's `Lapicque`.

    The membrane keeps 1 - dt / (R C) of itself in a step, which is not exp(-dt / (R C)), and takes dt / C of the input.

    Source: snntorch 1.0.0, `Lapicque` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).

    Args:
        resistance: R, > 0; a number, or a tensor that broadcasts to one sample.
        capacitance: C, > 0; a number, or a tensor that broadcasts to one sample.
        time_step: dt, > 0, at most R C; a number, or a tensor that broadcasts to one sample.
        threshold: firing threshold, > 0; a number, or a tensor that broadcasts to one sample.
        others: arguments of `LeakyNeurons` by name, but `beta`, `learn_beta`, `engine`, `initial` and `reset_delay`.

    Raises:
        HpmlError: dt > R C, so that the membrane would swing between signs; a parameter of the wrong type or out of its
            range; or an option that these neurons do not have.
        UnknownNameError: an option that no neurons have.

    Example:
        >>> import torch, hpml_sim as hs
        >>> neurons = hs.spiking.LapicqueNeurons(resistance=1.0, capacitance=2.0, time_step=1.0, steps=3)
        >>> neurons(torch.ones(3, 1), with_states=True)[-1].flatten().tolist()  # half stays, half the input comes
        [0.5, 0.75, 0.875]
    """

    resistance: Tensor
    capacitance: Tensor
    time_step: Tensor

    def __init__(
        self,
        resistance: float | Tensor = 1.0,
        capacitance: float | Tensor = 10.0,
        time_step: float | Tensor = 1.0,
        threshold: float | Tensor = 1.0,
        **others: Any,
    ):
        check_options(type(self), others, lacks=("beta", "learn_beta", "engine", "reset_delay", "initial"))
        circuit = {"resistance": resistance, "capacitance": capacitance, "time_step": time_step}
        r, c, dt = (as_tensor(f"LapicqueNeurons: {name}", value) for name, value in circuit.items())
        for name, value in (("resistance", r), ("capacitance", c), ("time_step", dt)):
            if not bool((value > 0).all()):
                raise HpmlError(f"LapicqueNeurons: {name}={text_of(circuit[name])} must be > 0")
        if not bool((dt <= r * c).all()):
            raise HpmlError(
                f"LapicqueNeurons: time_step={text_of(time_step)} exceeds R C={text_of(r * c)}: the "
                "forward Euler step would make the membrane swing; take a shorter step"
            )
        # snnTorch's Lapicque has a beta as well, which no equation of it uses.
        super().__init__(torch.exp(-dt / (r * c)), threshold, **others)
        for name, value in (("resistance", r), ("capacitance", c), ("time_step", dt)):
            self._hold(name, value)

    def input_current(self, currents: Tensor) -> Tensor:
        """What of the input reaches the membranes, of the shape of `currents`."""
        # In snnTorch's order of operations, whose rounding it shares.
        return currents * self.resistance * (1 / (self.resistance * self.capacitance)) * self.time_step

    def dynamics_parameters(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by their names there."""
        return {**super().dynamics_parameters(), "beta": 1 - (self.time_step / (self.resistance * self.capacitance))}
