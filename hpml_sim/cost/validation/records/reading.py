"""Rows and figures of a file of records, checked."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from hpml_sim.errors import HpmlError


def rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, in order.

    Args:
        path: of the file.
        columns: that must be there.

    Raises:
        HpmlError: the file cannot be read, or has other columns.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if missing := sorted(set(columns) - set(reader.fieldnames or ())):
                raise HpmlError(
                    f"{path}: has no column {', '.join(missing)}; a file of this name has {', '.join(columns)}"
                )
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HpmlError(f"{path}: cannot be read as CSV: {' '.join(str(error).split())}") from None


def number(path: Path, row: dict[str, str], column: str) -> float:
    """A positive figure of a row.

    Args:
        path: of the file, for the message.
        row: of the file.
        column: where it stands.

    Raises:
        HpmlError: it is no positive number.
    """
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = -1.0
    if not 0 < value < float("inf"):
        raise HpmlError(f"{path}: {column}={row[column]!r}: must be a number above 0")
    return value
