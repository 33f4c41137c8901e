"""Layers on aihwkit's pulsed devices: the weights are the devices, and training moves them in place.

A layer is one of `aihwkit.nn`. Its device model and training rule are aihwkit's (its own preset where it has one
for the pair, else `build_config`), its array size and converters are the card's.

The state dict is aihwkit's: read it back with `torch.load(..., weights_only=False)`, for its configuration is in it.
Weights and devices come back as they were; fast arrays and digital sums of gradients start anew.
"""

from __future__ import annotations

import copy
import functools
import sys
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hpml_sim.analog.converters import largest_code
from hpml_sim.analog.seeds import Purpose, derive
from hpml_sim.cards import CrossbarCard
from hpml_sim.errors import HpmlError
from hpml_sim.targets import InMemory, PulsedDevice, TrainingRule
from hpml_sim.targets.cards import card_named

_DEVICES: dict[PulsedDevice, str] = {
    "reram-es": "ReRamES",
    "reram-sb": "ReRamSB",
    "capacitor": "Capacitor",
    "ecram": "EcRam",
    "ecram-mo": "EcRamMO",
    "idealized": "Idealized",
    "gokmen-vlasov": "GokmenVlasov",
    "pcm": "PCM",
    "reram-array-om": "ReRamArrayOM",
    "reram-array-hfo2": "ReRamArrayHfO2",
}
"""Device -> its name in aihwkit's presets."""

_RULES: dict[TrainingRule, tuple[str, str]] = {
    "sgd": ("", "sgd"),
    "mixed-precision": ("MixedPrecision", "mixed-precision"),
    "tiki-taka": ("TikiTaka", "tiki-taka"),
    "tiki-taka-v2": ("TTv2", "ttv2"),
    "chopped-tiki-taka-v2": ("ChoppedTTv2", "c-ttv2"),
    "agad": ("AGAD", "agad"),
}
"""Rule -> prefix of its presets in aihwkit, and its name for `build_config`."""

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Shares of the devices' range that the largest weight may take."""
_LOSS = 0.02
"""How much more of the weights (relative rms) may be lost than at the best of these shares."""
_TRAINED, _NEW = 0.4, 0.125
"""The shares for trained and for new weights: new ones need room to grow (eightfold), trained ones must stand out of
the noise of converters and devices. Found by trying on digits."""
_UNIFORM = 1.8
"""Weights whose largest is less than this many times their rms are as torch initializes layers: uniform (sqrt 3)."""


def why_not_pulsed(layer: nn.Module) -> str | None:
    """Why a layer of a kind that crossbars can hold has no equal among aihwkit's pulsed layers; None if it has."""
    if isinstance(layer, nn.modules.conv._ConvNd) and not layer.transposed:
        if layer.groups > 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return (
                f"aihwkit has no convolution with groups={layer.groups}, padding={layer.padding!r}, "
                f"padding_mode={layer.padding_mode!r}"
            )
        return None
    if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D":
        return None
    return f"aihwkit has no layer for {type(layer).__name__} that is made from a digital one"


def pulsed_layer(layer: Any, target: InMemory, index: int) -> tuple[nn.Module, str]:
    """A layer with the same weights on pulsed devices.

    The scaling between weights and devices is chosen for each layer. Trained weights: of the shares of the devices'
    range at which hardly more of the weights is lost than at the best one, the nearest to `_TRAINED`. (aihwkit's
    default clips trained weights, and devices with much write noise lose small ones.) New weights: `_NEW`.

    Args:
        layer: a `nn.Linear`, `nn.Conv1d` to `nn.Conv3d`, or Hugging Face `Conv1D`; not changed.
        target: its device, rule, converters and card.
        index: number of the layer in the network; each layer gets devices of its own.

    Returns:
        The aihwkit layer, and how well the weights were carried over.

    Raises:
        ImportError: aihwkit's compiled tiles are missing or broken.
    """
    from hpml_sim.analog.aihwkit_import import require_aihwkit

    require_aihwkit("compiled")
    from aihwkit import nn as kinds

    refuse_wrong_optimizers()

    if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)):
        plain = nn.Linear(*layer.weight.shape, bias=layer.bias is not None, device="meta")
        plain.weight, plain.bias = nn.Parameter(layer.weight.detach().T), layer.bias
        layer = plain
    kind = next(k for k in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(layer, k))
    config = rpu_config(target)
    # each tile its own devices: with one seed for all, equal tiles would have equal devices
    made = iter(range(2**31))

    def tile(out_size: int, in_size: int, own: Any, bias: bool = False, **options: Any) -> Any:
        own = copy.deepcopy(own)
        del own.tile_class
        _seed_devices(own.device, 1 + derive(target.device_seed, Purpose.DEVICES, layer=index, chip=next(made)) % 2**30)
        return own.tile_class(out_size, in_size, own, bias=bias, **options)

    config.tile_class = tile
    with torch.random.fork_rng(devices=[]):  # aihwkit draws initial weights, which are then overwritten
        made_layer: Any = getattr(kinds, f"Analog{kind.__name__}").from_digital(layer, config)
    made_layer.train(layer.training)
    weight = layer.weight.detach()
    chosen = _NEW
    if float(weight.abs().max()) > _UNIFORM * float(weight.square().mean().sqrt()):
        lost = {}
        for share in _SHARES:
            made_layer.set_weights(weight, layer.bias, weight_scaling_omega=share)
            lost[share] = _relative_error(made_layer, weight)
        held = [share for share in _SHARES if lost[share] <= min(lost.values()) + _LOSS]
        chosen = min(held, key=lambda share: abs(share - _TRAINED))
    made_layer.set_weights(weight, layer.bias, weight_scaling_omega=chosen)
    carried = (
        f"{target.device} devices, {target.rule}: trained in place; weights carried over within "
        f"{100 * _relative_error(made_layer, weight):.2g} % (rms), the largest at {chosen:g} of the range"
    )
    return made_layer, carried


def _relative_error(layer: Any, weight: torch.Tensor) -> float:
    held = layer.get_weights()[0].view_as(weight)
    return float((held - weight).norm() / weight.norm().clamp(min=1e-30))


def rpu_config(target: InMemory) -> Any:
    """aihwkit's configuration of a layer: device and rule of the target, array and converters of its card."""
    from aihwkit.simulator import presets
    from aihwkit.simulator.configs import build_config
    from aihwkit.simulator.parameters import IOParameters
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType
    from aihwkit.simulator.presets.utils import PresetUpdateParameters

    device, (prefix, algorithm) = _DEVICES[target.device], _RULES[target.rule]
    card = card_named(target.card, CrossbarCard)
    tops = {
        "inp_res": largest_code(int(card.io.dac_bits) if target.dac_bits is None else target.dac_bits),
        "out_res": largest_code(int(card.io.adc_bits) if target.adc_bits is None else target.adc_bits),
    }
    converters: dict[str, Any] = {name: 1 / (2 * top) if top else -1 for name, top in tops.items()}
    converters |= {"out_bound": target.adc_bound, "out_noise": target.output_noise}
    scaled = {"noise_management": NoiseManagementType.ABS_MAX, "bound_management": BoundManagementType.ITERATIVE}
    preset = getattr(presets, f"{prefix}{device}Preset", None)
    if preset is not None:
        config = preset()
    else:
        device_class = getattr(presets.devices, f"{device}PresetDevice")
        config = build_config(algorithm, device_class, IOParameters, PresetUpdateParameters)
    config.forward = IOParameters(**converters, **scaled)
    config.backward = IOParameters(**converters, **scaled)
    transfers = getattr(config.device, "transfer_forward", None)  # only of the rules with two arrays
    if transfers is not None:
        for name, value in converters.items():
            setattr(transfers, name, value)
        transfers.noise_management, transfers.bound_management = NoiseManagementType.NONE, BoundManagementType.NONE
    config.mapping.digital_bias = True
    config.mapping.max_input_size, config.mapping.max_output_size = _tile_size(card)
    return config


def _tile_size(card: CrossbarCard) -> tuple[int, int]:
    """Rows and columns of a tile, in weights."""
    return int(card.array.rows), max(1, int(card.array.cols) // max(1, int(card.array.cells_per_weight)))


def _seed_devices(device: Any, seed: int) -> None:
    """Set where the differences between devices come from, on a device, a unit cell or a compound of one."""
    device.construction_seed = seed
    if (inner := vars(device).get("device")) is not None:
        inner.construction_seed = seed


def pulsed_tiles(model: nn.Module) -> dict[str, list[Any]]:
    """aihwkit's pulsed tiles by the dotted name of their layer, in the order of the model."""
    if "aihwkit.nn" not in sys.modules:  # where it was never imported, no such layer exists
        return {}
    from aihwkit.nn.modules.base import AnalogLayerBase
    from aihwkit.simulator.configs import DigitalRankUpdateRPUConfig, SingleRPUConfig, UnitCellRPUConfig

    kinds = (SingleRPUConfig, UnitCellRPUConfig, DigitalRankUpdateRPUConfig)
    found = {}
    layers: list[tuple[str, Any]] = [(n, m) for n, m in model.named_modules() if isinstance(m, AnalogLayerBase)]
    for name, layer in layers:
        tiles = [tile for tile in layer.analog_tiles() if isinstance(tile.rpu_config, kinds)]
        inner = any(other.startswith(f"{name}." if name else "") for other, _ in layers if other != name)
        if tiles and not inner:  # aihwkit's containers show the tiles of the layers within
            found[name] = tiles
    return found


@functools.cache
def refuse_wrong_optimizers() -> None:
    """From now on, every torch optimizer is checked before its step: see `_check_optimizer`."""
    register_optimizer_step_pre_hook(_check_optimizer)


def _check_optimizer(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Refuse a step that pulsed devices would not carry out; nothing has changed yet.

    Raises:
        HpmlError: an optimizer without pulses, one with a state that pulses ignore, or a learning rate of 0.
    """
    from aihwkit.optim import AnalogSGD
    from aihwkit.optim.context import AnalogContext

    advice = "take hs.analog.in_memory_optimizer(model), or hs.fit(model, ...), which does"
    for group in optimizer.param_groups:
        if not any(isinstance(p, AnalogContext) and not p.use_torch_update for p in group["params"]):
            continue
        name = type(optimizer).__name__
        if not isinstance(optimizer, AnalogSGD):
            raise HpmlError(
                f"optimizer {name}: sends no pulses, or none as it should: pulsed devices need SGD; {advice}"
            )
        ignored = [key for key in ("momentum", "weight_decay") if group.get(key)]
        if ignored:
            raise HpmlError(f"optimizer {name}: pulsed devices ignore {' and '.join(ignored)}; {advice}")
        if not group["lr"] > 0:
            raise HpmlError(f"optimizer {name}: lr={group['lr']!r} must be > 0 for pulsed devices; {advice}")
