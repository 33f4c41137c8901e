"""Layers that give each row of the batch alone what they give it among others, so that steps may lie in the batch."""

from __future__ import annotations

from torch import nn

from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.spiking.layer_kinds import BATCH_NORMS, CHANNEL_DROPOUTS, MAX_POOLS, MEAN_POOLS, RECTIFIERS, WEIGHT_LAYERS
from hpml_sim.spiking.time_folding import TimeFolded
from hpml_sim.spiking.time_loop import CalledOnce

_ROW_WISE = {
    *WEIGHT_LAYERS,
    *CHANNEL_DROPOUTS,
    *MAX_POOLS,
    *MEAN_POOLS,
    *RECTIFIERS,
    nn.Dropout,
    nn.Embedding,
    nn.GELU,
    nn.GroupNorm,
    nn.Identity,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.ZeroPad2d,
}


def is_row_wise(module: nn.Module) -> bool:
    """Whether a module is known, by its kind alone, to keep the rows of its batch apart.

    A batch norm counts as such: in evaluation it does, and in training its statistics over all steps are what a
    converted network is trained with (those of `fuse` see one step after the other).

    Args:
        module: a network or a layer. A `forward()` of the user's own is never known.
    """
    if "forward" in vars(module):
        return False
    if isinstance(module, (TimeFolded, CalledOnce)) or has_crossbar(module):
        return True
    if type(module) is nn.Sequential:
        return all(is_row_wise(layer) for layer in module)
    if type(module) is nn.Flatten:
        return module.start_dim >= 1
    if isinstance(module, BATCH_NORMS):
        return type(module) in BATCH_NORMS and module.running_mean is not None
    return type(module) in _ROW_WISE


def has_crossbar(module: nn.Module) -> bool:
    """Whether a module is a layer on one crossbar, which multiplies row by row, and may draw noise.

    Args:
        module: a layer.
    """
    return any(isinstance(part, Crossbar) for part in module.children())
