"""Configurations that cannot be wrong: what is not allowed is refused when they are built, by an `HpmlError`.

pydantic checks the values; this file turns what it says into one line of ours, whether a configuration is built in
Python, read from a TOML file or made from the command line.
"""

from __future__ import annotations

import difflib
import functools
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from hpml_sim.errors import HpmlError, UnknownNameError

_Class = TypeVar("_Class")
_CONFIG = ConfigDict(extra="forbid", validate_default=True)


def _plain_number(value: object) -> object:
    """numpy's numbers as Python's; a truth value is no number, although Python counts with it."""
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        raise ValueError("must be a number, not a truth value")
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    return value


Whole = Annotated[int, BeforeValidator(_plain_number), Strict()]
"""A whole number: no text, no truth value."""
Real = Annotated[float, BeforeValidator(_plain_number), Strict(), Field(allow_inf_nan=False)]
"""A finite number: no text, no truth value, no infinity, no NaN."""
Switch = Annotated[bool, Strict()]
"""True or False, and nothing that merely looks like it."""


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def config_class(cls: type[_Class]) -> type[_Class]:
    """Make a class of annotated fields a frozen, checked configuration.

    Args:
        cls: its annotations are the options; unknown options and values out of range raise `HpmlError`.
    """
    made: Any = pydantic_dataclass(frozen=True, config=_CONFIG)(cls)
    build = made.__init__

    @functools.wraps(build)
    def __init__(self: Any, *args: Any, **options: Any) -> None:
        try:
            build(self, *args, **options)
        except ValidationError as error:
            raise _as_ours(made, error, cls.__name__) from None

    made.__init__ = __init__
    return made


def checked(kind: type[_Class], values: Mapping[str, Any] | Any, *, where: str = "") -> _Class:
    """An instance of a configuration class, from its fields by name.

    Args:
        kind: a class made by `config_class`, or a dataclass with `__pydantic_config__`.
        values: a mapping from field to value, or an unchecked instance.
        where: stands before the message, such as the name of a file.

    Raises:
        HpmlError: an unknown field, with the nearest one, or a value out of range or of the wrong type, with its name.
        UnknownNameError: a name that is not in its list, with the nearest one.
    """
    if is_dataclass(values) and not isinstance(values, type):
        values = {f.name: getattr(values, f.name) for f in fields(values)}
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise _as_ours(kind, error, where) from None


def _as_ours(kind: Any, error: ValidationError, where: str) -> HpmlError:
    """One line for all problems; an error of ours that a validator raised stays what it is."""
    problems = error.errors()
    if len(problems) == 1 and isinstance(own := problems[0].get("ctx", {}).get("error"), HpmlError):
        return own
    lines = list(dict.fromkeys(_readable(kind, problem) for problem in problems))
    return HpmlError(f"{where}: {'; '.join(lines)}" if where else "; ".join(lines))


def _readable(kind: Any, problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    names = [part for part in path if part.isidentifier() and part not in _BRANCHES]
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = [f.name for f in fields(_class_at(kind, path[:-1])) if f.name != "_"]
        return f"{'.'.join(path)}: unknown option; {_guess(path[-1], allowed)}"
    if problem["type"] == "unexpected_positional_argument":
        return f"{problem['input']!r}: only the card is given by position; name the option, as in option={problem['input']!r}"
    if problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{'.'.join(names)}: missing; give it{_choices_of(kind, names)}"
    shown = f"={_short(problem['input'])}"
    return f"{'.'.join(names)}{shown}: {_message(problem)}" if names else _message(problem)


def _message(problem: Any) -> str:
    if problem["type"] == "literal_error":
        allowed = [part.strip().strip("'") for part in problem["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return f"unknown; {_guess(str(problem['input']), allowed)}"
    if problem["type"] == "tuple_type":
        return "must be a list"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if message == problem["msg"]:
        return f"{message[:1].lower()}{message[1:]}"
    return message if message.startswith("must") else f"must be {message}"


def _guess(name: str, allowed: Iterable[str]) -> str:
    known = list(allowed)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


def _short(value: object) -> str:
    """A value as people wrote it, cut where it is long."""
    text = (
        repr(value)
        if isinstance(value, (str, int, float, bool, tuple, list, dict, type(None)))
        else type(value).__name__
    )
    return text if len(text) <= 60 else f"{text[:57]}..."


def _class_at(kind: Any, path: list[str]) -> Any:
    """The configuration class that a path of fields leads to; the outermost one where a field is of several kinds."""
    for name in path:
        hint = get_type_hints(kind, include_extras=False).get(name)
        inner = [part for part in (hint, *get_args(hint)) if is_dataclass(part)]
        if len(inner) == 1:
            kind = inner[0]
    return kind


def _choices_of(kind: Any, names: list[str]) -> str:
    """What a missing option may be, where it is one of a list."""
    hint = get_type_hints(_class_at(kind, names[:-1]), include_extras=False).get(names[-1]) if names else None
    choices = [part for part in get_args(hint) if isinstance(part, str)]
    return f", one of {', '.join(choices)}" if choices else ""


_BRANCHES = frozenset({"int", "float", "str", "tuple", "Range", "Analog", "InMemory", "Leaky", "Synaptic", "Adaptive"})
"""What pydantic adds to the path of a field for the member of a union that it tried."""


def one_of(known: Iterable[str], what: str) -> Callable[[object], object]:
    """A validator that refuses a text outside a list by an `UnknownNameError`, which guesses the nearest one.

    Args:
        known: the names that are allowed.
        what: what the names stand for, in the message.
    """
    names = tuple(known)

    def check(value: object) -> object:
        if isinstance(value, str) and value not in names:
            raise UnknownNameError(what, value, names)
        return value

    return check
