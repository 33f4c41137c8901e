"""Times as people write them: "1 h", "30 min", "1 year", or seconds."""

from __future__ import annotations

import math
import re

from hpml_sim.errors import HpmlError, shown

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0, "week": 604800.0, "month": 2592000.0, "year": 31536000.0}
"""Seconds in a unit; a month is 30 days, a year 365."""

_SPELLINGS = {
    "": "s",
    **dict.fromkeys(("s", "sec", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "day"),
    **dict.fromkeys(("week", "weeks"), "week"),
    **dict.fromkeys(("month", "months"), "month"),
    **dict.fromkeys(("y", "year", "years"), "year"),
}
_PATTERN = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_time(time: str | float) -> float:
    """Seconds (>= 0) from a number of seconds, or from text such as "1 s", "30 min", "1 h", "1 day", "1 year".

    Args:
        time: a number of seconds, or a number with s, min, h, day, week, month (30 days) or year (365 days).

    Raises:
        HpmlError: not a time, negative, or not finite.

    Example:
        >>> parse_time("30 min")
        1800.0
    """
    if isinstance(time, str):
        match = _PATTERN.fullmatch(time)
        unit = _SPELLINGS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise HpmlError(
                f"time {shown(time)}: not understood; give seconds, or a number with s, min, h, day, week, month "
                "(30 days) or year (365 days)"
            )
        seconds = float(match[1]) * SECONDS[unit]
    elif isinstance(time, bool):
        raise HpmlError(f"time {shown(time)}: give seconds >= 0 or text like '1 h'")
    else:
        try:
            seconds = float(time)
        except (TypeError, ValueError):
            raise HpmlError(f"time {shown(time)}: give seconds >= 0 or text like '1 h'") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise HpmlError(f"time {shown(time)}: must be finite and >= 0 (0 is the end of programming)")
    return seconds


def format_time(time_s: float) -> str:
    """The shortest usual way to write a time.

    Args:
        time_s: seconds.

    Example:
        >>> format_time(3600.0)
        '1 h'
    """
    for unit in ("year", "week", "day", "h", "min"):
        count = time_s / SECONDS[unit]
        if count >= 1 and count == round(count) and not (unit == "week" and count > 1):
            return f"{count:g} {unit}" + ("s" if unit in ("year", "day") and count > 1 else "")
    return f"{time_s:g} s"
