"""snnTorch's other neurons, adaptive ones and Izhikevich's: `kernels/neurons/dynamics/` over all steps, with names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.spiking.neurons import LeakyNeurons, States, decay_of


class MultistepNeurons(LeakyNeurons):
    """Neurons of `kernels/neurons/dynamics/` over all steps; the classes below give their parameters names.

    Folded in time and counted as `LeakyNeurons` are, with its arguments.
    """

    dynamics = "first_order"

    def drive(self, in_time: Tensor) -> Tensor:
        """The current that reaches the neurons."""
        return in_time

    def values(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by name."""
        return {
            "beta": self.beta.clamp(0, 1),
            "threshold": self.threshold,
            "subtracts": float(self.reset == "subtract"),
            "clears": float(self.reset == "zero"),
        }

    def rest(self) -> dict[str, float]:
        """Initial states that are not 0."""
        return {}

    def run_states(self, in_time: Tensor, start: States | None = None) -> States:
        """Spikes, then all states in snnTorch's order, the membrane last; each of the shape of `in_time`."""
        from hpml_sim.kernels.neurons import DYNAMICS, multistep

        membrane, *others = (name for name in DYNAMICS[self.dynamics].states if name != "before")
        order = (*others, membrane)
        spikes, states = multistep(
            self.dynamics,
            self.every_step(self.drive(in_time)),
            self.values(),
            surrogate=self.surrogate,
            start=self.rest() if start is None else dict(zip(order, start, strict=True)),
            time_dim=1,
        )
        return (spikes, *states[1 : len(order)], states[0])


def _refuse(who: str, others: dict[str, Any], *names: str) -> None:
    for name in names:
        if name in others:
            raise HpmlError(f"{who}: {name}={others[name]!r}: these neurons do not have this option")


class SynapticNeurons(MultistepNeurons):
    """Leaky neurons behind a synaptic current that decays by `alpha` in a step: snnTorch's `Synaptic`.

    Args:
        alpha: decay of the current, in [0, 1]. beta, threshold: as for `LeakyNeurons`. learn_alpha: a parameter.
        others: arguments of `LeakyNeurons` but `engine` and `initial`.
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
        _refuse(type(self).__name__, others, "engine", "initial")
        super().__init__(beta, threshold, **others)
        self.dynamics = "synaptic" if self.reset_delay or self.reset == "none" else "synaptic_immediate"
        self._hold("alpha", decay_of(type(self).__name__, "alpha", alpha), learn_alpha)

    def values(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by name."""
        return {**super().values(), "alpha": self.alpha.clamp(0, 1)}


class AlphaNeurons(SynapticNeurons):
    """Neurons whose membrane answers a spike with an alpha function: snnTorch's `Alpha`; alpha > beta, beta < 1.

    Args:
        others: as for `SynapticNeurons` but `reset_delay`; alpha is the decay of the excitatory, beta of the inhibitory
            current.
    """

    def __init__(
        self,
        alpha: float | Tensor = 0.9,
        beta: float | Tensor = 0.8,
        threshold: float | Tensor = 1.0,
        *,
        reset: Literal["subtract", "zero", "none"] = "zero",
        **others: Any,
    ):
        _refuse(type(self).__name__, others, "reset_delay")
        super().__init__(alpha, beta, threshold, reset=reset, **others)
        self.dynamics = "alpha"
        if not bool(((self.alpha > self.beta) & (self.beta > 0) & (self.alpha < 1)).all()):
            raise HpmlError(f"AlphaNeurons: alpha={alpha!r}, beta={beta!r}: 0 < beta < alpha < 1 is needed")

    def values(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by name."""
        alpha, beta = torch.log(self.alpha.clamp(0, 1)), torch.log(self.beta.clamp(0, 1))
        return {**super().values(), "tau": alpha / (beta - alpha) + 1}


class LapicqueNeurons(MultistepNeurons):
    """Neurons given by resistance, capacitance and time step (forward Euler): snnTorch's `Lapicque`.

    The membrane keeps 1 - dt / (R C) of itself in a step, which is NOT exp(-dt / (R C)), and takes dt / C of the input.

    Args:
        resistance, capacitance, time_step: R, C and dt, > 0. threshold: as for `LeakyNeurons`.
        others: arguments of `LeakyNeurons` but `beta`, `learn_beta`, `engine`, `initial`, `reset_delay`.

    Raises:
        HpmlError: dt > R C: the membrane would swing between signs.
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
        _refuse(type(self).__name__, others, "beta", "learn_beta", "engine", "reset_delay", "initial")
        r, c, dt = (torch.as_tensor(value) for value in (resistance, capacitance, time_step))
        for name, value in (("resistance", r), ("capacitance", c), ("time_step", dt)):
            if not bool((value > 0).all()):
                raise HpmlError(f"LapicqueNeurons: {name}={value.tolist()!r} must be > 0")
        if not bool((dt <= r * c).all()):
            raise HpmlError(
                f"LapicqueNeurons: time_step={dt.tolist()!r} exceeds R C={(r * c).tolist()!r}: the forward Euler step "
                "would make the membrane swing; take a shorter step"
            )
        super().__init__(torch.exp(-dt / (r * c)), threshold, **others)
        for name, value in (("resistance", r), ("capacitance", c), ("time_step", dt)):
            self._hold(name, value)

    def drive(self, in_time: Tensor) -> Tensor:
        """The current that reaches the neurons."""
        return in_time * self.resistance * (1 / (self.resistance * self.capacitance)) * self.time_step

    def values(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by name."""
        return {**super().values(), "beta": 1 - (self.time_step / (self.resistance * self.capacitance))}


class RecurrentNeurons(MultistepNeurons):
    """Leaky neurons that get back their own spikes one step later: snnTorch's `RLeaky`.

    Args:
        recurrent: weight of each neuron's own spike (`V`), a number or one for each neuron; or an `nn.Linear` over the
            last dimension, all to all; or an `nn.Conv2d` that keeps the shape. learn_recurrent: make V a parameter; a
            layer keeps its own.
        beta, threshold, others: as for `LeakyNeurons`, but `engine` and `initial`.
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
        _refuse(type(self).__name__, others, "engine", "initial")
        super().__init__(beta, threshold, **others)
        self.recurrent = recurrent if isinstance(recurrent, nn.Module) else None
        if isinstance(recurrent, nn.Linear) and recurrent.in_features != recurrent.out_features:
            raise HpmlError(f"{type(self).__name__}: recurrent={recurrent!r}: it must be square, neurons to neurons")
        if isinstance(recurrent, nn.Conv2d) and recurrent.in_channels != recurrent.out_channels:
            raise HpmlError(f"{type(self).__name__}: recurrent={recurrent!r}: it must keep the number of channels")
        if not isinstance(recurrent, nn.Module):
            self._hold("V", torch.as_tensor(recurrent, dtype=self.beta.dtype), learn_recurrent)

    def values(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by name."""
        return {**super().values(), "V": self.V}

    def run_states(self, in_time: Tensor, start: States | None = None) -> States:
        """Spikes, (synaptic currents,) then the membrane; each of the shape of `in_time`."""
        if self.recurrent is None and self.reset_delay and type(self) is RecurrentNeurons:
            # one to one: a neuron's own affair, which the compiled kernel runs
            return super().run_states(in_time, None if start is None else start[-1:])
        from hpml_sim.kernels.recurrent import recurrent

        names = ("spikes", "membrane") if self.current_decay() is None else ("spikes", "current", "membrane")
        product, weights = self._product()
        return recurrent(
            self.every_step(in_time),
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

    def last(self, spikes: Tensor, *states: Tensor) -> States:
        """From what `run_states` gave: what the steps after it start from, each (chips, batch, ...)."""
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
    """Recurrent neurons behind a synaptic current that decays by `alpha` in a step: snnTorch's `RSynaptic`.

    Args:
        alpha: decay of the current, in [0, 1]. learn_alpha: make it a parameter.
        recurrent, beta, threshold, others: as for `RecurrentNeurons`.
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
        **others: Any,
    ):
        super().__init__(recurrent, beta, threshold, **others)
        self._hold("alpha", decay_of(type(self).__name__, "alpha", alpha), learn_alpha)

    def current_decay(self) -> Tensor | None:
        """Decay of the synaptic current."""
        return self.alpha.clamp(0, 1)


class AdaptiveNeurons(MultistepNeurons):
    """Leaky neurons whose threshold rises with every spike and falls back slowly (Bellec et al. 2020).

    The reset subtracts the base threshold one step late.

    Args:
        beta, threshold: decay of the membrane and base threshold.
        rho: decay of the adaptation, in [0, 1]. kappa: by how much one spike raises the threshold, >= 0.
        others: arguments of `LeakyNeurons` but `reset`, `engine`, `initial` and `reset_delay`.
    """

    rho: Tensor
    kappa: Tensor
    dynamics = "adaptive"

    def __init__(
        self,
        beta: float | Tensor = 0.95,
        threshold: float | Tensor = 1.0,
        rho: float | Tensor = 0.97,
        kappa: float | Tensor = 0.2,
        **others: Any,
    ):
        _refuse(type(self).__name__, others, "reset", "engine", "reset_delay", "initial")
        super().__init__(beta, threshold, **others)
        jump = torch.as_tensor(kappa, dtype=self.beta.dtype)
        if not bool((jump >= 0).all()):
            raise HpmlError(f"AdaptiveNeurons: kappa={kappa!r} must be >= 0: a spike raises the threshold")
        self._hold("rho", decay_of(type(self).__name__, "rho", rho))
        self._hold("kappa", jump)

    def values(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by name."""
        return {"beta": self.beta.clamp(0, 1), "threshold": self.threshold, "rho": self.rho, "kappa": self.kappa}


class IzhikevichNeurons(MultistepNeurons):
    """Izhikevich's neuron (2003), forward Euler; membrane in mV, time in ms; a spike resets it before the next step.

    Args:
        a, b, c, d: as published; the defaults are the regular spiking neuron. threshold: mV above which it fires.
        time_step: ms of a step, in (0, 1]; the published equations diverge for longer ones.
        surrogate, slope: its u is in mV, so slopes that suit a threshold of 1 are too steep: 0.1 by default.
        others: `steps`, `chips`, `learn_threshold`.
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
        _refuse(type(self).__name__, others, "reset", "beta", "learn_beta", "engine", "reset_delay", "initial")
        if not 0 < time_step <= 1:
            raise HpmlError(f"IzhikevichNeurons: time_step={time_step!r} ms must lie in (0, 1]")
        super().__init__(1.0, threshold, surrogate=surrogate, slope=slope, **others)
        self.shape = {"a": a, "b": b, "c": c, "d": d}
        self.time_step = time_step

    def values(self) -> dict[str, Tensor | float]:
        """Parameters of the dynamics by name."""
        fixed = {"dt": self.time_step, "quadratic": 0.04, "linear": 5.0, "constant": 140.0}
        return {**self.shape, **fixed, "threshold": self.threshold}

    def rest(self) -> dict[str, float]:
        """Rest: v = c, u = b c."""
        return {"membrane": self.shape["c"], "recovery": self.shape["b"] * self.shape["c"]}
