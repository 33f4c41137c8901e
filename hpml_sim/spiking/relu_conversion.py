"""ReLU network -> spiking network without training: rates that follow the activations, scaled on data."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.conversion import convert
from hpml_sim.conversion.cloning import clone
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking.folding import BATCH_NORMS, fold_batch_norms
from hpml_sim.spiking.functions import with_functions_as_modules
from hpml_sim.spiking.model import MAXIMA, RECTIFIERS, SYNAPSES, SpikingModel, replace_modules
from hpml_sim.spiking.time_folding import TimeFoldedMaxPool
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
        target: with neuron=Leaky(beta=1.0), which resets by subtraction; None: Spiking("loihi", neuron=Leaky(beta=1.0), steps=64, encoder="direct").
        percentile: of each layer's positive activations, in (50, 100]; below 100 a few neurons saturate and the others
            get finer rates.
        initial_membrane: before the first step, as a share of the threshold, in [0, 1].
        samples: inputs used, the first ones.

    Raises:
        ConversionError: a leak, another reset, or a network that is not homogeneous in its scale (an activation other
            than ReLU). HpmlError: percentile out of range, or no data.
    """
    if target is None:
        target = Spiking("loihi", neuron=Leaky(beta=1.0), steps=64, encoder="direct")
    if not isinstance(target.neuron, Leaky) or target.neuron.beta != 1 or target.neuron.reset != "subtract":
        raise ConversionError(
            f"calibrated: target has neuron={target.neuron!r}; a rate follows an activation only without a leak and "
            "with reset by subtraction: take neuron=hs.spiking.Leaky(beta=1.0)"
        )
    if not 50 < percentile <= 100:
        raise HpmlError(f"calibrated: percentile={percentile!r} must lie in (50, 100]")
    if not 0 <= initial_membrane <= 1:
        raise HpmlError(f"calibrated: initial_membrane={initial_membrane!r} must lie in [0, 1]")
    x = _inputs(data, samples)
    original, folded = fold_batch_norms(with_functions_as_modules(clone(model)), x[:1])
    with torch.no_grad():
        want = original(x)
        scales = _scales(original, x, percentile)
        common = dict.fromkeys(scales, max(scales.values()))
        for chosen in (scales, common):
            scaled = copy.deepcopy(original)
            out = _rescale(scaled, chosen, target.neuron.threshold)
            if torch.allclose(scaled(x) * out, want, rtol=1e-3, atol=1e-3 * float(want.abs().max())):
                break
        else:
            raise ConversionError(
                f"calibrated: scaling the layers of {type(model).__name__} changes what it computes; every "
                "activation must be an nn.ReLU, no layer may be shared, and batch norms must follow a layer"
            )
    spiking = convert(scaled, replace(target, scale_weights=False))
    assert isinstance(spiking, SpikingModel)
    for _, neurons in spiking.neurons():
        neurons.initial = initial_membrane
    pools = {name: module for name, module in scaled.named_modules() if isinstance(module, MAXIMA)}
    replace_modules(
        spiking.network,
        {
            id(module): TimeFoldedMaxPool(module, steps=target.steps)
            for name, module in spiking.network.named_modules()
            if name in pools
        },
    )
    why = {name: f"calibrated: 1 spike a step is {scale:.3g}" for name, scale in chosen.items()}
    why |= {name: f"{why[name]}; with batch norm {norm!r} folded in" for name, norm in folded.items()}
    why |= dict.fromkeys(folded.values(), "batch norm, folded into the layer before it")
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


def _scales(model: nn.Module, x: Tensor, percentile: float) -> dict[str, float]:
    """The percentile of the positive outputs of every layer with weights, in the order in which they run."""
    scales: dict[str, float] = {}

    def hook(name: str) -> Any:
        def record(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            positive = output[output > 0].double().numpy(force=True)
            scales[name] = float(np.percentile(positive, percentile)) if positive.size else 1.0

        return record

    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (*SYNAPSES, *BATCH_NORMS))]
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
    """Scale weights in place; returns what one unit at the output stands for."""
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
        before = after
    return before
