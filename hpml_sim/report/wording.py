"""Words and numbers of the report: times since programming, shares, listings, figures with the real "µ"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hpml_sim.units.formatting import DASH, BandLike, si, si_band, span
from hpml_sim.units.times import SECONDS, format_time


def si_page(value: float, unit: str) -> str:
    """As `si`, with the real "µ" that a page can show."""
    return si(value, unit, micro="µ")


def span_page(band: BandLike) -> str:
    """As `span`, with the real "µ"."""
    return span(band, micro="µ")


def figure(band: BandLike, unit: str) -> str:
    """A `band` of `unit` in running text: "49.3 nJ (39.2-62.0)", with an en dash and the real "µ"."""
    return si_band(band, unit, micro="µ")


def tick(value: float, unit: str) -> str:
    """A round value on an axis: "1 µJ", "100 Gop/s"."""
    return re.sub(r"\.0+(?=\s|$)", "", si_page(value, unit))


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
