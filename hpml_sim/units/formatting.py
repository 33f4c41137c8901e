"""Figures as people read them: three significant digits, an engineering prefix, bounds in the same prefix."""

from __future__ import annotations

import math
from typing import Protocol

_PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
DASH = "\N{EN DASH}"
"""Between the bounds of a range."""


class BandLike(Protocol):
    """Anything with a nominal value and its bounds."""

    @property
    def low(self) -> float:
        """Lower bound."""
        ...

    @property
    def nominal(self) -> float:
        """Best guess."""
        ...

    @property
    def high(self) -> float:
        """Upper bound."""
        ...


def digits(value: float, figures: int = 3) -> str:
    """A number with few significant digits, never in exponent notation ("212", "21.2", "0.0212", "42,400").

    Args:
        value: the number; infinity is written as its sign.
        figures: significant digits, 1 or more.

    Example:
        >>> digits(42417.0)
        '42,400'
    """
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    decimal = int(f"{value:.{figures - 1}e}".partition("e")[2])
    places = figures - 1 - decimal
    if places > 0:
        return f"{value:.{places}f}"
    return f"{round(value, places):,.0f}" if decimal >= 4 else f"{round(value, places):.0f}"


def si(value: float, unit: str, *, micro: str = "u") -> str:
    """A value with an engineering prefix.

    Args:
        value: in `unit`.
        unit: the unit without a prefix, such as "J".
        micro: how 1e-6 is written: "u", or "µ" where the page can show it.

    Example:
        >>> si(2.12e-7, "J")
        '212 nJ'
    """
    exponent = _exponent(value)
    return f"{digits(value / 10**exponent)} {_prefix(exponent, micro)}{unit}".rstrip()


def span(band: BandLike, *, micro: str = "u", figures: int = 3) -> str:
    """The bounds of a band in the prefix of its nominal value, with an en dash; "" where they coincide.

    Args:
        band: what has bounds.
        micro: how 1e-6 is written: "u", or "µ" where the page can show it.
        figures: significant digits of each bound.
    """
    if band.low == band.high:
        return ""
    if not (math.isfinite(band.nominal) and band.nominal > 0):
        return f"{si(band.low, '', micro=micro)}{DASH}{si(band.high, '', micro=micro)}"
    scale = 10 ** _exponent(band.nominal)
    return f"{digits(band.low / scale, figures)}{DASH}{digits(band.high / scale, figures)}"


def si_band(band: BandLike, unit: str, *, micro: str = "u") -> str:
    """The nominal value with its prefix and, in brackets, the bounds: "2.1 uJ (1.06-4.24)", with an en dash.

    Args:
        band: in `unit`.
        unit: the unit without a prefix, such as "J".
        micro: how 1e-6 is written: "u", or "µ" where the page can show it.
    """
    bounds = span(band, micro=micro)
    return si(band.nominal, unit, micro=micro) + (f" ({bounds})" if bounds else "")


def _exponent(value: float) -> int:
    """The power of 1000 (as a power of ten) in which three significant digits of `value` lie in [1, 1000)."""
    if value == 0 or not math.isfinite(value):
        return 0
    decimal = int(f"{value:.2e}".partition("e")[2])  # rounds first: 999.7 is 1.00 k, not 1000
    return min(max(3 * (decimal // 3), min(_PREFIXES)), max(_PREFIXES))


def _prefix(exponent: int, micro: str) -> str:
    return micro if exponent == -6 else _PREFIXES[exponent]
