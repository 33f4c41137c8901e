"""snnTorch's neurons in a chip's integers, for networks that call them step by step.

Each keeps its call, its names and its states, which stay in the units of the network, as multiples of threshold /
resolution: a `forward()` that passes them by hand does not see the difference. The equations are those of
`fixed_point_neurons.py`. A float32 state holds 24 bits; wider ones than that are rounded to them.
"""

from __future__ import annotations

from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError
from hpml_sim.spiking.fixed_point_neurons import IntegerArithmetic


class _Integers(nn.Module):
    """What computes in snnTorch's neurons: in integers in evaluation mode, as it was in training mode."""

    integers: IntegerArithmetic
    threshold: Tensor
    beta: Tensor
    mem: Tensor
    graded_spikes_factor: Tensor

    def _whole(self, value: Tensor) -> Tensor:
        """A current or state as the integer that it is held as."""
        return self.integers.held(torch.round(value.double() * (self.integers.resolution / self.threshold.double())))

    def _valued(self, whole: Tensor, like: Tensor) -> Tensor:
        """An integer in the units and the type of the network."""
        return (whole * (self.threshold.double() / self.integers.resolution)).to(like.dtype)

    def _decayed(self, state: Tensor, decay: Tensor) -> Tensor:
        """An integer state after one step's decay."""
        return torch.trunc(self._whole(state) * self.integers.decay(decay))

    def mem_reset(self, mem: Tensor) -> Tensor:
        """1 where a membrane is above the threshold."""
        if self.training:
            return super().mem_reset(mem)  # type: ignore[misc]
        return self.integers.fired(self._whole(mem)).to(mem.dtype)

    def fire(self, mem: Tensor) -> Tensor:
        """Spikes, times their height where one is set."""
        if self.training:
            return super().fire(mem)  # type: ignore[misc]
        return self.integers.fired(self._whole(mem)).to(mem.dtype) * self.graded_spikes_factor

    def _saturated(self, state: Tensor) -> Tensor:
        """snnTorch's `state_quant`, which it calls on each new state."""
        return state if self.training else self._valued(self._whole(state), state)

    def _input(self, input_: Tensor) -> Tensor:
        """The current that reaches a neuron, in integers."""
        return self._whole(input_)

    def _base_state_function(self, input_: Tensor) -> Any:
        """The membrane after one step, before a reset."""
        if self.training:
            return super()._base_state_function(input_)  # type: ignore[misc]
        return self._valued(self._decayed(self.mem, self.beta) + self._input(input_), input_)


class _Behind(_Integers):
    """Neurons behind a synaptic current."""

    alpha: Tensor
    syn: Tensor

    def _base_state_function(self, input_: Tensor) -> Any:
        """Current and membrane after one step, before a reset."""
        if self.training:
            return super()._base_state_function(input_)  # snnTorch's
        current = self.integers.held(self._decayed(self.syn, self.alpha) + self._input(input_))
        return self._valued(current, input_), self._valued(self._decayed(self.mem, self.beta) + current, input_)

    def _base_state_reset_zero(self, input_: Tensor) -> Any:
        """What a reset to zero takes from current and membrane."""
        if self.training:
            return super()._base_state_reset_zero(input_)  # type: ignore[misc]
        return torch.zeros_like(input_), self._base_state_function(input_)[1]


class _Back(_Integers):
    """Neurons that get back their own spikes."""

    recurrent: nn.Module
    spk: Tensor

    def _input(self, input_: Tensor) -> Tensor:
        """What comes from before and what comes back, each rounded."""
        return self._whole(input_) + self._whole(self.recurrent(self.spk))


class IntegerLeaky(_Integers, snn.Leaky):
    """snnTorch's `Leaky` in integers in evaluation mode."""


class IntegerSynaptic(_Behind, snn.Synaptic):
    """snnTorch's `Synaptic` in integers in evaluation mode."""


class IntegerRLeaky(_Back, snn.RLeaky):
    """snnTorch's `RLeaky` in integers in evaluation mode."""


class IntegerRSynaptic(_Back, _Behind, snn.RSynaptic):
    """snnTorch's `RSynaptic` in integers in evaluation mode."""


class IntegerLapicque(_Integers, snn.Lapicque):
    """snnTorch's `Lapicque` in integers in evaluation mode."""

    R: Tensor
    C: Tensor
    time_step: Tensor

    def _base_state_function(self, input_: Tensor) -> Any:
        """The membrane after one step, before a reset."""
        if self.training:
            return snn.Lapicque._base_state_function(self, input_)
        decay = 1 - self.time_step / (self.R * self.C)
        current = input_ * self.R * (1 / (self.R * self.C)) * self.time_step
        return self._valued(self._decayed(self.mem, decay) + self._whole(current), input_)


_KINDS: dict[type[nn.Module], type[_Integers]] = {
    snn.Leaky: IntegerLeaky,
    snn.Synaptic: IntegerSynaptic,
    snn.RLeaky: IntegerRLeaky,
    snn.RSynaptic: IntegerRSynaptic,
    snn.Lapicque: IntegerLapicque,
}


def put_in_integers(name: str, neuron: Any, integers: IntegerArithmetic) -> None:
    """Let a neuron of snnTorch compute in integers in evaluation mode, where it lies.

    Args:
        name: of the layer, for messages.
        neuron: changed in place; its parameters and states stay.
        integers: the widths.

    Raises:
        ConversionError: a neuron of another kind, with inhibition, or with a rounding of its states of its own.
    """
    kind = _KINDS.get(type(neuron))
    if kind is None:
        raise ConversionError(
            f"layer {name!r}: snnTorch's {type(neuron).__name__} has no integer arithmetic; Leaky, Synaptic, RLeaky, "
            "RSynaptic and Lapicque have one"
        )
    if neuron.inhibition:
        raise ConversionError(f"layer {name!r}: inhibition among neurons has no integer arithmetic")
    if neuron.state_quant:
        raise ConversionError(f"layer {name!r}: its state_quant rounds its states already; leave it out")
    neuron.__class__ = kind
    neuron.integers = integers
    neuron.state_quant = neuron._saturated
