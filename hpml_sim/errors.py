"""Errors that name the argument, the value, what is allowed and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class HpmlError(ValueError):
    """A mistake in what the caller asked for. The command line prints it as one line and exits with status 2."""


class UnknownNameError(HpmlError):
    """A name that is not in its list; the message offers the nearest one."""

    def __init__(self, what: str, value: str, allowed: Iterable[str], hint: str = ""):
        names = sorted(allowed)
        near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        listing = f" Known: {', '.join(names)}." if not near else ""
        super().__init__(f"unknown {what} {value!r}.{guess}{listing}{' ' + hint if hint else ''}")
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
    """Training or a network's output became NaN or infinite."""


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
