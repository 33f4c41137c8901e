"""Leaky integrate-and-fire (LIF) neurons as a layer: time is folded into the batch, the state lives inside one call."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError, UnknownNameError, check_real, check_switch, shown
from hpml_sim.kernels.common.vmapping import all_values
from hpml_sim.kernels.surrogates import Gradient, Surrogate
from hpml_sim.kernels.surrogates import surrogate as as_surrogate
from hpml_sim.spiking import snntorch_import
from hpml_sim.spiking.neurons.parameters import decay_of, positive, text_of
from hpml_sim.spiking.option_names import option_names_checked
from hpml_sim.spiking.time_folding import TimeFolded

States = tuple[Tensor, ...]
"""States of one layer of neurons, in snnTorch's order (the membrane last), each (chips, batch, ...) or with steps."""


class LeakyNeurons(TimeFolded):
    """Leaky integrate-and-fire (LIF) neurons over all steps at once: snnTorch's `Leaky`.

    (chips x steps x batch, ...) -> spikes of the same shape. With membrane m, input x, decay beta, threshold theta and
    spikes S[t] = 1 where m[t] > theta, else 0:

        subtract  m[t] = beta m[t-1] + x[t] - S[t-1] theta
        zero      m[t] = beta (1 - S[t-1]) m[t-1] + x[t]
        none      m[t] = beta m[t-1] + x[t]

    The reset acts one step late, as snnTorch's default does, so that m[t] shows the potential that fired. Each call
    starts from m = 0 and keeps nothing: there is no state to reset, to copy or to mix up. `hs.spiking.run_with_state`
    continues a sequence where that is wanted.

    Source: snntorch 1.0.0, `Leaky` (E. O. Eshraghian et al., Proc. IEEE 111:1016, 2023).

    Args:
        beta: decay of the membrane in one step, 0 to 1; a number, or a tensor that broadcasts to one sample.
        threshold: firing threshold, > 0; a number, or a tensor that broadcasts to one sample.
        reset: what a spike does to the membrane: "subtract" the threshold, set it to "zero", or "none".
        surrogate: gradient of the spike: a name in `hs.spiking.SURROGATES`, a `Surrogate`, or a function (u, gradient
            of the spikes, spikes) -> gradient of u.
        slope: first parameter of the surrogate; None takes snnTorch's default.
        reset_delay: True: the reset acts one step late. False: it acts in the step of the spike, and is differentiated.
        initial: membrane potential before the first step, as a share of the threshold, 0 to 1; a number, or a tensor
            that broadcasts to one sample. Half of it rounds spike counts to the nearest instead of down.
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.
        engine: "fused" (our kernels) or "snntorch" (the genuine neuron, step by step); equal bit for bit.
        learn_beta: make beta a parameter.
        learn_threshold: make the threshold a parameter.

    Attributes:
        spike_count: spikes of the last call in evaluation mode, all chips, steps and samples together; None before.
        neurons: neurons of one sample in that call.
        samples: samples x chips in that call.

    Raises:
        HpmlError: a parameter of the wrong type or out of its range.
        UnknownNameError: no reset, surrogate or engine has this name.

    Example:
        >>> import torch, hpml_sim as hs
        >>> neurons = hs.spiking.LeakyNeurons(beta=0.5, threshold=1.0, steps=4)
        >>> current = torch.full((4, 1), 0.8)  # (steps x batch, neurons)
        >>> spikes, membrane = neurons(current, with_states=True)
        >>> spikes.flatten().tolist()
        [0.0, 1.0, 0.0, 0.0]
        >>> [round(m, 3) for m in membrane.flatten().tolist()]
        [0.8, 1.2, 0.4, 1.0]
    """

    beta: Tensor
    threshold: Tensor

    @option_names_checked
    def __init__(
        self,
        beta: float | Tensor = 0.95,
        threshold: float | Tensor = 1.0,
        *,
        reset: Literal["subtract", "zero", "none"] = "subtract",
        surrogate: str | Surrogate | Gradient = "atan",
        slope: float | None = None,
        reset_delay: bool = True,
        initial: float | Tensor = 0.0,
        steps: int = 1,
        chips: int = 1,
        engine: Literal["fused", "snntorch"] = "fused",
        learn_beta: bool = False,
        learn_threshold: bool = False,
    ):
        super().__init__(steps, chips)
        who = type(self).__name__
        for what, value, allowed in (
            ("reset", reset, ("subtract", "zero", "none")),
            ("engine", engine, ("fused", "snntorch")),
        ):
            if not isinstance(value, str):
                raise HpmlError(f"{who}: {what}={shown(value)}: must be one of {', '.join(map(repr, allowed))}")
            if value not in allowed:
                raise UnknownNameError(what, value, allowed)
        if engine == "snntorch" and reset == "subtract" and not reset_delay:
            raise HpmlError(
                "LeakyNeurons: engine='snntorch' with reset='subtract' and reset_delay=False: snnTorch's neuron stays "
                "silent above its threshold; ours is another (engine='fused')"
            )
        decay = decay_of(who, "beta", beta)
        theta = positive(who, "threshold", threshold, "or neurons fire without input", decay.dtype)
        self._hold("beta", decay, check_switch(f"{who}: learn_beta", learn_beta))
        self._hold("threshold", theta, check_switch(f"{who}: learn_threshold", learn_threshold))
        self.initial: float | Tensor = 0.0
        self.start_at(initial)
        self.reset: Literal["subtract", "zero", "none"] = reset
        self.surrogate = as_surrogate(surrogate, slope)
        self.reset_delay = check_switch(f"{who}: reset_delay", reset_delay)
        self.engine: Literal["fused", "snntorch"] = engine
        self.spike_count: int | None = None
        self.neurons = 0
        self.samples = 0

    def start_at(self, initial: float | Tensor) -> None:
        """Set the membrane potential before the first step.

        Args:
            initial: as a share of the threshold, 0 to 1; a number, or a tensor that broadcasts to one sample.

        Raises:
            HpmlError: neither, or outside 0 to 1.
        """
        what, why = f"{type(self).__name__}: initial", "it is a share of the threshold"
        if not isinstance(initial, Tensor):
            value: float | Tensor = check_real(what, initial, low=0, high=1, hint=why)
        elif bool(((initial >= 0) & (initial <= 1)).all()):
            value = initial.detach().clone()
        else:
            raise HpmlError(f"{what}={text_of(initial)}: must lie in [0, 1]: {why}")
        vars(self).pop("initial", None)
        self._buffers.pop("initial", None)
        if isinstance(value, Tensor):
            self.register_buffer("initial", value)
        else:
            self.initial = value

    def _hold(self, name: str, value: Tensor, learn: bool = False) -> None:
        value = value.detach().clone()
        if learn:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def forward(
        self, x: Tensor, *, with_states: bool = False, static_input: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """Spikes of all steps.

        Args:
            x: currents (chips x steps x batch, ...); or, with `static_input`, (chips x batch, ...).
            with_states: give the states, too.
            static_input: x is the current of every step. The result has steps all the same.

        Returns:
            Spikes, 0 or 1, (chips x steps x batch, ...) of the type of x; with states, a tuple of the spikes and each
            state of that shape, in snnTorch's order.
        """
        self.check_input(x)
        currents = x.reshape(self.chips, 1, -1, *x.shape[1:]) if static_input else self.unfold(x)
        start = None if self.layer_state is None else self.layer_state.initial(currents[:, 0])
        spikes, *states = self.run_steps(currents, start)
        if self.layer_state is not None:
            self.layer_state.store(self.final_states(spikes, *states))
        if not self.training and not x.is_meta:
            values = all_values(spikes)
            self.spike_count = int(torch.count_nonzero(values))
            self.samples = currents.shape[0] * currents.shape[2] * (values.numel() // max(1, spikes.numel()))
            self.neurons = currents[0, 0, 0].numel() if self.samples else 0
        if with_states:
            return (spikes.flatten(0, 2), *(state.flatten(0, 2) for state in states))
        return spikes.flatten(0, 2)

    def expand_steps(self, currents: Tensor) -> Tensor:
        """Currents of all steps, (chips, steps, batch, ...).

        Args:
            currents: currents (chips, steps, batch, ...); or (chips, 1, batch, ...), the same at every step.
        """
        return currents.expand(-1, self.steps, *currents.shape[2:])

    def run_steps(self, currents: Tensor, start: States | None = None) -> States:
        """Spikes, then all states in snnTorch's order, the membrane last.

        Args:
            currents: currents (chips, steps, batch, ...); or (chips, 1, batch, ...), the same at every step.
            start: what `final_states` gave for the steps before, each (chips, batch, ...); None: rest.

        Returns:
            Spikes and states, each (chips, steps, batch, ...).
        """
        membrane = start[0] if start is not None else None
        if membrane is None and (isinstance(self.initial, Tensor) or self.initial):
            membrane = (self.initial * self.threshold).to(currents.dtype).expand_as(currents[:, 0])
        if self.engine == "snntorch":
            return self._run_snntorch(currents, membrane)
        from hpml_sim.kernels.lif import leaky

        return leaky(
            currents,
            self.beta,
            self.threshold,
            reset=self.reset,
            surrogate=self.surrogate,
            reset_delay=self.reset_delay,
            start=membrane,
            steps=self.steps,
            time_dim=1,
        )

    def final_states(self, spikes: Tensor, *states: Tensor) -> States:
        """What the steps after these start from.

        Args:
            spikes: as `run_steps` gave them, (chips, steps, batch, ...).
            states: as `run_steps` gave them, each (chips, steps, batch, ...).

        Returns:
            Each (chips, batch, ...).
        """
        # The spikes are no state of their own. A late reset has not touched the last membrane yet, so that it tells
        # whether to reset at the next step; an immediate reset is done.
        return tuple(state[:, -1] for state in states)

    def _run_snntorch(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        neuron = snntorch_import.leaky(
            self.beta, self.threshold, self.reset, self.surrogate, reset_delay=self.reset_delay
        )
        membrane = torch.zeros_like(currents[:, 0]) if membrane is None else membrane
        spikes, membranes = [], []
        for current in self.expand_steps(currents).unbind(1):  # never currents[:, t]: its backward makes time quadratic
            spike, membrane = neuron(current, membrane)
            spikes.append(spike.to(currents.dtype))
            membranes.append(membrane)
        return torch.stack(spikes, dim=1), torch.stack(membranes, dim=1)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        late = "" if self.reset_delay else ", reset_delay=False"
        return f"steps={self.steps}, reset={self.reset!r}{late}, surrogate={self.surrogate}, engine={self.engine!r}"
