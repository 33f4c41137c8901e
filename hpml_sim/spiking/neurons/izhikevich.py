"""Izhikevich's neurons."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hpml_sim.errors import check_real
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.spiking.neurons.multistep import MultistepNeurons
from hpml_sim.spiking.neurons.parameters import check_options


class IzhikevichNeurons(MultistepNeurons):
    """Izhikevich's neurons, by forward Euler: membrane v in mV, recovery u, time in ms.

    v' = v + dt (0.04 v^2 + 5 v + 140 - u + x) and u' = u + dt a (b v - u); after a spike v = c and u = u + d, before
    the next step.

    Source: E. M. Izhikevich, IEEE Trans. Neural Netw. 14:1569 (2003), eqs. (1)-(3); the default is its regular spiking
    neuron.

    Args:
        a: rate of the recovery, 1/ms.
        b: how strongly the recovery follows the membrane, 1/ms.
        c: membrane after a spike, mV.
        d: what a spike adds to the recovery, mV/ms.
        threshold: membrane above which it fires, mV, > 0.
        time_step: ms of a step, above 0 up to 1; the published equations diverge for longer ones.
        surrogate: gradient of the spike: a name in `hs.spiking.SURROGATES`, a `Surrogate`, or a function (u, gradient
            of the spikes, spikes) -> gradient of u; its u is in mV.
        slope: first parameter of the surrogate. Slopes that suit a threshold of 1 are too steep in mV.
        others: `steps`, `chips` and `learn_threshold`.

    Raises:
        HpmlError: a parameter of the wrong type or out of its range, or an option that these neurons do not have.
        UnknownNameError: an option that no neurons have.

    Example:
        >>> import torch, hpml_sim as hs
        >>> neurons = hs.spiking.IzhikevichNeurons(steps=400)  # 200 ms
        >>> int(neurons(torch.full((400, 1), 10.0)).sum())  # spikes for a constant input of 10
        5
    """

    dynamics = "izhikevich"

    def __init__(
        self,
        a: float = 0.02,
        b: float = 0.2,
        c: float = -65.0,
        d: float = 8.0,
        threshold: float = 30.0,
        *,
        time_step: float = 0.5,
        surrogate: str | Surrogate | Gradient = "atan",
        slope: float | None = 0.1,
        **others: Any,
    ):
        who = type(self).__name__
        lacks = ("reset", "beta", "learn_beta", "engine", "reset_delay", "initial")
        check_options(type(self), others, lacks=lacks)
        constants = {"a": a, "b": b, "c": c, "d": d}
        for name, value in constants.items():
            check_real(f"{who}: {name}", value)
        step_ms = check_real(f"{who}: time_step", time_step, above=0, high=1, hint="it is in ms")
        super().__init__(1.0, threshold, surrogate=surrogate, slope=slope, **others)
        self.constants = constants
        self.time_step = step_ms

    def dynamics_parameters(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by their names there."""
        fixed = {"dt": self.time_step, "quadratic": 0.04, "linear": 5.0, "constant": 140.0}
        return {**self.constants, **fixed, "threshold": self.threshold}

    def rest_states(self) -> dict[str, float]:
        """Rest: v = c, u = b c."""
        return {"membrane": self.constants["c"], "recovery": self.constants["b"] * self.constants["c"]}
