"""Rows and figures of a file of records, checked."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from hpml_sim.errors import HpmlError


def rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, in order.

    Args:
        path: of the file.
        columns: that must be there.

    Raises:
        HpmlError: the file cannot be read, or has other columns, or a row ends too early.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := sorted(set(columns) - set(reader.fieldnames or ())):
                raise HpmlError(
                    f"{path}: has no column {', '.join(missing)}; a file of this name has {', '.join(columns)}"
                )
            for line, row in enumerate(reader, start=2):
                if short := [name for name in columns if row[name] is None]:
                    raise HpmlError(f"{path}, line {line}: ends before {short[0]}")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HpmlError(f"{path}: cannot be read as CSV: {' '.join(str(error).split())}") from None


def number(path: Path, row: dict[str, str], column: str, line: int) -> float:
    """A positive figure of a row.

    Args:
        path: of the file, for the message.
        row: of the file.
        column: where it stands.
        line: of the file, for the message; the header is line 1.

    Raises:
        HpmlError: it is no positive number.
    """
    return _checked(path, row, column, line, float, "a number above 0")


def whole(path: Path, row: dict[str, str], column: str, line: int) -> int:
    """A positive whole number of a row.

    Args:
        path: of the file, for the message.
        row: of the file.
        column: where it stands.
        line: of the file, for the message.

    Raises:
        HpmlError: it is no positive whole number.
    """
    return int(_checked(path, row, column, line, _integer, "a whole number above 0"))


def _integer(text: str) -> float:
    value = float(text)
    return value if value.is_integer() else -1.0


def _checked(path: Path, row: dict[str, str], column: str, line: int, read: Callable[[str], float], what: str) -> float:
    try:
        value = read(row[column])
    except (TypeError, ValueError):
        value = -1.0
    if not 0 < value < float("inf"):
        raise HpmlError(f"{path}, line {line}: {column}={row[column]!r}: must be {what}")
    return value
