"""Weights that a network uses and torch does not know: layers and tensors in plain lists, closures, globals.

`convert` replaces layers wherever a network keeps them, but only those that are its own: what is neither a child nor a
parameter of a module is not trained, moved or saved with it either. It stays digital, and is named.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.named_functions import functions_of_forward, values_named
from hpml_sim.counting.torch_operations import storage_of

_OWN = frozenset(vars(nn.Module()))
_DEPTH = 8
"""How deep containers in containers are followed."""


@dataclass(frozen=True)
class Outside:
    """One such weight.

    Attributes:
        name: where it is kept, such as "blocks.layers[0]".
        value: a layer with parameters, a parameter, or another tensor of at least two dimensions.
    """

    name: str
    value: nn.Module | Tensor

    def tensors(self) -> Iterator[Tensor]:
        """Its weights."""
        if isinstance(self.value, nn.Module):
            yield from self.value.parameters()
        else:
            yield self.value


def outside_weights(network: nn.Module) -> list[Outside]:
    """What a network keeps or names in its code and torch does not know to be its own.

    Args:
        network: any network.
    """
    search = _Search(network)
    read: set[type] = set()
    for name, module in network.named_modules():
        kind = type(module)
        if kind.__module__.startswith(("torch.", "hpml_sim.", "snntorch.")):  # neurons keep states, no weights
            continue
        for key, value in list(vars(module).items()):
            if key not in _OWN:
                search.walk(f"{name}.{key}".strip("."), value, _DEPTH)
        if kind not in read:
            read.add(kind)
            for function in functions_of_forward(module):
                for key, value in values_named(function):
                    search.walk(key, value, _DEPTH)
    return search.found


class _Search:
    """One search."""

    def __init__(self, network: nn.Module):
        self._modules = {id(module) for module in network.modules()}
        own = (*network.parameters(), *network.buffers())
        self._storages = {storage_of(tensor) for tensor in own}
        self._seen: set[int] = set()
        self.found: list[Outside] = []

    def walk(self, name: str, value: Any, depth: int) -> None:
        """Look at one value, and at what it holds."""
        if value is None or isinstance(value, (str, bytes, int, float, type, types.ModuleType)):
            return
        if id(value) in self._seen or id(value) in self._modules:
            return
        self._seen.add(id(value))
        if isinstance(value, nn.Module):
            if any(parameter.dim() > 1 for parameter in value.parameters()):
                self.found.append(Outside(name, value))
        elif isinstance(value, Tensor):
            if value.dim() > 1 and value.is_floating_point() and storage_of(value) not in self._storages:
                self.found.append(Outside(name, value))
        elif depth:
            for key, part in _parts(value):
                self.walk(f"{name}{key}", part, depth - 1)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, (dict, types.MappingProxyType)):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, functools.partial):
        yield from _parts([value.func, *value.args])
        yield from _parts(value.keywords)
    elif isinstance(value, types.MethodType):
        yield "", value.__self__
    elif isinstance(value, types.FunctionType):
        if not value.__module__.startswith(("torch", "hpml_sim.")):
            yield from ((f".{key}", part) for key, part in values_named(value))
    elif dataclasses.is_dataclass(value):
        yield from ((f".{field.name}", getattr(value, field.name, None)) for field in dataclasses.fields(value))
    elif isinstance(getattr(value, "__dict__", None), dict) and not _foreign(value):
        yield from ((f".{key}", part) for key, part in vars(value).items())


def _foreign(value: Any) -> bool:
    """Whether an object is a library's own, such as a logger or a graph of operations."""
    return type(value).__module__.partition(".")[0] in ("torch", "hpml_sim", "logging", "threading", "aihwkit")


def is_weight(value: object) -> bool:
    """Whether it is certainly a weight: a layer or a parameter. Other tensors can be masks or caches.

    Args:
        value: of an `Outside`.
    """
    return isinstance(value, (nn.Module, torch.nn.Parameter))
