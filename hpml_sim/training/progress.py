"""One progress display for everything that takes longer than a moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

_open_display: ContextVar[Progress | None] = ContextVar("display", default=None)
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


_TITLE, _MIDDLE = 30, 46
"""Columns of a terminal that the title, and bar, count and time left, may take; the note has the rest."""


def _cut(text: str, width: int) -> str:
    """At most so many characters: what is too long would push the bar and the time left aside."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "\u2026" * (width > 0)


class Step(Protocol):
    """What advances a bar."""

    def __call__(self, done: int = 1, note: str = "") -> None:
        """Advance the bar by `done` steps; `note` replaces the text behind it."""
        ...


def _silent(done: int = 1, note: str = "") -> None:
    pass


def shown() -> bool:
    """Whether progress is drawn: on a terminal or in a notebook, not within `quiet`, nor with `HPML_SIM_QUIET=1`."""
    if _quiet.get() or os.environ.get("HPML_SIM_QUIET") == "1":
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, draw no progress: another process shares the terminal, or a short trial needs no bar."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


@contextmanager
def progress(title: str, total: int, *, enabled: bool = True) -> Iterator[Step]:
    """A bar of steps with the time left, on standard error, gone when it is done.

    Within another one it is a further line of the same display.

    Args:
        title: stands before the bar.
        total: how many steps there are.
        enabled: False draws nothing.

    Yields:
        What advances the bar; it is silent where `enabled` or `shown()` is false.
    """
    if not (enabled and shown()):
        yield _silent
        return
    with _display() as bar:
        task = bar.add_task(_cut(title, _TITLE), total=total, note="")

        def step(done: int = 1, note: str = "") -> None:
            bar.update(task, advance=done, note=_cut(note, bar.console.width - _TITLE - _MIDDLE))

        try:
            yield step
        finally:
            bar.remove_task(task)


@contextmanager
def _display() -> Iterator[Progress]:
    if (running := _open_display.get()) is not None:
        yield running
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        token = _open_display.set(bar)
        try:
            yield bar
        finally:
            _open_display.reset(token)
