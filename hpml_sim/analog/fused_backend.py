"""Chips of our own layers: all of them programmed layer by layer, and run side by side or one after another.

`interop/aihwkit.py` has the other backend, of aihwkit's layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpml_sim.analog.devices import DeviceModel
from hpml_sim.analog.layer_names import layer_to_skip
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.noise_models import NoiseModel
from hpml_sim.analog.programmed_layer import ProgrammedLayer
from hpml_sim.analog.programmed_tiles import ProgrammedTiles
from hpml_sim.analog.programming_defaults import cpu_float32
from hpml_sim.analog.seeds import Purpose, derive
from hpml_sim.conversion.cloning import clone
from hpml_sim.targets import Analog

TOGETHER_BYTES = 2**28
"""Chips whose weights take more than this do not lie in memory side by side: they run one after another. So large
networks gain nothing from a common pass, which waits for memory in any case, and what runs through them takes memory
for each chip as well."""


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
        models: dict[str, DeviceModel] = {}
        layers = {}
        for index, (name, crossbar) in enumerate(crossbars(network).items()):
            # one for all layers of a card: its tables are made once
            device_model = models.setdefault(crossbar.noise.model_dump_json(), crossbar.device_model())
            layer, known_as = network.get_submodule(name), layer_to_skip(network, name)
            layers[name] = ProgrammedLayer.program(layer, index, device_model, n_chips, seed, known_as)
        return cls(network, layers, n_chips, seed)

    @property
    def targets(self) -> list[Analog]:
        """Configurations of the layers, in order."""
        return [layer.crossbar.target for layer in self.layers.values()]

    @property
    def noise_models(self) -> list[NoiseModel]:
        """Noise models of the layers, in order."""
        return [layer.device_model.noise_model for layer in self.layers.values()]

    @property
    def chip_bytes(self) -> int:
        """What the weights of one chip take at one time, bytes."""
        return sum(math.prod(layer.shape) * layer.crossbar.input_range.element_size() for layer in self.layers.values())

    def at(self, time_s: float, chips: Sequence[int], *, together: bool) -> nn.Module:
        """The network with some chips programmed into its layers.

        Args:
            time_s: seconds since the end of programming, >= 0.
            chips: their numbers.
            together: whether all of them are drawn now; else each is drawn when the network runs for it.

        Raises:
            WeightsDifferError: a call changed the weights that the chips are drawn from.
        """
        for layer in self.layers.values():
            layer.check_weights()
        network = _copy_sharing_tensors(self.network)
        for name, crossbar in crossbars(network).items():
            layer = self.layers[name]
            with cpu_float32():
                crossbar.programmed = ProgrammedTiles.of(
                    _LayerAt(layer, time_s),
                    chips,
                    [layer.output_seed(chip, time_s) for chip in chips],
                    crossbar.input_range.detach(),
                    layer.weights.copied(),
                    together=together,
                )
        return network


@dataclass(frozen=True)
class _LayerAt:
    """The tiles of one layer at one time.

    Attributes:
        layer: the layer on all chips.
        time_s: seconds since the end of programming.
    """

    layer: ProgrammedLayer
    time_s: float

    @property
    def number(self) -> int:
        return derive(self.layer.seed, Purpose.OUTPUT, layer=self.layer.index)

    def empty(self, n_chips: int) -> tuple[Tensor, Tensor]:
        groups, row_tiles, cols, _ = self.layer.shape
        with cpu_float32():
            return self.layer.empty(n_chips), torch.empty(n_chips, groups, row_tiles, 1, cols)

    def draw(self, chip: int, weight: Tensor, scale: Tensor) -> None:
        with cpu_float32():
            self.layer.draw(chip, weight, time_s=self.time_s)
            scale.copy_(self.layer.compensated(chip, weight, self.time_s).unsqueeze(-2))


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
