"""A network that spikes by itself, on a neuromorphic machine: it stays as it is, loop over time and all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from torch import nn

from hpml_sim.conversion import Converted, LayerReport, convert
from hpml_sim.conversion.snntorch_states import is_snntorch_neuron, snntorch_neurons
from hpml_sim.errors import ConversionError
from hpml_sim.spiking.delays import DelayedLinear
from hpml_sim.spiking.layer_kinds import RECTIFIERS, RESHAPES, WEIGHT_LAYERS
from hpml_sim.spiking.neurons.integrators import LeakyIntegrators
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.targets import Spiking

_OF_RELU = ("neuron", "steps", "encoder", "population", "readout", "engine")


class OwnSpikingNetwork(Converted):
    """A network of spiking neurons on a neuromorphic machine: its call is the network's own.

    Args:
        network: the network, its weights on crossbars where the target has synapses.
        target: the configuration that it was made for.
        layers: what became of each layer.
        mapping: where the synapses lie on crossbars; None for a target without them.

    Attributes:
        network: the network.
        target: the configuration that it was made for.
        layers: what became of each layer.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = hs.models.build("spiking", (12, 2, 16, 16), classes=4)
        >>> own = hs.convert(net, "loihi")
        >>> x = torch.rand(5, 12, 2, 16, 16).round()
        >>> torch.equal(own(x), net(x))
        True
    """


def spikes_by_itself(model: nn.Module) -> bool:
    """Whether a network has spiking neurons already.

    Args:
        model: any network.
    """
    return any(isinstance(module, LeakyNeurons) or is_snntorch_neuron(module) for module in model.modules())


def keep_own_neurons(model: nn.Module, target: Spiking, chosen: Callable[[str, nn.Module], bool]) -> OwnSpikingNetwork:
    """A network that spikes by itself, for a neuromorphic target.

    Args:
        model: a private copy of the network; it is changed.
        target: the configuration; its options for neurons and steps must be the defaults.
        chosen: (name, module) -> whether the caller wants the layer converted.

    Raises:
        ConversionError: options that are for ReLU networks, a network of one time step that keeps its states, or
            rectifiers beside the neurons.
    """
    plain = Spiking(target.card)
    own = [name for name in _OF_RELU if getattr(target, name) != getattr(plain, name)]
    own += [] if target.scale_weights == plain.scale_weights else ["scale_weights"]
    assert {*own} <= {field.name for field in fields(Spiking)}
    if own:
        raise ConversionError(
            f"{type(model).__name__} spikes already, with neurons and time steps of its own: {', '.join(own)} of "
            "hs.Spiking make those of a ReLU network; leave them out"
        )
    if type(model) is nn.Sequential and any(neuron.init_hidden for neuron in snntorch_neurons(model).values()):
        raise ConversionError(
            "Sequential spikes already, and its forward() is one time step: hs.spiking.fuse(network) takes all steps "
            "at once, (steps, batch, ...); or loop over the steps in the forward() of a module of your own"
        )
    for name, module in model.named_modules():
        if isinstance(module, RECTIFIERS):
            raise ConversionError(
                f"layer {name!r}: {type(module).__name__} beside spiking neurons: a neuromorphic chip passes on spikes "
                "alone; take neurons there as well"
            )
    rows: list[LayerReport] = []
    mapping = None
    if target.synapses is not None:
        converted = convert(model, target.synapses, only=chosen)
        model, mapping = converted.network, converted.mapping
        rows = list(converted.layers)
    known = {row.layer for row in rows}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{row.layer}.") for row in rows)
        if name in known or inside or (any(True for _ in module.children()) and not _is_neuron(module)):
            continue
        rows.append(_row(name, module))
    return OwnSpikingNetwork(model, target, tuple(rows), mapping)


def _is_neuron(module: nn.Module) -> bool:
    return isinstance(module, (LeakyNeurons, LeakyIntegrators)) or is_snntorch_neuron(module)


def _row(name: str, module: nn.Module) -> LayerReport:
    was = type(module).__name__
    if _is_neuron(module):
        return LayerReport(name or "(network)", was, was, why="the network's own neurons")
    if isinstance(module, (*WEIGHT_LAYERS, DelayedLinear)):
        return LayerReport(name, was, "synapses")
    if isinstance(module, RESHAPES):
        return LayerReport(name, was, was, why="moves no data on the chip")
    return LayerReport(name or "(network)", was, "digital", why="runs at every step on what it is given")
