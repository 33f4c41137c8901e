"""Neurons that compute in a chip's integers: leaky, synaptic, recurrent, given by a circuit, with adaptive thresholds.

With D = round(2^d beta) for decays of d bits, integers v, x and theta, and R = 1 where v > theta:

    subtract  v' = trunc(D v / 2^d) + x - R theta
    zero      v' = trunc(D (1 - R) v / 2^d) + x
    none      v' = trunc(D v / 2^d) + x

These are the equations of `kernels/` with each product cut towards zero and each state saturated, so that whatever
differs is arithmetic. Synaptic currents and adaptive thresholds decay in the same way; what comes back through
recurrent weights is rounded as the input is. Membranes that never fire are not reset and grow further, so they count in
coarser steps, 16 times those of neurons.

Sources: M. Davies et al., IEEE Micro 38:82 (2018) (integer compartments); lava-dl, `dynamics/leaky_integrator.py` (the
12-bit decay, cut towards zero).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import ConversionError, check_whole
from hpml_sim.spiking.neurons.adaptive import AdaptiveNeurons
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.lapicque import LapicqueNeurons
from hpml_sim.spiking.neurons.lif import LeakyNeurons, States
from hpml_sim.spiking.neurons.recurrent import RecurrentNeurons, RecurrentSynapticNeurons
from hpml_sim.spiking.neurons.synaptic import SynapticNeurons
from hpml_sim.spiking.option_names import option_names_checked

STATE_BITS = 24
"""Bits of a state with its sign, as on Loihi."""
DECAY_BITS = 12
"""Fraction bits of a decay, as on Loihi."""
LARGEST_RESOLUTION = 1 << 22
_COARSER = 16
"""Steps of neurons in one of a membrane that never fires, which no reset keeps small."""


class IntegerArithmetic:
    """Integer arithmetic of one layer: whole numbers in float64, which holds them and their products exactly.

    Args:
        resolution: integer steps from 0 to the threshold; an eighth of the largest state is the most that is taken.
        state_bits: bits of a state with its sign.
        decay_bits: fraction bits of a decay; None: decays are not rounded.
    """

    def __init__(self, resolution: int, state_bits: int, decay_bits: int | None):
        self.resolution, self.decay_bits = min(resolution, 1 << (state_bits - 3)), decay_bits
        self.largest = (1 << (state_bits - 1)) - 1

    @classmethod
    def checked(cls, who: str, resolution: int, state_bits: int, decay_bits: int | None) -> IntegerArithmetic:
        """The arithmetic of widths that a caller gives.

        Args:
            who: whose arguments they are, which begins the message.
            resolution: 2 to 2**22.
            state_bits: 4 to 48.
            decay_bits: 1 to 24, or None.

        Raises:
            HpmlError: a value of the wrong type or out of its range.
        """
        check_whole(f"{who}: resolution", resolution, low=2, high=LARGEST_RESOLUTION)
        check_whole(f"{who}: state_bits", state_bits, low=4, high=48)
        if decay_bits is not None:
            check_whole(f"{who}: decay_bits", decay_bits, low=1, high=24)
        return cls(int(resolution), int(state_bits), None if decay_bits is None else int(decay_bits))

    def decay(self, value: Tensor) -> Tensor:
        """A decay as the chip holds it.

        Args:
            value: 0 to 1; what lies outside is cut off.
        """
        value = value.double().clamp(0, 1)
        return (
            value if self.decay_bits is None else torch.round(value * (1 << self.decay_bits)) / (1 << self.decay_bits)
        )

    def held(self, state: Tensor) -> Tensor:
        """A state after saturation.

        Args:
            state: in integer steps.
        """
        return state.clamp(-self.largest - 1, self.largest)

    def fired(self, membrane: Tensor, rise: Tensor | int = 0) -> Tensor:
        """1 where a membrane is above the threshold.

        Args:
            membrane: in integer steps.
            rise: of the threshold above its rest, in integer steps.
        """
        return (membrane > self.resolution + rise).double()

    def leaky(self, v: Tensor, x: Tensor, beta: Tensor, reset: str, late: bool) -> tuple[Tensor, Tensor]:
        """Spikes and membrane after one step, as `Leaky` resets: a late "zero" clears before the decay.

        Args:
            v: the membrane before, in integer steps.
            x: the current, in integer steps.
            beta: what `decay` gave.
            reset: "subtract", "zero" or "none".
            late: whether the reset acts one step after the spike.
        """
        before = self.fired(v)
        kept = v * (1 - before) if late and reset == "zero" else v
        v = torch.trunc(kept * beta) + x
        if late:
            v = self.held(v - before * self.resolution if reset == "subtract" else v)
            return self.fired(v), v
        return self.reset_now(self.held(v), reset)

    def reset_now(self, v: Tensor, reset: str) -> tuple[Tensor, Tensor]:
        """Spikes and membrane where the reset acts in the step of the spike.

        Args:
            v: the membrane before the reset, in integer steps.
            reset: "subtract", "zero" or "none".
        """
        fired = self.fired(v)
        taken = {"zero": fired * v, "subtract": fired * self.resolution}.get(reset)
        return fired, v if taken is None else v - taken


class _InIntegers(LeakyNeurons):
    """What fixed-point neurons of every kind share: integers in evaluation, floating point in training."""

    resolution: int
    integers: IntegerArithmetic
    unseen = 0
    """States, the first ones, that `run_steps` does not give: the last spikes of recurrent neurons."""

    def _set_integers(self, resolution: int, state_bits: int, decay_bits: int | None) -> None:
        self.integers = IntegerArithmetic.checked("FixedPointNeurons", resolution, state_bits, decay_bits)
        self.resolution = self.integers.resolution

    def run_steps(self, currents: Tensor, start: States | None = None) -> States:
        """Spikes and states, each (chips, steps, batch, ...).

        Args:
            currents: currents (chips, steps, batch, ...); or (chips, 1, batch, ...), the same at every step.
            start: what `final_states` gave for the steps before, each (chips, batch, ...); None: rest.
        """
        if self.training or currents.is_meta:
            return super().run_steps(currents, start)
        with torch.no_grad():
            currents = self.expand_steps(currents)
            unit = self.threshold.double() / self.resolution
            whole = self.integers.held(torch.round(currents / unit))
            states, scales = self.first_states(currents, start, unit), self.scales(unit)
            outputs: list[list[Tensor]] = []
            for x in whole.unbind(1):
                fired, *states = self.integer_step(x, states)
                seen = [state * scale for state, scale in zip(states, scales, strict=True)]
                outputs.append([fired, *seen[self.unseen :]])
            return tuple(torch.stack(parts, 1).to(currents) for parts in zip(*outputs, strict=True))

    def scales(self, unit: Tensor) -> list[Any]:
        """What one integer step of each state means."""
        return [unit]

    def first_states(self, currents: Tensor, start: States | None, unit: Tensor) -> list[Tensor]:
        """The integer states before the first step."""
        like = torch.zeros_like(currents[:, 0], dtype=torch.float64)
        scales = self.scales(unit)
        if start is None:
            first = torch.round(torch.as_tensor(self.initial, dtype=torch.float64) * self.resolution)
            return [like.clone() for _ in scales[1:]] + [like + first]
        return [like + torch.round(state / scale) for state, scale in zip(start, scales, strict=True)]

    def integer_step(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        """Spikes and the states after one step."""
        beta = self.integers.decay(self.beta)
        return self.integers.leaky(states[0], x, beta, self.reset, self.reset_delay)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{super().extra_repr()}, resolution={self.resolution}"


class FixedPointNeurons(_InIntegers):
    """Leaky neurons that compute in integers in evaluation mode; in training mode they are the floating-point ones.

    Source: M. Davies et al., IEEE Micro 38:82 (2018); lava-dl, `dynamics/leaky_integrator.py` (the 12-bit decay, cut
    towards zero).

    Args:
        neurons: leaky neurons, whose settings are taken.
        resolution: integer steps from 0 to the threshold, 2 to 2**22; a current is rounded to the nearest of them. An
            eighth of the largest state is the most that is taken.
        state_bits: bits of a membrane with its sign, 4 to 48; it saturates.
        decay_bits: fraction bits of the decay, 1 to 24; None: it is not rounded.

    Raises:
        HpmlError: resolution or bits of the wrong type or out of their range.
        ConversionError: neurons that are not plain leaky ones.

    Example:
        >>> import torch, hpml_sim as hs
        >>> integers = hs.spiking.FixedPointNeurons(hs.spiking.LeakyNeurons(0.9, steps=3), resolution=4).eval()
        >>> membrane = integers(torch.full((3, 1), 0.3), with_states=True)[-1]
        >>> membrane.flatten().tolist()  # multiples of 1/4; each product is cut towards zero
        [0.25, 0.25, 0.25]
    """

    @option_names_checked
    def __init__(
        self,
        neurons: LeakyNeurons,
        resolution: int = 4096,
        *,
        state_bits: int = STATE_BITS,
        decay_bits: int | None = DECAY_BITS,
    ):
        if type(neurons) is not LeakyNeurons:
            raise ConversionError(
                f"FixedPointNeurons: neurons are {type(neurons).__name__}; LeakyNeurons have this integer arithmetic"
            )
        super().__init__(
            neurons.beta,
            neurons.threshold,
            reset=neurons.reset,
            surrogate=neurons.surrogate,
            initial=neurons.initial,
            reset_delay=neurons.reset_delay,
            steps=neurons.steps,
            chips=neurons.chips,
        )
        self._set_integers(resolution, state_bits, decay_bits)


class _FixedPointSynaptic(_InIntegers, SynapticNeurons):
    """Neurons behind a synaptic current, in integers in evaluation mode."""

    def scales(self, unit: Tensor) -> list[Any]:
        """What one integer step of the current and of the membrane means."""
        return [unit, unit]

    def integer_step(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        """Spikes, current and membrane after one step."""
        integers, (current, v) = self.integers, states
        before = integers.fired(v)
        current = integers.held(torch.trunc(current * integers.decay(self.alpha)) + x)
        v = torch.trunc(v * integers.decay(self.beta)) + current
        if not self.reset_delay:
            fired, v = integers.reset_now(integers.held(v), self.reset)
            return fired, current, v
        taken = {"zero": before * v, "subtract": before * self.resolution}.get(self.reset)
        v = integers.held(v if taken is None else v - taken)
        return integers.fired(v), current, v


class _FixedPointAdaptive(_InIntegers, AdaptiveNeurons):
    """Neurons with an adaptive threshold, in integers in evaluation mode."""

    def scales(self, unit: Tensor) -> list[Any]:
        """What one integer step of the trace of spikes and of the membrane means."""
        return [1 / self.resolution, unit]

    def integer_step(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        """Spikes, trace and membrane after one step."""
        integers, (trace, v) = self.integers, states
        # kappa in thresholds, as the trace counts spikes
        kappa = torch.round(self.adaptation.double() / self.threshold.double() * self.resolution) / self.resolution
        before = integers.fired(v, torch.trunc(kappa * trace))
        v = integers.held(torch.trunc(v * integers.decay(self.beta)) + x - before * self.resolution)
        trace = integers.held(torch.trunc(trace * integers.decay(self.adaptation_decay)) + before * self.resolution)
        return integers.fired(v, torch.trunc(kappa * trace)), trace, v


class _FixedPointLapicque(_InIntegers, LapicqueNeurons):
    """Neurons given by a circuit, in integers in evaluation mode."""

    def integer_step(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        """Spikes and membrane after one step."""
        integers, (v,) = self.integers, states
        before = integers.fired(v)
        v = torch.trunc(v * integers.decay(1 - self.time_step / (self.resistance * self.capacitance))) + x
        taken = {"zero": before * v, "subtract": before * self.resolution}.get(self.reset)
        v = integers.held(v if taken is None else v - taken)
        return integers.fired(v), v

    def run_steps(self, currents: Tensor, start: States | None = None) -> States:
        """As of the others, with what of the input reaches the membranes."""
        inside = currents if self.training or currents.is_meta else self.input_current(currents)
        return super().run_steps(inside, start)


class _FixedPointRecurrent(_InIntegers, RecurrentNeurons):
    """Recurrent neurons, in integers in evaluation mode, with a synaptic current or without."""

    unseen = 1

    def scales(self, unit: Tensor) -> list[Any]:
        """What 1 of the last spikes means, and one integer step of the current, where there is one, and membrane."""
        return [1.0, unit] if self.current_decay() is None else [1.0, unit, unit]

    def integer_step(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        """The last spikes twice, as output and as state, then current and membrane after one step."""
        integers, alpha = self.integers, self.current_decay()
        last, *currents, v = states
        product, weights = self._product()
        back = torch.round(product(last.to(weights[0].dtype), *weights) * (self.resolution / self.threshold.double()))
        before = integers.fired(v)
        x = x + integers.held(back)
        if alpha is not None:
            currents = [integers.held(torch.trunc(currents[0] * integers.decay(alpha)) + x)]
            x = currents[0]
        v = torch.trunc(v * integers.decay(self.beta)) + x
        if self.reset_delay:
            taken = {"zero": before * v, "subtract": before * self.resolution}.get(self.reset)
            v = integers.held(v if taken is None else v - taken)
            fired = integers.fired(v)
        else:
            fired, v = integers.reset_now(integers.held(v), self.reset)
        return fired, fired, *currents, v


class _FixedPointRecurrentSynaptic(_FixedPointRecurrent, RecurrentSynapticNeurons):
    """Recurrent neurons behind a synaptic current, in integers in evaluation mode."""


class _FixedPointIntegrators(LeakyIntegrators):
    """Membranes that never fire, in integers in evaluation mode."""

    integers: IntegerArithmetic

    def forward(self, x: Tensor) -> Tensor:
        """Membrane potentials of x's shape and type.

        Args:
            x: currents (chips x steps x batch, ...).
        """
        if self.training or x.is_meta:
            return super().forward(x)
        with torch.no_grad():
            currents = self.unfold(x)
            integers, beta = self.integers, self.integers.decay(self.beta)
            whole = integers.held(torch.round(currents.double() * integers.resolution))
            start = None if self.layer_state is None else self.layer_state.initial(currents[:, 0])
            v = torch.zeros_like(whole[:, 0])
            v = v if start is None else torch.round(start[0].double() * integers.resolution)
            membranes = []
            for current in whole.unbind(1):
                v = integers.held(torch.trunc(v * beta) + current)
                membranes.append(v)
            if self.layer_state is not None:
                self.layer_state.store(((v / integers.resolution).to(x.dtype),))
            return (torch.stack(membranes, 1) / integers.resolution).to(x.dtype).reshape(x.shape)


_KINDS: dict[type[LeakyNeurons], type[_InIntegers]] = {
    SynapticNeurons: _FixedPointSynaptic,
    AdaptiveNeurons: _FixedPointAdaptive,
    LapicqueNeurons: _FixedPointLapicque,
    RecurrentNeurons: _FixedPointRecurrent,
    RecurrentSynapticNeurons: _FixedPointRecurrentSynaptic,
}


def integers_of(
    neurons: LeakyNeurons | LeakyIntegrators,
    resolution: int,
    *,
    state_bits: int = STATE_BITS,
    decay_bits: int | None = DECAY_BITS,
) -> LeakyNeurons | LeakyIntegrators:
    """Neurons of any kind that has integer arithmetic, with it.

    Args:
        neurons: ours, which are not changed.
        resolution: integer steps from 0 to the threshold, 2 to 2**22; membranes that never fire take a sixteenth of it
            from 0 to 1.
        state_bits: bits of a state with its sign, 4 to 48.
        decay_bits: fraction bits of a decay, 1 to 24; None: decays are not rounded.

    Raises:
        HpmlError: resolution or bits of the wrong type or out of their range.
        ConversionError: neurons of another kind.
    """
    bits: dict[str, Any] = {"state_bits": state_bits, "decay_bits": decay_bits}
    if type(neurons) is LeakyNeurons:
        return FixedPointNeurons(neurons, resolution, **bits)
    made: Any = copy.deepcopy(neurons)
    if type(neurons) is LeakyIntegrators:
        made.__class__ = _FixedPointIntegrators
        made.integers = IntegerArithmetic(max(resolution // _COARSER, 2), state_bits, decay_bits)
        return made
    kind = _KINDS.get(type(neurons))  # type: ignore[arg-type]
    if kind is None:
        raise ConversionError(
            f"{type(neurons).__name__} have no integer arithmetic; leaky, synaptic, recurrent, adaptive and Lapicque "
            "neurons and leaky integrators have one"
        )
    made.__class__ = kind
    made._set_integers(resolution, **bits)
    return made
