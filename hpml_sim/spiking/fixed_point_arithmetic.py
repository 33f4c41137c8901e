"""Spiking networks in a neuromorphic chip's integers: what its arithmetic costs in accuracy.

Weights of few bits with one power of two a layer, and neurons that compute in integers (`fixed_point_neurons.py`).

Sources: M. Davies et al., IEEE Micro 38:82 (2018) (weights of 1 to 9 bits, integer compartments); lava-dl,
`dynamics/leaky_integrator.py` (the 12-bit decay, cut towards zero).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hpml_sim.cards import NeuromorphicCard
from hpml_sim.conversion.cloning import clone
from hpml_sim.errors import ConversionError, HpmlError, check_whole, shown
from hpml_sim.spiking.batch_norm_folding import fold_batch_norms
from hpml_sim.spiking.fixed_point_neurons import DECAY_BITS, LARGEST_RESOLUTION, STATE_BITS, integers_of
from hpml_sim.spiking.layer_kinds import BATCH_NORMS, WEIGHT_LAYERS
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.module_replacement import replace_modules
from hpml_sim.spiking.neurons.lif import LeakyNeurons


@torch.no_grad()
def fixed_point(
    model: SpikingModel,
    *,
    weight_bits: int = 8,
    resolution: int = 4096,
    state_bits: int | None = STATE_BITS,
    decay_bits: int | None = DECAY_BITS,
    example: Tensor | None = None,
) -> SpikingModel:
    """A copy of a spiking network in integer arithmetic, for evaluation.

    Source: M. Davies et al., IEEE Micro 38:82 (2018) (weights of 1 to 9 bits, integer compartments); lava-dl,
    `dynamics/leaky_integrator.py` (the 12-bit decay, cut towards zero).

    Args:
        model: what `hs.convert(network, hs.Spiking(...))` gave, trained or not; leaky, synaptic or adaptive neurons,
            digital synapses. It is not changed.
        weight_bits: bits of a weight with its sign, 2 to 24. Each layer has one scale, a power of two.
        resolution: integer steps from 0 to the threshold, 2 to 2**22; at most an eighth of the largest state.
        state_bits: bits of a state with its sign, 4 to 48; None leaves the neurons in floating point.
        decay_bits: fraction bits of a decay, 1 to 24; None: decays are not rounded.
        example: an input (batch, ...), on which batch norms are folded into the weights before them, as on a chip;
            None leaves batch norms as they are.

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
    check_whole("fixed_point: weight_bits", weight_bits, low=2, high=24)
    check_whole("fixed_point: resolution", resolution, low=2, high=LARGEST_RESOLUTION)
    if model.target.synapses is not None:  # type: ignore[union-attr]
        raise ConversionError("fixed_point: the weights lie on crossbars; convert without synapses=")
    model = _with_norms_folded(model, example)
    why: dict[str, str] = {}
    replaced: dict[int, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, WEIGHT_LAYERS):
            exponent = _round_weights(module.weight, weight_bits)
            why[name] = f"{weight_bits}-bit weights x 2^{exponent}"
        elif isinstance(module, LeakyNeurons) and state_bits is not None:
            made = integers_of(module, resolution, state_bits=state_bits, decay_bits=decay_bits)
            replaced[id(module)] = made
            why[name] = f"integers, threshold {getattr(made, 'resolution', resolution)}"
    replace_modules(model, replaced)
    # names in the report are those of the network, without its place in the model
    model.layers = tuple(
        replace(
            row, why=why.get(f"network.{row.layer}", why.get("output", row.why) if row.layer == "(output)" else row.why)
        )
        for row in model.layers
    )
    return model


def _with_norms_folded(model: SpikingModel, example: Tensor | None) -> SpikingModel:
    """A copy, its batch norms folded where there is an example."""
    if example is None or not any(isinstance(module, BATCH_NORMS) for module in model.modules()):
        return clone(model).eval()
    return fold_batch_norms(model, example)[0]


def _round_weights(weight: Tensor, bits: int) -> int:
    """Round the weights of a layer in place to integers times a power of two, whose exponent is returned."""
    largest = (1 << (bits - 1)) - 1
    top = float(weight.abs().max()) if weight.numel() else 0.0
    exponent = math.ceil(math.log2(top / largest)) if top > 0 else 0
    weight.copy_((weight / 2.0**exponent).round().clamp(-largest, largest) * 2.0**exponent)
    return exponent


def in_integers_of(
    card: NeuromorphicCard, model: SpikingModel, example: Tensor | None = None
) -> tuple[SpikingModel, str]:
    """A copy of a spiking network in the integers that a card says its machine has.

    Args:
        card: of the machine.
        model: what `hs.convert(network, hs.Spiking(...))` gave; it is not changed.
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
