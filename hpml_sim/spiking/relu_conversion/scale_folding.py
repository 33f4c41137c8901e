"""Scales of channels in the weights: of the layer that drives the neurons, and of those that read their spikes."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from hpml_sim.spiking.layer_kinds import (
    CHANNEL_DROPOUTS,
    MAX_POOLS,
    MEAN_POOLS,
    RECTIFIERS,
    WEIGHT_LAYERS,
)
from hpml_sim.spiking.module_replacement import keep_hooks
from hpml_sim.spiking.relu_conversion.functions_as_modules import traced

_KEEP_CHANNELS = (*MAX_POOLS, *MEAN_POOLS, *CHANNEL_DROPOUTS, nn.Dropout, nn.Identity, nn.Flatten)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class ScaledNetwork:
    """A ReLU network whose rectifiers are to become neurons.

    Attributes:
        network: with the scales in its weights, where that is possible.
        thresholds: of the neurons of each rectifier: one for all, or one a channel.
        heights: of a spike, of those rectifiers whose readers do not hold it in their weights.
    """

    network: nn.Module
    thresholds: dict[str, Tensor]
    heights: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def fold_scales(model: nn.Module, scales: dict[str, Tensor], threshold: float, x: Tensor) -> ScaledNetwork:
    """A copy whose neurons have one threshold and spikes of 1, wherever layers and neurons alternate.

    Elsewhere, as at a residual sum, a neuron keeps a threshold for each channel, or spikes of a height. Whether the
    copy computes what the network does is tried out.

    Args:
        model: the ReLU network; not changed.
        scales: of each rectifier, by name: what 1 spike a step stands for, broadcasting to one sample.
        threshold: of the neurons, where the weights can be scaled to it.
        x: inputs (batch, ...) to try it out with.
    """
    plain = ScaledNetwork(copy.deepcopy(model), dict(scales), dict(scales))
    network = copy.deepcopy(model)
    graph = traced(network)
    if graph is None:
        return plain
    wiring, folded = _Wiring(network, graph), ScaledNetwork(network, dict(scales), dict(scales))
    for name, scale in scales.items():
        nodes = wiring.calls.get(name, [])
        if len(nodes) != 1 or scale.dim() == 0:
            continue
        readers, driver = wiring.readers(nodes[0]), wiring.driver(nodes[0])
        if readers and all(_inputs(layer) % scale.numel() == 0 for layer in readers):
            for layer in readers:
                _scale_inputs(layer, scale.flatten())
            del folded.heights[name]
        if driver is not None and driver.weight is not None and _outputs(driver) == scale.numel():
            _scale_outputs(driver, threshold / scale.flatten())
            folded.thresholds[name] = torch.as_tensor(threshold, dtype=scale.dtype, device=scale.device)
    want = model(x)
    got = _rates(folded, x)
    same = torch.allclose(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))
    return folded if same else plain


@torch.no_grad()
def shift_outputs(network: nn.Module, shift: Tensor) -> str | None:
    """Add to what a network gives, in place, in the bias of its last layer.

    Args:
        network: changed in place.
        shift: of each output, (outputs,).

    Returns:
        The name of the layer; None where no linear layer gives the outputs, and nothing was changed.
    """
    graph = traced(network)
    last = None if graph is None else next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(last, fx.Node) or last.op != "call_module" or len(last.users) != 1:
        return None
    layer: Any = network.get_submodule(str(last.target))
    if not isinstance(layer, nn.Linear) or shift.shape != (layer.out_features,):
        return None
    moved = shift if layer.bias is None else layer.bias + shift
    layer.bias = nn.Parameter(moved.clone())
    return str(last.target)


def with_own_rectifiers(model: nn.Module) -> nn.Module:
    """The same network with a rectifier for each place where one is called, so that each has scales of its own.

    Args:
        model: a private copy; its layers are used.

    Returns:
        The model itself where no rectifier is called twice, or where `torch.fx` cannot trace forward().
    """
    graph = traced(model)
    if graph is None:
        return model
    seen: set[str] = set()
    again = []
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), RECTIFIERS):
            (again.append(node) if node.target in seen else seen.add(str(node.target)))
    for node in again:
        name = f"{str(node.target).replace('.', '_')}_{node.name}"
        model.add_module(name, copy.deepcopy(model.get_submodule(str(node.target))))
        node.target = name
    if not again:
        return model
    return keep_hooks(model, fx.GraphModule(model, graph, type(model).__name__)).train(model.training)


class _Wiring:
    """Which layers drive a rectifier and which read it."""

    def __init__(self, network: nn.Module, graph: fx.Graph):
        self.network = network
        self.calls: dict[str, list[fx.Node]] = {}
        for node in graph.nodes:
            if node.op == "call_module":
                self.calls.setdefault(str(node.target), []).append(node)
        self._uses = Counter(id(self._module(node)) for nodes in self.calls.values() for node in nodes)

    def _module(self, node: fx.Node) -> Any:
        return self.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def readers(self, node: fx.Node) -> list[Any] | None:
        """Layers with weights that take its values and nothing else; None where anything else takes them."""
        found: list[Any] = []
        for user in node.users:
            module = self._module(user)
            flattens = user.target is torch.flatten and tuple(user.args[1:]) == (1,)
            flattens |= user.op == "call_method" and user.target == "flatten" and tuple(user.args[1:]) == (1,)
            if isinstance(module, WEIGHT_LAYERS) and self._uses[id(module)] == 1:
                found.append(module)
            elif isinstance(module, _KEEP_CHANNELS) or flattens:
                behind = self.readers(user)
                if behind is None:
                    return None
                found += behind
            else:
                return None
        return found

    def driver(self, node: fx.Node) -> Any:
        """The layer with weights whose values it takes, and nobody else does; None where there is none."""
        source = node.args[0] if node.args else None
        while isinstance(source, fx.Node) and len(source.users) == 1:
            module = self._module(source)
            if isinstance(module, WEIGHT_LAYERS):
                return module if self._uses[id(module)] == 1 else None
            if not isinstance(module, _KEEP_CHANNELS) or isinstance(module, nn.Flatten):
                return None
            source = source.args[0]
        return None


def _inputs(layer: Any) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _outputs(layer: Any) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _scale_inputs(layer: Any, scale: Tensor) -> None:
    scale = scale.repeat_interleave(_inputs(layer) // scale.numel())  # a flattened map has many values a channel
    if isinstance(layer, _TRANSPOSED):
        layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.dim() - 1)))
        return
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    each = scale.reshape(groups, 1, -1).expand(groups, _outputs(layer) // groups, -1).flatten(0, 1)
    layer.weight.mul_(each.reshape(*each.shape, *[1] * (layer.weight.dim() - 2)))


def _scale_outputs(layer: Any, factor: Tensor) -> None:
    if isinstance(layer, _TRANSPOSED):
        each = factor.reshape(layer.groups, 1, -1).expand(-1, _inputs(layer) // layer.groups, -1).flatten(0, 1)
        layer.weight.mul_(each.reshape(*each.shape, *[1] * (layer.weight.dim() - 2)))
    else:
        layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.dim() - 1)))
    if layer.bias is not None:
        layer.bias.mul_(factor)


def _rates(scaled: ScaledNetwork, x: Tensor) -> Tensor:
    """What the network gives when its neurons fire at rates of current / threshold, with spikes of their heights."""

    def rate(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, current: Tensor) -> Tensor:
            return current / scaled.thresholds[name] * scaled.heights.get(name, 1.0)

        return hook

    handles = [scaled.network.get_submodule(name).register_forward_hook(rate(name)) for name in scaled.thresholds]
    try:
        return scaled.network(x)
    finally:
        for handle in handles:
            handle.remove()
