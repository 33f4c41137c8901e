"""The converter behind `hs.convert(model, hs.Spiking(...))`: spiking neurons in place of rectifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

import hpml_sim.analog  # noqa: F401 - registers the converter for crossbars
from hpml_sim.analog.experts import BESIDE
from hpml_sim.cards import NeuromorphicCard, load_card
from hpml_sim.conversion import LayerReport, convert, register_target
from hpml_sim.conversion.mapping import ACTIVATION_PRODUCT
from hpml_sim.conversion.named_functions import functions_of_forward
from hpml_sim.conversion.torch_fast_path import run_every_layer
from hpml_sim.errors import ConversionError
from hpml_sim.spiking.encoders import ENCODERS
from hpml_sim.spiking.layer_kinds import (
    BATCH_NORMS,
    CHANNEL_DROPOUTS,
    MAX_POOLS,
    MEAN_POOLS,
    RECTIFIERS,
    RESHAPES,
    SOFTMAXES,
    WEIGHT_LAYERS,
    WITHOUT_COUNTERPART,
)
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.module_replacement import replace_modules
from hpml_sim.spiking.neurons.adaptive import AdaptiveNeurons
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.neurons.synaptic import SynapticNeurons
from hpml_sim.spiking.own_network import OwnSpikingNetwork, keep_own_neurons, spikes_by_itself
from hpml_sim.spiking.relu_conversion.functions_as_modules import with_functions_as_modules
from hpml_sim.spiking.relu_conversion.weight_scaling import scale_weights
from hpml_sim.spiking.snntorch_reset import warn_if_changed
from hpml_sim.spiking.time_folded_layers import TimeFoldedDropout
from hpml_sim.targets import Adaptive, Spiking, Synaptic


@register_target(Spiking)
def to_spiking(
    model: nn.Module, target: Spiking, chosen: Callable[[str, nn.Module], bool]
) -> SpikingModel | OwnSpikingNetwork:
    """Replace every rectifier by spiking neurons; put an encoder before the network and firing neurons after it.

    A network that spikes by itself stays as it is.

    Args:
        model: a private copy of the network; it is changed.
        target: the configuration.
        chosen: (name, module) -> whether the caller wants the layer converted.

    Returns:
        The spiking network.

    Raises:
        ConversionError: an activation without spiking counterpart, a layer with a memory of its own, or no rectifier.
    """
    if spikes_by_itself(model):
        return keep_own_neurons(model, target, chosen)
    warn_if_changed()
    model = with_functions_as_modules(model)
    scales = scale_weights(model, target.neuron.threshold, chosen) if target.scale_weights else {}
    for name, module in model.named_modules():
        if chosen(name, module):
            _check_no_memory(name, module)
    on_crossbars: dict[str, LayerReport] = {}
    beside: list[LayerReport] = []  # parameters that a forward() multiplies with
    mapping = None
    if target.synapses is not None:
        converted = convert(model, target.synapses, only=chosen)
        model, mapping = converted.network, converted.mapping
        on_crossbars = {row.layer: row for row in converted.layers}
        names = {name for name, _ in model.named_modules()}
        beside = [row for row in converted.layers if row.layer not in names and row.tiles is not None]
    replaced, rows, rectifiers = _counterparts(model, target, chosen, on_crossbars)
    if not rectifiers:
        _refuse_without_rectifier(model)
    model = replace_modules(model, replaced)
    run_every_layer(model)
    card = load_card(target.card)
    assert isinstance(card, NeuromorphicCard)  # its target checked it
    kind = target.encoder or card.encoder
    if mapping is not None:  # products of two activations belong to no module
        rows += [row for row in mapping.reports() if row.why == ACTIVATION_PRODUCT]
    rows = [*rows, *beside]
    rows = [_with_scale(row, scales.get(row.layer, 1.0)) for row in rows]
    output, why = _output(target)
    rows.append(LayerReport("(output)", "-", type(output).__name__, why=why))
    return SpikingModel(model, target, tuple(rows), ENCODERS[kind](target.steps), output, mapping)


def _counterparts(
    model: nn.Module,
    target: Spiking,
    chosen: Callable[[str, nn.Module], bool],
    on_crossbars: dict[str, LayerReport],
) -> tuple[dict[int, nn.Module], list[LayerReport], int]:
    """New modules by the id of the old one, a row a layer, and how many rectifiers there were."""
    replaced: dict[int, nn.Module] = {}
    rows: list[LayerReport] = []
    rectifiers = 0
    for name, module in list(model.named_modules()):
        # a layer that has its row already, such as attention, answers for all that lies inside it
        inside = (
            BESIDE in name
            or any(name.startswith(layer + ".") for layer in on_crossbars)
            or any(name.startswith(row.layer + ".") for row in rows)
        )
        opaque = name in on_crossbars or isinstance(module, nn.MultiheadAttention)
        if inside or (not opaque and any(True for _ in module.children())):
            continue
        wanted = chosen(name, module)
        rectifiers += isinstance(module, RECTIFIERS)
        new, row = _counterpart(name, module, target, wanted, on_crossbars.get(name))
        if new is not None:
            replaced[id(module)] = new
        rows.append(row)
    return replaced, rows, rectifiers


def _counterpart(
    name: str, module: nn.Module, target: Spiking, wanted: bool, on_crossbar: LayerReport | None
) -> tuple[nn.Module | None, LayerReport]:
    """What replaces a module (None: nothing), and its row in the report."""
    was = type(module).__name__

    def row(became: str, why: str = "") -> tuple[None, LayerReport]:
        return None, LayerReport(name, was, became, why=why)

    if on_crossbar is not None and on_crossbar.became != "digital":
        return None, on_crossbar
    if not wanted:
        return row("digital", "left out by only= or skip=")
    if isinstance(module, RECTIFIERS):
        neurons = _neurons(target)
        return neurons, LayerReport(name, was, type(neurons).__name__)
    if isinstance(module, WITHOUT_COUNTERPART):
        raise ConversionError(
            f"layer {name!r}: {was} has no spiking counterpart (a spike count is never negative and grows with its "
            "input); train the network with nn.ReLU there, or leave the layer digital with skip="
        )
    if isinstance(module, SOFTMAXES):
        raise ConversionError(
            f"layer {name!r}: {was} has no spiking counterpart; remove it: the spiking network gives logits, and "
            "the loss (cross-entropy) applies the softmax"
        )
    if isinstance(module, nn.MultiheadAttention):
        return row("digital", "attention has no spiking counterpart; it runs at every step on what it is given")
    if isinstance(module, (nn.Dropout, *CHANNEL_DROPOUTS)):
        dropout = TimeFoldedDropout(module.p, channels=isinstance(module, CHANNEL_DROPOUTS), steps=target.steps)
        why = "one mask a sample for all steps; training only"
        return dropout, LayerReport(name, was, type(dropout).__name__, why=why)
    if isinstance(module, WEIGHT_LAYERS):
        return row("synapses", on_crossbar.why if on_crossbar is not None else "")
    if isinstance(module, BATCH_NORMS):
        return row(was, "folds into the weights of the layer before it on the chip")
    if isinstance(module, MEAN_POOLS):
        return row("synapses", "a mean is a convolution with fixed weights")
    if isinstance(module, MAX_POOLS):
        return row(was, "of spikes: a logical OR at each step")
    if isinstance(module, RESHAPES):
        return row(was, "moves no data on the chip")
    return row("digital", "no spiking counterpart known; it runs at every step on what it is given")


def _neurons(target: Spiking) -> LeakyNeurons:
    """The neurons of a target, as a layer."""
    neuron = target.neuron
    options: dict[str, Any] = {"surrogate": neuron.surrogate, "slope": neuron.slope, "steps": target.steps}
    if isinstance(neuron, Adaptive):
        return AdaptiveNeurons(neuron.beta, neuron.threshold, neuron.adaptation, neuron.adaptation_decay, **options)
    options["reset"] = neuron.reset
    if isinstance(neuron, Synaptic):
        return SynapticNeurons(neuron.current_decay, neuron.beta, neuron.threshold, **options)
    return LeakyNeurons(neuron.beta, neuron.threshold, reset_delay=neuron.reset_delay, engine=target.engine, **options)


def _output(target: Spiking) -> tuple[LeakyNeurons | LeakyIntegrators, str]:
    """What lies behind the network, and what the report says of it."""
    if target.readout == "membrane":
        integrators = LeakyIntegrators(target.neuron.beta, steps=target.steps)
        return integrators, "added: membranes that never fire; logits are their last potentials"
    return _neurons(target), "added: a chip gives spikes; logits are their counts"


def _with_scale(row: LayerReport, scale: float) -> LayerReport:
    if scale == 1:
        return row
    why = f"weights x {scale:.3g}, so that they drive neurons up to the threshold"
    return replace(row, why=why + (f"; {row.why}" if row.why else ""))


def _check_no_memory(name: str, module: nn.Module) -> None:
    """Raise where the fold of time into the batch would be wrong, on crossbars or off them."""
    if isinstance(module, nn.RNNBase):
        raise ConversionError(
            f"layer {name!r}: {type(module).__name__} keeps a memory of its own, which would mix with the time steps; "
            "take a network without recurrent layers"
        )


_NOT_SPIKING = {
    "silu": "SiLU",
    "gelu": "GELU",
    "elu": "ELU",
    "mish": "Mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
    "scaled_dot_product_attention": "softmax of attention",
}
"""Names of functions in code -> in words: what a network may have where others have a ReLU."""


def _refuse_without_rectifier(model: nn.Module) -> None:
    called = {
        name
        for module in model.modules()
        for function in functions_of_forward(module, of_library=True)
        for name in function.__code__.co_names
    }
    others = ", ".join(words for name, words in _NOT_SPIKING.items() if name in called)
    if others and "relu" not in called:
        raise ConversionError(
            f"{type(model).__name__}: no nn.ReLU found, and no spiking neuron stands for its {others}: it cannot run "
            "on a neuromorphic chip; take a network with nn.ReLU, or another machine"
        )
    raise ConversionError(
        f"{type(model).__name__}: no nn.ReLU found, so nothing can spike. An activation called as a function "
        "(torch.relu, F.relu) inside a forward() that torch.fx cannot trace is not seen: make it a module "
        "(self.act = nn.ReLU()) and convert again"
    )
