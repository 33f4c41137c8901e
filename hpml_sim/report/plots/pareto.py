"""The Pareto front of a search, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_WORDS = {
    "accuracy_mean": "accuracy, %",
    "energy_j": "energy of an inference, J (estimated, nominal)",
    "latency_s": "latency, s (estimated, nominal, batch 1)",
}


def draw_front(trials: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Every trial of a search, those that no other beats joined by a line, and the configuration as it was given.

    Args:
        trials: `SearchResult.trials`.
        columns: its columns of the objectives; the first goes up, the second across. With one, the number of the trial
            goes across.
    """
    from matplotlib.figure import Figure

    from hpml_sim.report.plots import COLORS

    across = columns[1] if len(columns) > 1 else "trial"
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    front = trials.query("on_front").sort_values(across)
    tried, given = trials.query("trial >= 0"), trials.query("trial < 0")

    def draw(part: pd.DataFrame, label: str, marker: str, line: str, color: str, size: float) -> None:
        scale = 100 if columns[0] == "accuracy_mean" else 1
        axes.plot(
            part[across], scale * part[columns[0]], marker=marker, linestyle=line, color=color, markersize=size,
            label=label,
        )  # fmt: skip

    draw(tried, "trials", "o", "none", COLORS[5], 5)
    draw(front, "Pareto front", "o", "-", COLORS[0], 7)
    draw(given, "as given", "D", "none", COLORS[1], 8)
    if across != "trial":
        axes.set_xscale("log")
    axes.set_xlabel(_WORDS.get(across, across))
    axes.set_ylabel(_WORDS.get(columns[0], columns[0]))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
