"""What all verbs print with."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from typing import Any


def show(renderable: Any) -> None:
    """Print on standard output, at most 120 columns wide where there is no terminal."""
    from rich.console import Console

    Console(width=columns()).print(renderable)


def columns() -> int:
    """Columns of the terminal; 120 where there is none (a file, a pipe)."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 120


def say(line: str) -> None:
    """Print on standard error."""
    print(line, file=sys.stderr)


def print_lines(rows: Iterable[dict[str, Any]]) -> None:
    """Print JSON Lines on standard output."""
    for row in rows:
        print(json.dumps(row))
