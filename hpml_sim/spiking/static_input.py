"""An input that is the same at every step: the layers before the first neurons run once, not once a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hpml_sim.spiking.layer_kinds import BATCH_NORMS, MEAN_POOLS, WEIGHT_LAYERS
from hpml_sim.spiking.time_folded_layers import TimeFoldedBatchNorm

_SAME_AT_EVERY_STEP = (
    *WEIGHT_LAYERS,
    *BATCH_NORMS,
    *MEAN_POOLS,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.Flatten,
    nn.Identity,
)
"""Layers that give the same for the same input: no memory, no random numbers. A batch norm is one of them, since a
batch that is repeated has the statistics of the batch."""


def run_static_input(
    network: nn.Module, x: Tensor, repeat: Callable[[Tensor], Tensor], neurons: type[nn.Module]
) -> Any:
    """What `network(repeat(x))` gives, up to the rounding of matrix products of another size.

    Of an `nn.Sequential`, the first layers see x once if they are of the kinds above; neurons after them take the one
    current for every step, which is never repeated in memory. Any other network, or one with hooks, gets `repeat(x)`.

    Args:
        network: takes (chips x steps x batch, ...).
        x: (chips x batch, ...).
        repeat: from there to (chips x steps x batch, ...), the same at every step.
        neurons: the type of modules that can be called with `static_input=True`.
    """
    # a hook, such as that of whoever counts operations, must see every step
    if type(network) is not nn.Sequential or network._forward_hooks or network._forward_pre_hooks:
        return network(repeat(x))
    layers = list(network)
    once = next((i for i, layer in enumerate(layers) if not _same_at_every_step(layer)), len(layers))
    for layer in layers[:once]:
        x = layer(x)
    if once < len(layers) and isinstance(layers[once], neurons):
        x = layers[once](x, static_input=True)
        once += 1
    else:
        x = repeat(x)
    for layer in layers[once:]:
        x = layer(x)
    return x


def _same_at_every_step(layer: nn.Module) -> bool:
    if isinstance(layer, TimeFoldedBatchNorm):
        return not layer.uses_batch_statistics
    return type(layer) in _SAME_AT_EVERY_STEP
