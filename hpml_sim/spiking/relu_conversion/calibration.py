"""A ReLU network as a spiking one without training: its firing rates follow the activations, scaled on data.

It scales weights; the input ranges of analog layers are calibrated in `analog/calibration.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from hpml_sim.conversion import convert
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import check_network
from hpml_sim.data import Data, load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import ConversionError, HpmlError, check_real, check_whole, shown
from hpml_sim.spiking.batch_norm_folding import fold_batch_norms
from hpml_sim.spiking.layer_kinds import MAX_POOLS
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.module_replacement import keep_hooks, replace_modules
from hpml_sim.spiking.neurons.graded import GradedNeurons
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.relu_conversion.channel_scales import ChannelScale, choose_scales
from hpml_sim.spiking.relu_conversion.functions_as_modules import with_functions_as_modules
from hpml_sim.spiking.relu_conversion.scale_folding import (
    ScaledNetwork,
    fold_scales,
    shift_outputs,
    with_own_rectifiers,
)
from hpml_sim.spiking.time_folded_layers import TimeFoldedMaxPool, TimeFoldedMean
from hpml_sim.targets import Leaky, Spiking

_OF_MEANS = (nn.GroupNorm, nn.LayerNorm, nn.MultiheadAttention, nn.RMSNorm)
"""Layers whose output is not proportional to their input: they must see rates, not the spikes of a step."""


def calibrated(
    model: nn.Module,
    data: str | Data | Tensor,
    target: Spiking | None = None,
    *,
    percentile: float | None = None,
    initial_membrane: float | None = None,
    samples: int = 512,
) -> SpikingModel:
    """A spiking network whose firing rates are the activations of a trained ReLU network, with no training.

    With reset by subtraction and no leak a neuron fires at a rate of current / threshold, up to 1 spike a step. Each
    channel of each rectifier has a scale of its own, what 1 spike a step stands for, and a first membrane: those at
    which rates of `target.steps` steps are nearest to the activations on data. So a network that is meant for few steps
    should be calibrated for so many. The bias of the last layer makes up for what the outputs lose on average.

    The scale lies in the weights before the neurons and in those that read their spikes. Where a sum has no weights, as
    in a residual block, neurons keep a threshold for each channel, or spikes with a height (`GradedNeurons`). Batch
    norms are folded into the layers before them, a max pool passes on the largest count (`TimeFoldedMaxPool`), and
    attention and layer norms see the mean of all steps so far (`TimeFoldedMean`).

    With `readout="membrane"`, as the target has it by default, the outputs are the values of the ReLU network.

    Source: P. U. Diehl et al., IJCNN 2015 (data-based normalization); B. Rueckauer et al., Front. Neurosci. 11:682
    (2017), section 2.2 (percentile, batch norms, max pooling); S. Kim et al., AAAI 2020 (a scale for each channel);
    Y. Li et al., ICML 2021 (scales with the smallest error at so many steps, a bias that makes up for what is lost);
    T. Bu et al., ICLR 2022 (a membrane that starts at half the threshold rounds counts).

    Args:
        model: a network of layers, batch norms and `nn.ReLU`s that takes (batch, ...); it is not changed.
        data: name or `Data`, whose training inputs are taken, or inputs (n, ...).
        target: its neurons must be `hs.spiking.Leaky(beta=1.0)`, which resets by subtraction. None:
            hs.Spiking("loihi", neuron=hs.spiking.Leaky(beta=1.0), steps=64, encoder="direct", readout="membrane").
        percentile: of each channel's positive activations, above 50 up to 100, as its scale; None: the scale with the
            smallest error.
        initial_membrane: before the first step, as a share of the threshold, 0 to 1; None: for each channel the one
            with the smallest error.
        samples: inputs used, the first ones, >= 1.

    Returns:
        A spiking network in evaluation mode; its report says what 1 spike a step stands for.

    Raises:
        ConversionError: a leak, another reset, an activation other than ReLU, or a network without one.
        HpmlError: an argument of the wrong type or out of its range, or no data.

    Example:
        >>> import torch, hpml_sim as hs
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> x = torch.rand(100, 8)
        >>> model = hs.spiking.calibrated(net, x)
        >>> bool((model(x) - net(x)).abs().max() < 0.05)  # the values themselves
        True
    """
    check_network("calibrated: model", model)
    target = _checked(target)
    if percentile is not None:
        check_real("calibrated: percentile", percentile, above=50, high=100)
    if initial_membrane is not None:
        check_real("calibrated: initial_membrane", initial_membrane, low=0, high=1)
    x = _inputs(data, check_whole("calibrated: samples", samples, low=1))
    original, folded = fold_batch_norms(with_own_rectifiers(with_functions_as_modules(clone(model))), x[:1])
    threshold = target.neuron.threshold
    found = choose_scales(original, x, target.steps, percentile, initial_membrane)
    scales = {name: chosen.scale for name, chosen in found.scales.items()}
    scaled = fold_scales(original, scales, threshold, x)
    shifted = shift_outputs(scaled.network, found.output_shift)
    spiking = convert(scaled.network, replace(target, scale_weights=False))
    assert isinstance(spiking, SpikingModel)
    keep_hooks(model, spiking.network)  # a copy of a traced network loses its own
    _scale_neurons(spiking, scaled, found.scales)
    if isinstance(spiking.output, LeakyNeurons):
        spiking.output.threshold = _largest_output(original, x)
        spiking.output.initial = 0.5 if initial_membrane is None else initial_membrane
    changes = {name: _scale_row(scaled, name, scale, threshold) for name, scale in scales.items()}
    changes |= {name: {"why": f"with batch norm {norm!r} folded in"} for name, norm in folded.items()}
    changes |= {key: {"why": "batch norm, folded into the layer before it"} for key in folded.values()}
    if shifted is not None:
        changes[shifted] = {"why": "bias moved by what the outputs lose on average"}
    changes |= _replace(spiking, MAX_POOLS, TimeFoldedMaxPool, "of spike counts so far: the busiest input passes")
    changes |= _replace(spiking, _OF_MEANS, TimeFoldedMean, "of the mean of the steps so far; digital")
    spiking.layers = tuple(replace(row, **changes.get(row.layer, {})) for row in spiking.layers)
    return spiking.eval()


def _checked(target: Spiking | None) -> Spiking:
    if target is None:
        return Spiking("loihi", neuron=Leaky(beta=1.0), steps=64, encoder="direct", readout="membrane")
    if not isinstance(target, Spiking):
        raise HpmlError(f"calibrated: target={shown(target)}: must be hs.Spiking(...)")
    if not isinstance(target.neuron, Leaky) or target.neuron.beta != 1 or target.neuron.reset != "subtract":
        raise ConversionError(
            f"calibrated: target has neuron={target.neuron!r}; a rate follows an activation only without a leak and "
            "with reset by subtraction: take neuron=hs.spiking.Leaky(beta=1.0)"
        )
    return target


def _scale_neurons(spiking: SpikingModel, scaled: ScaledNetwork, chosen: Mapping[str, ChannelScale]) -> None:
    """Thresholds, heights and first membranes of the neurons, in place."""
    replaced: dict[int, nn.Module] = {}
    for name, threshold in scaled.thresholds.items():
        neurons = spiking.network.get_submodule(name)
        assert isinstance(neurons, LeakyNeurons)
        neurons.threshold = threshold.clone()
        neurons.start_at(chosen[name].start)
        if name in scaled.heights:
            replaced[id(neurons)] = GradedNeurons(neurons, scaled.heights[name])
    spiking.network = replace_modules(spiking.network, replaced)


def _scale_row(scaled: ScaledNetwork, name: str, scale: Tensor, threshold: float) -> dict[str, str]:
    """What the report says of the neurons of one rectifier."""
    low, high = float(scale.min()), float(scale.max())
    spread = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}, by channel"
    why = f"calibrated: 1 spike a step is {spread}"
    if scaled.thresholds[name].numel() > 1 or float(scaled.thresholds[name]) != threshold:
        why += f"; thresholds of these values in place of {threshold:g}: currents come from a sum without a layer"
    if name not in scaled.heights:
        return {"why": why}
    return {"why": why + "; spikes of these heights: they reach a sum without a layer", "became": "GradedNeurons"}


def _replace(
    spiking: SpikingModel, kinds: tuple[type[nn.Module], ...], made: Callable[..., nn.Module], why: str
) -> dict[str, dict[str, str]]:
    """Layers of some kinds replaced in place; what the report says of each."""
    found = {name: module for name, module in spiking.network.named_modules() if isinstance(module, kinds)}
    new = {id(module): made(module, steps=spiking.steps) for module in found.values()}
    spiking.network = replace_modules(spiking.network, new)
    return {name: {"why": why, "became": type(new[id(module)]).__name__} for name, module in found.items()}


@torch.no_grad()
def _largest_output(model: nn.Module, x: Tensor) -> Tensor:
    """What 1 output spike a step stands for: the 99.9th percentile of the positive outputs."""
    outputs = model(x)
    positive = outputs[outputs > 0].double()
    return (positive.quantile(0.999) if len(positive) else outputs.new_ones(())).to(outputs.dtype)


def _inputs(data: str | Data | Tensor, samples: int) -> Tensor:
    if isinstance(data, Tensor):
        x = data[:samples]
    else:
        x, _ = first(load_data(data).train, samples)
    if len(x) == 0:
        raise HpmlError("calibrated: no inputs to calibrate on")
    return x
