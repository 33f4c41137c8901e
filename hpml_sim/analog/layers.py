"""What all layers on crossbars share: their crossbars by name, their weights as a matrix, and the check of an input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.conversion.exporting import check_not_exporting
from hpml_sim.counting.torch_operations import storage_of
from hpml_sim.errors import HpmlError, check_switch, check_whole, shown
from hpml_sim.kernels.common.vmapping import is_mapped
from hpml_sim.targets import Analog


def as_analog(card: str | Analog) -> Analog:
    """An analog target from a target, or from a card.

    Args:
        card: a configuration, which is returned as it is, or a crossbar card's name or path.

    Raises:
        UnknownNameError: no card has this name.
        HpmlError: another target, or a card of another kind.
    """
    return card if isinstance(card, Analog) else Analog(card)


_SIZES = (
    "in_features",
    "out_features",
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "dilation",
    "groups",
    "input_size",
    "hidden_size",
    "num_layers",
)
_SWITCHES = ("bias", "batch_first", "bidirectional")


@contextmanager
def torch_arguments(
    layer: nn.Module, names: Sequence[str], args: Sequence[object], kwargs: Mapping[str, object]
) -> Iterator[None]:
    """Around the constructor of torch's layer: what it refuses becomes one line that names the class.

    Args:
        layer: the analog layer that is made.
        names: of the first arguments by position.
        args: arguments by position.
        kwargs: arguments by name.

    Raises:
        HpmlError: a size that is no whole number >= 1, a switch that is neither True nor False, a target by another
            name than `card`, or what torch refuses.
    """
    kind = type(layer).__name__
    for name in ("target", "config"):
        if name in kwargs:
            raise HpmlError(f"{kind}: {name}={shown(kwargs[name])}: give the card or the configuration as card=")
    for name, value in (dict(zip(names, args, strict=False)) | dict(kwargs)).items():
        if name in _SIZES:
            for size in value if isinstance(value, (tuple, list)) else (value,):
                check_whole(f"{kind}: {name}", size, low=1)
        elif name in _SWITCHES:
            check_switch(f"{kind}: {name}", value)
    try:
        yield
    except HpmlError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, AssertionError, ZeroDivisionError) as error:
        said = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise HpmlError(f"{kind}: {said}; its arguments are those of torch's layer, and card=") from error


def crossbars(model: nn.Module) -> dict[str, Crossbar]:
    """All crossbars of a model by the dotted name of their layer, in the order of the model.

    Args:
        model: any network.
    """
    return {name.rpartition(".")[0]: module for name, module in model.named_modules() if isinstance(module, Crossbar)}


def has_analog_layers(model: nn.Module) -> bool:
    """Whether any layer of the model lies on crossbars.

    Args:
        model: any network.
    """
    return bool(crossbars(model))


def weight_matrix(model: nn.Module, name: str) -> Tensor:
    """The weights of an analog layer as its crossbar takes them, shape (groups * cols, rows).

    Where FSDP has spread them over processes they are collected, which all processes must do together.

    Args:
        model: the network.
        name: dotted name of the layer.
    """
    layer: Any = model.get_submodule(name)
    return gathered(layer.matrix())


def gathered(matrix: Tensor) -> Tensor:
    """A matrix whole, where FSDP has spread it over processes; else as it is.

    Args:
        matrix: a layer's weights.
    """
    sharded = sys.modules.get("torch.distributed.tensor")  # where it was never imported, nothing is spread
    if sharded is not None and isinstance(matrix, sharded.DTensor):
        return matrix.full_tensor()  # type: ignore[no-any-return]
    return matrix


def check_programmed_weights(network: nn.Module) -> None:
    """Compare the weights of a network with those that were programmed, all their values.

    Args:
        network: its layers on programmed chips.

    Raises:
        WeightsDifferError: chips hold another weight.
    """
    for name, crossbar in crossbars(network).items():
        if crossbar.programmed is not None:
            layer: Any = network.get_submodule(name)
            crossbar.programmed.weights.check_values(layer.weight)


def check_input(crossbar: Crossbar, x: Tensor, channels: int, dim: int, weight: Tensor) -> None:
    """Check the input of a layer, and where chips are programmed, whether they hold its weight.

    Args:
        crossbar: of the layer.
        x: the input.
        channels: values that `x` must have in a dimension.
        dim: that dimension.
        weight: what the layer would multiply with.

    Raises:
        WeightsDifferError: chips hold another weight.
        HpmlError: `x` is of another type than the layer, or has another number of channels; an exporter is recording;
            or a `torch.vmap` of the network's own hides its values in training or calibration.
    """
    check_not_exporting("a layer on crossbars", "Export the digital network that it was made from")
    if crossbar.programmed is None and is_mapped(x) and (crossbar.training or crossbar.calibrating is not None):
        raise HpmlError(
            "analog layer: it was called under a torch.vmap of the network's own, which hides the values that set its "
            "ranges; call it on the whole batch, or train the digital network and convert that"
        )
    if not isinstance(x, Tensor) or x.dim() == 0:
        raise HpmlError(f"analog layer: input {shown(x)}: must be a tensor with {channels} values in dimension {dim}")
    # under autocast, layers of several types meet
    if x.dtype != (dtype := crossbar.input_range.dtype) and not torch.is_autocast_enabled(x.device.type):
        raise HpmlError(f"analog layer: input of {x.dtype}: must be of {dtype}, as the layer is; give x.to({dtype})")
    if x.shape[dim] != channels:
        raise HpmlError(f"analog layer: input of shape {tuple(x.shape)} must have {channels} values in dimension {dim}")
    if crossbar.programmed is not None:
        crossbar.programmed.weights.check(weight)
    elif (own := crossbar.work.own_weight) is not None and own != storage_of(weight):
        crossbar.work.other_weight = True
