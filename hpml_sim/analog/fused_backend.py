"""Chips of our own layers: all of them programmed layer by layer, and run side by side.

`interop/aihwkit.py` has the other backend, of aihwkit's layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.analog.drift_compensation import compensated_scale, read_columns
from hpml_sim.analog.effective_weights import full_scale
from hpml_sim.analog.faults import apply_stuck_faults
from hpml_sim.analog.layers import crossbars, weight_matrix
from hpml_sim.analog.noise_models import NoiseModel
from hpml_sim.analog.programmed_tiles import ProgrammedTiles
from hpml_sim.analog.programming_defaults import cpu_float32
from hpml_sim.analog.programming_noise import ProgrammedDevices
from hpml_sim.analog.seeds import Purpose, derive
from hpml_sim.conversion.cloning import clone
from hpml_sim.kernels.common.memory import BLOCKS
from hpml_sim.targets import Analog


@dataclass(frozen=True)
class ProgrammedLayer:
    """One layer on all chips.

    Attributes:
        devices: the devices of all chips.
        device_model: the kind of devices, which reads them as weights.
        scale: full-scale weight of each column (of each slice, times what it counts), shape (groups, row tiles, cols).
            Fixed when the layer is programmed, and the same at every time: drift must show in the weights.
        baseline: what drift compensation reads right after programming, shape (chips, groups, row tiles, cols).
    """

    devices: ProgrammedDevices
    device_model: DeviceModel
    scale: Tensor
    baseline: Tensor


class FusedBackend:
    """Conductances of all chips, layer by layer, and the network that they belong to.

    Args:
        network: the network that was programmed, which is kept.
        layers: by dotted name, in the network's order.
        n_chips: how many chips.
        seed: what all randomness comes from.
    """

    def __init__(self, network: nn.Module, layers: dict[str, ProgrammedLayer], n_chips: int, seed: int):
        self.network = network
        self.layers = layers
        self.n_chips = n_chips
        self.seed = seed

    @classmethod
    def program(cls, network: nn.Module, n_chips: int, seed: int) -> FusedBackend:
        """Program a network.

        Args:
            network: a private copy, which is kept.
            n_chips: how many chips, >= 1.
            seed: what all randomness comes from.
        """
        with cpu_float32():
            layers = {
                name: _program_layer(crossbar, weight_matrix(network, name), n_chips, seed, index)
                for index, (name, crossbar) in enumerate(crossbars(network).items())
            }
        return cls(network, layers, n_chips, seed)

    @property
    def targets(self) -> list[Analog]:
        """Configurations of the layers, in order."""
        return [crossbar.target for crossbar in crossbars(self.network).values()]

    @property
    def noise_models(self) -> list[NoiseModel]:
        """Noise models of the layers, in order."""
        return [layer.device_model.noise_model for layer in self.layers.values()]

    def at(self, time_s: float) -> nn.Module:
        """The network with the chips programmed into its layers.

        Args:
            time_s: seconds since the end of programming, >= 0.
        """
        network = _copy_sharing_tensors(self.network)
        for index, (name, crossbar) in enumerate(crossbars(network).items()):
            with cpu_float32():
                crossbar.programmed = self._tiles_at(crossbar, self.layers[name], index, time_s)
        return network

    def _tiles_at(self, crossbar: Crossbar, layer: ProgrammedLayer, index: int, time_s: float) -> ProgrammedTiles:
        device, dtype = crossbar.input_range.device, crossbar.input_range.dtype

        def seed(purpose: Purpose, chip: int) -> int:
            return derive(self.seed, purpose, layer=index, chip=chip, time_s=time_s)

        weight = BLOCKS.empty((self.n_chips, *layer.devices.target_us.shape[1:]), torch.empty(0))
        scale = torch.empty((self.n_chips, *layer.scale.shape))
        for chip, g_us in enumerate(layer.devices.at(time_s, partial(seed, Purpose.READ))):
            # the seed of the faults has no time in it: the same devices are stuck forever
            stick_devices(crossbar, layer.device_model, g_us, self.seed, index, chip)
            layer.device_model.weights(g_us, out=weight[chip])
            scale[chip] = compensated_scale(
                crossbar, layer.scale, layer.baseline[chip], weight[chip], seed(Purpose.READOUT, chip)
            )
        seeds = [seed(Purpose.OUTPUT, chip) for chip in range(self.n_chips)]
        return ProgrammedTiles(weight.to(device, dtype), scale.unsqueeze(-2).to(device, dtype), seeds)


@torch.no_grad()
def _program_layer(crossbar: Crossbar, weight: Tensor, n_chips: int, seed: int, index: int) -> ProgrammedLayer:
    # on the CPU and in float32: the same bits on every machine
    tiles = crossbar.tiling.cut_weights(crossbar.clipped(weight)).float().cpu()
    scale = full_scale(tiles)
    device_model = crossbar.device_model()
    target_us = device_model.conductances(crossbar.cells(tiles / scale.unsqueeze(-1)))
    seeds = [derive(seed, Purpose.PROGRAMMING, layer=index, chip=chip) for chip in range(n_chips)]
    devices = device_model.program(target_us, seeds)
    baseline = torch.empty((n_chips, *target_us.shape[1:-1]))
    for chip in range(n_chips):
        g_us = devices.programmed(chip)
        stick_devices(crossbar, device_model, g_us, seed, index, chip)
        programmed = device_model.weights(g_us)
        baseline[chip] = read_columns(crossbar, programmed, derive(seed, Purpose.BASELINE, layer=index, chip=chip))
    return ProgrammedLayer(devices, device_model, crossbar.cell_scale(scale), baseline)


def stick_devices(
    crossbar: Crossbar, device_model: DeviceModel, g_us: Tensor, seed: int, index: int, chip: int
) -> None:
    """Put the stuck devices of one chip where they are at any time; in place.

    Args:
        crossbar: of the layer; its target gives the shares.
        device_model: gives the range of a device.
        g_us: conductances of one chip, microsiemens.
        seed: of the chips.
        index: number of the layer.
        chip: number of the chip.
    """
    apply_stuck_faults(
        g_us,
        stuck_at_g_min=crossbar.target.stuck_at_g_min,
        stuck_at_g_max=crossbar.target.stuck_at_g_max,
        g_min_us=device_model.g_min_us,
        g_max_us=device_model.g_max_us,
        seed=derive(seed, Purpose.FAULTS, layer=index, chip=chip),
    )


def frozen_copy(model: nn.Module) -> nn.Module:
    """A private copy for evaluation: later training of the model does not reach chips that were programmed from it.

    Args:
        model: any network.
    """
    return clone(model).requires_grad_(False).eval()


def _copy_sharing_tensors(network: nn.Module) -> nn.Module:
    """A copy whose parameters lie in the same memory, for each time needs crossbars of its own.

    Its parameters are objects of their own, so that `.to(...)` and its like change this copy alone, and so are its
    buffers, which a forward() may write to.
    """
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in network.parameters() if type(p) is nn.Parameter}
    return clone(network, dict(shared))
