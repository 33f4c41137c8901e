"""A ReLU network as a spiking one without training: its firing rates follow the activations, scaled on data.

It scales weights; the input ranges of analog layers are calibrated in `analog/calibration.py`.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.conversion import convert
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import check_network
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import ConversionError, HpmlError, check_real, check_whole, shown
from hpml_sim.spiking.batch_norm_folding import fold_batch_norms
from hpml_sim.spiking.layer_kinds import BATCH_NORMS, MAX_POOLS, RECTIFIERS, WEIGHT_LAYERS
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.module_replacement import keep_hooks, replace_modules
from hpml_sim.spiking.relu_conversion.functions_as_modules import with_functions_as_modules
from hpml_sim.spiking.time_folded_layers import TimeFoldedMaxPool
from hpml_sim.targets import Leaky, Spiking


def calibrated(
    model: nn.Module,
    data: str | Data | Tensor,
    target: Spiking | None = None,
    *,
    percentile: float = 99.9,
    initial_membrane: float = 0.5,
    samples: int = 512,
) -> SpikingModel:
    """A spiking network whose firing rates are the activations of a trained ReLU network, with no training.

    With reset by subtraction and no leak a neuron fires at a rate of current / threshold, up to 1 spike a step. Each
    layer's weights are scaled so that the given percentile of its activations on data equals the threshold; a bias by
    the scale of its layer alone. In a network that is no chain (residual sums) all layers share one scale. Batch norms
    are folded into the layers before them, a max pool passes on the largest count (`TimeFoldedMaxPool`), and membranes
    start at half the threshold, so that counts are rounded instead of cut.

    Source: P. U. Diehl et al., IJCNN 2015 (data-based normalization); B. Rueckauer et al., Front. Neurosci. 11:682
    (2017), section 2.2 (percentile, batch norms, max pooling); T. Bu et al., ICLR 2022 (the initial membrane).

    Args:
        model: a network of layers, batch norms and `nn.ReLU`s that takes (batch, ...); it is not changed.
        data: name or `Data`, whose training inputs are taken, or inputs (n, ...).
        target: its neurons must be `hs.spiking.Leaky(beta=1.0)`, which resets by subtraction. None:
            hs.Spiking("loihi", neuron=hs.spiking.Leaky(beta=1.0), steps=64, encoder="direct").
        percentile: of each layer's positive activations, above 50 up to 100; below 100 a few neurons saturate and the
            others get finer rates.
        initial_membrane: before the first step, as a share of the threshold, 0 to 1.
        samples: inputs used, the first ones, >= 1.

    Returns:
        A spiking network in evaluation mode; its report says what 1 spike a step stands for.

    Raises:
        ConversionError: a leak, another reset, or a network that is not homogeneous in its scale (an activation other
            than ReLU).
        HpmlError: an argument of the wrong type or out of its range, or no data.

    Example:
        >>> import torch, hpml_sim as hs
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> x = torch.rand(100, 8)
        >>> model = hs.spiking.calibrated(net, x)
        >>> bool((model(x).argmax(1) == net(x).argmax(1)).float().mean() > 0.9)
        True
    """
    check_network("calibrated: model", model)
    if target is None:
        target = Spiking("loihi", neuron=Leaky(beta=1.0), steps=64, encoder="direct")
    if not isinstance(target, Spiking):
        raise HpmlError(f"calibrated: target={shown(target)}: must be hs.Spiking(...)")
    if not isinstance(target.neuron, Leaky) or target.neuron.beta != 1 or target.neuron.reset != "subtract":
        raise ConversionError(
            f"calibrated: target has neuron={target.neuron!r}; a rate follows an activation only without a leak and "
            "with reset by subtraction: take neuron=hs.spiking.Leaky(beta=1.0)"
        )
    check_real("calibrated: percentile", percentile, above=50, high=100)
    initial = check_real("calibrated: initial_membrane", initial_membrane, low=0, high=1)
    x = _inputs(data, check_whole("calibrated: samples", samples, low=1))
    original, folded = fold_batch_norms(with_functions_as_modules(clone(model)), x[:1])
    threshold = target.neuron.threshold
    scaled, scales, of_one = _scaled(original, x, percentile, threshold)
    if of_one:
        target = replace(target, neuron=replace(target.neuron, threshold=1.0))
    spiking = convert(scaled, replace(target, scale_weights=False))
    assert isinstance(spiking, SpikingModel)
    keep_hooks(model, spiking.network)  # a copy of a traced network loses its own
    for _, neurons in spiking.neurons():
        neurons.initial = initial
    pools = {name: module for name, module in scaled.named_modules() if isinstance(module, MAX_POOLS)}
    replace_modules(
        spiking.network,
        {
            id(module): TimeFoldedMaxPool(module, steps=target.steps)
            for name, module in spiking.network.named_modules()
            if name in pools
        },
    )
    why = {name: f"calibrated: 1 spike a step is {scale:.3g}" for name, scale in scales.items()}
    why |= {name: f"{why[name]}; with batch norm {norm!r} folded in" for name, norm in folded.items()}
    why |= dict.fromkeys(folded.values(), "batch norm, folded into the layer before it")
    if of_one:
        reason = (
            f"threshold 1 in place of {threshold:g}, which gives the same spikes: spikes reach a sum without a layer"
        )
        why |= dict.fromkeys(
            (name for name, module in scaled.named_modules() if isinstance(module, RECTIFIERS)), reason
        )
    why |= dict.fromkeys(pools, "of spike counts so far: the busiest input passes")
    became = dict.fromkeys(pools, "TimeFoldedMaxPool")
    spiking.layers = tuple(
        replace(row, why=why.get(row.layer, row.why), became=became.get(row.layer, row.became))
        for row in spiking.layers
    )
    return spiking.eval()


def _inputs(data: str | Data | Tensor, samples: int) -> Tensor:
    if isinstance(data, Tensor):
        x = data[:samples]
    else:
        x, _ = first(load_data(data).train, samples)
    if len(x) == 0:
        raise HpmlError("calibrated: no inputs to calibrate on")
    return x


@torch.no_grad()
def _scaled(
    model: nn.Module, x: Tensor, percentile: float, threshold: float
) -> tuple[nn.Module, dict[str, float], bool]:
    """A copy that computes the same up to one factor; what a spike a step stands for; is a threshold of 1 needed?"""
    want = model(x)
    scales = _percentiles(model, x, percentile)
    # A scale for each layer is finest, but only a chain of layers computes the same with it: where two paths are
    # added, both must have one scale. Trying it out tells, whatever the network looks like.
    common = dict.fromkeys(scales, max(scales.values()))
    # Currents grow with the threshold, spikes do not: where spikes go past the layers, as in a residual sum, or two
    # layers lie behind one another, no weights suit another threshold. A threshold of 1 gives the same rates.
    for of_one in (False, True) if threshold != 1 else (False,):
        for tried in (scales, common):
            scaled = copy.deepcopy(model)
            theta = 1.0 if of_one else threshold
            unit = _rescale(scaled, tried, theta)
            if torch.allclose(_rates(scaled, x, theta) * unit, want, rtol=1e-3, atol=1e-3 * float(want.abs().max())):
                return scaled, tried, of_one
    raise ConversionError(
        f"calibrated: scaling the layers of {type(model).__name__} changes what it computes; every "
        "activation must be an nn.ReLU, no layer may be shared, and batch norms must follow a layer"
    )


def _rates(model: nn.Module, x: Tensor, threshold: float) -> Tensor:
    """What neurons behind the network fire a step, neurons in place of its rectifiers: current / threshold."""
    if threshold == 1:
        return model(x)

    def rate(_module: nn.Module, _inputs: Any, current: Tensor) -> Tensor:
        return current / threshold

    handles = [module.register_forward_hook(rate) for module in model.modules() if isinstance(module, RECTIFIERS)]
    try:
        return model(x) / threshold
    finally:
        for handle in handles:
            handle.remove()


def _percentiles(model: nn.Module, x: Tensor, percentile: float) -> dict[str, float]:
    """The percentile of the positive outputs of every layer with weights, in the order in which they run."""
    scales: dict[str, float] = {}

    def hook(name: str) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            positive = output[output > 0].double().numpy(force=True)
            scales[name] = float(np.percentile(positive, percentile)) if positive.size else 1.0

        return record

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (*WEIGHT_LAYERS, *BATCH_NORMS))]
    handles = [module.register_forward_hook(hook(name)) for name, module in layers]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not any(isinstance(module, RECTIFIERS) for module in model.modules()) or not scales:
        raise ConversionError(f"calibrated: {type(model).__name__} has no nn.ReLU behind a layer with weights")
    return scales


def _rescale(model: nn.Module, scales: dict[str, float], threshold: float) -> float:
    """Scale weights in place; returns what a rate of 1 at the output stands for."""
    layers: dict[str, Any] = dict(model.named_modules())
    before = 1.0
    for name, scale in scales.items():
        layer = layers[name]
        after = scale / threshold
        if layer.weight is None:
            raise ConversionError(f"calibrated: layer {name!r}: a batch norm without weights cannot be scaled")
        # a batch norm that was not folded brings what it takes to a scale of its own
        layer.weight.mul_((1.0 if isinstance(layer, BATCH_NORMS) else before) / after)
        if layer.bias is not None:
            layer.bias.div_(after)
        # what comes in next are spikes, whatever the threshold that they had to pass
        before = scale
    return before
