"""An input that is the same at every step: the layers before the first neurons run once, not once a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hpml_sim.spiking.folding import BATCH_NORMS, LAYERS
from hpml_sim.spiking.time_folding import TimeFoldedBatchNorm

_ALIKE = (
    *LAYERS,
    *BATCH_NORMS,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.Flatten,
    nn.Identity,
)
"""Layers that give the same for the same input: no memory, no random numbers; a batch repeated has its statistics."""


def _alike(layer: nn.Module) -> bool:
    return not layer.by_step if isinstance(layer, TimeFoldedBatchNorm) else type(layer) in _ALIKE


def run_static_input(
    network: nn.Module, x: Tensor, repeat: Callable[[Tensor], Tensor], neurons: type[nn.Module]
) -> Any:
    """What `network(repeat(x))` gives, up to the rounding of matrix products of another size.

    Of an `nn.Sequential`, the first layers see x once if they are of the kinds above; neurons after them take the one
    current for every step, which is never repeated in memory. Any other network, or one with hooks, gets `repeat(x)`.

    Args:
        network: takes (chips x steps x batch, ...).
        x: (chips x batch, ...). repeat: from there to (chips x steps x batch, ...), the same at every step.
        neurons: the type of modules that can be called with `constant=True`.
    """
    if type(network) is not nn.Sequential or network._forward_hooks or network._forward_pre_hooks:
        return network(repeat(x))
    layers = list(network)
    once = next((i for i, layer in enumerate(layers) if not _alike(layer)), len(layers))
    for layer in layers[:once]:
        x = layer(x)
    if once < len(layers) and isinstance(layers[once], neurons):
        x = layers[once](x, constant=True)
        once += 1
    else:
        x = repeat(x)
    for layer in layers[once:]:
        x = layer(x)
    return x
