"""`Comparison`: the rows of a run that has finished, and what people make of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpml_sim.experiments.plan import Plan
from hpml_sim.results import Row, to_frame

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """The rows of a finished comparison or sweep, and what people make of them."""

    rows: tuple[Row, ...]
    plan: Plan
    folder: Path | None

    def table(self) -> pd.DataFrame:
        """One line a (target, seed, time, batch); units in the column names."""
        return to_frame(self.rows)

    def plot(self) -> Figure:
        """Energy of one inference against accuracy, a panel for each scope."""
        from hpml_sim.report.plots import energy_against_accuracy

        return energy_against_accuracy(self.rows)

    def report(self, path: str | Path) -> Path:
        """Write the one-file HTML report and return its path."""
        from hpml_sim.report.html import write_report

        return write_report(self.rows, path, run=asdict(self.plan))
