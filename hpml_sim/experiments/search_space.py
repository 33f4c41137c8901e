"""The options that a sweep or a search varies, and the values that each may take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from hpml_sim.errors import HpmlError, shown
from hpml_sim.targets.checking import Real, Switch, Whole, checked, config_class


@config_class
class Range:
    """Any value from `low` to `high`, for random draws; whole numbers if both are.

    Attributes:
        low: smallest value, finite.
        high: largest value, finite, above `low`; it is included.
        log: draw evenly in the logarithm, which needs `low` above 0.

    Raises:
        HpmlError: a bound that is no finite number, `low` not below `high`, or `log` with `low` of 0 or less.

    Example:
        >>> import hpml_sim as hs
        >>> str(hs.Range(0.001, 0.1, log=True))
        '0.001..0.1:log'
        >>> hs.Range(4, 8).whole
        True
    """

    low: Whole | Real
    high: Whole | Real
    log: Switch = False

    @model_validator(mode="after")
    def _possible(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise HpmlError(f"range {self}: low must be below high, both finite")
        if self.log and self.low <= 0:
            raise HpmlError(f"range {self}: log needs low > 0")
        return self

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        return f"{self.low}..{self.high}" + (":log" if self.log else "")


Choices = tuple[Any, ...] | Range
"""The values that an option may take."""
DEFAULT = "default"
"""In a list of values: leave the option as the target has it."""
_EXAMPLE = "such as adc_bits=4,6,8 or output_noise=0.01..0.1"


def parse_search_space(given: Any) -> Any:
    """Options and their values, as the settings keep them.

    Args:
        given: a mapping from option to values, or texts such as "adc_bits=4,6,8" and "output_noise=0.01..0.1:log".

    Returns:
        A mapping from option to a tuple of values or a `Range`.

    Raises:
        HpmlError: a text that is none of these, an option that stands twice, or values that do.
    """
    if isinstance(given, Mapping):
        return {str(name): _choices(str(name), values) for name, values in given.items()}
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise HpmlError(f"search_space={given!r}: give option=values, {_EXAMPLE}")
    found: dict[str, Choices] = {}
    for text in given:
        name, equals, values = str(text).partition("=")
        if not (equals and name and values):
            raise HpmlError(f"search_space: {text!r} must be option=values, {_EXAMPLE}")
        if name in found:
            raise HpmlError(f"search_space: {name} is given twice; list its values together, such as {name}=1,2")
        found[name] = _choices(name, values)
    return found


def from_python(given: Any) -> Any:
    """The options of a call in Python: lists and ranges only; a text in them is a value and is not parsed.

    Args:
        given: a mapping from option to a list of values or a `Range`; anything else is left to `parse_search_space`.

    Raises:
        HpmlError: values that are neither a list nor a `Range`.
    """
    if not isinstance(given, Mapping):
        return given
    found: dict[str, Any] = {}
    for name, values in given.items():
        is_range = isinstance(values, (Range, Mapping))  # a mapping as a file writes it: {"low": 1, "high": 2}
        if not is_range and (not isinstance(values, Iterable) or isinstance(values, (str, bytes))):
            raise HpmlError(f"search_space: {name}={shown(values)}: must be a list of values, or hs.Range(low, high)")
        found[str(name)] = values if is_range else tuple(values)
    return found


def _choices(name: str, given: Any) -> Choices:
    if isinstance(given, Range):
        return given
    where = f"search_space: {name}"
    if isinstance(given, Mapping):
        return checked(Range, given, where=where)
    if isinstance(given, str):
        low, dots, rest = given.partition("..")
        if dots:
            high, _, scale = rest.partition(":")
            if scale not in ("", "log"):
                raise HpmlError(f"{where}={given}: after the range only :log may follow, not :{scale}")
            return checked(Range, {"low": _value(low), "high": _value(high), "log": scale == "log"}, where=where)
        given = given.split(",")
    if isinstance(given, tuple):  # of Python, where a text is a value; files and the command line give lists
        values = given
    else:
        values = tuple(_value(value) for value in given) if isinstance(given, Sequence) else (given,)
    if not values or len(set(map(repr, values))) != len(values):
        raise HpmlError(f"{where}={list(values)!r} must list at least one value, none twice")
    return values


def _value(text: Any) -> Any:
    """A number or a truth value where the text is one."""
    if not isinstance(text, str):
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text.lower(), text)


def as_texts(search_space: Mapping[str, Choices]) -> list[str]:
    """The options as the command line writes them; `parse_search_space` reads them.

    Args:
        search_space: option -> values.
    """
    return [f"{name}={v if isinstance(v, Range) else ','.join(map(str, v))}" for name, v in search_space.items()]


SearchSpace = Annotated[dict[str, Choices], BeforeValidator(parse_search_space)]
"""Option -> values, read from Python, TOML and the command line alike."""
