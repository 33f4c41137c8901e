"""The Pareto front: what no other beats in every objective, computed and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpml_sim.report.plots.drawing import drawing, new_figure
from hpml_sim.report.plots.theme import COLORS, INK, PAPER
from hpml_sim.tasks.score import RATIO, SHARE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRONT_LINE: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.45, "linestyle": (0, (4, 2))}
"""How the line along a front is drawn."""
_WORDS = {
    "energy_j": "energy of an inference, J (estimated, nominal)",
    "latency_s": "latency, s (estimated, nominal, batch 1)",
}


def on_front(values: np.ndarray, larger_is_better: Sequence[bool]) -> np.ndarray:
    """Which rows no other row beats: one that is at least as good in every objective, and better in one.

    Args:
        values: (n, objectives).
        larger_is_better: for each objective, whether a larger value is the better one.

    Returns:
        (n,) bools. Of equal rows all are on the front, or none.

    Example:
        >>> on_front(np.array([[0.9, 2.0], [0.8, 1.0], [0.8, 3.0]]), [True, False]).tolist()
        [True, True, False]
    """
    costs = np.where(np.asarray(larger_is_better), -values, values)
    no_worse = (costs[:, None] <= costs[None]).all(-1)
    better = (costs[:, None] < costs[None]).any(-1)
    return np.logical_not(np.any(no_worse & better, axis=0))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, value) `points` those that no other beats in both, each once, by rising cost."""
    distinct = sorted(set(points))
    front = on_front(np.array(distinct, dtype=float).reshape(-1, 2), [False, True])
    return [point for point, kept in zip(distinct, front.tolist(), strict=True) if kept]


def draw_front_line(axes: Axes, points: Sequence[tuple[float, float]], right: float) -> None:
    """Draw the stepped line along the front of (cost, value) points, on to the right edge.

    Args:
        axes: where to draw.
        points: cost goes across, value goes up; fewer than two get no line.
        right: cost at the right edge.
    """
    if len(points) < 2:
        return
    front = pareto_front(points)
    x, y = [cost for cost, _ in front], [value for _, value in front]
    axes.plot([*x, right], [*y, y[-1]], drawstyle="steps-post", color=INK, zorder=1, **FRONT_LINE)


def _words(trials: pd.DataFrame, column: str) -> str:
    """What an axis is called: a score by its metric and unit."""
    if not column.endswith("_mean"):
        return _WORDS.get(column, column)
    unit = trials.attrs["units"].get(column, "")
    return f"{trials.attrs['metric']}{', %' if unit in (SHARE, RATIO) else f', {unit}' if unit else ''}"


def draw_trials(trials: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Every trial of a search, its front joined by a line, and the configuration that the search began with.

    Args:
        trials: `SearchResult.trials`.
        columns: its columns of the objectives; the first goes up, the second across. With one, the number of the trial
            goes across.
    """
    across = columns[1] if len(columns) > 1 else "trial"
    with drawing():
        figure = new_figure(6.4, 4.2, background=PAPER)
        axes = figure.add_subplot()
        front = trials.query("on_front").sort_values(across)
        tried, given = trials.query("trial >= 0"), trials.query("trial < 0")

        def draw(part: pd.DataFrame, label: str, marker: str, line: str, color: str, size: float) -> None:
            scale = 100 if trials.attrs["units"].get(columns[0]) in (SHARE, RATIO) else 1
            axes.plot(
                part[across], scale * part[columns[0]], marker=marker, linestyle=line, color=color, markersize=size,
                label=label,
            )  # fmt: skip

        draw(tried, "trials", "o", "none", COLORS[5], 5)
        draw(front, "Pareto front", "o", "-", COLORS[0], 7)
        draw(given, "as given", "D", "none", COLORS[1], 8)
        if across != "trial":
            axes.set_xscale("log")
        axes.set_xlabel(_words(trials, across))
        axes.set_ylabel(_words(trials, columns[0]))
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        axes.legend()
    return figure
