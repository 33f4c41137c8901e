"""Options by name that a class does not have: one line of ours in place of a TypeError."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from hpml_sim.errors import UnknownNameError

P = ParamSpec("P")
Self = TypeVar("Self")


def option_names_checked(init: Callable[Concatenate[Self, P], None]) -> Callable[Concatenate[Self, P], None]:
    """An `__init__` that names the option that does not exist, and the nearest one that does.

    Args:
        init: the `__init__` of a class, without `**options` of its own.
    """
    known = [name for name in inspect.signature(init).parameters if name != "self"]

    @functools.wraps(init)
    def checked(self: Self, *args: P.args, **options: P.kwargs) -> None:
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of {type(self).__name__}", name, known)
        init(self, *args, **options)

    return checked
