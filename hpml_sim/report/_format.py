"""Numbers as people read them: engineering prefixes, times since programming, shares."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from hpml_sim.units.times import SECONDS, format_time

_PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
DASH = "\N{EN DASH}"
"""Between the bounds of a range."""


class BandLike(Protocol):
    """Anything with a nominal value and its bounds."""

    @property
    def low(self) -> float: ...
    @property
    def nominal(self) -> float: ...
    @property
    def high(self) -> float: ...


def _exponent(value: float) -> int:
    """The power of 1000 (as a power of ten) in which three significant digits of `value` lie in [1, 1000)."""
    if value == 0 or not math.isfinite(value):
        return 0
    decimal = int(f"{value:.2e}".partition("e")[2])  # rounds first: 999.7 is 1.00 k, not 1000
    return min(max(3 * (decimal // 3), min(_PREFIXES)), max(_PREFIXES))


def digits(value: float, figures: int = 3) -> str:
    """Three (or `figures`) significant digits, never in exponent notation ("212", "21.2", "0.0212", "42,400")."""
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
    """A value with an engineering prefix: `si(2.12e-7, "J")` is "212 nJ"."""
    exponent = _exponent(value)
    return f"{digits(value / 10**exponent)} {_prefix(exponent, micro)}{unit}".rstrip()


def si_page(value: float, unit: str) -> str:
    """As `si`, with the real "µ" that a page can show."""
    return si(value, unit, micro="µ")


def span_page(band: BandLike) -> str:
    """As `span`, with the real "µ"."""
    return span(band, micro="µ")


def tick(value: float, unit: str) -> str:
    """A round value on an axis: "1 µJ", "100 Gop/s"."""
    return re.sub(r"\.0+(?=\s|$)", "", si_page(value, unit))


def span(band: BandLike, *, micro: str = "u", figures: int = 3) -> str:
    """The bounds in the prefix of the nominal value, "106-424" with an en dash; "" where they coincide."""
    if band.low == band.high:
        return ""
    if not (math.isfinite(band.nominal) and band.nominal > 0):
        return f"{si(band.low, '', micro=micro)}{DASH}{si(band.high, '', micro=micro)}"
    scale = 10 ** _exponent(band.nominal)
    return f"{digits(band.low / scale, figures)}{DASH}{digits(band.high / scale, figures)}"


def _prefix(exponent: int, micro: str) -> str:
    return micro if exponent == -6 else _PREFIXES[exponent]


def time_label(seconds: float) -> str:
    """Seconds since programming as people say it: "1 s", "1 h", "1 day", "1 week", "1.5 h"."""
    exact = format_time(seconds)
    if not exact.endswith(" s") and float(exact.partition(" ")[0]) < 1000:  # 525960 min is about a year
        return exact
    if seconds == 0 or seconds >= 1:
        unit = next((u for u in ("year", "day", "h", "min") if seconds >= 0.9995 * SECONDS[u]), "s")
        count = f"{seconds / SECONDS[unit]:.3g}"
        return f"{count} {unit}" + ("s" if unit in ("year", "day") and count != "1" else "")
    return si(seconds, "s")


def percent(share: float, places: int = 2) -> str:
    """A share as a number of percent, without the sign."""
    return f"{100 * share:.{places}f}"


def distinct(items: Iterable[object]) -> list[str]:
    """Each text once, in the order of its first appearance."""
    return list(dict.fromkeys(str(item) for item in items))


def listing(words: list[str]) -> str:
    """Words joined as in a sentence: "a", "a and b", "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers with their runs joined: 2, 5, 6, 7 is "2, 5-7", with an en dash."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}{DASH if len(r) > 2 else ', '}{r[-1]}" for r in runs)


def names(words: list[str], most: int = 6) -> str:
    """As `listing`, but the tail of a long list is only counted: "a, b and 14 others"."""
    if len(words) <= most:
        return listing(words)
    return listing([*words[: most - 1], f"{len(words) - most + 1} others"])


def shortened(text: str, most: int = 30) -> str:
    """A long name with an ellipsis in its middle: both ends of a label tell it from others."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[head - most + 1 :]}"
