"""The functions and values that the code of a forward() names: read, not run."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn

_DEPTH = 4
"""How many calls deep functions are followed."""


def named_function(name: str, kind: type[nn.Module], scope: FunctionType) -> FunctionType | None:
    """The function that a name stands for, in a class or in the file; torch's own are not looked into.

    Args:
        name: as the code has it, of a function or of a method.
        kind: the class.
        scope: whose code it is.
    """
    found: Any = getattr(kind, name, None)
    found = inspect.unwrap(found) if callable(found) else scope.__globals__.get(name)
    found = inspect.unwrap(found) if callable(found) else found
    return found if isinstance(found, FunctionType) and not found.__module__.startswith("torch") else None


def functions_of_forward(module: nn.Module, *, of_library: bool = False) -> Iterator[FunctionType]:
    """The forward() of a user's module, and what it calls by name in its class and its file.

    Args:
        module: any module; one of torch or of this library has none.
        of_library: whether modules of this library have them as well.
    """
    kind = type(module)
    forward = inspect.unwrap(kind.forward)
    others = ("torch.",) if of_library else ("torch.", "hpml_sim.")
    if not kind.__module__.startswith(others) and isinstance(forward, FunctionType):
        yield from _functions(forward, kind, _DEPTH, set())


def _functions(function: FunctionType, kind: type[nn.Module], depth: int, seen: set[Any]) -> Iterator[FunctionType]:
    if function.__code__ in seen:
        return
    seen.add(function.__code__)
    yield function
    for code in _codes(function.__code__) if depth else ():
        for name in code.co_names:
            if (found := named_function(name, kind, function)) is not None:
                yield from _functions(found, kind, depth - 1, seen)


def values_named(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function finds outside of its arguments: globals, what it closes over, its defaults; each by its name.

    Args:
        function: any function.
    """
    for code in _codes(function.__code__):
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval in function.__globals__:
                yield step.argval, function.__globals__[step.argval]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from zip(arguments[len(arguments) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A piece of code, and those of the functions that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
