"""Errors that name the argument, the value and what is allowed; and the checks of arguments that raise them.

files.py   files that are written whole or not at all, and checked when they are read
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

_MAX_LISTED = 10
"""Names that a message lists: nobody reads more."""


class HpmlError(ValueError):
    """A mistake in what the caller asked for. The command line prints it as one line and exits with status 2.

    Example:
        >>> import hpml_sim as hs
        >>> try:
        ...     hs.load_card("pcm-hermse")
        ... except hs.HpmlError as error:
        ...     print(error)
        unknown card 'pcm-hermse'. Did you mean 'pcm-hermes'? `hpml-sim cards` lists all cards.
    """


class UnknownNameError(HpmlError):
    """A name that is not in its list; the message offers the nearest one.

    Args:
        what: what the name stands for, such as "card".
        value: the name that was given.
        allowed: the names that exist.
        hint: a sentence at the end of the message.

    Attributes:
        suggestion: the nearest name that exists; None where no name is near.
    """

    def __init__(self, what: str, value: str, allowed: Iterable[str], hint: str = ""):
        names = sorted(allowed)
        near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        listing = f" Known: {', '.join(names)}."
        if len(names) > _MAX_LISTED:
            listing = "" if hint else f" Known: {', '.join(names[:_MAX_LISTED])} and {len(names) - _MAX_LISTED} more."
        if near:
            listing = ""
        super().__init__(f"unknown {what} {shown(value)}.{guess}{listing}{' ' + hint if hint else ''}")
        self.suggestion = near[0] if near else None

    def __reduce__(self) -> tuple[type[HpmlError], tuple[str]]:
        """What another process gets: the message."""
        return HpmlError, (str(self),)


class CardError(HpmlError):
    """A device card that cannot be used: the message names the file, the field and what is allowed."""


class ScopeError(HpmlError):
    """Figures of different scope (core, chip, board, system) were to be compared."""


class UnsupportedTimeError(HpmlError):
    """A device model was asked for a time at which its paper gives no data; it is never extrapolated."""


class NotFiniteError(HpmlError):
    """An input, the loss of a training, weights or an output that are NaN or infinite."""


class ConversionError(HpmlError):
    """A layer or network that cannot be mapped onto the target."""


@contextmanager
def needs(what: str, requirement: str) -> Iterator[None]:
    """Around the import of a package that is not always there.

    Args:
        what: what cannot be done without it.
        requirement: what pip installs.

    Raises:
        HpmlError: an import in the block fails; the message has the command that installs it.
    """
    try:
        yield
    except ImportError as error:
        raise HpmlError(f"{what} needs a package ({error}); install it with: pip install '{requirement}'") from error


def shown(value: object) -> str:
    """A value on one line, as a person would write it; cut where it is long, its class alone where it is an object.

    Args:
        value: anything.
    """
    plain = isinstance(value, (str, numbers.Number, tuple, list, dict, set, bytes, type(None)))
    try:
        text = " ".join(repr(value).split()) if plain else f"<{type(value).__name__}>"
    except Exception:  # an object in a list may fail to print itself; a whole number may have too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}..."


def range_text(
    kind: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> str:
    """A range in words, such as "a whole number from 2 to 16".

    Args:
        kind: what lies in it, such as "a whole number".
        low: smallest value.
        high: largest value.
        above: a bound that every value exceeds.
        below: a bound that no value reaches.
    """
    if low is not None and high is not None:
        return f"{kind} from {_bound(low)} to {_bound(high)}"
    bounds = [(">=", low), (">", above), ("<=", high), ("<", below)]
    texts = [f"{sign} {_bound(bound)}" for sign, bound in bounds if bound is not None]
    return f"{kind} {' and '.join(texts)}".rstrip()


def _bound(value: float) -> str:
    """Powers of two as such: nobody recognizes 9223372036854775808."""
    if isinstance(value, int) and value > 2**20:
        if value & (value + 1) == 0:
            return f"2^{value.bit_length()} - 1"
        return f"2^{value.bit_length() - 1}" if value & (value - 1) == 0 else str(value)
    return str(value) if isinstance(value, int) else f"{value:g}"


def check_whole(
    argument: str, value: object, *, low: int | None = None, high: int | None = None, hint: str = ""
) -> int:
    """A whole number that a caller gave, of Python or numpy; a truth value, a text or 3.0 is none.

    Args:
        argument: its name, which begins the message, such as "fit: epochs".
        value: what was given.
        low: smallest value that is allowed.
        high: largest value that is allowed.
        hint: the next step, at the end of the message.

    Raises:
        HpmlError: no whole number, or one out of range.

    Example:
        >>> check_whole("fit: epochs", 3, low=0)
        3
        >>> check_whole("fit: epochs", "3", low=0)
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: fit: epochs='3': must be a whole number >= 0
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        whole = int(value)
        if (low is None or whole >= low) and (high is None or whole <= high):
            return whole
    _refuse(argument, value, range_text("a whole number", low=low, high=high), hint)


def check_real(
    argument: str,
    value: object,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    hint: str = "",
) -> float:
    """A finite number that a caller gave, of Python or numpy; a truth value or a text is none.

    Args:
        argument: its name, which begins the message, such as "fit: lr".
        value: what was given.
        low: smallest value that is allowed.
        high: largest value that is allowed.
        above: a bound that the value must exceed.
        below: a bound that the value must not reach.
        hint: the next step, at the end of the message.

    Raises:
        HpmlError: no finite number, or one out of range.

    Example:
        >>> check_real("fit: lr", 0.1, above=0)
        0.1
        >>> check_real("fit: lr", float("inf"), above=0, hint="try 2e-3")
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: fit: lr=inf: must be a finite number > 0; try 2e-3
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            real = float(value)
        except OverflowError:  # a whole number beyond the largest float
            real = math.inf
        if (
            math.isfinite(real)
            and (low is None or real >= low)
            and (high is None or real <= high)
            and (above is None or real > above)
            and (below is None or real < below)
        ):
            return real
    _refuse(argument, value, range_text("a finite number", low=low, high=high, above=above, below=below), hint)


def check_switch(argument: str, value: object, *, hint: str = "") -> bool:
    """True or False, and nothing that merely looks like it.

    Args:
        argument: its name, which begins the message, such as "fit: show_progress".
        value: what was given.
        hint: the next step, at the end of the message.

    Raises:
        HpmlError: neither of the two.
    """
    if isinstance(value, bool):
        return value
    _refuse(argument, value, "True or False", hint)


def check_choice(argument: str, value: object, allowed: Iterable[str], *, hint: str = "") -> str:
    """One of some names.

    Args:
        argument: its name, which begins the message, such as "estimate: phase".
        value: what was given.
        allowed: the names.
        hint: the next step, at the end of the message.

    Raises:
        HpmlError: no name of the list; the message offers the nearest one.
    """
    names = list(allowed)
    if isinstance(value, str) and value in names:
        return value
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.6) if isinstance(value, str) else []
    if near:
        raise HpmlError(f"{argument}={shown(value)}: unknown; did you mean {near[0]!r}?{' ' + hint if hint else ''}")
    _refuse(argument, value, f"one of {', '.join(map(repr, names))}", hint)


def free_memory_bytes(root: Path = Path("/")) -> float | None:
    """Memory that this process can still take; None: not known.

    What is free on the machine, in the control groups around the process (those of a container or of a cluster's job),
    and below its own limit (`ulimit -v`), whichever is least.

    Args:
        root: where `proc` and `sys` are.
    """
    return min([*_free_on_machine(root), *_free_in_groups(root), *_free_below_limit(root)], default=None)


def _lines(path: Path) -> list[str]:
    """Of a file that may not be there: on other systems, or where a container hides it."""
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []


def _numbers(path: Path) -> dict[str, float]:
    """The lines "name number" of a file, whatever stands behind; the name is "" in a line of a number alone."""
    found = {}
    for line in _lines(path):
        name, _, value = line.strip().rpartition(" ") if line[:1].isdigit() else line.replace(":", " ").partition(" ")
        number = value.split()[0] if value.split() else ""
        if number.isdigit():
            found[name] = float(number)
    return found


def _free_on_machine(root: Path) -> Iterator[float]:
    free = _numbers(root / "proc/meminfo").get("MemAvailable")
    if free is not None:
        yield 1024 * free


def _free_in_groups(root: Path) -> Iterator[float]:
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        kinds, _, path = rest.partition(":")
        if not kinds:  # version 2
            base, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            base = "sys/fs/cgroup/memory"
        else:
            continue
        inner = root / base / path.strip("/")
        for group in (inner, *inner.parents):  # each group above has a limit of its own
            if not group.is_relative_to(root / base):
                break
            most, used = (_numbers(group / name).get("") for name in names[:2])
            if most is not None and used is not None:  # "max" is no number: there is no limit
                # files that were read lie in the group's memory, and give way
                yield most - used + _numbers(group / "memory.stat").get(names[2], 0.0)


def _free_below_limit(root: Path) -> Iterator[float]:
    most = [line.split()[3] for line in _lines(root / "proc/self/limits") if line.startswith("Max address space")]
    used = _numbers(root / "proc/self/status").get("VmSize")
    if most and most[0].isdigit() and used is not None:
        yield float(most[0]) - 1024 * used


def check_memory(what: str, needed_bytes: float, hint: str) -> None:
    """Refuse what needs more memory than is free; nothing is checked where that is unknown.

    Args:
        what: what needs the memory, with its sizes.
        needed_bytes: a lower bound, >= 0.
        hint: the next step, at the end of the message.

    Raises:
        HpmlError: it is more than is free.
    """
    free = free_memory_bytes()
    if free is not None and free < needed_bytes:
        raise HpmlError(
            f"{what}: needs at least {needed_bytes / 2**30:,.1f} GiB, and {max(free, 0) / 2**30:,.1f} GiB are free; "
            f"{hint}"
        )


def _refuse(argument: str, value: object, allowed: str, hint: str) -> NoReturn:
    raise HpmlError(f"{argument}={shown(value)}: must be {allowed}{'; ' + hint if hint else ''}")
