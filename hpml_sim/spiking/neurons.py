"""Spiking neurons as modules: time is folded into the batch, state lives inside one call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate
from hpml_sim.spiking import snntorch_import as _snntorch
from hpml_sim.spiking.time_folding import TimeFolded

States = tuple[Tensor, ...]


class LeakyNeurons(TimeFolded):
    """Leaky integrate-and-fire neurons over all steps: snnTorch's `Leaky`, its equations in `kernels/lif/`.

    (chips x steps x batch, ...) -> spikes of the same shape. Each call starts from membrane potential 0 and keeps
    nothing, so there is no state to reset, copy or mix up; `state.py` continues a sequence where that is wanted.

    Args:
        beta: decay of the membrane in one step, in [0, 1]; a number, or a tensor that broadcasts to one sample.
        threshold: firing threshold, > 0; likewise.
        reset: "subtract", "zero" or "none": what a spike does at the next step.
        surrogate, slope: gradient of the spike: a name in `SURROGATES`, a `Surrogate`, or a function; and its first
            parameter, None for snnTorch's default.
        reset_delay: False: the reset acts in the step of the spike, and is differentiated.
        initial: membrane potential before the first step, as a share of the threshold, in [0, 1]. Half of it rounds
            spike counts to the nearest instead of down.
        steps, chips: how time is folded.
        engine: "fused" (our kernels) or "snntorch" (the genuine neuron, step by step); equal bit for bit.
        learn_beta, learn_threshold: make them parameters.

    Attributes:
        spike_count: spikes of the last call in evaluation mode, all chips, steps and samples together; None before.
        neurons: neurons of one sample in that call. samples: samples x chips in that call.

    Raises:
        HpmlError: beta or initial outside [0, 1], threshold <= 0, steps < 1. UnknownNameError: reset, surrogate,
            engine.
    """

    beta: Tensor
    threshold: Tensor

    def __init__(
        self,
        beta: float | Tensor = 0.95,
        threshold: float | Tensor = 1.0,
        *,
        reset: Literal["subtract", "zero", "none"] = "subtract",
        surrogate: str | Surrogate | Gradient = "atan",
        slope: float | None = None,
        reset_delay: bool = True,
        initial: float = 0.0,
        steps: int = 1,
        chips: int = 1,
        engine: Literal["fused", "snntorch"] = "fused",
        learn_beta: bool = False,
        learn_threshold: bool = False,
    ):
        super().__init__(steps, chips)
        for what, value, allowed in (
            ("reset", reset, ("subtract", "zero", "none")),
            ("engine", engine, ("fused", "snntorch")),
        ):
            if value not in allowed:
                raise UnknownNameError(what, value, allowed)
        if engine == "snntorch" and reset == "subtract" and not reset_delay:
            raise HpmlError(
                "LeakyNeurons: engine='snntorch' with reset='subtract' and reset_delay=False: snnTorch's neuron locks "
                "up above its threshold; ours is another (engine='fused')"
            )
        decay = decay_of("LeakyNeurons", "beta", beta)
        theta = torch.as_tensor(threshold, dtype=decay.dtype) if not isinstance(threshold, Tensor) else threshold
        if not bool((theta > 0).all()):
            raise HpmlError(f"LeakyNeurons: threshold={threshold!r} must be > 0, or neurons fire without input")
        if not 0 <= initial <= 1:
            raise HpmlError(f"LeakyNeurons: initial={initial!r} must lie in [0, 1]: a share of the threshold")
        self._hold("beta", decay, learn_beta)
        self._hold("threshold", theta, learn_threshold)
        self.initial = float(initial)
        self.reset: Literal["subtract", "zero", "none"] = reset
        self.surrogate = as_surrogate(surrogate, slope)
        self.reset_delay = reset_delay
        self.engine = engine
        self.spike_count: int | None = None
        self.neurons = 0
        self.samples = 0

    def _hold(self, name: str, value: Tensor, learn: bool = False) -> None:
        value = value.detach().clone()
        if learn:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def forward(self, x: Tensor, *, with_states: bool = False, constant: bool = False) -> Tensor | tuple[Tensor, ...]:
        """Spikes (0 or 1) of x's shape and dtype; with states in snnTorch's order if asked, each of that shape.

        Args:
            x: currents (chips x steps x batch, ...); or, with `constant`, (chips x batch, ...): the same at every step.
            with_states: give the states, too. constant: the result has steps all the same.
        """
        in_time = x.reshape(self.chips, 1, -1, *x.shape[1:]) if constant else self.unfold(x)
        start = None if self.carry is None else self.carry.start(in_time[:, 0])
        spikes, *states = self.run_states(in_time, start)
        if self.carry is not None:
            self.carry.keep(self.last(spikes, *states))
        if not self.training and not x.is_meta:
            self.spike_count = int(torch.count_nonzero(spikes))
            self.samples = in_time.shape[0] * in_time.shape[2]
            self.neurons = in_time[0, 0, 0].numel() if self.samples else 0
        if with_states:
            return (spikes.flatten(0, 2), *(state.flatten(0, 2) for state in states))
        return spikes.flatten(0, 2)

    def every_step(self, in_time: Tensor) -> Tensor:
        """Currents of all steps, where they may be one for all: (chips, steps or 1, batch, ...)."""
        return in_time.expand(-1, self.steps, *in_time.shape[2:])

    def run(self, in_time: Tensor, start: States | None = None) -> tuple[Tensor, Tensor]:
        """Spikes and membrane potentials for currents (chips, steps, batch, ...), each of that shape."""
        spikes, *states = self.run_states(in_time, start)
        return spikes, states[-1]

    def run_states(self, in_time: Tensor, start: States | None = None) -> States:
        """Spikes, then all states in snnTorch's order, the membrane last; each of the shape of `in_time`.

        Args:
            in_time: currents (chips, steps, batch, ...); or (chips, 1, batch, ...), the same at every step.
            start: what `last` gave for the steps before; None: rest.
        """
        membrane = start[0] if start is not None else None
        if membrane is None and self.initial:
            membrane = (self.initial * self.threshold).to(in_time.dtype).expand_as(in_time[:, 0])
        if self.engine == "snntorch":
            return self._run_snntorch(in_time, membrane)
        from hpml_sim.kernels.lif import leaky

        return leaky(
            in_time,
            self.beta,
            self.threshold,
            reset=self.reset,
            surrogate=self.surrogate,
            reset_delay=self.reset_delay,
            start=membrane,
            steps=self.steps,
            time_dim=1,
        )

    def last(self, spikes: Tensor, *states: Tensor) -> States:
        """From what `run_states` gave: what the steps after it start from, each (chips, batch, ...)."""
        return tuple(state[:, -1] for state in states)

    def _run_snntorch(self, in_time: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        neuron = _snntorch.leaky(self.beta, self.threshold, self.reset, self.surrogate, reset_delay=self.reset_delay)
        membrane = torch.zeros_like(in_time[:, 0]) if membrane is None else membrane
        spikes, membranes = [], []
        for current in self.every_step(in_time).unbind(1):  # never in_time[:, t]: its backward makes time quadratic
            spike, membrane = neuron(current, membrane)
            spikes.append(spike.to(in_time.dtype))
            membranes.append(membrane)
        return torch.stack(spikes, dim=1), torch.stack(membranes, dim=1)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        late = "" if self.reset_delay else ", reset_delay=False"
        return f"steps={self.steps}, reset={self.reset!r}{late}, surrogate={self.surrogate}, engine={self.engine!r}"


def decay_of(who: str, name: str, value: float | Tensor) -> Tensor:
    """A share that is kept in a step, as a tensor.

    Raises:
        HpmlError: outside [0, 1].
    """
    decay = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.get_default_dtype())
    if not bool(((decay >= 0) & (decay <= 1)).all()):
        raise HpmlError(f"{who}: {name}={value!r} must lie in [0, 1]: the share of the state kept in a step")
    return decay


class LeakyIntegrators(TimeFolded):
    """Membranes that never fire: (chips x steps x batch, ...) -> potentials m[t] = beta m[t-1] + x[t] of that shape.

    A readout for networks whose output is a value; NIR's LI and I.

    Args:
        beta: decay in one step, in [0, 1]; a number, or a tensor that broadcasts to one sample.
        steps, chips: how time is folded. learn_beta: make it a parameter.
    """

    beta: Tensor

    def __init__(self, beta: float | Tensor = 0.95, *, steps: int = 1, chips: int = 1, learn_beta: bool = False):
        super().__init__(steps, chips)
        decay = decay_of("LeakyIntegrators", "beta", beta).detach().clone()
        if learn_beta:
            self.beta = nn.Parameter(decay)
        else:
            self.register_buffer("beta", decay)

    def forward(self, x: Tensor) -> Tensor:
        """Membrane potentials of x's shape and dtype."""
        from hpml_sim.kernels.lif import leaky

        in_time = self.unfold(x)
        start = None if self.carry is None else self.carry.start(in_time[:, 0])
        _, membrane = leaky(
            in_time, self.beta, 1.0, reset="none", start=None if start is None else start[0], time_dim=1
        )
        if self.carry is not None:
            self.carry.keep((membrane[:, -1],))
        return membrane.reshape(x.shape)
