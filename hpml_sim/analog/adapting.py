"""`lora`: digital low-rank adapters beside analog layers whose weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hpml_sim.analog.chips import Chips
from hpml_sim.analog.experts import is_beside
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.low_rank_adapter import LowRankAdapter, largest_rank
from hpml_sim.analog.programmed_model import ProgrammedModel
from hpml_sim.analog.pulsed.devices import pulsed_tiles
from hpml_sim.conversion import Converted
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.converting import LayerChoice, layer_chooser
from hpml_sim.conversion.mapping import MappedLayer, Mapping
from hpml_sim.conversion.modules import check_network
from hpml_sim.errors import HpmlError, check_real, check_whole


def lora(
    model: nn.Module,
    rank: int = 4,
    *,
    scale: float = 1.0,
    only: LayerChoice = None,
    skip: LayerChoice = None,
    seed: int = 0,
) -> Converted:
    """Put a digital low-rank adapter beside every analog layer, and freeze all that was there before.

    A layer with an adapter gives y = layer(x) + scale * up(down(x)): `down` takes its inputs to `rank` values, `up`
    these to its outputs. `up` begins with zeros, so the new model computes what the given one does, until `hs.fit`
    trains the adapters under the noise of the analog weights. Those stay as they are, unclipped: programmed devices
    need not be written again. `hs.program` keeps adapters digital, workload and estimate count them as digital
    products, and `hs.to_digital` adds them to the weights. They are in the state dict, as `....adapter.up.weight`.

    Args:
        model: a network that `hs.convert` put onto crossbars, trained or not. It is not changed.
        rank: of the matrix that is added to each weight matrix, >= 1 and at most its smaller side; of a convolution
            that of each group.
        scale: multiplies what an adapter adds, above 0; the field's alpha / rank.
        only: layers that get an adapter: names as in `hs.convert`, or a predicate (name, layer) -> bool; None: all.
        skip: layers that get none: names, or a predicate; None: none.
        seed: of what `down` begins with, >= 0.

    Returns:
        A new converted network whose adapters alone are trained; its report has a row for each of them.

    Raises:
        HpmlError: a network without analog layers, with adapters already, of pulsed devices or for engine="aihwkit";
            chips; or a rank that is 0 or larger than a layer.
        UnknownNameError: a name that is no layer.

    Source: E. J. Hu et al., arXiv:2106.09685; beside analog weights: C. Lammie et al., "AHWA-LoRA", arXiv:2411.17367.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = hs.models.mlp(64, 32, 10)
        >>> analog = hs.convert(net, "pcm-hermes")
        >>> adapted = hs.lora(analog, rank=4)
        >>> sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        552
        >>> _ = hs.fit(adapted, "digits", epochs=1)
        >>> hs.program(adapted, chips=2, seed=0).at("1 day")(torch.rand(5, 1, 8, 8)).shape
        torch.Size([2, 5, 10])
        >>> hs.lora(analog, rank=16)
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: lora: rank=16: layer '3' (32 -> 10) takes at most 10; give less, or skip='3'
    """
    _check_model(model)
    rank = check_whole("lora: rank", rank, low=1, hint="such as rank=4")
    scale = check_real("lora: scale", scale, above=0, hint="such as 1.0")
    seed = check_whole("lora: seed", seed, low=0, high=2**62)
    assert isinstance(model, Converted)
    chosen = _chosen(model, rank, only, skip)
    new = clone(model)
    assert isinstance(new, Converted)
    _freeze(new)
    generator = torch.Generator().manual_seed(seed)
    for name in chosen:
        layer: Any = new.network.get_submodule(name)
        layer.adapter = LowRankAdapter.beside(layer, rank, scale, generator)
    assert new.mapping is not None
    new.mapping = _with_adapters(new.mapping, chosen, rank)
    new.layers = new.mapping.reports()
    return new


def _check_model(model: nn.Module) -> None:
    if isinstance(model, (Chips, ProgrammedModel)):
        raise HpmlError(
            "lora: chips hold their weights for good; give what they were programmed from: hs.lora(analog), train it, "
            "and program that"
        )
    check_network("lora: model", model)
    if pulsed_tiles(model):
        raise HpmlError(
            "lora: the model lies on pulsed devices, whose weights are trained in place; convert the network with "
            "hs.Analog(card), whose weights can stay as they are"
        )
    own = crossbars(model)
    if not isinstance(model, Converted) or not own:
        raise HpmlError("lora: the model has no analog layers; give what hs.convert(model, 'pcm-hermes') made")
    if any(isinstance(module, LowRankAdapter) for module in model.modules()):
        raise HpmlError("lora: the model has adapters already; give the converted network that they were made for")
    if any(crossbar.target.engine == "aihwkit" for crossbar in own.values()):
        raise HpmlError("lora: aihwkit's layers have no adapters; convert with engine='fused'")


def _chosen(model: Converted, rank: int, only: LayerChoice, skip: LayerChoice) -> list[str]:
    """Names of the layers that get an adapter, in the order of the network."""
    network = model.network
    wanted: Callable[[str, nn.Module], bool] = layer_chooser("lora", network, only, skip)
    chosen = []
    for name in crossbars(network):
        layer: Any = network.get_submodule(name)
        if is_beside(name) or not wanted(name, layer):
            continue
        if rank > (most := largest_rank(layer)):
            tiling = layer.crossbar.tiling
            raise HpmlError(
                f"lora: rank={rank}: layer {name!r} ({tiling.rows} -> {tiling.cols}) takes at most {most}; give "
                f"less, or skip={name!r}"
            )
        chosen.append(name)
    if not chosen:
        raise HpmlError("lora: no layer is left that could have an adapter; only= and skip= leave none")
    return chosen


def _freeze(model: nn.Module) -> None:
    """Train nothing but ranges of converters that are learned: they are no weights."""
    ranges = {id(c.range_shift) for c in crossbars(model).values() if c.range_shift is not None}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in ranges and parameter.requires_grad)


def _with_adapters(mapping: Mapping, chosen: Iterable[str], rank: int) -> Mapping:
    """The mapping with a row for each adapter, after that of its layer."""
    waiting = set(chosen)
    rows: list[MappedLayer] = []
    for row in mapping.layers:
        rows.append(row)
        for product in row.products:
            if product.name in waiting:
                why = f"low-rank adapter, rank {rank}: digital"
                name = f"{product.name}.adapter".strip(".")
                rows.append(MappedLayer(name, "LowRankAdapter", "digital", why))
    return replace(mapping, layers=tuple(rows))
