"""Energy against the score, a panel for each scope, with its Pareto front."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10
from typing import TYPE_CHECKING, Any

from hpml_sim.report.inference_words import words_of_inference
from hpml_sim.report.metric_words import MetricWords, draw_log_axis, is_logarithmic, words_of
from hpml_sim.report.plots.drawing import add_legend, add_tip, drawing, new_figure, style_of
from hpml_sim.report.plots.pareto import FRONT_LINE, draw_front_line, pareto_front
from hpml_sim.report.plots.theme import INK, PAPER
from hpml_sim.report.summary import SCOPES, AccuracySummary, Cost, TargetSummary, summarize
from hpml_sim.report.wording import figure as figure_text
from hpml_sim.report.wording import tick
from hpml_sim.results import Row
from hpml_sim.units.bands import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Point:
    target: TargetSummary
    cost: Cost
    energy_j: Band
    accuracy: AccuracySummary
    first: bool


def energy_against_accuracy(
    rows: Sequence[Row], *, only: Collection[str] | None = None, narrow: bool = False, legend: bool = True
) -> Figure:
    """Scores against the energy of one inference (log axis), a panel for each scope.

    Horizontal bars are the low and high bound of the energy, vertical ones the 95 % interval of the score, which is
    that of the earliest time since programming. Filled: batch 1. Hollow: the best batch. The stepped line joins what no
    other point of the panel beats in both (the Pareto front, by nominal values). Measured energies have a panel of
    their own. Figures in different panels include different things and are not ranked: each has an energy axis of its
    own, a decade being equally long in all.

    Args:
        rows: results of one run.
        only: names of the targets that are drawn; None draws all.
        narrow: panels below each other, for a telephone.
        legend: False where the page around it explains the marks.

    Raises:
        HpmlError: there are no rows.
    """
    targets = summarize(rows, only)
    panels, words = _panels(targets), words_of(targets)
    log = is_logarithmic(words, [point.accuracy for points in panels.values() for point in points])
    decades = {scope: _decades(points) for scope, points in panels.items()}
    widths = [high - low for low, high in decades.values()] or [1]
    with drawing():
        count = len(widths)
        height = 0.8 + 1.95 * count if narrow else 3.9
        figure = new_figure(3.7, height) if narrow else new_figure(7.8, height)
        shape: dict[str, Any] = {"nrows": count} if narrow else {"ncols": count, "width_ratios": widths}
        grid = figure.subplots(**shape, sharey=True, squeeze=False, gridspec_kw={"wspace": 0.08}).ravel()
        drawn: dict[str, Any] = {}
        for axes, (scope, points) in zip(grid, panels.items(), strict=False):
            axes.set_title(scope, loc="left", fontweight="bold")
            right = 10.0 ** decades[scope][1]
            draw_front_line(axes, _places(points, words), right, higher_is_better=words.higher_is_better)
            for point in points:
                drawn.setdefault(point.target.name, _draw_point(axes, point, words))
            _energy_axis(axes, *decades[scope], room=max(widths) if narrow else sum(widths) / 2)
        if log:
            draw_log_axis(grid[0])  # the panels share it
        for axes in grid:
            axes.set_facecolor("none")
            axes.grid(which="major")
            axes.set_axisbelow(True)
        per = words_of_inference(targets).per
        rule = "\nPanels of different scope are not ranked against each other." if len(panels) > 1 else ""
        figure.supxlabel(f"energy {per} (log axis){rule}", fontsize=9)
        figure.supylabel(words.axis(log), fontsize=9)
        if not panels:
            grid[0].set(xticks=[], yticks=[])
            grid[0].text(0.5, 0.5, "no target has both", transform=grid[0].transAxes, ha="center")
        if legend:
            more = _more_handles(panels)
            add_legend(figure, [*drawn.values(), *more.values()], [*drawn, *more], 1.2)
    return figure


def notable(targets: Sequence[TargetSummary], most: int) -> list[str]:
    """Which targets a plot shows where there are too many: those on a Pareto front, then those of the best score.

    Args:
        targets: of the run.
        most: how many names at most.

    Returns:
        Names of targets, in the order of the run.
    """
    if len(targets) <= most:
        return [t.name for t in targets]
    words, fronts = words_of(targets), set()
    for points in _panels(list(targets)).values():
        places = _places(points, words)
        best = set(pareto_front(places, higher_is_better=words.higher_is_better))
        fronts |= {p.target.name for p, place in zip(points, places, strict=True) if place in best}

    def merit(target: TargetSummary) -> tuple[bool, float]:
        return target.name in fronts, -words.rank(target.supported[-1][1].mean) if target.supported else -inf

    kept = {t.name for t in sorted(targets, key=merit, reverse=True)[:most]}
    return [t.name for t in targets if t.name in kept]


def _more_handles(panels: dict[str, list[_Point]]) -> dict[str, Any]:
    """Marks that belong to no target."""
    from matplotlib.lines import Line2D

    hollow = {"linestyle": "none", "marker": "o", "color": INK, "markersize": 6}
    found: dict[str, Any] = {}
    if any(not p.first for points in panels.values() for p in points):
        found["batch 1"] = Line2D([], [], **hollow)
        found["best batch"] = Line2D([], [], markerfacecolor=PAPER, **hollow)
    if any(len(points) > 1 for points in panels.values()):
        found["Pareto front"] = Line2D([], [], color=INK, **FRONT_LINE)
    return found


def _places(points: list[_Point], words: MetricWords) -> list[tuple[float, float]]:
    """(energy in joules, score as it is drawn) of each point, nominal values."""
    return [(p.energy_j.nominal, words.scale * p.accuracy.mean) for p in points]


def _panels(targets: list[TargetSummary]) -> dict[str, list[_Point]]:
    """Title of the panel -> points; estimates by scope, from the smallest to the largest, then what was measured."""
    found: dict[str, list[_Point]] = {}
    for target in targets:
        if not target.supported:
            continue
        accuracy = target.supported[0][1]
        for cost in target.costs:
            if cost.energy_j is None or cost.energy_j.nominal <= 0:
                continue
            key = f"scope: {cost.scope}" if cost.provenance == "estimated" else "measured here"
            first = cost.batch == min(c.batch for c in target.costs if c.provenance == cost.provenance)
            found.setdefault(key, []).append(_Point(target, cost, cost.energy_j, accuracy, first))
    order = [f"scope: {s}" for s in SCOPES]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _draw_point(axes: Axes, point: _Point, words: MetricWords) -> Any:
    from matplotlib.lines import Line2D

    style, energy, accuracy = style_of(point.target), point.energy_j, point.accuracy
    scale = words.scale
    axes.errorbar(
        [energy.nominal],
        [scale * accuracy.mean],
        # bounds of 0 and infinity run to the edge of the log axis
        xerr=[[energy.nominal - max(energy.low, 1e-30)], [min(energy.high, 1e30) - energy.nominal]],
        yerr=[[scale * (accuracy.mean - accuracy.ci95[0])], [scale * (accuracy.ci95[1] - accuracy.mean)]],
        color=style.color,
        linestyle="none",
        elinewidth=1.2,
        capsize=2.5,
        marker=style.marker,
        markersize=7,
        markerfacecolor=style.color if point.first else PAPER,
        markeredgecolor=PAPER if point.first else style.color,
        markeredgewidth=0.8 if point.first else 1.4,
    )
    tip = f"{point.target.name}, batch {point.cost.batch:,}, {point.cost.provenance}: {figure_text(energy, 'J')}, "
    add_tip(axes, energy.nominal, scale * accuracy.mean, tip + words.in_full(accuracy))
    return Line2D([], [], color=style.color, linestyle="none", marker=style.marker, markersize=7, markeredgecolor=PAPER)


def _decades(points: list[_Point]) -> tuple[int, int]:
    """Powers of ten between which the points with their bounds lie; at least two decades."""
    bounds = [v for p in points for v in (p.energy_j.low, p.energy_j.nominal, p.energy_j.high) if 0 < v < float("inf")]
    low, high = floor(log10(min(bounds)) - 0.1), ceil(log10(max(bounds)) + 0.1)
    return (low, high) if high - low >= 2 else (low - (high - low) % 2, low - (high - low) % 2 + 2)


def _energy_axis(axes: Axes, low: int, high: int, *, room: float) -> None:
    """A log axis from 10^low to 10^high J; `room`: decades on which about five labels fit."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    step = max(1, ceil(room / 5))
    if step == 2 or step > 3:
        step = 3 * ceil(step / 3)  # whole engineering prefixes: nJ, µJ, mJ
    axes.set_xscale("log")
    axes.set_xlim(10.0**low, 10.0**high)
    axes.xaxis.set_major_locator(FixedLocator([10.0**d for d in range(step * ceil(low / step), high + 1, step)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, "J")))
