"""One progress display for everything that takes longer than a moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Step(Protocol):
    """Advance the bar by `done` steps; `note` replaces the text behind it."""

    def __call__(self, done: int = 1, note: str = "") -> None:
        """Advance."""
        ...


def _silent(done: int = 1, note: str = "") -> None:
    pass


def shown() -> bool:
    """Whether progress is drawn: only on a terminal or in a notebook, and never with `HPML_SIM_QUIET=1`."""
    if os.environ.get("HPML_SIM_QUIET") == "1":
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


@contextmanager
def progress(title: str, total: int, *, enabled: bool = True) -> Iterator[Step]:
    """A bar of `total` steps with the time left, on standard error, gone when it is done.

    Yields a silent step where `enabled` or `shown()` is false.
    """
    if not (enabled and shown()):
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, note="")

        def step(done: int = 1, note: str = "") -> None:
            bar.update(task, advance=done, note=note)

        yield step
