"""Spiking networks in a neuromorphic chip's integers: what its arithmetic costs in accuracy.

Weights of few bits with one power of two a layer, and neurons that compute in integers (`fixed_point_neurons.py`).

Sources: M. Davies et al., IEEE Micro 38:82 (2018) (weights of 1 to 9 bits, integer compartments); lava-dl,
`dynamics/leaky_integrator.py` (the 12-bit decay, cut towards zero).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from hpml_sim.cards import NeuromorphicCard
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.snntorch_states import is_snntorch_neuron
from hpml_sim.errors import ConversionError, HpmlError, check_whole, shown
from hpml_sim.spiking.batch_norm_folding import fold_batch_norms
from hpml_sim.spiking.delays import DelayedLinear
from hpml_sim.spiking.fixed_point_neurons import (
    DECAY_BITS,
    STATE_BITS,
    IntegerArithmetic,
    integers_of,
)
from hpml_sim.spiking.layer_kinds import BATCH_NORMS, WEIGHT_LAYERS
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.module_replacement import replace_modules
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.own_network import OwnSpikingNetwork
from hpml_sim.spiking.time_folding import TimeFolded

_Spiking = TypeVar("_Spiking", bound="SpikingModel | OwnSpikingNetwork")


@torch.no_grad()
def fixed_point(
    model: _Spiking,
    *,
    weight_bits: int = 8,
    resolution: int = 4096,
    state_bits: int | None = STATE_BITS,
    decay_bits: int | None = DECAY_BITS,
    example: Tensor | None = None,
) -> _Spiking:
    """A copy of a spiking network in integer arithmetic, for evaluation.

    Source: M. Davies et al., IEEE Micro 38:82 (2018) (weights of 1 to 9 bits, integer compartments); lava-dl,
    `dynamics/leaky_integrator.py` (the 12-bit decay, cut towards zero).

    Args:
        model: what `hs.convert(network, hs.Spiking(...))` gave, of a ReLU network or of one with neurons of its own,
            trained or not; leaky, synaptic, recurrent, adaptive or Lapicque neurons, ours or snnTorch's, digital
            synapses. It is not changed.
        weight_bits: bits of a weight with its sign, 2 to 24. Each layer has one scale, a power of two.
        resolution: integer steps from 0 to the threshold, 2 to 2**22; at most an eighth of the largest state. Membranes
            that never fire take a sixteenth of it from 0 to 1.
        state_bits: bits of a state with its sign, 4 to 48; None leaves the neurons in floating point.
        decay_bits: fraction bits of a decay, 1 to 24; None: decays are not rounded.
        example: an input (batch, ...), on which batch norms are folded into the weights before them, as on a chip;
            None leaves batch norms as they are.

    Returns:
        A new model in evaluation mode; its report says each layer's scale.

    Raises:
        HpmlError: another model, or bits or a resolution of the wrong type or out of their range.
        ConversionError: other neurons, weights on crossbars, or weights outside of linear, convolutional and recurrent
            connections.

    Example:
        >>> import torch, hpml_sim as hs
        >>> model = hs.convert(hs.models.mlp(64, 32, 10), hs.Spiking("loihi", steps=8, encoder="direct"))
        >>> integers = hs.spiking.fixed_point(model)
        >>> integers.report.set_index("layer").why["(output)"]
        'integers, threshold 4096'
        >>> integers(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    if not isinstance(model, (SpikingModel, OwnSpikingNetwork)):
        raise HpmlError(
            f"fixed_point: model={shown(model)}: must be a spiking network: hs.convert(network, hs.Spiking(...))"
        )
    check_whole("fixed_point: weight_bits", weight_bits, low=2, high=24)
    arithmetic = IntegerArithmetic.checked(
        "fixed_point", resolution, STATE_BITS if state_bits is None else state_bits, decay_bits
    )
    if model.target.synapses is not None:  # type: ignore[union-attr]
        raise ConversionError("fixed_point: the weights lie on crossbars; convert without synapses=")
    model = _with_norms_folded(model, example)
    why: dict[str, str] = {}
    replaced: dict[int, Any] = {}
    for name, module in model.named_modules():
        weight = _weight(name.removeprefix("network."), module)
        if weight is not None:
            why[name] = f"{weight_bits}-bit weights x 2^{_round_weights(weight, weight_bits)}"
        if state_bits is None:
            continue
        if is_snntorch_neuron(module):
            from hpml_sim.spiking.snntorch_integers import put_in_integers  # needs snnTorch, which is there

            put_in_integers(name.removeprefix("network."), module, arithmetic)
            why[name] = f"integers, threshold {arithmetic.resolution}"
        elif isinstance(module, (LeakyNeurons, LeakyIntegrators)):
            made: Any = integers_of(module, resolution, state_bits=state_bits, decay_bits=decay_bits)
            replaced[id(module)] = made
            unit = "threshold" if isinstance(module, LeakyNeurons) else "1 is"
            why[name] = f"integers, {unit} {made.integers.resolution}"
    replace_modules(model, replaced)
    # names in the report are those of the network, without its place in the model
    model.layers = tuple(
        replace(
            row, why=why.get(f"network.{row.layer}", why.get("output", row.why) if row.layer == "(output)" else row.why)
        )
        for row in model.layers
    )
    return model


def _with_norms_folded(model: _Spiking, example: Tensor | None) -> _Spiking:
    """A copy, its batch norms folded where there is an example."""
    if example is None or not any(isinstance(module, BATCH_NORMS) for module in model.modules()):
        return clone(model).eval()
    return fold_batch_norms(model, example)[0]


def _weight(name: str, module: nn.Module) -> Tensor | None:
    """The matrix or kernel of a layer, which is rounded; None where it has none.

    Raises:
        ConversionError: a matrix in another place, or one that is computed from others.
    """
    neurons = isinstance(module, LeakyNeurons) or is_snntorch_neuron(module)
    if neurons:
        return {**module._parameters, **module._buffers}.get("V")
    if isinstance(module, (*WEIGHT_LAYERS, DelayedLinear)):
        if "weight" not in module._parameters:
            raise ConversionError(
                f"layer {name!r}: its weight is computed from other parameters at every call, such as by a "
                "parametrization or pruning; make it permanent (torch.nn.utils.parametrize.remove_parametrizations, "
                "torch.nn.utils.prune.remove)"
            )
        return module.weight  # type: ignore[return-value]
    if isinstance(module, (TimeFolded, _NormBase, nn.LayerNorm, nn.GroupNorm)):
        return None
    for own, parameter in module.named_parameters(recurse=False):
        if parameter.dim() > 1 and own != "V":  # V: snnTorch's, rounded with its neuron
            where = f"layer {name!r}" if name else "the network"
            raise ConversionError(
                f"{where}: {type(module).__name__} has the matrix {own!r}, which no integer arithmetic is known for; "
                "nn.Linear and convolutions have one"
            )
    return None


def _round_weights(weight: Tensor, bits: int) -> int:
    """Round the weights of a layer in place to integers times a power of two, whose exponent is returned."""
    largest = (1 << (bits - 1)) - 1
    top = float(weight.abs().max()) if weight.numel() else 0.0
    exponent = math.ceil(math.log2(top / largest)) if top > 0 else 0
    weight.copy_((weight / 2.0**exponent).round().clamp(-largest, largest) * 2.0**exponent)
    return exponent


def in_integers_of(card: NeuromorphicCard, model: _Spiking, example: Tensor | None = None) -> tuple[_Spiking, str]:
    """A copy of a spiking network in the integers that a card says its machine has.

    Args:
        card: of the machine.
        model: what `hs.convert(network, hs.Spiking(...))` gave, also of a network with neurons of its own; it is not
            changed.
        example: an input (batch, ...), on which batch norms are folded.

    Returns:
        The copy in evaluation mode, and what its arithmetic is, in words.

    Raises:
        ConversionError: the card has no width of its weights, or the network none of this arithmetic.
    """
    core = card.core
    if core.weight_bits is None:
        raise ConversionError(f"the card {card.name!r} does not say how wide its weights are")
    weight, state = int(core.weight_bits), None if core.state_bits is None else int(core.state_bits)
    decay = None if core.decay_bits is None else int(core.decay_bits)
    made = fixed_point(model, weight_bits=weight, state_bits=state, decay_bits=decay, example=example)
    words = [f"weights of {weight} bits"]
    words.append(
        "states in floating point, their width is not on the card" if state is None else f"states of {state} bits"
    )
    if state is not None:
        words.append("decays not rounded" if decay is None else f"decays of {decay} bits")
    sources = [card.sources[q.source].reference for q in (core.weight_bits, core.state_bits, core.decay_bits) if q]
    return made, f"{', '.join(words)} ({'; '.join(dict.fromkeys(sources))})"
