"""What a network returns, taken apart and put together: tensors in lists, dicts, dataclasses and other objects."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hpml_sim.errors import HpmlError


class OutputsDifferError(HpmlError):
    """Chips gave results that cannot be put side by side."""


def map_together(join: Callable[[list[Any]], Any], values: list[Any]) -> Any:
    """One structure from several that are alike.

    Args:
        join: (what stands at one place in each of them) -> what stands there in the result; for tensors and for
            everything that is no container.
        values: structures of tensors in tuples, lists, dicts, dataclasses, named tuples and `ModelOutput`s.
    """
    first = values[0]
    if isinstance(first, PackedSequence):  # its other tensors say where the steps lie, and are the same for all
        return first._replace(data=join([value.data for value in values]))
    if isinstance(first, (tuple, list)) and type(first) in {type(value) for value in values}:
        parts = [map_together(join, list(part)) for part in _equally_long(values)]
        if hasattr(first, "_fields"):
            return type(first)(*parts)
        return type(first)(parts) if type(first) in (tuple, list, torch.Size) else tuple(parts)
    if isinstance(first, Mapping):
        new: Any = copy.copy(first)
        for key in first:
            new[key] = map_together(join, [value[key] for value in values])
        return new
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        new = copy.copy(first)
        for field in dataclasses.fields(first):
            parts = [getattr(value, field.name) for value in values]
            object.__setattr__(new, field.name, map_together(join, parts))
        return new
    if _holds_attributes(first):
        new = copy.copy(first)
        for name in vars(first):
            vars(new)[name] = map_together(join, [vars(value)[name] for value in values])
        return new
    return join(values)


def _equally_long(values: list[Any]) -> Any:
    if len({len(value) for value in values}) > 1:
        raise OutputsDifferError(
            f"programmed chips: the network returned {sorted({len(value) for value in values})} values, not as many "
            "for every chip; let it return as many whatever the values are"
        )
    return zip(*values, strict=True)


def _holds_attributes(value: Any) -> bool:
    """Whether a value is an object of the network's own, such as a cache of keys and values, with tensors in it."""
    if isinstance(value, (Tensor, nn.Module, type)) or callable(value) or not hasattr(value, "__dict__"):
        return False
    return any(isinstance(part, (Tensor, list, tuple, dict)) for part in vars(value).values())


def take_apart(value: Any) -> tuple[list[Tensor], Callable[[list[Tensor]], Any]]:
    """The tensors in a structure, and what puts others in their places.

    Args:
        value: any structure of `map_together`.
    """
    tensors: list[Tensor] = []

    def note(values: list[Any]) -> Any:
        if isinstance(values[0], Tensor):
            tensors.append(values[0])
        return values[0]

    map_together(note, [value])

    def rebuild(others: list[Tensor]) -> Any:
        left = iter(others)
        return map_together(lambda values: next(left) if isinstance(values[0], Tensor) else values[0], [value])

    return tensors, rebuild


def stack_chips(values: list[Any]) -> Any:
    """What several chips returned as one: tensors with the chips in front.

    Args:
        values: what each chip returned.

    Raises:
        HpmlError: tensors of different shapes.
    """
    return map_together(_stacked, values)


def _stacked(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        shapes = dict.fromkeys(tuple(value.shape) for value in values)
        if len(shapes) > 1:
            raise OutputsDifferError(
                f"programmed chips: the network returned tensors of other shapes for other chips, {list(shapes)[:2]}; "
                "let it return one shape whatever the values are (pad it, or give generate() a fixed length)"
            )
        return torch.stack(values)
    try:
        alike = all(bool(value == first) for value in values)
    except Exception:  # whatever an object of the user's raises when it is compared
        alike = False
    if not alike and all(isinstance(value, (bool, int, float)) for value in values):
        return torch.tensor(values)  # numbers that the network read out of tensors
    return first if alike or not isinstance(first, (str, bytes)) else values
