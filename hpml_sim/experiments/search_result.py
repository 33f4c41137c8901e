"""`SearchResult`: the trials of a search, and those that no other beats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_sim.experiments.checks import COLUMNS
from hpml_sim.experiments.config import Objective
from hpml_sim.experiments.result import Comparison
from hpml_sim.tasks.metric import column_of
from hpml_sim.tasks.score import RATIO, SHARE
from hpml_sim.units.display import html_table, text_table
from hpml_sim.units.formatting import si

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_MAX_LINES = 10
"""Lines of the front that a terminal shows."""


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        trials: one row a trial, in their order, after the configuration as it was given (trial -1): the options, the
            objectives (the score, joules, seconds), and `on_front`, whether no other row is at least as good
            in every objective and better in one. `attrs["units"]` has the units,
            `attrs["higher_is_better"]` the directions.
        objectives: what was searched for, in the order asked for.
        comparison: every row behind the trials.
    """

    trials: pd.DataFrame
    objectives: tuple[Objective, ...]
    comparison: Comparison

    @property
    def front(self) -> pd.DataFrame:
        """The rows of `trials` that no other beats, each configuration once, by the first objective, best first."""
        options = [name for name in self.trials.columns if name not in ("trial", "on_front")]
        first = self._column(self.objectives[0])
        front = self.trials.query("on_front").drop_duplicates(options)
        rising = not self.trials.attrs["higher_is_better"].get(first, False)
        return front.sort_values(first, ascending=rising).reset_index(drop=True)

    def _column(self, objective: Objective) -> str:
        """The column of an objective's figures; the score's is named by its metric."""
        return COLUMNS[objective] if objective in COLUMNS else f"{column_of(self.trials.attrs['metric'])}_mean"

    def plot(self) -> Figure:
        """All trials in the plane of the first two objectives, with their front; a notebook shows it as a picture."""
        from hpml_sim.report.plots.pareto import draw_trials  # matplotlib, for those who plot

        return draw_trials(self.trials, [self._column(name) for name in self.objectives])

    def __repr__(self) -> str:
        front = self.front
        note = f"front of {len(front)}: .front; every trial: .trials; .plot(); rows: .comparison"
        return text_table(*self._lines(front, _MAX_LINES), title=self._title(), note=note)

    def _repr_html_(self) -> str:
        """What a notebook shows: the front."""
        front = self.front
        columns, lines = self._lines(front, len(front))
        return html_table(f"{self._title()}; the front", lines, columns=columns, note=".trials .plot() .comparison")

    def _title(self) -> str:
        tried = sum(number >= 0 for number in self.trials["trial"])
        trials = f"{tried} trial{'s'[: tried != 1]}, and the configuration as given"
        return f"Search for {', '.join(self._heads().values())}: {trials}"

    def _heads(self) -> dict[str, str]:
        """Column of an objective -> what a heading calls it: the score by its metric."""
        metric = self.trials.attrs["metric"]
        return {self._column(name): metric if name == "score" else name for name in self.objectives}

    def _lines(self, front: pd.DataFrame, most: int) -> tuple[list[str], list[list[object]]]:
        shown = front.drop(columns="on_front").head(most)
        units = self.trials.attrs["units"]
        names = self._heads()
        heads = [names.get(str(name), str(name)) for name in shown.columns]
        lines = [
            [_cell(str(name), value, units) for name, value in zip(shown.columns, line, strict=True)]
            for line in shown.itertuples(index=False)
        ]
        return heads, lines


def _cell(column: str, value: Any, units: Mapping[str, str]) -> object:
    """A value of the table as people read it: shares in percent, figures with a unit, "default" for an option unset."""
    if column == "trial" and value < 0:
        return "as given"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "—" if column in units else "default"
    if units.get(column) in (SHARE, RATIO):
        return f"{100 * value:.2f} %"
    if column in COLUMNS.values():
        return si(float(value), units[column])
    if column in units:  # a score in a unit of its own
        return f"{value:.4g} {units[column]}".rstrip()
    return value.item() if isinstance(value, np.generic) else value
