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


def check_input(crossbar: Crossbar, x: Tensor, channels: int, dim: int) -> int:
    """Check the input of a layer.

    Args:
        crossbar: the layer's.
        x: its input.
        channels: values that `x` must have in a dimension.
        dim: that dimension.

    Returns:
        How many chips lie in the batch.

    Raises:
        HpmlError: `x` has another number of channels, or a batch that is not a multiple of the chips; or an exporter is
            recording.
    """
    check_not_exporting("a layer on crossbars", "Export the digital network that it was made from")
    if not isinstance(x, Tensor) or x.dim() == 0:
        raise HpmlError(f"analog layer: input {shown(x)}: must be a tensor with {channels} values in dimension {dim}")
    if x.shape[dim] != channels:
        raise HpmlError(f"analog layer: input of shape {tuple(x.shape)} must have {channels} values in dimension {dim}")
    # chips and samples lie in the first dimension: of any other length, rows of different chips would be mixed up
    if crossbar.programmed is not None and x.shape[0] % (crossbar.n_chips * crossbar.programmed.batch):
        raise HpmlError(
            f"analog layer: the first dimension of {tuple(x.shape)} must hold {crossbar.n_chips} chips x "
            f"{crossbar.programmed.batch} samples; keep the batch first in every layer of the network"
        )
    return crossbar.n_chips
