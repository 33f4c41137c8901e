"""What all layers on crossbars share: their crossbars by name, their weights as a matrix, and the check of an input."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.conversion.exporting import check_not_exporting
from hpml_sim.errors import HpmlError, shown
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

    Args:
        model: the network.
        name: dotted name of the layer.
    """
    layer: Any = model.get_submodule(name)
    return layer.matrix()


def check_input(x: Tensor, channels: int, dim: int) -> None:
    """Check the input of a layer.

    Args:
        x: the input.
        channels: values that `x` must have in a dimension.
        dim: that dimension.

    Raises:
        HpmlError: `x` has another number of channels; or an exporter is recording.
    """
    check_not_exporting("a layer on crossbars", "Export the digital network that it was made from")
    if not isinstance(x, Tensor) or x.dim() == 0:
        raise HpmlError(f"analog layer: input {shown(x)}: must be a tensor with {channels} values in dimension {dim}")
    if x.shape[dim] != channels:
        raise HpmlError(f"analog layer: input of shape {tuple(x.shape)} must have {channels} values in dimension {dim}")
