"""Batch norms folded into the weights before them, as on a chip, which adds spikes and knows no mean and variance."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import check_network
from hpml_sim.errors import HpmlError, shown
from hpml_sim.spiking.layer_kinds import BATCH_NORMS, WEIGHT_LAYERS

_Network = TypeVar("_Network", bound=nn.Module)


@torch.no_grad()
def fold_batch_norms(model: _Network, example: Tensor) -> tuple[_Network, dict[str, str]]:
    """A copy of a network in which batch norms are part of the layer whose output they take.

    Which layer that is, is watched while the network runs on an example, so that any forward() will do. A batch norm
    behind anything else than a layer (a sum, a rectifier, the input) stays.

    Args:
        model: a trained network; not changed.
        example: an input of the network, (batch, ...).

    Returns:
        The copy, in evaluation mode, with `nn.Identity` where a batch norm was; and the name of each layer that took
        one up -> the name of its batch norm.

    Raises:
        HpmlError: `model` is no network, or `example` no tensor.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU()).eval()
        >>> folded, pairs = hs.spiking.fold_batch_norms(net, torch.rand(2, 4))
        >>> pairs
        {'0': '1'}
        >>> x = torch.rand(5, 4)
        >>> torch.allclose(folded(x), net(x), atol=1e-6)
        True
    """
    check_network("fold_batch_norms: model", model)
    if not isinstance(example, Tensor):
        raise HpmlError(
            f"fold_batch_norms: example={shown(example)}: must be a tensor, an input (batch, ...) of the model"
        )
    model = clone(model).eval()
    pairs, uses = _watch(model, example)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)}
    folded: dict[str, str] = {}
    for name, sources in pairs.items():
        norm: Any = model.get_submodule(name)
        layer: Any = layers[sources[0]]
        # used at two places, a layer or a norm would need two sets of weights (a loop over time is one place); without
        # running statistics a norm depends on the batch
        calls = {len(sources), uses[name], uses[sources[0]]}
        if len({*sources}) != 1 or len(calls) != 1 or norm.running_mean is None:
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


def _watch(model: nn.Module, example: Tensor) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Which layer's output each batch norm takes, and how often each layer and norm runs."""
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

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, WEIGHT_LAYERS):
            handles.append(module.register_forward_hook(after_layer(name)))
        elif isinstance(module, BATCH_NORMS):
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    return pairs, uses
