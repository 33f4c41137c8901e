"""The report on a converted network: a DataFrame that shows all of its columns wherever it is printed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pandas as pd

from hpml_sim.conversion.converted import LayerReport
from hpml_sim.units.display import html_table, text_table

_COLUMNS = [field.name for field in fields(LayerReport)]


class Report(pd.DataFrame):
    """A DataFrame with a row a layer. Printed, every column fits into 80 characters; long reasons go on below.

    Rows chosen from it, such as `report[report["became"] == "digital"]`, are shown in the same way; what has other
    columns is shown as pandas does. Of many rows the first and the last are shown (pandas' `display.max_rows`).
    """

    @property
    def _constructor(self) -> type[Report]:
        return Report

    def __repr__(self) -> str:
        if list(self.columns) != _COLUMNS:
            return super().__repr__()
        rows, note = self._shown_rows()
        return text_table(_COLUMNS, rows, note=note, wrap=True)

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return self.html("Report") if list(self.columns) == _COLUMNS else super()._repr_html_()  # type: ignore[operator]

    def html(self, title: str, note: str = "") -> str:
        """The table as HTML, without colors of its own.

        Args:
            title: stands above the table.
            note: stands below the table.
        """
        rows, cut = self._shown_rows()
        return html_table(title, rows, columns=_COLUMNS, note=f"{note} {cut}".strip())

    def _shown_rows(self) -> tuple[list[list[object]], str]:
        """The cells to show, and what is left out."""
        most = pd.get_option("display.max_rows") or len(self)
        values = [[_cell(value) for value in row] for row in self.itertuples(index=False, name=None)]
        if len(values) <= most:
            return values, ""
        half = max(1, most // 2)
        gap: list[object] = ["..." for _ in self.columns]
        return [*values[:half], gap, *values[-half:]], f"{len(values)} rows; .to_string() shows all of them"


def _cell(value: Any) -> object:
    """A cell as it is shown: pandas keeps whole numbers beside empty cells as floats, and empty cells as NaN."""
    if value is None or value != value:  # NaN alone differs from itself
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value
