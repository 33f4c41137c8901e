"""Unit parsing: which units a card may use, and how many SI units one of them is.

pint stays in this file. Text reaches it only where it is a product of named units: pint itself would compute whatever
stands there ("J^(9^9^9)" takes forever), and cards are files that others wrote.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from hpml_sim.errors import shown

if TYPE_CHECKING:
    import pint

MAX_LENGTH = 40
"""Characters of a unit."""
_TERM = r"(?:1|%|[A-Za-zµ]+)(?:(?:\^|\*\*)-?[1-9])?"
_UNIT = re.compile(rf"{_TERM}(?: ?[*/] ?{_TERM})*")

_UNITS = """
femto- = 1e-15 = f-
pico- = 1e-12 = p-
nano- = 1e-9 = n-
micro- = 1e-6 = u- = µ-
milli- = 1e-3 = m-
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
percent = 0.01 = %
second = [time] = s
hour = 3600 * second = h
day = 86400 * second
hertz = 1 / second = Hz
meter = [length] = m
kilogram = [mass] = kg
ampere = [current] = A
joule = kilogram * meter ** 2 / second ** 2 = J
watt = joule / second = W
volt = watt / ampere = V
siemens = ampere / volt = S
bit = [information]
byte = 8 * bit = B
op = [operation] = _ = OP = FLOP
mac = 2 * op = _ = MAC
"""


@lru_cache(maxsize=512)
def si_factor(unit: str, si_unit: str, examples: str) -> float:
    """How many `si_unit` one `unit` is.

    Args:
        unit: named units joined by * and /, each with an exponent from -9 to 9 ("pJ/bit", "mm^2", "1/s"), at most 40
            characters.
        si_unit: the unit to convert to, with its full names ("joule/bit").
        examples: what is allowed here, for the message.

    Raises:
        ValueError: no unit, or one of another dimension.

    Example:
        >>> si_factor("GB/s", "byte/second", "GB/s")
        1000000000.0
    """
    import pint

    if len(unit) > MAX_LENGTH or not _UNIT.fullmatch(unit):
        words = unit.replace(" ", "").isalpha()
        said = f"unknown unit {shown(unit)}" if words else f"{shown(unit)} is not a unit"
        raise ValueError(f"{said}; allowed here: {examples}")
    try:
        factor = float(_registry().Quantity(1.0, unit).to(si_unit).magnitude)
    except pint.UndefinedUnitError:
        raise ValueError(f"unknown unit {unit!r}; allowed here: {examples}") from None
    except pint.DimensionalityError:
        raise ValueError(f"unit {unit!r} has the wrong dimension; allowed here: {examples}") from None
    except (AssertionError, TypeError, ValueError, ArithmeticError):  # text that is no unit at all
        raise ValueError(f"{unit!r} is not a unit; allowed here: {examples}") from None
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"unit {unit!r} is too large or too small to compute with; allowed here: {examples}")
    return factor


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry:
    """The units a card may use. Our own short list, so that bytes and operations are dimensions; pint's have none."""
    import pint

    registry: pint.UnitRegistry = pint.UnitRegistry(None)  # pyright: ignore[reportArgumentType]
    registry.load_definitions(_UNITS.strip().splitlines())
    return registry
