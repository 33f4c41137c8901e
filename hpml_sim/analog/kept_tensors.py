"""Tensors that a network or its hooks keep beyond a call: states, caches, recorded activations.

A network that runs for all chips at once must find in its attributes, at the next call, what it left there, chip by
chip; whoever reads them between calls finds ordinary tensors with the chips in front.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils._pytree import tree_leaves

from hpml_sim.conversion.idle_layers import work_of

_SKIP = frozenset(vars(nn.Module())) | {"programmed"}
"""Attributes that every module has, and the conductances of a crossbar."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_GLOBAL_HOOKS = ("_global_forward_pre_hooks", "_global_forward_hooks")
_NOTHING_IN = (
    *(str, bytes, int, float, complex, type(None), type, types.ModuleType, types.FunctionType, nn.Module),
    nn.Parameter,
)
_PLAIN = (str, bytes, int, float, complex, type(None))
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
        elif isinstance(self.holder, list) and self.key == len(self.holder):
            self.holder.append(value)
        else:
            self.holder[self.key] = value


def places(network: nn.Module) -> dict[Path, Place]:
    """All places that hold tensors beside the parameters, by a path that is the same in a copy of the network.

    Args:
        network: any network.
    """
    return _search(network).places


@dataclass
class _Search:
    """What lies in the attributes of a network and in what its hooks reach.

    Attributes:
        places: those that hold tensors.
        containers: lists and dicts on the way, and whether the network itself holds them.
        seen: ids of what was visited.
    """

    places: dict[Path, Place] = field(default_factory=dict)
    containers: list[tuple[Any, bool]] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def walk(self, holder: Any, key: Any, path: Path, own: bool) -> None:
        """Look at one place, and at what lies in it."""
        place = Place(holder, key, own)
        value = place.value
        if isinstance(value, _NOTHING_IN):
            return
        if isinstance(value, Tensor) or (isinstance(value, tuple) and any(isinstance(part, Tensor) for part in value)):
            self.places[path] = place
            return
        if id(value) in self.seen:
            return
        self.seen.add(id(value))
        inside = value
        if isinstance(value, list):
            keys: list[Any] = list(range(len(value)))
        elif isinstance(value, dict):
            keys = list(value)
        elif type(value).__module__.partition(".")[0] == "hpml_sim" or not isinstance(
            getattr(value, "__dict__", None), dict
        ):
            return
        else:
            inside = vars(value)
            keys = list(inside)
        self.containers.append((inside, own))
        for one in keys:
            self.walk(inside, one, (*path, one), own)


def _search(network: nn.Module) -> _Search:
    found = _Search()
    hooks: list[Any] = [hook for name in _GLOBAL_HOOKS for hook in getattr(torch_module, name).values()]
    for name, module in network.named_modules():
        for key in vars(module):
            if key not in _SKIP:
                found.walk(vars(module), key, (name, key), True)
        for key in module._buffers:
            found.walk(module._buffers, key, (name, key), True)
        hooks += [hook for kind in _HOOKS for hook in getattr(module, kind).values()]
    for hook in hooks:
        for holder, key in _reached(hook):
            found.walk(holder, key, ("hook", id(holder), key), False)
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
    """What a network and its hooks kept at one moment.

    Attributes:
        attributes: by module, its attributes and its buffers.
        containers: lists and dicts in them, what was in each, and whether the network itself holds them.
        marks: by place, the place, what lay there, and how often it had been written to.
        copies: by place of the network, a copy of what lay there, if asked for.
    """

    attributes: dict[nn.Module, tuple[dict[str, Any], dict[str, Any]]]
    containers: list[tuple[Any, Any, bool]]
    marks: dict[Path, tuple[Place, Any, int]]
    copies: dict[Path, Any]

    @classmethod
    def of(cls, network: nn.Module, *, copies: bool = False) -> Snapshot:
        """What the network and its hooks keep now.

        Args:
            network: any network.
            copies: whether tensors are copied, so that `restore` undoes what is written into them.
        """
        found = _search(network)
        own = {path: place.value for path, place in found.places.items() if place.of_network and copies}
        return cls(
            {module: (dict(vars(module)), dict(module._buffers)) for module in network.modules()},
            [(container, container.copy(), own) for container, own in found.containers],
            {path: (place, place.value, _writes(place.value)) for path, place in found.places.items()},
            {path: map_tensors(torch.clone, value) for path, value in own.items()},
        )

    def restore(self) -> None:
        """Put back what was kept; what was written into tensors stays written where there are no copies."""
        for path, copied in self.copies.items():
            _, value, writes = self.marks[path]
            if _writes(value) != writes:
                pairs = zip(_parts(value), _parts(copied), strict=True)
                _ = [now.copy_(then) for now, then in pairs if isinstance(now, Tensor)]
        for module, (attributes, buffers) in self.attributes.items():
            for now, then in ((vars(module), attributes), (module._buffers, buffers)):
                now.clear()
                now.update(then)
        self._restore(own=True)
        self.restore_hooks()

    def restore_hooks(self) -> None:
        """Put back what the hooks kept, and leave the network as it is."""
        self._restore(own=False)

    def _restore(self, own: bool) -> None:
        for container, content, of_network in self.containers:
            if of_network == own:
                container.clear()
                container.extend(content) if isinstance(container, list) else container.update(content)
        for place, value, _ in self.marks.values():
            if place.of_network == own and place.key is None:
                place.put(value)

    def changed(self, network: nn.Module) -> dict[Path, tuple[Place, Any]]:
        """What the network and its hooks keep since then: whole attributes of modules, single values of hooks.

        Args:
            network: the network that it was made of.
        """
        modules = dict(network.named_modules())
        found: dict[Path, tuple[Place, Any]] = {}
        for path, place in places(network).items():
            before = self.marks.get(path)
            if before is not None and before[1] is place.value and before[2] == _writes(place.value):
                continue
            if place.of_network:
                whole = Place(attribute_holder(modules[path[0]], path[1]), path[1], of_network=True)
                found[path[:2]] = (whole, whole.value)
            else:
                found[path] = (place, place.value)
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
        own = {path: mark for path, mark in self.marks.items() if mark[0].of_network}
        later = {path: place.value for path, place in places(network).items() if place.of_network}
        return own.keys() != later.keys() or any(
            value is not own[path][1] or _writes(value) != own[path][2] for path, value in later.items()
        )


def _writes(value: Any) -> int:
    """How often the tensors of a place were written to."""
    return sum(part._version for part in _parts(value) if isinstance(part, Tensor) and not part.is_inference())


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def copy_plain_attributes(source: nn.Module, network: nn.Module) -> None:
    """Give a network the numbers, texts and containers of such that a copy of it holds by now, such as counters.

    Args:
        source: the copy, which has run.
        network: gets them.
    """
    copies = dict(source.named_modules())
    for name, module in network.named_modules():
        own = vars(module)
        for key, value in vars(copies[name]).items():
            leaves = [] if key in _SKIP else tree_leaves(value)
            if leaves and all(isinstance(leaf, _PLAIN) for leaf in leaves) and own.get(key, module) != value:
                own[key] = value


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
    memo.update({id(work): work for work in work_of(network).values()})
    memo.update(chosen)
    return memo
