"""Spiking networks in a neuromorphic chip's integers: what its arithmetic costs in accuracy.

As on Loihi: weights of 8 bits with one power of two a layer, the decay in 4096ths, an integer membrane of 24 bits that
saturates. With D = round(4096 beta), integers v, x and theta, and R = 1 where v > theta:

    subtract  v' = trunc(D v / 4096) + x - R theta
    zero      v' = trunc(D (1 - R) v / 4096) + x
    none      v' = trunc(D v / 4096) + x

These are the equations of `kernels/lif/` with each product cut towards zero, so that whatever differs is arithmetic.

Sources: M. Davies et al., IEEE Micro 38:82 (2018) (weights of 1 to 9 bits, integer compartments); lava-dl,
`dynamics/leaky_integrator.py` (the 12-bit decay, cut towards zero).
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking.model import SYNAPSES, SpikingModel, replace_modules
from hpml_sim.spiking.neurons import LeakyNeurons, States

_DECAY_BITS = 12
_STATE = 1 << 23


class FixedPointNeurons(LeakyNeurons):
    """Leaky neurons that compute in integers in evaluation mode; in training mode they are the floating-point ones.

    Args:
        neurons: whose settings are taken. resolution: integer steps from 0 to the threshold, in [2, 2**22]; a current
            is rounded to the nearest of them.

    Raises:
        HpmlError: resolution out of range. ConversionError: neurons that are not plain leaky ones with delayed reset.
    """

    def __init__(self, neurons: LeakyNeurons, resolution: int = 4096):
        if not (isinstance(resolution, int) and 2 <= resolution <= _STATE // 2):
            raise HpmlError(
                f"FixedPointNeurons: resolution={resolution!r} must be a whole number in [2, {_STATE // 2}]"
            )
        if type(neurons) is not LeakyNeurons or not neurons.reset_delay:
            raise ConversionError(
                f"FixedPointNeurons: {type(neurons).__name__} with reset_delay={neurons.reset_delay}: only "
                "LeakyNeurons with reset_delay=True have integer arithmetic"
            )
        super().__init__(
            neurons.beta,
            neurons.threshold,
            reset=neurons.reset,
            surrogate=neurons.surrogate,
            initial=neurons.initial,
            steps=neurons.steps,
            chips=neurons.chips,
        )
        self.resolution = resolution

    def run_states(self, in_time: Tensor, start: States | None = None) -> States:
        """Spikes and membrane potentials for currents (chips, steps, batch, ...), each of that shape."""
        if self.training or in_time.is_meta:
            return super().run_states(in_time, start)
        with torch.no_grad():
            in_time = self.every_step(in_time)
            unit = self.threshold.double() / self.resolution
            decay = torch.round(self.beta.double().clamp(0, 1) * (1 << _DECAY_BITS)) / (1 << _DECAY_BITS)
            # whole numbers in float64, which holds them, and their products with the decay, exactly
            current = torch.round(in_time / unit).clamp_(-_STATE, _STATE - 1)
            before = in_time.new_zeros(()) + self.initial * self.threshold if start is None else start[0]
            v = torch.round(before / unit).expand_as(current[:, 0]).clone()
            spikes, membrane = torch.empty_like(in_time), torch.empty_like(in_time)
            for t, now in enumerate(current.unbind(1)):
                fired = v > self.resolution
                if self.reset == "zero":
                    v.masked_fill_(fired, 0)
                v.mul_(decay).trunc_().add_(now)
                if self.reset == "subtract":
                    v.sub_(fired.double(), alpha=self.resolution)
                v.clamp_(-_STATE, _STATE - 1)
                spikes[:, t] = v > self.resolution
                membrane[:, t] = v * unit
        return spikes, membrane

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{super().extra_repr()}, resolution={self.resolution}"


@torch.no_grad()
def fixed_point(model: SpikingModel, *, weight_bits: int = 8, resolution: int = 4096) -> SpikingModel:
    """A copy of a spiking network in integer arithmetic, for evaluation.

    Args:
        model: what `convert(network, Spiking(...))` gave, trained or not; leaky neurons, digital synapses.
        weight_bits: bits of a weight with its sign, in [2, 9]. Each layer has one scale, a power of two.
        resolution: integer steps from 0 to the threshold.

    Returns:
        A new model in evaluation mode; the report says each layer's scale.

    Raises:
        HpmlError: bits out of range. ConversionError: other neurons, or weights on crossbars.
    """
    if not 2 <= weight_bits <= 9:
        raise HpmlError(f"fixed_point: weight_bits={weight_bits!r} must lie in [2, 9]")
    if model.target.synapses is not None:  # type: ignore[union-attr]
        raise ConversionError("fixed_point: the weights lie on crossbars; convert without synapses=")
    model = copy.deepcopy(model).eval()
    largest = (1 << (weight_bits - 1)) - 1
    why: dict[str, str] = {}
    replaced: dict[int, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, SYNAPSES):
            top = float(module.weight.abs().max()) if module.weight.numel() else 0.0
            exponent = math.ceil(math.log2(top / largest)) if top > 0 else 0
            scale = 2.0**exponent
            module.weight.copy_((module.weight / scale).round().clamp(-largest, largest) * scale)
            why[name] = f"{weight_bits}-bit weights x 2^{exponent}"
        elif isinstance(module, LeakyNeurons):
            replaced[id(module)] = FixedPointNeurons(module, resolution)
            why[name] = f"integers, threshold {resolution}"
    replace_modules(model, replaced)
    # names in the report are those of the network, without its place in the model
    model.layers = tuple(
        replace(row, why=why.get(f"network.{row.layer}", why.get("output", "") if row.layer == "(output)" else row.why))
        for row in model.layers
    )
    return model
