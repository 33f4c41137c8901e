"""Files of chips: save chips and load them again, exactly.

A file holds the weights, the seed and the settings, not the conductances: loading draws the devices again and compares
what drift compensation reads with what was saved. So a file is no larger than the network, for any number of chips.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.calibration import programmable_crossbars
from hpml_sim.analog.chips import Chips
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.fused_backend import FusedBackend, frozen_copy
from hpml_sim.analog.layers import crossbars
from hpml_sim.errors import HpmlError, shown
from hpml_sim.errors.files import Kind, check_path, read_tensors, write_tensors

KIND = Kind("hpml_sim.Chips", 4, "chips", "program the chips again from the model and their seed")
"""What the files say of themselves."""
_BASELINE = "baseline."
"""In front of the names of what drift compensation reads; all other tensors are the network's."""


def save_chips(chips: Chips, path: str | Path) -> None:
    """Write chips to a file that `hs.load_chips` reads.

    Args:
        chips: what `hs.program` or `hs.load_chips` gave.
        path: the file, which is overwritten; its folder must exist.

    Raises:
        HpmlError: not chips, chips of engine="aihwkit", chips whose weights a call changed, or a file that cannot be
            written.

    Example:
        >>> import tempfile, torch, hpml_sim as hs
        >>> analog = hs.convert(torch.nn.Linear(8, 4), "pcm-hermes")
        >>> chips = hs.program(analog, chips=2, seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     hs.save_chips(chips, f"{folder}/chips.safetensors")
        ...     same = hs.load_chips(f"{folder}/chips.safetensors", analog)
        >>> x = torch.rand(1, 8)
        >>> torch.equal(same.at("1 day")(x), chips.at("1 day")(x))
        True
    """
    if not isinstance(chips, Chips):
        raise HpmlError(f"save_chips: chips={shown(chips)}: must be what hs.program(model, chips=25) gave")
    backend = chips.backend
    if not isinstance(backend, FusedBackend):
        raise HpmlError(
            "chips of engine='aihwkit' are not saved: aihwkit cannot restore them. Save the model's state_dict; "
            f"program(model, chips={chips.n_chips}, seed={chips.seed}) makes the same chips again"
        )
    for layer in backend.layers.values():
        layer.check_weights()
    tensors = {f"{_BASELINE}{name}": layer.baseline for name, layer in backend.layers.items()}
    tensors |= {f"network.{name}": value for name, value in backend.network.state_dict().items()}
    write_tensors(check_path("save_chips: path", path, "chips.safetensors"), KIND, tensors, _values(backend))


def load_chips(path: str | Path, model: nn.Module) -> Chips:
    """Read chips back, exactly; `model` gives the structure and is not changed.

    The file holds the weights and the seed; the devices are drawn again, and compared with what was saved.

    Args:
        path: a file of `hs.save_chips`.
        model: a model that was converted like the one that was programmed; its weights do not count.

    Raises:
        HpmlError: the file is missing, not of chips, of another format, of another model, card or settings, or of a
            version that draws other devices.

    Example:
        >>> import tempfile, torch, hpml_sim as hs
        >>> analog = hs.convert(torch.nn.Linear(8, 4), "pcm-hermes")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     hs.save_chips(hs.program(analog, chips=2, seed=5), f"{folder}/chips.safetensors")
        ...     chips = hs.load_chips(f"{folder}/chips.safetensors", analog)
        >>> len(chips), chips.seed
        (2, 5)
    """
    file = check_path("load_chips: path", path, "chips.safetensors")
    tensors, content = read_tensors(file, KIND)
    ours, theirs = programmable_crossbars(model, "load_chips"), content["settings"]
    if list(ours) != list(theirs):
        raise HpmlError(f"{str(file)!r} has the analog layers {list(theirs)}, the model has {list(ours)}")
    for name, crossbar in ours.items():
        if (mine := _as_kept(_settings(crossbar))) != (saved := theirs[name]):
            different = sorted(key for key in mine.keys() | saved.keys() if mine.get(key) != saved.get(key))
            raise HpmlError(f"{str(file)!r}, layer {name!r}: saved with other settings ({', '.join(different)})")
    network = frozen_copy(model)
    try:
        network.load_state_dict(_below("network.", tensors))
    except RuntimeError as error:
        raise HpmlError(f"{str(file)!r} is of another model: {' '.join(str(error).split())}") from None
    n_chips, seed = content["chips"], content["seed"]
    backend = FusedBackend.program(network, n_chips, seed)
    # what drift compensation read depends on every device: other devices would hardly read the same
    if not all(torch.equal(backend.layers[name].baseline, saved) for name, saved in _below(_BASELINE, tensors).items()):
        raise HpmlError(
            f"{str(file)!r} was saved by {content['made_with']}; {_made_with()} here draws other devices from its "
            "seed. Load it there, or program the model again"
        )
    return Chips(backend, n_chips, seed)


def _below(start: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without it."""
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _values(backend: FusedBackend) -> dict[str, Any]:
    """What a file of chips holds beside tensors."""
    return {
        "made_with": _made_with(),
        "seed": backend.seed,
        "chips": backend.n_chips,
        "settings": {name: _settings(crossbar) for name, crossbar in crossbars(backend.network).items()},
    }


def _as_kept(settings: dict[str, Any]) -> Any:
    """Settings as a file gives them back."""
    return json.loads(json.dumps(settings))


def _made_with() -> str:
    """The versions that decide what a seed draws."""
    names = ("hpml_sim", "torch", "aihwkit")
    found = {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name) is not None}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _settings(crossbar: Crossbar) -> dict[str, Any]:
    """What chips depend on beside the weights, as plain values."""
    return {**asdict(crossbar.target), **asdict(crossbar.tiling), "noise": crossbar.noise.model_dump()}
