"""Layers that are said to run on some hardware and never do: named by the first pass that could know."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

_Item = TypeVar("_Item")
_MAX_NAMES = 5
_PASSES = 20
"""So many passes without a product, and a layer is named before the data end."""


@dataclass
class Work:
    """Whether a part of a layer is at work. An object of its own: to note it changes no attribute of the network.

    Attributes:
        multiplied: whether it computed anything since somebody last set this to False.
        named_idle: whether a warning has named it already.
        redirected: whether a product that forward() does by itself was computed by the layer.
        own_weight: memory of the weight that its layer holds, while somebody watches for others; None: nobody does.
        other_weight: whether the layer then multiplied with another one.
    """

    multiplied: bool = False
    named_idle: bool = False
    redirected: bool = False
    own_weight: int | None = None
    other_weight: bool = False


@dataclass(frozen=True)
class ConverterState:
    """How the converters of a part of a layer are set.

    Attributes:
        input_range: how the full scale of its inputs was found; "" until it is known.
        signal_to_error_db: what the converters lose, decibels; None until it is known.
    """

    input_range: str
    signal_to_error_db: float | None


class Multiplier(nn.Module):
    """A part of a layer that computes its product on the hardware, and notes it.

    Attributes:
        work: whether it did.
    """

    work: Work

    def converter_state(self) -> ConverterState:
        """How its converters are set."""
        raise NotImplementedError


def multipliers(network: nn.Module) -> dict[str, Multiplier]:
    """The multipliers of a network by the dotted name of their layer.

    Args:
        network: any network.
    """
    return {
        name.rpartition(".")[0]: module for name, module in network.named_modules() if isinstance(module, Multiplier)
    }


def work_of(network: nn.Module) -> dict[str, Work]:
    """What the multipliers of a network note, by the dotted name of their layer.

    Args:
        network: any network.
    """
    return {name or "network": multiplier.work for name, multiplier in multipliers(network).items()}


class IdleLayers:
    """Watches which multipliers of a network compute nothing, from here on.

    Args:
        network: the network; each multiplier in it begins anew.
        where: function that the caller called, which begins the warning.
    """

    def __init__(self, network: nn.Module, where: str):
        self._where = where
        self._parts = {name: work for name, work in work_of(network).items() if not work.named_idle}
        for work in self._parts.values():
            work.multiplied = False

    def warn(self) -> None:
        """Name those that have computed nothing, each once in its life."""
        idle = [name for name, part in self._parts.items() if not part.multiplied and not part.named_idle]
        if not idle:
            return
        for name in idle:
            self._parts[name].named_idle = True
        # as the report and `skip=` name them
        names = ", ".join(repr(name.removeprefix("network.")) for name in idle[:_MAX_NAMES])
        more = f" and {len(idle) - _MAX_NAMES} more" if len(idle) > _MAX_NAMES else ""
        warnings.warn(
            f"{self._where}: {names}{more}: on crossbars, but no product was computed there: the network did not call "
            "these layers on this input. Where it uses their weights in another way, that is digital: call the layers "
            "themselves, or convert with skip= for them",
            RuntimeWarning,
            stacklevel=3,
        )

    def over(self, passes: Iterable[_Item]) -> Iterator[_Item]:
        """Hand on what each pass is for, and warn when they end, or after the first of many.

        Args:
            passes: one item a pass.
        """
        for number, item in enumerate(passes):
            if number == _PASSES:
                self.warn()
            yield item
        self.warn()
