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

from hpml_sim.errors import ConversionError, HpmlError, check_whole, shown
from hpml_sim.spiking.layer_kinds import WEIGHT_LAYERS
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.module_replacement import replace_modules
from hpml_sim.spiking.neurons.lif import LeakyNeurons, States
from hpml_sim.spiking.option_names import option_names_checked

_DECAY_BITS = 12
_STATE = 1 << 23
"""One more than the largest integer of a membrane of 24 bits with its sign."""


class FixedPointNeurons(LeakyNeurons):
    """Leaky neurons that compute in integers in evaluation mode; in training mode they are the floating-point ones.

    Source: M. Davies et al., IEEE Micro 38:82 (2018); lava-dl, `dynamics/leaky_integrator.py` (the 12-bit decay, cut
    towards zero).

    Args:
        neurons: leaky neurons with a late reset, whose settings are taken.
        resolution: integer steps from 0 to the threshold, 2 to 2**22; a current is rounded to the nearest of them.

    Raises:
        HpmlError: resolution of the wrong type or out of its range.
        ConversionError: neurons that are not plain leaky ones with a late reset.

    Example:
        >>> import torch, hpml_sim as hs
        >>> integers = hs.spiking.FixedPointNeurons(hs.spiking.LeakyNeurons(0.9, steps=3), resolution=4).eval()
        >>> membrane = integers(torch.full((3, 1), 0.3), with_states=True)[-1]
        >>> membrane.flatten().tolist()  # multiples of 1/4; each product is cut towards zero
        [0.25, 0.25, 0.25]
    """

    @option_names_checked
    def __init__(self, neurons: LeakyNeurons, resolution: int = 4096):
        resolution = check_whole("FixedPointNeurons: resolution", resolution, low=2, high=_STATE // 2)
        if type(neurons) is not LeakyNeurons or not neurons.reset_delay:
            late = f" with reset_delay={neurons.reset_delay}" if isinstance(neurons, LeakyNeurons) else ""
            raise ConversionError(
                f"FixedPointNeurons: neurons are {type(neurons).__name__}{late}: only LeakyNeurons with "
                "reset_delay=True have integer arithmetic"
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

    def run_steps(self, currents: Tensor, start: States | None = None) -> States:
        """Spikes and membrane potentials, each (chips, steps, batch, ...).

        Args:
            currents: currents (chips, steps, batch, ...); or (chips, 1, batch, ...), the same at every step.
            start: what `final_states` gave for the steps before, each (chips, batch, ...); None: rest.
        """
        if self.training or currents.is_meta:
            return super().run_steps(currents, start)
        with torch.no_grad():
            currents = self.expand_steps(currents)
            unit = self.threshold.double() / self.resolution
            decay = torch.round(self.beta.double().clamp(0, 1) * (1 << _DECAY_BITS)) / (1 << _DECAY_BITS)
            # whole numbers in float64, which holds them, and their products with the decay, exactly
            integers = torch.round(currents / unit).clamp_(-_STATE, _STATE - 1)
            before = currents.new_zeros(()) + self.initial * self.threshold if start is None else start[0]
            v = torch.round(before / unit).expand_as(integers[:, 0]).clone()
            spikes, membrane = torch.empty_like(currents), torch.empty_like(currents)
            for t, now in enumerate(integers.unbind(1)):
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

    Source: M. Davies et al., IEEE Micro 38:82 (2018) (weights of 1 to 9 bits, integer compartments); lava-dl,
    `dynamics/leaky_integrator.py` (the 12-bit decay, cut towards zero).

    Args:
        model: what `hs.convert(network, hs.Spiking(...))` gave, trained or not; leaky neurons, digital synapses. It is
            not changed.
        weight_bits: bits of a weight with its sign, 2 to 9. Each layer has one scale, a power of two.
        resolution: integer steps from 0 to the threshold, 2 to 2**22.

    Returns:
        A new model in evaluation mode; its report says each layer's scale.

    Raises:
        HpmlError: another model, or bits or a resolution of the wrong type or out of their range.
        ConversionError: other neurons, or weights on crossbars.

    Example:
        >>> import torch, hpml_sim as hs
        >>> model = hs.convert(hs.models.mlp(64, 32, 10), hs.Spiking("loihi", steps=8, encoder="direct"))
        >>> integers = hs.spiking.fixed_point(model)
        >>> integers.report.set_index("layer").why["(output)"]
        'integers, threshold 4096'
        >>> integers(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    if not isinstance(model, SpikingModel):
        raise HpmlError(
            f"fixed_point: model={shown(model)}: must be a spiking network: hs.convert(network, hs.Spiking(...))"
        )
    check_whole("fixed_point: weight_bits", weight_bits, low=2, high=9)
    check_whole("fixed_point: resolution", resolution, low=2, high=_STATE // 2)
    if model.target.synapses is not None:  # type: ignore[union-attr]
        raise ConversionError("fixed_point: the weights lie on crossbars; convert without synapses=")
    model = copy.deepcopy(model).eval()
    largest = (1 << (weight_bits - 1)) - 1
    why: dict[str, str] = {}
    replaced: dict[int, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, WEIGHT_LAYERS):
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
