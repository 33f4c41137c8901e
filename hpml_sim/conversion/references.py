"""Other objects in place of some, wherever a network keeps them: in lists, plain objects, closures, bound methods.

A network refers to its layers not only as its children. minGPT calls them through a lambda that it keeps, others keep
them in a plain list, or a bound method of one. What stands in the place of a layer must stand there everywhere, or the
network goes on with the old one.
"""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_ATOMS = (type(None), bool, int, float, complex, str, bytes, type, types.ModuleType, types.CodeType, torch.dtype)


def replace_references(root: nn.Module, new: Mapping[int, Any], memo: dict[int, Any] | None = None) -> None:
    """Put other objects in the place of some, in place, in all that a private network keeps.

    Modules, lists, dicts, sets and plain objects are changed. Tuples, partials, bound methods and functions are made
    anew where they refer to one of the objects: so a function that others keep as well stays as it was.

    Args:
        root: a private network.
        new: by the id of an object, what takes its place. The objects must be alive.
        memo: the memo of the `copy.deepcopy` that made `root`, where functions in it still refer to the original: what
            only they hold is then copied before it is changed. None: all that is reached is private.
    """
    _Replacement(new, memo).run(root)


class _Replacement:
    """One run of `replace_references`."""

    def __init__(self, new: Mapping[int, Any], memo: dict[int, Any] | None):
        self._new = {key: value for key, value in new.items() if id(value) != key}
        self._memo = memo
        self._copied = {id(value) for value in (memo or {}).values()}
        self._placed = {id(value) for value in self._new.values()}
        self._kept: list[Any] = []  # made here: an id counts only as long as its object lives
        # what the copy shares with the original on purpose stays as it is
        self._done: dict[int, Any] = {key: value for key, value in (memo or {}).items() if key == id(value)}
        self._waiting: list[Any] = []
        self._seen: set[int] = set()
        self._refers: dict[int, bool] = {}

    def run(self, root: Any) -> None:
        if not self._new:
            return
        self._later(root)
        while self._waiting:  # not by recursion: graphs of objects can be deeper than Python's stack
            self._inside(self._waiting.pop())

    def _later(self, container: Any) -> None:
        if id(container) not in self._seen:
            self._seen.add(id(container))
            self._kept.append(container)
            self._waiting.append(container)

    def _inside(self, container: Any) -> None:
        """Replace what a mutable container holds."""
        if isinstance(container, dict):
            changed = {key: (self._of(key), self._of(value)) for key, value in container.items()}
            if any(key is not k for key, (k, _) in changed.items()):  # a key changed: keep the order
                container.clear()
                container.update(changed.values())
            else:
                for key, (_, value) in changed.items():
                    if container[key] is not value:
                        container[key] = value
        elif isinstance(container, list):
            for index, value in enumerate(container):
                if (other := self._of(value)) is not value:
                    container[index] = other
        elif isinstance(container, set):
            others = [self._of(value) for value in container]
            if any(other not in container for other in others):
                container.clear()
                container.update(others)
        else:
            if isinstance(container, nn.Module):
                self._keep_watchers(container)
            self._later(vars(container))

    def _keep_watchers(self, module: nn.Module) -> None:
        """Leave hooks alone that know the network only through an object of the user's: it collects what they see."""
        for name in _HOOKS:
            for hook in vars(module).get(name, {}).values():
                if isinstance(hook, types.FunctionType) and not self._reaches(hook, through_objects=False):
                    self._note(hook, hook)

    def _of(self, value: Any) -> Any:
        """What stands in the place of a value: mostly itself."""
        if isinstance(value, _ATOMS):
            return value
        key = id(value)
        if key in self._new:
            self._later_if_mutable(self._new[key])
            return self._new[key]
        if key in self._done:
            return self._done[key]
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial, weakref.ref)):
            return self._callable(value)
        self._later_if_mutable(value)
        return value

    def _later_if_mutable(self, value: Any) -> None:
        if isinstance(value, (dict, list, set, nn.Module)):
            self._later(value)
        elif _has_attributes(value) and (self._memo is None or id(value) in self._copied):
            self._later(value)  # what was not copied, such as a logger, is others' as well

    def _tuple(self, value: tuple[Any, ...]) -> Any:
        others = [self._of(item) for item in value]
        if all(other is item for other, item in zip(others, value, strict=True)):
            return value
        # a named tuple takes its fields one by one
        return self._note(value, type(value)(*others) if hasattr(value, "_fields") else type(value)(others))

    def _note(self, value: Any, other: Any) -> Any:
        self._kept.append(value)
        self._done[id(value)] = other
        return other

    def _callable(self, value: Any) -> Any:
        if not self._reaches(value):
            return self._note(value, value)
        if isinstance(value, weakref.ref):
            return self._note(value, weakref.ref(self._held(value())))
        if isinstance(value, types.MethodType):
            return self._note(value, _method(value, self._held(value.__self__)))
        if isinstance(value, functools.partial):
            other = functools.partial(
                self._held(value.func),
                *map(self._held, value.args),
                **{name: self._held(given) for name, given in value.keywords.items()},
            )
            other.__dict__.update({name: self._held(kept) for name, kept in vars(value).items()})
            return self._note(value, other)
        return self._function(value)

    def _function(self, value: types.FunctionType) -> types.FunctionType:
        cells = tuple(types.CellType() for _ in value.__closure__ or ())
        other = types.FunctionType(value.__code__, value.__globals__, value.__name__, None, cells or None)
        self._note(value, other)  # before its cells: a function may hold itself
        for cell, own in zip(value.__closure__ or (), cells, strict=True):
            with_content = _content(cell)
            if with_content:
                own.cell_contents = self._held(with_content[0])
        other.__defaults__ = None if value.__defaults__ is None else tuple(map(self._held, value.__defaults__))
        other.__kwdefaults__ = (
            None if value.__kwdefaults__ is None else {k: self._held(v) for k, v in value.__kwdefaults__.items()}
        )
        other.__dict__.update({name: self._held(kept) for name, kept in vars(value).items()})
        other.__qualname__, other.__module__, other.__doc__ = value.__qualname__, value.__module__, value.__doc__
        other.__annotations__ = dict(value.__annotations__)
        return other

    def _held(self, value: Any) -> Any:
        """What a function made anew holds in the place of a value that the old one holds."""
        if isinstance(value, _ATOMS) or not self._reaches(value):
            return value  # nothing of the network: the two share it, as a counter or a list of results
        # copied once is enough: what the copy of a hook holds weakly would be copied for ever
        private = (
            id(value) in self._new
            or id(value) in self._placed
            or id(value) in self._copied
            or isinstance(value, (types.FunctionType, types.MethodType, functools.partial))
        )
        if self._memo is not None and not private and not isinstance(value, (tuple, weakref.ref)):
            try:
                value = copy.deepcopy(value, self._memo)
            except Exception:  # whatever an object of the user's raises: it stays the user's own
                return value
            self._copied = {id(copied) for copied in self._memo.values()}
        return self._of(value)

    def _reaches(self, value: Any, *, through_objects: bool = True) -> bool:
        """Whether a value is, or holds anywhere, one of the objects to replace."""
        known = self._refers.get(id(value)) if through_objects else None
        if known is not None:
            return known
        seen, waiting, found = {id(value)}, [value], False
        while waiting and not found:
            for part in _parts(waiting.pop()):
                if id(part) in self._new:
                    found = True
                    break
                plain = _has_attributes(part) and not isinstance(part, nn.Module)
                if id(part) not in seen and not isinstance(part, _ATOMS) and (through_objects or not plain):
                    seen.add(id(part))
                    self._kept.append(part)
                    waiting.append(part)
        found = found or id(value) in self._new
        self._kept.append(value)
        if through_objects:
            self._refers[id(value)] = found
        return found


def _has_attributes(value: Any) -> bool:
    """Whether it is a plain object or a module, whose attributes may refer to layers."""
    if isinstance(value, (Tensor, *_ATOMS, types.FunctionType, types.MethodType, types.BuiltinFunctionType)):
        return False
    # graphs of operations name their layers; the graph itself holds none
    return isinstance(getattr(value, "__dict__", None), dict) and not type(value).__module__.startswith("torch.fx")


def _parts(value: Any) -> Iterator[Any]:
    """What a value refers to."""
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, (list, tuple, set)):
        yield from value
    elif isinstance(value, weakref.ref):
        yield value()
    elif isinstance(value, types.MethodType):
        yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values(), *vars(value).values())
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            yield from _content(cell)
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        yield from vars(value).values()
    elif _has_attributes(value):
        yield from vars(value).values()


def _content(cell: types.CellType) -> tuple[Any, ...]:
    """What a cell holds, in a tuple; an empty one for a cell without."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _method(method: types.MethodType, owner: Any) -> Any:
    """The method of this name of another object: of its own class where it was the class's, else the same function."""
    name = method.__name__
    if getattr(type(method.__self__), name, None) is method.__func__ and hasattr(type(owner), name):
        return types.MethodType(getattr(type(owner), name), owner)
    return types.MethodType(method.__func__, owner)
