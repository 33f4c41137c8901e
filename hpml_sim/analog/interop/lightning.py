"""In from aihwkit-lightning: a network trained there, with its weights, input ranges and settings, as one of ours."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import torch
from torch import nn

from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import Converted, convert
from hpml_sim.errors import ConversionError, HpmlError, needs
from hpml_sim.targets import Analog

_log = logging.getLogger(__name__)


def from_lightning(model: nn.Module, card: str = "pcm", **options: Any) -> Converted:
    """The same network on our crossbars: `program`, `at`, `fit`, estimates and `to_aihwkit` work on it.

    Carried over of each layer: weights (as its forward pass uses them: clipped and quantized), bias, input range, bits
    of DAC and ADC, ADC range, output noise, and of training: weight noise, clipping at a number of standard deviations,
    whether input ranges are learned.
    Devices and the size of arrays are the card's. Three things are of another kind here, and logged where they differ:
    a layer has one input range, not one for each of its row tiles; full scale is that of each column; converters are
    always there (16 bits for nearly none).

    Args:
        model: a network with `aihwkit_lightning.nn` layers; not changed.
        card: name or path of a crossbar card.
        options: of `Analog`, for all layers; they overrule what the model says.

    Returns:
        As of `convert`; layers that are digital there stay digital.

    Raises:
        HpmlError: aihwkit-lightning is not installed, a model without its layers, or an option out of range.
        ConversionError: its recurrent layers, which we cannot read.
    """
    with needs("from_lightning", "aihwkit-lightning"):
        from aihwkit_lightning.nn import AnalogRNN
        from aihwkit_lightning.nn.conversion import convert_to_digital
        from aihwkit_lightning.nn.modules.base import AnalogLayerBase

    source: Any = copy.deepcopy(model)
    layers: dict[str, Any] = {}
    for name, module in source.named_modules():
        if isinstance(module, AnalogRNN):
            raise ConversionError(
                f"layer {name!r}: AnalogRNN of aihwkit-lightning is not read; build the network with torch's nn.LSTM, "
                "load the weights into it, and convert that with hs.convert"
            )
        if isinstance(module, AnalogLayerBase) and not module.IS_CONTAINER:
            layers[name] = module
    if not layers:
        raise HpmlError(f"{type(model).__name__} has no layers of aihwkit-lightning; use hs.convert for others")
    targets = {
        name: Analog(card, **{**_settings(layer.rpu_config, options), **options}) for name, layer in layers.items()
    }
    ranges = {name: _input_range(name, layer) for name, layer in layers.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that quantizing changed the settings, which were read before
        for layer in layers.values():
            layer.quantize_weights()
    digital = convert_to_digital(source, inplace=True)
    alike = set(targets.values()) == {next(iter(targets.values()))}
    if alike and "" not in targets:
        converted = convert(digital, next(iter(targets.values())), only=list(targets))
    else:
        converted = convert(digital, targets)
    for name, crossbar in crossbars(converted).items():
        known = ranges[name.removeprefix("network").removeprefix(".")]
        if known is not None:
            crossbar.set_ranges(known)
    return converted.train(model.training)


def _settings(config: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Options of `Analog` that say the same as a configuration of aihwkit-lightning, but for those that are given."""
    from aihwkit_lightning.simulator.parameters import WeightClipType, WeightNoiseInjectionType

    io, clip, modifier, ranges = config.forward, config.clip, config.modifier, config.pre_post.input_range
    found: dict[str, Any] = {"output_noise": io.out_noise}
    if ranges.enable and not ranges.dynamic:
        found["input_range"] = _rule(ranges)
    for name, resolution in (("dac_bits", io.inp_res), ("adc_bits", io.out_res)):
        if name not in given and (bits := _bits(name, resolution)) is not None:
            found[name] = bits
    if io.out_bound > 0:
        found["adc_bound"] = io.out_bound
    injects = modifier.noise_type != WeightNoiseInjectionType.NONE
    found["training_noise"] = modifier.std_dev if injects else 0.0
    gaussian = (WeightClipType.LAYER_GAUSSIAN, WeightClipType.LAYER_GAUSSIAN_PER_CHANNEL)
    found["weight_clip"] = clip.sigma if clip.type in gaussian else None
    if modifier.noise_type == WeightNoiseInjectionType.ADD_NORMAL:
        _log.warning("weight noise is relative to the layer's largest weight there, to each column's here")
    by_column = (WeightClipType.LAYER_GAUSSIAN_PER_CHANNEL, WeightClipType.LEARNABLE_PER_CHANNEL)
    if io.out_res > 0 and clip.type not in by_column:
        _log.warning("the ADC's range follows the layer's largest weight there, each column's here: codes differ")
    return found


def _rule(ranges: Any) -> dict[str, Any]:
    """How an input range there is found, in our words."""
    if not ranges.learn_input_range:
        return {"name": "sigma", "sigmas": ranges.init_std_alpha}
    return {
        "name": "learned",
        "sigmas": ranges.init_std_alpha,
        "batches": max(1, ranges.init_from_data),
        "decay": ranges.decay,
    }


def _bits(name: str, resolution: float) -> int | None:
    """Bits of a converter with 2^bits - 2 steps; None where there is none, which leaves the card's."""
    if resolution <= 0:
        _log.warning("no %s there: the card's hold here; give %s=16 for nearly none", name, name)
        return None
    steps = resolution if resolution > 1 else 1 / resolution
    bits = round(torch.log2(torch.tensor(steps + 2, dtype=torch.float64)).item())
    if abs(2**bits - 2 - steps) > 1e-3 * steps or not 2 <= bits <= 16:
        raise ConversionError(
            f"resolution of {steps:g} steps: must be 2^bits - 2 with 2 to 16 bits (254 for 8); give {name}= yourself"
        )
    return bits


def _input_range(name: str, layer: Any) -> float | None:
    """A full-scale input; None where each vector is scaled by itself, as our layers do until they are calibrated."""
    settings = layer.rpu_config.pre_post.input_range
    if not settings.enable or settings.dynamic:
        return None
    ranges = layer.input_range.detach().abs()
    if float(ranges.max()) > 1.01 * float(ranges.min()):
        _log.warning("layer %r: its row tiles have input ranges %s; the largest is taken", name, ranges.tolist())
    return float(ranges.max())
