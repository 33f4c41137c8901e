"""Tensors that a network or its hooks keep beyond a call: states, caches, recorded activations.

A network that runs for all chips at once must find in its attributes, at the next call, what it left there, chip by
chip; whoever reads them between calls finds ordinary tensors with the chips in front.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module

_SKIP = frozenset(vars(nn.Module())) | {"programmed"}
"""Attributes that every module has, and the conductances of a crossbar."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")
Path = tuple[Any, ...]


@dataclass(frozen=True)
class Place:
    """A place that holds a tensor, or a tuple with tensors in it.

    Attributes:
        holder: a dict, a list, or the cell of a closure.
        key: where in the holder; None for a cell.
        of_network: whether the network itself holds it, and may read it in its next call; a hook's is only written.
    """

    holder: Any
    key: Any
    of_network: bool

    @property
    def value(self) -> Any:
        """What lies there."""
        return self.holder.cell_contents if self.key is None else self.holder[self.key]

    def put(self, value: Any) -> None:
        """Replace what lies there.

        Args:
            value: takes its place.
        """
        if self.key is None:
            self.holder.cell_contents = value
        else:
            self.holder[self.key] = value


def places(network: nn.Module) -> dict[Path, Place]:
    """All places that hold tensors beside the parameters, by a path that is the same in a copy of the network.

    Args:
        network: any network.
    """
    found: dict[Path, Place] = {}
    seen: set[int] = set()
    hooks: list[Any] = [hook for name in _GLOBAL_HOOKS for hook in getattr(torch_module, name).values()]
    for name, module in network.named_modules():
        for key in vars(module):
            if key not in _SKIP:
                _walk(vars(module), key, (name, key), True, found, seen)
        for key in module._buffers:
            _walk(module._buffers, key, (name, key), True, found, seen)
        hooks += [hook for kind in _HOOKS for hook in getattr(module, kind).values()]
    for hook in hooks:
        for holder, key in _reached(hook):
            _walk(holder, key, ("hook", id(holder), key), False, found, seen)
    return found


def _reached(hook: Any) -> Iterator[tuple[Any, Any]]:
    """Where a hook can keep something: its closure, its defaults, the globals it names, its object."""
    while hasattr(hook, "func"):  # functools.partial
        yield from ((holder, index) for holder in ([*hook.args],) for index in range(len(holder)))
        hook = hook.func
    owner = getattr(hook, "__self__", hook)
    if not isinstance(owner, (types.FunctionType, types.ModuleType, nn.Module)) and hasattr(owner, "__dict__"):
        yield from ((vars(owner), key) for key in list(vars(owner)))
    function = getattr(hook, "__func__", hook)
    if not isinstance(function, types.FunctionType):
        return
    for cell in function.__closure__ or ():
        try:
            cell.cell_contents  # noqa: B018 - an empty cell raises
        except ValueError:
            continue
        yield cell, None
    yield from ((list(function.__defaults__ or ()), index) for index in range(len(function.__defaults__ or ())))
    names = function.__code__.co_names
    yield from ((function.__globals__, name) for name in names if name in function.__globals__)


def _walk(holder: Any, key: Any, path: Path, own: bool, found: dict[Path, Place], seen: set[int]) -> None:
    place = Place(holder, key, own)
    value = place.value
    if isinstance(value, (str, bytes, int, float, complex, type(None), type, types.ModuleType, nn.Module)):
        return
    if isinstance(value, nn.Parameter):
        return
    if isinstance(value, Tensor) or (isinstance(value, tuple) and any(isinstance(part, Tensor) for part in value)):
        found[path] = place
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    inside = value
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    elif type(value).__module__.partition(".")[0] == "hpml_sim" or not isinstance(getattr(value, "__dict__", 0), dict):
        return
    else:
        inside, keys = vars(value), list(vars(value))
    for one in keys:
        _walk(inside, one, (*path, one), own, found, seen)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """A value of a place with its tensors replaced.

    Args:
        function: tensor -> tensor.
        value: a tensor, or a tuple.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        parts = [map_tensors(function, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def attribute_holder(module: nn.Module, key: str) -> dict[str, Any]:
    """The dict in which a module holds an attribute.

    Args:
        module: the module.
        key: name of the attribute.
    """
    return module._buffers if key in module._buffers else vars(module)


@dataclass(frozen=True)
class Snapshot:
    """What the attributes of a network held at one moment; `restore` puts it back, `differs` compares.

    Attributes:
        attributes: by module, its attributes and its buffers.
        marks: by place, which object lay there and how often it had been written to.
    """

    attributes: dict[nn.Module, tuple[dict[str, Any], dict[str, Any]]]
    marks: dict[Path, tuple[Any, int]]

    @classmethod
    def of(cls, network: nn.Module) -> Snapshot:
        """The attributes of a network as they are now.

        Args:
            network: any network.
        """
        attributes = {module: (dict(vars(module)), dict(module._buffers)) for module in network.modules()}
        return cls(attributes, {path: _mark(place.value) for path, place in places(network).items()})

    def restore(self) -> None:
        """Put back what the attributes held; what was written into tensors stays written."""
        for module, (attributes, buffers) in self.attributes.items():
            vars(module).clear()
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)

    def changed(self, network: nn.Module) -> dict[Path, Any]:
        """What the network and its hooks keep since then: by path, whole attributes and single values of hooks.

        Args:
            network: the network that it was made of.
        """
        modules = dict(network.named_modules())
        found: dict[Path, Any] = {}
        for path, place in places(network).items():
            if path in self.marks and self.marks[path][0] is place.value:
                continue
            if place.of_network:
                holder = attribute_holder(modules[path[0]], path[1])
                found[path[:2]] = holder[path[1]]
            else:
                found[path] = place.value
        return found

    def differs(self, network: nn.Module) -> bool:
        """Whether a call between then and now has left anything behind in the network.

        Args:
            network: the network that it was made of.
        """
        for module, (attributes, _) in self.attributes.items():
            now = vars(module)
            if now.keys() != attributes.keys() or any(
                now[key] is not value for key, value in attributes.items() if key not in _SKIP
            ):
                return True
        now_marks = {path: _mark(place.value) for path, place in places(network).items()}
        return now_marks.keys() != self.marks.keys() or any(
            value is not self.marks[path][0] or written != self.marks[path][1]
            for path, (value, written) in now_marks.items()
        )


def _mark(value: Any) -> tuple[Any, int]:
    parts = value if isinstance(value, tuple) else (value,)
    return value, sum(
        part._version for part in parts if isinstance(part, Tensor) and not part.is_inference()
    )


def sharing(network: nn.Module, chosen: Mapping[int, Any]) -> dict[int, Any]:
    """A memo for `clone`: a copy shares the parameters, the conductances and the hooks, and has states of its own.

    Args:
        network: the network that is copied.
        chosen: by id of a tensor, what stands for it in the copy.
    """
    memo: dict[int, Any] = {id(parameter): parameter for parameter in network.parameters()}
    for module in network.modules():
        for kind in _HOOKS:
            memo.update({id(hook): hook for hook in getattr(module, kind).values()})
        if (tiles := vars(module).get("programmed")) is not None:
            memo[id(tiles)] = tiles
    memo.update(chosen)
    return memo
