"""The life of a chip: program, wait, run. Nothing here ever changes the model that was programmed.

    chips = program(model, chips=25, seed=0)      # conductances of 25 chips, each with its own errors
    aged = chips.at("1 day")                      # the same chips a day later: (batch, ...) -> (chips, batch, ...)

Every time is computed from the programmed state, so they can be asked in any order, and one seed gives the same bits.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from hpml_sim.analog.calibration import analog_layers
from hpml_sim.analog.crossbar import Crossbar, ProgrammedTiles
from hpml_sim.analog.devices import DeviceModel, ProgrammedDevices
from hpml_sim.analog.interop.aihwkit import AihwkitBackend
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.seeds import Purpose, checked_seed, derive
from hpml_sim.analog.unmapped import UnmappedMatmulGuard
from hpml_sim.conversion.cloning import clone
from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.memory import BLOCKS
from hpml_sim.units.times import parse_time

FORMAT = 3
"""Version of the files of `Chips.save`."""

_FLOOR = 1e-4
"""Smallest read-out of drift compensation, as in aihwkit."""


@dataclass(frozen=True)
class _ProgrammedLayer:
    """One layer on all chips.

    Attributes:
        scale: full-scale weight of each column (of each slice, times what it counts), (groups, row tiles, cols).
        baseline: read-out of drift compensation right after programming, (chips, groups, row tiles, cols).
    """

    devices: ProgrammedDevices
    scale: Tensor
    baseline: Tensor


class ProgrammedModel(nn.Module):
    """Programmed chips at one time since programming: (batch, ...) -> (chips, batch, ...). For evaluation only.

    The noise of the k-th call depends on seed, time and the calls before it alone: evaluating twice draws twice, and a
    new `chips.at(time)` repeats it all.

    Attributes:
        network: the network with all chips in its batch. chips: how many. time_s: seconds since programming.
    """

    def __init__(self, network: nn.Module, chips: int, seed: int, time_s: float):
        super().__init__()
        self.network = network
        self.chips = chips
        self.seed = seed
        self.time_s = time_s
        self._calls = 0
        super().train(False)

    def train(self, mode: bool = True) -> ProgrammedModel:
        """Refused for mode=True.

        Raises:
            HpmlError: programmed chips are not trained.
        """
        if mode:
            raise HpmlError("programmed chips cannot be trained; train the model, then program it again")
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """All chips on the same inputs: (batch, ...) -> (chips, batch, ...).

        The network may take several tensors, in lists and dicts too, each with the batch first, and give several.

        Raises:
            HpmlError: no tensor given, tensors of different batches, or an output that lost the batch.
        """
        given = [t for t in tree_leaves((args, kwargs)) if _has_batch(t)]
        if not given:
            kinds = ", ".join(type(value).__name__ for value in (*args, *kwargs.values())) or "nothing"
            raise HpmlError(f"programmed chips take a tensor (batch, ...), got {kinds}")
        samples, device = len(given[0]), given[0].device
        for other in given[1:]:
            if len(other) != samples:
                raise HpmlError(
                    f"programmed chips: tensors of shapes {tuple(given[0].shape)} and {tuple(other.shape)} have "
                    "not the same batch in front. What is the same for all samples, such as a mask, belongs into the "
                    "network: wrap it in a module that holds it, and convert that"
                )
        for crossbar in crossbars(self.network).values():
            if crossbar.programmed is not None:
                crossbar.programmed.batch = max(1, samples)
        folded_args, folded_kwargs = tree_map(self._fold, (args, kwargs))
        cuda = [device] if device.type == "cuda" else []
        # encoders and the like draw from the global generator: they get a seed of this call
        with torch.random.fork_rng(devices=cuda):
            seed = derive(self.seed, Purpose.NETWORK, time_s=self.time_s, call=self._calls)
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            first = self._calls == 0 and not torch.compiler.is_compiling()
            with UnmappedMatmulGuard(self.network) if first else nullcontext():
                y = self.network(*folded_args, **folded_kwargs)
        self._calls += 1
        return tree_map(lambda value: self._unfold(value, samples), y)

    def _fold(self, value: Any) -> Any:
        """(batch, ...) -> (chips * batch, ...), each chip the same."""
        if not _has_batch(value):
            return value
        return BLOCKS.empty((self.chips, *value.shape), like=value).copy_(value).flatten(0, 1)

    def _unfold(self, value: Any, samples: int) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.shape[:1] != (self.chips * samples,):
            raise HpmlError(
                f"programmed chips: the network must return (batch, ...), got {tuple(value.shape)} for {self.chips} "
                f"chips x {samples} samples; where it returns time or layers first, transpose that in its forward()"
            )
        return value.unflatten(0, (self.chips, samples))

    def load_state_dict(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refused.

        Raises:
            HpmlError: what is programmed would not change with the weights.
        """
        raise HpmlError(
            "programmed chips hold conductances, which no state dict has: load it into the converted model and program "
            "that; hs.save_chips and hs.load_chips keep chips themselves"
        )


def _has_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


class _FusedChips:
    """Conductances of all chips, layer by layer, and the network that they belong to."""

    def __init__(self, network: nn.Module, layers: dict[str, _ProgrammedLayer], chips: int, seed: int):
        self.network = network
        self.layers = layers
        self.models = [layer.devices.model for layer in layers.values()]
        self.count = chips
        self.seed = seed

    @classmethod
    def program(cls, network: nn.Module, chips: int, seed: int) -> _FusedChips:
        """Program a network, which is kept."""
        layers = {
            name: _program_layer(crossbar, _matrix(network, name), chips, seed, index)
            for index, (name, crossbar) in enumerate(crossbars(network).items())
        }
        return cls(network, layers, chips, seed)

    def at(self, time_s: float) -> nn.Module:
        """A network for (chips * batch, ...), chip-major."""
        network = _copy(self.network, share=True)
        for index, (name, crossbar) in enumerate(crossbars(network).items()):
            crossbar.programmed = self._instance(crossbar, self.layers[name], index, time_s)
        _tell_chips(network, self.count)
        return network

    def _instance(self, crossbar: Crossbar, layer: _ProgrammedLayer, index: int, time_s: float) -> ProgrammedTiles:
        device, dtype = crossbar.input_range.device, crossbar.input_range.dtype

        def seed(purpose: Purpose, chip: int) -> int:
            return derive(self.seed, purpose, layer=index, chip=chip, time_s=time_s)

        model = layer.devices.model
        weight = BLOCKS.empty((self.count, *layer.devices.target_us.shape[1:]), torch.empty(0))
        scale = torch.empty((self.count, *layer.scale.shape))
        for chip, g_us in enumerate(layer.devices.at(time_s, partial(seed, Purpose.READ))):
            _stick(crossbar, model, g_us, derive(self.seed, Purpose.FAULTS, layer=index, chip=chip))
            model.weights(g_us, out=weight[chip])
            if crossbar.target.compensation == "none":
                scale[chip] = layer.scale
            else:
                now = _readout(crossbar, weight[chip], seed(Purpose.READOUT, chip))
                scale[chip] = layer.scale * (layer.baseline[chip] / now)
        seeds = [derive(self.seed, Purpose.OUTPUT, layer=index, chip=chip, time_s=time_s) for chip in range(self.count)]
        return ProgrammedTiles(weight.to(device, dtype), scale.unsqueeze(-2).to(device, dtype), seeds)

    def content(self) -> dict[str, Any]:
        """What a file of chips holds: tensors and plain values."""
        return {
            "kind": "hpml_sim.Chips",
            "format": FORMAT,
            "made_with": _made_with(),
            "seed": self.seed,
            "chips": self.count,
            "network": dict(self.network.state_dict()),
            "settings": {name: _settings(crossbar) for name, crossbar in crossbars(self.network).items()},
            "baseline": {name: layer.baseline for name, layer in self.layers.items()},
        }


class Chips:
    """Chips that were programmed from one model.

    Attributes:
        count: how many. seed: what all their randomness comes from.
    """

    def __init__(self, chips: _FusedChips | AihwkitBackend, count: int, seed: int):
        self._chips = chips
        self.count = count
        self.seed = seed

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Chips({self.count} chips, {len(self._chips.models)} analog layers, seed={self.seed})"

    def at(self, time: str | float) -> ProgrammedModel:
        """The chips at a time since the end of programming, drift compensation included.

        Args:
            time: seconds >= 0, or text like "1 s", "1 h", "1 day", "1 year".

        Returns:
            A model (batch, ...) -> (chips, batch, ...), independent of all others made here.

        Raises:
            HpmlError: not a time, or negative. UnsupportedTimeError: the card's noise model has no data for it.
        """
        time_s = parse_time(time)
        for model in self._chips.models:
            model.check_time(time_s)
        return ProgrammedModel(self._chips.at(time_s), self.count, self.seed, time_s)

    def save(self, path: str | Path) -> None:
        """Write the chips to a file that `Chips.load` (and `torch.load(..., weights_only=True)`) reads.

        Raises:
            HpmlError: the chips are of engine="aihwkit".
        """
        if not isinstance(self._chips, _FusedChips):
            raise HpmlError(
                "chips of engine='aihwkit' are not saved: aihwkit cannot restore them. Save the model's state_dict; "
                f"program(model, chips={self.count}, seed={self.seed}) makes the same chips again"
            )
        torch.save(self._chips.content(), Path(path))

    @classmethod
    def load(cls, path: str | Path, model: nn.Module) -> Chips:
        """Read chips back, exactly; `model` gives the structure and is not changed.

        The file holds the weights and the seed; the devices are drawn again, and compared with what was saved.

        Args:
            path: a file of `save`.
            model: a model converted as the one that was saved.

        Raises:
            HpmlError: the file is missing, not of chips, of another format, of another model, card or settings, or of
                a version that draws other devices.
        """
        path = Path(path)
        if not path.is_file():
            raise HpmlError(f"chips file {str(path)!r} does not exist")
        try:
            content: dict[str, Any] = torch.load(path, weights_only=True)
        except Exception as error:
            raise HpmlError(f"{str(path)!r} cannot be read as chips ({type(error).__name__})") from error
        if not isinstance(content, dict) or content.get("kind") != "hpml_sim.Chips":
            raise HpmlError(f"{str(path)!r} is not a file of Chips.save")
        if content["format"] != FORMAT:
            raise HpmlError(
                f"{str(path)!r} has format {content['format']}, this version reads {FORMAT}; "
                "program the chips again from the model and their seed"
            )
        ours, theirs = analog_layers(model), content["settings"]
        if list(ours) != list(theirs):
            raise HpmlError(f"{str(path)!r} has the analog layers {list(theirs)}, the model has {list(ours)}")
        for name, crossbar in ours.items():
            if (mine := _settings(crossbar)) != (saved := theirs[name]):
                different = sorted(key for key in mine.keys() | saved.keys() if mine.get(key) != saved.get(key))
                raise HpmlError(f"{str(path)!r}, layer {name!r}: saved with other settings ({', '.join(different)})")
        network = _frozen(model)
        try:
            network.load_state_dict(content["network"])
        except RuntimeError as error:
            raise HpmlError(f"{str(path)!r} is of another model: {' '.join(str(error).split())}") from None
        count, seed = content["chips"], content["seed"]
        chips = _FusedChips.program(network, count, seed)
        if not all(torch.equal(chips.layers[name].baseline, saved) for name, saved in content["baseline"].items()):
            raise HpmlError(
                f"{str(path)!r} was saved by {content['made_with']}; {_made_with()} here draws other devices from its "
                "seed. Load it there, or program the model again"
            )
        return cls(chips, count, seed)


def program(model: nn.Module, chips: int = 25, seed: int = 0) -> Chips:
    """Program the weights of a model onto chips. The model is not changed, and may be trained further.

    Args:
        model: a converted model with analog layers.
        chips: how many, >= 1.
        seed: of everything that is random in the chips; chip i is the same for any number of chips.

    Returns:
        The chips; `.at(time)` runs them.

    Raises:
        HpmlError: a model without analog layers, weights that are not finite, or an argument out of range.
        ImportError: the card's noise model needs aihwkit, which is missing or broken.
    """
    seed = checked_seed(seed)
    if isinstance(chips, bool) or not isinstance(chips, int) or chips < 1:
        raise HpmlError(f"chips={chips!r}: must be an integer >= 1; for example chips=25")
    analog_layers(model)
    network = _frozen(model)
    for name in crossbars(network):
        if not bool(torch.isfinite(_matrix(network, name)).all()):
            raise HpmlError(f"layer {name!r}: weights are NaN or infinite; nothing was programmed")
    engines = {crossbar.target.engine for crossbar in crossbars(network).values()}
    if engines == {"aihwkit"}:
        return Chips(AihwkitBackend(network, chips, seed), chips, seed)
    if len(engines) > 1:
        raise HpmlError(
            "layers of engine='fused' and of engine='aihwkit' cannot be programmed together; take one engine"
        )
    return Chips(_FusedChips.program(network, chips, seed), chips, seed)


@torch.no_grad()
def _program_layer(crossbar: Crossbar, weight: Tensor, chips: int, seed: int, index: int) -> _ProgrammedLayer:
    # on the CPU and in float32: the same bits on every machine
    blocks = crossbar.blocks(crossbar.effective(weight)).float().cpu()
    scale = crossbar.full_scale(blocks)
    model: DeviceModel = crossbar.devices()
    target = model.conductances(crossbar.cells(blocks / scale.unsqueeze(-1)))
    devices = model.program(
        target, [derive(seed, Purpose.PROGRAMMING, layer=index, chip=chip) for chip in range(chips)]
    )
    baseline = torch.empty((chips, *target.shape[1:-1]))
    for chip in range(chips):
        g_us = devices.programmed(chip)
        _stick(crossbar, model, g_us, derive(seed, Purpose.FAULTS, layer=index, chip=chip))
        net = model.weights(g_us)
        baseline[chip] = _readout(crossbar, net, derive(seed, Purpose.BASELINE, layer=index, chip=chip))
    return _ProgrammedLayer(devices, crossbar.cell_scale(scale), baseline)


def _stick(crossbar: Crossbar, model: DeviceModel, g_us: Tensor, seed: int) -> None:
    """Put the stuck devices of one chip where they are at any time; in place."""
    model.apply_stuck_faults(g_us, crossbar.target.stuck_at_g_min, crossbar.target.stuck_at_g_max, seed)


@torch.no_grad()
def _readout(crossbar: Crossbar, weight: Tensor, seed: int) -> Tensor:
    """Mean absolute read-out of each tile ("global") or column, (groups, row tiles, cols).

    Each row in turn gets a full-scale input, through the converters with their noise.
    Source: aihwkit's `GlobalDriftCompensation` and `PerColumnDriftCompensation`.
    """
    shape, columns = crossbar.shape, crossbar.readout(weight, seed)
    if crossbar.target.compensation == "global":
        columns = columns.unflatten(-1, (-1, shape.cols))  # the slices of a weight lie on one tile
        tiles = [
            # float64: CPUs add in different orders, and files of chips compare the result
            part.mean((-2, -1), keepdim=True, dtype=torch.float64).float().expand_as(part)
            for part in columns.split(shape.tile_cols, -1)
        ]
        columns = torch.cat(tiles, -1).flatten(-2)
    return columns.clamp(min=_FLOOR)


def _tell_chips(network: nn.Module, chips: int) -> None:
    """What folds time between chips and batch must know the chips."""
    spiking = sys.modules.get("hpml_sim.spiking.state")  # where it was never imported, no such network exists
    if spiking is not None:
        for module in network.modules():
            if isinstance(module, (spiking.TimeFolded, spiking.StatefulNetwork)):
                module.chips = chips  # pyright: ignore[reportArgumentType] - a property or a number, not a submodule


def _made_with() -> str:
    """The versions that decide what a seed draws."""
    names = ("hpml_sim", "torch", "aihwkit")
    found = {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name) is not None}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _settings(crossbar: Crossbar) -> dict[str, Any]:
    """What chips depend on beside the weights, as plain values."""
    return {**asdict(crossbar.target), **asdict(crossbar.shape), "noise": crossbar.noise.model_dump()}


def _matrix(network: nn.Module, name: str) -> Tensor:
    """The weights of an analog layer as its crossbar takes them, (outputs, rows)."""
    layer: Any = network.get_submodule(name)
    return layer.matrix()


def _frozen(model: nn.Module) -> nn.Module:
    """A private copy for evaluation."""
    return _copy(model, share=False).requires_grad_(False).eval()


def _copy(model: nn.Module, *, share: bool) -> nn.Module:
    """A copy of the modules; with `share` its parameters and buffers are the same tensors."""
    memo = {id(t): t for t in (*model.parameters(), *model.buffers())} if share else {}
    return clone(model, memo)


def load_chips(path: str | Path, model: nn.Module) -> Chips:
    """`Chips.load`."""
    return Chips.load(path, model)


def save_chips(chips: Chips, path: str | Path) -> None:
    """`Chips.save`."""
    chips.save(path)
