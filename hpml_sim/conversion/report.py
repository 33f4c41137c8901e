"""The report on a converted network: a DataFrame that shows all of its columns wherever it is printed."""

from __future__ import annotations

import textwrap
from dataclasses import fields
from typing import Any

import pandas as pd

from hpml_sim.conversion.layer_report import LayerReport
from hpml_sim.units.display import WIDTH, html_table, text_table
from hpml_sim.units.formatting import digits

_COLUMNS = [field.name for field in fields(LayerReport)]
_LATER = ("input_range", "converter_db")
"""Columns that are filled when data have passed."""
_LEAST_FOR_WHY = 16
"""Characters that reasons need beside the other columns; with fewer they stand below them."""


class Report(pd.DataFrame):
    """A DataFrame with a row a layer. Printed, every column fits into 80 characters, and names stay whole.

    Reasons that are long go on in further lines; where the other columns leave no room, they stand below them. Rows
    chosen from it, such as `report[report["became"] == "digital"]`, are shown in the same way; what has other columns
    is shown as pandas does. Of many rows the first and the last are shown (pandas' `display.max_rows`).
    """

    @property
    def _constructor(self) -> type[Report]:
        return Report

    def __repr__(self) -> str:
        if list(self.columns) != _COLUMNS:
            return super().__repr__()
        columns, rows, note = self._shown_rows()
        return "\n".join([*_lines(columns, rows), *([note] if note else [])])

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return self.html("Report") if list(self.columns) == _COLUMNS else super()._repr_html_()  # type: ignore[operator]

    def html(self, title: str, note: str = "") -> str:
        """The table as HTML, without colors of its own.

        Args:
            title: stands above the table.
            note: stands below the table.
        """
        columns, rows, cut = self._shown_rows()
        return html_table(title, rows, columns=columns, note=f"{note} {cut}".strip())

    def _shown_rows(self) -> tuple[list[str], list[list[object]], str]:
        """The columns and cells to show, and what is left out."""
        most = pd.get_option("display.max_rows") or len(self)
        share = _COLUMNS.index("utilization")
        values = [
            [_share(value) if k == share else _cell(value) for k, value in enumerate(row)]
            for row in self.itertuples(index=False, name=None)
        ]
        # what nothing is known of yet takes no room
        empty = {k for k, name in enumerate(_COLUMNS) if name in _LATER and not any(row[k] for row in values)}
        columns = [name for k, name in enumerate(_COLUMNS) if k not in empty]
        values = [[value for k, value in enumerate(row) if k not in empty] for row in values]
        if len(values) <= most:
            return columns, values, ""
        half = max(1, most // 2)
        gap: list[object] = ["...", *(None for _ in columns[1:])]
        return columns, [*values[:half], gap, *values[-half:]], f"{len(values)} rows; .to_string() shows all of them"


def _lines(columns: list[str], rows: list[list[object]]) -> list[str]:
    """The lines of a report, heading first."""
    reasons = [columns[-1], *(str(row[-1] or "") for row in rows)]
    table = text_table(columns[:-1], [row[:-1] for row in rows], width=10_000).splitlines()
    wide = max(map(len, table))
    if wide <= WIDTH:
        return [line for left, why in zip(table, reasons, strict=True) for line in _with_reason(left, why, wide)]
    # names too long to stand beside the rest: each on a line of its own, the rest below it
    names = [columns[0], *(str(row[0]) for row in rows)]
    rest = text_table(["", *columns[1:-1]], [["", *row[1:-1]] for row in rows], width=10_000).splitlines()
    wide = max(map(len, rest))
    return [
        line
        for name, left, why in zip(names, rest, reasons, strict=True)
        for line in (*textwrap.wrap(name, WIDTH), *(_with_reason(left, why, wide) if left.strip() or why else ()))
    ]


def _with_reason(left: str, why: str, wide: int) -> list[str]:
    """A line of the table with its reason beside it, or below where there is no room."""
    room = WIDTH - wide - 2
    if room < _LEAST_FOR_WHY:
        return [left, *textwrap.wrap(why, WIDTH, initial_indent="    ", subsequent_indent="    ")]
    first, *more = textwrap.wrap(why, room, break_on_hyphens=False) or [""]
    return [f"{left:<{wide}}  {first}".rstrip(), *(f"{'':<{wide}}  {line}" for line in more)]


def _share(value: Any) -> object:
    """A share in percent; None where there is none."""
    return None if _cell(value) is None else f"{digits(100 * value)} %"


def _cell(value: Any) -> object:
    """A cell as it is shown: pandas keeps whole numbers beside empty cells as floats, and empty cells as NaN."""
    if value is None or value != value:  # NaN alone differs from itself
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
