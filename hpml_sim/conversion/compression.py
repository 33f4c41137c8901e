"""What a compressed network notes on its layers: which zeros training keeps, and what weights are stored in.

A compressed network is an ordinary one: zeros and rounded numbers stand in its weights as floating-point values. The
notes say what no value says: that the zeros are to stay, and how many bits a weight takes. They lie on the layer, so
that copies, pickles and conversions carry them; the state dict does not, and holds the weights alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import nn

Numbers = Literal["int8", "int8-weights", "int4", "fp8", "fp4", "ternary"]
"""Formats of numbers. Of "int8" and "fp8" a layer's inputs are rounded as well, of all others the weights alone."""
_BITS: dict[Numbers, float] = {"int8": 8, "int8-weights": 8, "int4": 4, "fp8": 8, "fp4": 4, "ternary": 2}
SCALE_BITS = 16
"""Bits of a scale in memory."""
_NOTE = "_compression"


@dataclass(frozen=True)
class NumberFormat:
    """How weights are stored.

    Attributes:
        numbers: the format.
        group: weights of an output that share a scale; None: all of them.
        weight_bits: of a weight with its sign, where an integer has not those of the format's name.
        input_bits: of an input of a layer, where it has not those of the format's name.
    """

    numbers: Numbers
    group: int | None = None
    weight_bits: int | None = None
    input_bits: int | None = None

    def bits(self, inputs: int) -> float:
        """Bits of a weight in memory, with its share of a scale.

        Args:
            inputs: weights of one output.
        """
        return (self.weight_bits or _BITS[self.numbers]) + SCALE_BITS / min(self.group or inputs, inputs)

    @property
    def arithmetic(self) -> Literal["", "int8", "fp8"]:
        """What products are computed in; "": the machine's own floating point, since only weights are rounded."""
        return self.numbers if self.numbers in ("int8", "fp8") else ""


@dataclass(frozen=True)
class Compression:
    """What is noted of one weight.

    Attributes:
        zeros: training keeps the zeros that are in it.
        numbers: what it is stored in; None: nothing but floating point.
    """

    zeros: bool = False
    numbers: NumberFormat | None = None


class Compressed(NamedTuple):
    """A weight with a note.

    Attributes:
        layer: dotted name of its layer.
        module: the layer.
        parameter: its own name in the layer.
        note: what is noted.
    """

    layer: str
    module: nn.Module
    parameter: str
    note: Compression


def notes_of(module: nn.Module) -> dict[str, Compression]:
    """What is noted of a layer's own weights, by their names.

    Args:
        module: any layer.
    """
    return dict(vars(module).get(_NOTE, {}))


def note(module: nn.Module, parameter: str, *, zeros: bool = False, numbers: NumberFormat | None = None) -> None:
    """Note something of a weight, beside what is noted already.

    Args:
        module: its layer.
        parameter: its own name in the layer.
        zeros: training is to keep its zeros.
        numbers: what it is stored in.
    """
    own = notes_of(module)
    before = own.get(parameter, Compression())
    own[parameter] = replace(before, zeros=before.zeros or zeros, numbers=numbers or before.numbers)
    vars(module)[_NOTE] = own


def compressed(model: nn.Module) -> Iterator[Compressed]:
    """All weights of a network of which something is noted.

    Args:
        model: any network.
    """
    for name, module in model.named_modules():
        for parameter, own in notes_of(module).items():
            if module._parameters.get(parameter) is not None:
                yield Compressed(name, module, parameter, own)


def is_quantized(model: nn.Module) -> bool:
    """Whether weights of a network are stored in fewer bits.

    Args:
        model: any network.
    """
    return any(one.note.numbers is not None for one in compressed(model))
