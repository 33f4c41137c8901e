"""Weights scaled so that the currents of a ReLU network suit the threshold of its neurons, without data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from hpml_sim.spiking.layer_kinds import BATCH_NORMS, WEIGHT_LAYERS


@torch.no_grad()
def scale_weights(
    model: nn.Module, threshold: float, chosen: Callable[[str, nn.Module], bool] = lambda _name, _module: True
) -> dict[str, float]:
    """Scale weights in place, layer by layer, so that the largest expected current of a step equals the threshold.

    A neuron with reset by subtraction fires at a rate of about current / threshold up to 1 spike a step, so currents
    beyond the threshold saturate it and cost spikes. Without data at hand the largest current is taken as three
    standard deviations of a sum over inputs that fire with probability 1/2, whose variance is 1/4 each: max over
    neurons of 1.5 * |w| + b; after batch normalization 3 * |gamma| + beta. Weights only shrink. A bias is
    scaled with the weights of all earlier layers as well, because the rates of their spikes are: current / threshold.

    Source: P. U. Diehl et al., IJCNN 2015 (model-based normalization; the three standard deviations are ours).

    Args:
        model: changed in place.
        threshold: firing threshold of the neurons, > 0.
        chosen: (name, module) -> whether the module is to be scaled.

    Returns:
        The factor of each layer's weights, by name.
    """
    factors: dict[str, float] = {}
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (*WEIGHT_LAYERS, *BATCH_NORMS)) and chosen(name, module)
    ]
    earlier = 1.0  # rates of the spikes that come in, for an activation of 1 in the ReLU network
    for index, (name, layer) in enumerate(layers):
        following = layers[index + 1][1] if index + 1 < len(layers) else None
        if layer.weight is None or isinstance(following, BATCH_NORMS):
            continue  # what is normalized next has no scale of its own
        normalized = isinstance(layer, BATCH_NORMS)
        if normalized:
            spread = 3 * layer.weight.abs()
        elif isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            spread = 1.5 * layer.weight.flatten(2).norm(dim=(0, 2)).repeat(layer.groups)
        else:
            spread = 1.5 * layer.weight.flatten(1).norm(dim=1)
        if layer.bias is not None and not normalized:
            layer.bias.mul_(earlier)
        largest = float((spread if layer.bias is None else spread + layer.bias).max())
        factor = min(1.0, threshold / largest) if largest > 0 else 1.0
        layer.weight.mul_(factor)
        if layer.bias is not None:
            layer.bias.mul_(factor)
        factors[name] = factor
        # a batch norm removes the scale of what came before it
        earlier = (factor if normalized else earlier * factor) / threshold
    return factors
