"""Out to aihwkit: the same network with aihwkit's own layers, settings and state carried over.

`Analog(..., engine="aihwkit")` programs and runs such layers through the same `program` and `at`, as a second opinion
on our own; `to_aihwkit` hands them to whoever works with aihwkit itself. Training is ours in both cases.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from hpml_sim.analog.calibration import programmable_crossbars
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.low_rank_adapter import adapter_of
from hpml_sim.analog.noise_models import NoiseModel
from hpml_sim.analog.programmed_model import NetworkPerChip
from hpml_sim.analog.pulsed.devices import pulsed_tiles
from hpml_sim.analog.recurrent import AnalogRecurrent
from hpml_sim.analog.recurrent_cells import AnalogCell
from hpml_sim.analog.seeds import Purpose, derive
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.references import replace_references
from hpml_sim.errors import ConversionError
from hpml_sim.targets import Analog


def to_aihwkit(model: nn.Module) -> nn.Module:
    """A copy of the network with `aihwkit.nn` layers on `TorchInferenceRPUConfig` tiles, in evaluation mode.

    Weights (clipped as training clips them), array size, converters, output noise, noise model, drift compensation and
    input ranges are carried over. aihwkit's traps are avoided: weight scaling is on (its default costs 33 % error), and
    bound management is off (on these tiles one saturating vector would disturb its whole batch). Where ranges are
    dynamic, aihwkit scales each patch of a convolution by its own largest value, and this library each feature map.

    Args:
        model: a converted model, calibrated or trained: aihwkit's tiles need a fixed input range. One on pulsed devices
            is of aihwkit's layers already, and is only copied.

    Returns:
        A model for `aihwkit`'s own functions: `program_analog_weights`, `drift_analog_weights`, ...

    Raises:
        HpmlError: a model without analog layers, or of programmed chips.
        ConversionError: a layer that aihwkit's torch tiles cannot hold (Conv1d, Conv3d, groups, string padding,
            other padding modes), or that was never calibrated.
        ImportError: aihwkit is missing or broken.
    """
    if pulsed_tiles(model):
        return copy.deepcopy(model).eval()
    for name, module in model.named_modules():
        if isinstance(module, (AnalogCell, AnalogRecurrent)):
            raise ConversionError(
                f"layer {name!r}: aihwkit cannot convert {type(module).__name__.removeprefix('Analog')} layers; "
                "leave the layer digital with skip=, or use engine='fused'"
            )
    for name, crossbar in programmable_crossbars(model, "to_aihwkit").items():
        _check(name, model.get_submodule(name), crossbar)
    network = clone(model).eval()
    with torch.random.fork_rng(devices=[]):  # aihwkit draws initial weights, which are then overwritten
        layers = {network.get_submodule(name): crossbar for name, crossbar in crossbars(network).items()}
        plan = {layer: _aihwkit_layer(layer, crossbar) for layer, crossbar in layers.items()}
    if network in plan:
        return plan[network]
    replace_references(network, {id(layer): new for layer, new in plan.items()})
    return network.eval()


def _check(name: str, layer: nn.Module, crossbar: Crossbar) -> None:
    if not crossbar.calibrated:
        raise ConversionError(
            f"layer {name!r}: has no input range yet; call hs.calibrate(model, inputs) or train it, then go to aihwkit"
        )
    if adapter_of(layer) is not None:
        raise ConversionError(
            f"layer {name!r}: aihwkit's layers have no adapters; go to aihwkit before hs.lora, or use engine='fused'"
        )
    target = crossbar.target
    if target.levels is not None or target.stuck_at_g_min > 0 or target.stuck_at_g_max > 0:
        raise ConversionError(
            f"layer {name!r}: aihwkit has no levels, slices or stuck devices at inference; use engine='fused'"
        )
    if crossbar.channel_scale is not None:
        raise ConversionError(
            f"layer {name!r}: aihwkit's layers have one input range for all channels; take input_range_by='layer'"
        )
    if not target.linear_adc:
        raise ConversionError(f"layer {name!r}: aihwkit's ADCs are linear; use engine='fused'")
    if target.ir_drop > 0 or target.read_noise > 0:
        raise ConversionError(
            f"layer {name!r}: aihwkit's torch tiles have no ir_drop and no read_noise; use engine='fused'"
        )
    if isinstance(layer, nn.Linear):
        return
    if not isinstance(layer, nn.Conv2d):
        raise ConversionError(
            f"layer {name!r}: aihwkit's torch tiles have no {type(layer).__name__.removeprefix('Analog')}; "
            "leave the layer digital with skip=, or use engine='fused'"
        )
    mode, padding = layer.padding_mode, layer.padding
    if crossbar.tiling.groups > 1 or mode != "zeros" or isinstance(padding, str):
        raise ConversionError(
            f"layer {name!r}: aihwkit has no convolution with groups={crossbar.tiling.groups}, padding={padding!r}, "
            f"padding_mode={mode!r}; leave the layer digital with skip=, or use engine='fused'"
        )


def _aihwkit_layer(layer: Any, crossbar: Crossbar) -> nn.Module:
    from aihwkit.nn import AnalogConv2d, AnalogLinear

    kinds: dict[Any, Any] = {nn.Linear: AnalogLinear, nn.Conv2d: AnalogConv2d}
    digital = next(kind for kind in kinds if isinstance(layer, kind))
    # `from_digital` reads sizes, weight and bias of a torch layer; one of ours would keep its crossbar in a copy
    plain = digital.__new__(digital)
    plain.__dict__.update(layer.__dict__)
    plain._parameters = dict(layer._parameters)
    plain._modules = {}
    with torch.no_grad():
        weight = crossbar.clipped(layer.matrix())
        weight = weight.view_as(layer.weight) if digital is nn.Conv2d else weight
    plain._parameters["weight"] = nn.Parameter(weight.float())
    new = kinds[digital].from_digital(plain, rpu_config(crossbar)).eval()
    if not crossbar.scales_vectors:
        for tile in new.analog_tiles():
            tile.set_input_range(float(crossbar.dac_range().detach()))
    return new


def rpu_config(crossbar: Crossbar) -> Any:
    """aihwkit's configuration of one layer.

    Args:
        crossbar: of the layer.
    """
    from hpml_sim.analog.aihwkit_import import require_aihwkit

    require_aihwkit("noise")
    from aihwkit.inference import GlobalDriftCompensation
    from aihwkit.inference.compensation.drift import PerColumnDriftCompensation
    from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
    from aihwkit.simulator.configs import TorchInferenceRPUConfig
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    target, tiling = crossbar.target, crossbar.tiling
    config: Any = TorchInferenceRPUConfig()
    # full scale of each column at the largest conductance, as ours; aihwkit's default leaves weights as they are
    config.mapping.weight_scaling_omega = 1.0
    config.mapping.weight_scaling_columnwise = True
    config.mapping.digital_bias = True
    config.mapping.max_input_size, config.mapping.max_output_size = tiling.tile_rows, tiling.tile_cols
    io = config.forward
    by_vector = crossbar.scales_vectors
    io.noise_management = NoiseManagementType.ABS_MAX if by_vector else NoiseManagementType.NONE
    io.bound_management = BoundManagementType.NONE
    io.inp_bound, io.out_bound, io.out_noise = 1.0, crossbar.adc_bound(), target.output_noise
    io.inp_res = 1 / (2 * crossbar.dac_qmax) if crossbar.dac_qmax else -1
    io.out_res = 1 / (2 * crossbar.adc_qmax) if crossbar.adc_qmax else -1
    config.pre_post.input_range.enable = not by_vector
    config.pre_post.input_range.learn_input_range = False
    config.pre_post.input_range.init_from_data = 0
    if crossbar.noise.model == "none":
        # aihwkit has no model without noise
        config.noise_model = PCMLikeNoiseModel(prog_noise_scale=0.0, read_noise_scale=0.0, drift_scale=0.0)
    else:
        config.noise_model = copy.deepcopy(crossbar.device_model().noise_model.physics)
    config.drift_compensation = {
        "none": lambda: None,
        "global": GlobalDriftCompensation,
        "column": PerColumnDriftCompensation,
    }[target.compensation]()
    return config


class AihwkitBackend:
    """Chips of aihwkit's own layers, programmed once; `at` works on copies, so drift never compounds.

    Args:
        model: a private copy of the converted model.
        n_chips: how many chips.
        seed: of all noise.
    """

    def __init__(self, model: nn.Module, n_chips: int, seed: int):
        self._crossbars = list(crossbars(model).values())
        network = to_aihwkit(model)
        self._networks: list[nn.Module] = []
        for chip in range(n_chips):
            one = clone(network)
            with torch.random.fork_rng(devices=[]):
                for index, layer in enumerate(aihwkit_layers(one)):
                    torch.default_generator.manual_seed(derive(seed, Purpose.PROGRAMMING, layer=index, chip=chip))
                    layer.program_analog_weights()
            self._networks.append(one)
        self._seed = seed

    @property
    def targets(self) -> list[Analog]:
        """Configurations of the layers, in order."""
        return [crossbar.target for crossbar in self._crossbars]

    @property
    def noise_models(self) -> list[NoiseModel]:
        """Noise models of the layers, in order."""
        return [crossbar.device_model().noise_model for crossbar in self._crossbars]

    @property
    def chip_bytes(self) -> int:
        """What the network of one chip takes at one time, bytes."""
        return sum(p.numel() * p.element_size() for p in self._networks[0].parameters())

    def at(self, time_s: float, chips: Sequence[int], *, together: bool = True) -> nn.Module:
        """A network for each chip.

        Args:
            time_s: seconds since the end of programming, >= 0.
            chips: their numbers.
            together: not used: each chip is a network of its own.
        """
        # aihwkit ages a layer in place, from the state that it was last aged to: each time starts from a copy
        aged = [clone(self._networks[chip]) for chip in chips]
        with torch.random.fork_rng(devices=[]):
            for chip, network in zip(chips, aged, strict=True):
                for index, layer in enumerate(aihwkit_layers(network)):
                    key = derive(self._seed, Purpose.READ, layer=index, chip=chip, time_s=time_s)
                    torch.default_generator.manual_seed(key)
                    layer.drift_analog_weights(time_s)
        return NetworkPerChip(aged)


def aihwkit_layers(model: nn.Module) -> list[Any]:
    """aihwkit's layers in a model, in its order.

    Args:
        model: any network.
    """
    from aihwkit.nn.modules.base import AnalogLayerBase

    leaves = (AnalogLayerBase,)
    return [
        m for m in model.modules() if isinstance(m, leaves) and not any(isinstance(c, leaves) for c in m.children())
    ]
