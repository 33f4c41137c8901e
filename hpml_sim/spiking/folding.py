"""Batch norms folded into the weights before them, as on a chip, which adds spikes and knows no mean and variance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from hpml_sim.conversion.cloning import clone

LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@torch.no_grad()
def fold_batch_norms(model: nn.Module, example: Tensor) -> tuple[nn.Module, dict[str, str]]:
    """A copy of a network in which batch norms are part of the layer whose output they take.

    Which layer that is, is watched on an example, so that no forward() need be read. A batch norm behind anything else
    than a layer (a sum, a rectifier, the input) stays.

    Args:
        model: a trained network; not changed. example: input of the network, (batch, ...).

    Returns:
        The copy, in evaluation mode, with `nn.Identity` where a batch norm was; and {layer: its batch norm} by name.
    """
    model = clone(model).eval()
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LAYERS)}
    norms: dict[str, Any] = {name: module for name, module in model.named_modules() if isinstance(module, BATCH_NORMS)}
    gave: dict[int, tuple[str, Tensor]] = {}  # holds on to the outputs, so that no other tensor gets their id
    pairs: dict[str, list[str]] = {}
    uses: dict[str, int] = {}

    def after_layer(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            uses[name] = uses.get(name, 0) + 1
            gave[id(output)] = (name, output)

        return hook

    def before_norm(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            uses[name] = uses.get(name, 0) + 1
            source = gave.get(id(inputs[0]))
            if source is not None:
                pairs.setdefault(name, []).append(source[0])

        return hook

    handles = [module.register_forward_hook(after_layer(name)) for name, module in layers.items()]
    handles += [module.register_forward_pre_hook(before_norm(name)) for name, module in norms.items()]
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    folded: dict[str, str] = {}
    for name, sources in pairs.items():
        norm, layer = norms[name], layers[sources[0]]
        if len(sources) != 1 or uses[name] != 1 or uses[sources[0]] != 1 or norm.running_mean is None:
            continue
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        if isinstance(layer, nn.Linear):
            layer.weight, layer.bias = fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
        else:
            layer.weight, layer.bias = fuse_conv_bn_weights(
                layer.weight, layer.bias, *statistics, transpose=layer.transposed
            )
        parent, _, own = name.rpartition(".")
        model.get_submodule(parent)._modules[own] = nn.Identity()
        folded[sources[0]] = name
    return model, folded
