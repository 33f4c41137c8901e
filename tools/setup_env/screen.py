"""What is shown: one line a step, live on a terminal, sparse elsewhere (a log of a thousand dots helps nobody)."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path


def short_time(seconds: float) -> str:
    """41 s, or 3 min 05 s."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def short_path(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


class Screen:
    """The lines of the steps."""

    SPARSE_S = 30.0

    def __init__(self, steps: int):
        """`steps`: how many there will be."""
        self.steps, self.number, self.title = steps, 0, ""
        self.live = sys.stdout.isatty()
        self.began = self.step_began = self.last_sparse = time.monotonic()

    def start(self, title: str) -> None:
        """A new step."""
        self.number += 1
        self.title = title
        self.step_began = self.last_sparse = time.monotonic()
        if self.live:
            self.update("")

    def update(self, what: str, force: bool = False) -> None:
        """What the step is doing right now; `force`: worth a line even where lines are sparse."""
        now = time.monotonic()
        elapsed = short_time(now - self.step_began)
        if self.live:
            width = max(20, shutil.get_terminal_size().columns - len(elapsed) - 2)
            print(f"\r\033[K{self._line(what)[:width]} {elapsed}", end="", flush=True)
        elif force or now - self.last_sparse >= self.SPARSE_S:
            self.last_sparse = now
            print(f"{self._line(what)} ({elapsed})", flush=True)

    def done(self, result: str) -> None:
        """The step's last word."""
        self.note(f"{self._line(result)} ({short_time(time.monotonic() - self.step_began)})")

    def note(self, text: str) -> None:
        """A line of its own."""
        print(("\r\033[K" if self.live else "") + text, flush=True)

    def _line(self, what: str) -> str:
        return f"[{self.number}/{self.steps}] {self.title:<18} {what}"
