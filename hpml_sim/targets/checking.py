"""Configurations that cannot be wrong: what is not allowed is refused when they are built, by an `HpmlError`.

pydantic checks the values; this file turns what it says into one line of ours, whether a configuration is built in
Python, read from a TOML file or made from the command line.
"""

from __future__ import annotations

import difflib
import functools
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar, dataclass_transform, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError

from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.targets.allowed import choices_of, class_at, hint_at, in_words, only_choices

_Class = TypeVar("_Class")
_CONFIG = ConfigDict(extra="forbid", validate_default=True)


def _plain_number(value: object) -> object:
    """numpy's numbers as Python's; a truth value is no number, although Python and numpy count with it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise PydanticCustomError("not_a_number", "must be a number")
    if isinstance(value, numbers.Integral):
        return int(value)
    try:
        return float(value)
    except OverflowError:  # a fraction beyond the largest float
        return math.inf


Whole = Annotated[int, BeforeValidator(_plain_number), Strict()]
"""A whole number: no text, no truth value."""
Real = Annotated[float, BeforeValidator(_plain_number), Strict(), Field(allow_inf_nan=False)]
"""A finite number: no text, no truth value, no infinity, no NaN."""
Switch = Annotated[bool, Strict()]
"""True or False, and nothing that merely looks like it."""


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def config_class(cls: type[_Class]) -> type[_Class]:
    """Make a class of annotated fields a frozen, checked configuration, shown as the call that makes it.

    Args:
        cls: its annotations are the options; unknown options and values out of range raise `HpmlError`. Its class
            variable `_ELSEWHERE`, where there is one, says of options that it does not have where they are.
    """
    shown_otherwise = cls.__repr__ is not object.__repr__ and cls.__repr__
    made: Any = pydantic_dataclass(frozen=True, config=_CONFIG)(cls)
    build = made.__init__

    @functools.wraps(build)
    def build_checked(self: Any, *args: Any, **options: Any) -> None:
        try:
            build(self, *args, **options)
        except ValidationError as error:
            raise _as_ours(made, error, cls.__name__) from None

    made.__init__ = build_checked
    made.__repr__ = shown_otherwise or _short_repr
    return made


def _short_repr(config: Any) -> str:
    """The call that makes it; options at their defaults are left out, for targets have up to seventeen."""
    said = [
        f"{option.name}={value!r}" if option.kw_only else repr(value)
        for option in fields(config)
        if option.repr and ((value := getattr(config, option.name)) != option.default or not option.kw_only)
    ]
    return f"{type(config).__name__}({', '.join(said)})"


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
    problems = error.errors(include_url=False)
    if len(problems) == 1 and isinstance(own := problems[0].get("ctx", {}).get("error"), HpmlError):
        if where and where != kind.__name__:
            own.args = (f"{where}: {own}",)  # it stays an UnknownNameError or a CardError
        return own
    lines = list(dict.fromkeys(_readable(kind, problem) for problem in problems))
    return HpmlError(f"{where}: {'; '.join(lines)}" if where else "; ".join(lines))


def _readable(kind: Any, problem: Any) -> str:
    """What is wrong, in our words: pydantic's speak of inputs and of types that nobody wrote."""
    if isinstance(own := problem.get("ctx", {}).get("error"), HpmlError):
        return str(own)
    path = [str(part) for part in problem["loc"]]
    hint, names = hint_at(kind, path)
    name = ".".join(names)
    what = problem["type"]
    if path[-1:] == ["[key]"]:
        return f"{'.'.join(names[:-1])}: {shown(problem['input'])}: each name must be text"
    if what in ("unexpected_keyword_argument", "extra_forbidden"):
        owner, given = class_at(kind, path[:-1]), shown(path[-1])[1:-1]
        advice = vars(owner).get("_ELSEWHERE", {}).get(given) or _guess(
            given, [f.name for f in fields(owner) if f.init]
        )
        return f"{'.'.join((*names, given))}: unknown option; {advice}"
    if what == "unexpected_positional_argument":
        given, first = shown(problem["input"]), fields(kind)[0]
        rule = "options are given by name" if first.kw_only else f"only {first.name} is given by position"
        return f"{given}: {rule}; write {_option_for(kind, problem['input'])}"
    if what == "multiple_argument_values":
        return f"{name}={shown(problem['input'])}: given twice, by position and by name; give it once"
    if what in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{name}: missing; give {in_words(hint)}"
    if what in ("value_error", "assertion_error"):  # of a validator of ours, which says what is allowed
        message = problem["msg"].partition(", ")[2]
    elif what == "literal_error" and isinstance(problem["input"], str) and only_choices(hint):
        message = f"unknown; {_guess(problem['input'], choices_of(hint))}"
    else:
        message = f"must be {in_words(hint)}"
    return f"{name}={shown(problem['input'])}: {message}" if name else f"{shown(problem['input'])}: {message}"


def _option_for(kind: Any, value: object) -> str:
    """An option that would take a value that was given by position."""
    hints = get_type_hints(kind, include_extras=True)
    for option in fields(kind):
        if option.init and option.kw_only:
            try:
                TypeAdapter(hints[option.name]).validate_python(value)
            except (ValidationError, HpmlError):
                continue
            return f"{option.name}={shown(value)}"
    return f"option={shown(value)}"


_ALIASES: Mapping[str, str] = {
    "poisson": "rate",
    "bernoulli": "rate",
    "ttfs": "latency",
    "time-to-first-spike": "latency",
}
"""What the field calls some of our names."""


def _guess(name: str, allowed: Iterable[str]) -> str:
    known = list(allowed)
    if (alias := _ALIASES.get(name.lower())) in known:
        return f"did you mean {alias!r}?"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"


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
