"""The score against the time since programming."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from hpml_sim.report.findings import gaps_of
from hpml_sim.report.metric_words import MetricWords, draw_log_axis, is_logarithmic, words_of
from hpml_sim.report.plots.drawing import add_legend, add_tip, drawing, new_figure, style_of
from hpml_sim.report.plots.theme import GRID, PAPER
from hpml_sim.report.summary import AccuracySummary, TargetSummary, summarize, times_of
from hpml_sim.report.wording import listing, names, shortened, time_label
from hpml_sim.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS: dict[str, Any] = {
    "elinewidth": 1.5,
    "capsize": 3,
    "capthick": 1.2,
    "markersize": 6,
    "markeredgecolor": PAPER,
    "markeredgewidth": 0.8,
}
_MAX_DOTS = 200
_FAINT = 0.30


def accuracy_over_time(
    rows: Sequence[Row], *, only: Collection[str] | None = None, narrow: bool = False, legend: bool = True
) -> Figure:
    """Scores against the time since programming: means with 95 % intervals, single chips as faint dots.

    Machines that do not drift are horizontal lines. Where a device model has no data there is a gap: the line is broken
    and nothing is drawn in between.

    Args:
        rows: results of one run.
        only: names of the targets that are drawn; None draws all.
        narrow: half as wide, for a telephone.
        legend: False where the page around it explains the marks.

    Raises:
        HpmlError: there are no rows.
    """
    targets = summarize(rows, only)
    times = times_of(targets)
    words = words_of(targets)
    log = is_logarithmic(words, [shown for target in targets for _, shown in target.supported])
    with drawing():
        figure = new_figure(3.7, 4.4) if narrow else new_figure(7.8, 4.2)
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_ylabel(words.axis(log))
        handles: list[Any] = []
        labels: list[str] = []
        levels = [group for group in same_line(targets) if not group[0].drifts]
        for group, place in zip(levels, _level_places(len(levels), times, narrow), strict=True):
            name = names([t.name for t in group])
            handles.append(_draw_level(axes, group[0], name, place, words))
            labels.append(name)
        drifting = [t for t in targets if t.drifts and t.supported]
        step = min(0.16, 0.6 / max(len(drifting), 1))  # decades; all together stay well within 1 h to 1 day
        for position, target in enumerate(drifting):
            dodge = 10 ** (step * (position - (len(drifting) - 1) / 2))
            handles.append(_draw_drift(axes, target, times, dodge, words))
            labels.append(target.name)
        if log:
            draw_log_axis(axes)
        _time_axis(axes, times, len(levels), narrow)
        head = ["time since programming"] if times else []
        axes.set_xlabel("\n".join([*head, *_gap_lines(targets, 48 if narrow else 100)]))
        if not handles:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no accuracy to show", transform=axes.transAxes, ha="center")
        if legend:
            add_legend(figure, handles, labels, 2.6)
    return figure


def _gap_lines(targets: list[TargetSummary], width: int) -> list[str]:
    """Which targets have no data at which times, in at most three lines."""
    groups: dict[str, list[str]] = {}
    for target in targets:
        if gaps := gaps_of(target):
            groups.setdefault(listing(gaps), []).append(shortened(target.name))
    lines = [line for when, who in groups.items() for line in wrap(f"no data at {when}: {names(who, 4)}", width)]
    return lines if len(lines) <= 3 else [*lines[:2], "and more, see the table"]


def same_line(targets: list[TargetSummary]) -> list[list[TargetSummary]]:
    """The `targets` in groups of one line each: those that do not drift share one where their accuracies are the same.

    Two lines in one place could not be told apart. Targets without any accuracy are left out.
    """
    groups: dict[object, list[TargetSummary]] = {}
    for target in targets:
        shown = target.at(None)
        if target.drifts and target.supported:
            groups[target.name] = [target]
        elif shown is not None:
            groups.setdefault((shown.mean, shown.ci95), []).append(target)
    return list(groups.values())


def _level_places(count: int, times: list[float], narrow: bool) -> list[float]:
    """Where the intervals of the targets that do not drift are drawn: right of the last time, beside each other."""
    last = _place(times[-1]) if times else 1.0
    start, step = (1.0, 0.5) if narrow else (0.75, 0.38)
    return [last * 10 ** (start + step * i) for i in range(count)]


def _draw_level(axes: Axes, target: TargetSummary, name: str, place: float, words: MetricWords) -> Any:
    from matplotlib.lines import Line2D

    shown, style, scale = target.at(None), style_of(target), words.scale
    if shown is None:
        raise AssertionError("only targets with an accuracy are drawn")
    axes.axhline(scale * shown.mean, color=style.color, linestyle=style.dashes, linewidth=1.3)
    axes.errorbar(
        [place],
        [scale * shown.mean],
        yerr=[[scale * (shown.mean - shown.ci95[0])], [scale * (shown.ci95[1] - shown.mean)]],
        color=style.color,
        **_BARS,
        marker=style.marker,
    )
    add_tip(axes, place, scale * shown.mean, f"{name}: {words.in_full(shown)}")
    return Line2D([], [], color=style.color, linestyle=style.dashes, marker=style.marker, markeredgecolor=PAPER)


def _draw_drift(axes: Axes, target: TargetSummary, times: list[float], dodge: float, words: MetricWords) -> Any:
    style, scale = style_of(target), words.scale
    for time, shown in target.supported:
        if time is None:
            continue
        values = thinned(shown.values)
        count = len(values)
        # spread sideways by a fixed pattern, so that equal accuracies do not hide each other
        x = [
            _place(time) * dodge * 10 ** (0.09 * (((k * 7) % max(count, 1)) / max(count, 1) - 0.5))
            for k in range(count)
        ]
        # dots as one line of pieces without length and with round ends: a tenth of the size of a mark for each
        axes.plot(
            [v for place in x for v in (place, place * 1.0005, math.nan)],
            [v for value in values for v in (scale * value, scale * value, math.nan)],
            linewidth=2.4,
            solid_capstyle="round",
            color=style.color,
            alpha=_FAINT,
        )
    for piece in unbroken(target, times):
        x = [_place(time) * dodge for time, _ in piece]
        y = [scale * a.mean for _, a in piece]
        bars = [[scale * (a.mean - a.ci95[0]) for _, a in piece], [scale * (a.ci95[1] - a.mean) for _, a in piece]]
        axes.errorbar(
            x,
            y,
            yerr=bars,
            color=style.color,
            linestyle=style.dashes,
            linewidth=1.4,
            **_BARS,
            marker=style.marker,
        )
        for time, shown in piece:
            tip = f"{target.name}, {time_label(time)}: {words.in_full(shown)}"
            add_tip(axes, _place(time) * dodge, scale * shown.mean, tip)
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.color, linestyle=style.dashes, marker=style.marker, markeredgecolor=PAPER)


def thinned(values: tuple[float, ...]) -> list[float]:
    """At most `_MAX_DOTS` of many values, evenly through their order, the extremes among them."""
    if len(values) <= _MAX_DOTS:
        return list(values)
    ordered = sorted(values)
    return [ordered[round(i * (len(ordered) - 1) / (_MAX_DOTS - 1))] for i in range(_MAX_DOTS)]


def unbroken(target: TargetSummary, times: list[float]) -> list[list[tuple[float, AccuracySummary]]]:
    """The stretches of neighboring times at which the target has data; never across a time without."""
    pieces: list[list[tuple[float, AccuracySummary]]] = [[]]
    for time in times:
        shown = target.accuracy.get(time)
        if shown is None:
            pieces.append([])
        else:
            pieces[-1].append((time, shown))
    return [piece for piece in pieces if piece]


def _place(time_s: float) -> float:
    """Where a time lies on the log axis; the moment of programming itself (0 s) is drawn at 0.1 s and labeled 0 s."""
    return max(time_s, 0.1)


def _time_axis(axes: Axes, times: list[float], levels: int, narrow: bool) -> None:
    axes.set_xscale("log")
    places = [_place(t) for t in times]
    beside = _level_places(levels, times, narrow)
    ends = [*places, *beside] or [1.0]
    axes.set_xlim(ends[0] / 10**0.5, ends[-1] * 10**0.45)
    axes.set_xticks(places, [time_label(t) for t in times])
    axes.set_xticks([], minor=True)
    if times and levels:
        # the machines that do not drift have no time: their strip is set apart from the axis of time
        edge = places[-1] * 10 ** (0.55 if narrow else 0.42)
        axes.axvline(edge, color=GRID, linewidth=0.8)
        axes.spines["bottom"].set_bounds(ends[0] / 10**0.5, edge)
        middle = (beside[0] * beside[-1]) ** 0.5
        words = "no\ndrift" if narrow else "no drift"
        axes.text(middle, -0.02, words, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=8.5)
