"""The plots, as matplotlib figures that belong to no global state.

Colours are those of Okabe and Ito (M. Okabe, K. Ito, Color Universal Design, 2008), which people with any form of
colour blindness tell apart; targets differ in marker and line as well. Source of the palette:
https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from hpml_sim.report._format import listing, names, percent, shortened, si, time_label
from hpml_sim.report.findings import figure as figure_of
from hpml_sim.report.findings import gaps_of
from hpml_sim.report.summary import SCOPES, AccuracySummary, Cost, TargetSummary, summarise, times_of
from hpml_sim.results import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, PAPER = "#1b1f24", "#d5d9df", "#fffffe"
"""Text and axes, grid, background: unlike any colour of a series, so that a page can map them to its own theme."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of series, in this order: told apart with any form of colour blindness."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)))
_BARS: dict[str, Any] = {
    "elinewidth": 1.5,
    "capsize": 3,
    "capthick": 1.2,
    "markersize": 6,
    "markeredgecolor": PAPER,
    "markeredgewidth": 0.8,
}
_MOST_DOTS = 200
_TIP = "tip:"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Style:
    """How one target is drawn, in every plot and in the page's table."""

    colour: str
    marker: str
    dashes: Any


def style_of(target: TargetSummary) -> Style:
    """Colour, marker and dashes of a target: by its place in the run, the same in every plot."""
    i = target.index
    return Style(COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)], _DASHES[i % len(_DASHES)])


@contextmanager
def _drawing() -> Iterator[None]:
    """matplotlib's settings while a figure is made or written; what the caller had set comes back."""
    import matplotlib

    settings: dict[Any, Any] = {
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "axes.linewidth": 0.7,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.unicode_minus": True,
        "font.family": ["DejaVu Sans"],
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.labelsize": 9,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "path.simplify": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "hpml_sim",
        "text.color": INK,
        "text.parse_math": False,  # a target called "a$b$" is no formula
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
    }
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a user's style sheet must not change the report
        matplotlib.rcParams.update(settings)
        # names in a script that the measuring font lacks: the browser draws them with its own
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="none")
    return figure


def _legend(figure: Figure, handles: list[Any], labels: list[str], handle_em: float) -> None:
    """A legend above the axes with as many columns as the longest label leaves room for."""
    if not handles:
        return
    shown = [_label(shortened(label, 40)) for label in labels]
    character_in, em_in = 0.078, 0.118
    column_in = character_in * max(len(label) for label in shown) + em_in * (handle_em + 2.2)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / column_in)))
    figure.legend(
        handles,
        shown,
        loc="outside upper left",
        ncols=columns,
        handlelength=handle_em,
        columnspacing=1.4,
        handletextpad=0.5,
    )


def _label(text: str) -> str:
    """A legend label; matplotlib drops those that begin with an underscore."""
    return f"\u200b{text}" if text.startswith("_") else text


def _tip(axes: Axes, x: float, y: float, text: str) -> None:
    """Lay an invisible mark over a point; in the SVG it shows `text` under the pointer (see `to_svg`)."""
    axes.plot([x], [y], marker="o", markersize=15, alpha=0, markeredgewidth=0, zorder=9, gid=_TIP + text)


# ------------------------------------------------------------------------------------------------ accuracy over time


def accuracy_over_time(rows: Sequence[Row], *, narrow: bool = False, legend: bool = True) -> Figure:
    """Accuracy against the time since programming: means with 95 % intervals, single chips as faint dots.

    Machines that do not drift are horizontal lines. Where a device model has no data there is a gap: the line is broken
    and nothing is drawn in between.

    Args:
        rows: results of one run.
        narrow: half as wide, for a telephone.
        legend: False where the page around it explains the marks.

    Raises:
        HpmlError: there are no rows.
    """
    targets = summarise(rows)
    times = times_of(targets)
    with _drawing():
        figure = _figure(3.7, 4.4) if narrow else _figure(7.8, 4.2)
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_ylabel("test accuracy, %")
        handles: list[Any] = []
        labels: list[str] = []
        levels = [group for group in same_line(targets) if not group[0].drifts]
        for group, place in zip(levels, _level_places(len(levels), times, narrow), strict=True):
            name = names([t.name for t in group])
            handles.append(_draw_level(axes, group[0], name, place))
            labels.append(name)
        drifting = [t for t in targets if t.drifts and t.supported]
        step = min(0.16, 0.6 / max(len(drifting), 1))  # decades; all together stay well within 1 h to 1 day
        for position, target in enumerate(drifting):
            dodge = 10 ** (step * (position - (len(drifting) - 1) / 2))
            handles.append(_draw_drift(axes, target, times, dodge))
            labels.append(target.name)
        _time_axis(axes, times, len(levels), narrow)
        head = ["time since programming"] if times else []
        axes.set_xlabel("\n".join([*head, *_gap_lines(targets, 48 if narrow else 100)]))
        if not handles:
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no accuracy to show", transform=axes.transAxes, ha="center")
        if legend:
            _legend(figure, handles, labels, 2.6)
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
    """Targets in groups of one line each: those that do not drift share one where their accuracies are the same.

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
    """Where the intervals of the targets that do not drift stand: right of the last time, beside each other."""
    last = _place(times[-1]) if times else 1.0
    start, step = (1.0, 0.5) if narrow else (0.75, 0.38)
    return [last * 10 ** (start + step * i) for i in range(count)]


def _draw_level(axes: Axes, target: TargetSummary, name: str, place: float) -> Any:
    from matplotlib.lines import Line2D

    shown, style = target.at(None), style_of(target)
    if shown is None:
        raise AssertionError("only targets with an accuracy are drawn")
    axes.axhline(100 * shown.mean, color=style.colour, linestyle=style.dashes, linewidth=1.3)
    axes.errorbar(
        [place],
        [100 * shown.mean],
        yerr=[[100 * (shown.mean - shown.ci95[0])], [100 * (shown.ci95[1] - shown.mean)]],
        color=style.colour,
        **_BARS,
        marker=style.marker,
    )
    _tip(axes, place, 100 * shown.mean, f"{name}: {_accuracy_words(shown)}")
    return Line2D([], [], color=style.colour, linestyle=style.dashes, marker=style.marker, markeredgecolor=PAPER)


def _draw_drift(axes: Axes, target: TargetSummary, times: list[float], dodge: float) -> Any:
    style = style_of(target)
    for time, shown in target.supported:
        if time is None:
            continue
        values = _thinned(shown.values)
        count = len(values)
        # spread sideways by a fixed pattern, so that equal accuracies do not hide each other
        x = [
            _place(time) * dodge * 10 ** (0.09 * (((k * 7) % max(count, 1)) / max(count, 1) - 0.5))
            for k in range(count)
        ]
        axes.plot(
            x,
            [100 * v for v in values],
            linestyle="none",
            marker="o",
            markersize=2.4,
            markeredgewidth=0,
            color=style.colour,
            alpha=0.30,
        )
    for piece in _unbroken(target, times):
        x = [_place(time) * dodge for time, _ in piece]
        y = [100 * a.mean for _, a in piece]
        bars = [[100 * (a.mean - a.ci95[0]) for _, a in piece], [100 * (a.ci95[1] - a.mean) for _, a in piece]]
        axes.errorbar(
            x,
            y,
            yerr=bars,
            color=style.colour,
            linestyle=style.dashes,
            linewidth=1.4,
            **_BARS,
            marker=style.marker,
        )
        for time, shown in piece:
            words = f"{target.name}, {time_label(time)}: {_accuracy_words(shown)}"
            _tip(axes, _place(time) * dodge, 100 * shown.mean, words)
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.colour, linestyle=style.dashes, marker=style.marker, markeredgecolor=PAPER)


def _accuracy_words(shown: AccuracySummary) -> str:
    low, high = shown.ci95
    return f"{percent(shown.mean)} % (95 % interval {percent(low)} to {percent(high)}, {shown.spread})"


def _thinned(values: tuple[float, ...]) -> list[float]:
    """At most `_MOST_DOTS` of many values, evenly through their order, the extremes among them."""
    if len(values) <= _MOST_DOTS:
        return list(values)
    ordered = sorted(values)
    return [ordered[round(i * (len(ordered) - 1) / (_MOST_DOTS - 1))] for i in range(_MOST_DOTS)]


def _unbroken(target: TargetSummary, times: list[float]) -> list[list[tuple[float, AccuracySummary]]]:
    """The stretches of neighbouring times at which the target has data; never across a time without."""
    pieces: list[list[tuple[float, AccuracySummary]]] = [[]]
    for time in times:
        shown = target.accuracy.get(time)
        if shown is None:
            pieces.append([])
        else:
            pieces[-1].append((time, shown))
    return [piece for piece in pieces if piece]


def _place(time_s: float) -> float:
    """Where a time lies on the log axis; the moment of programming itself (0 s) is drawn at 0.1 s and labelled 0 s."""
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


# ------------------------------------------------------------------------------------------- energy against accuracy


@dataclass(frozen=True)
class _Point:
    target: TargetSummary
    cost: Cost
    accuracy: AccuracySummary
    first: bool


def energy_against_accuracy(rows: Sequence[Row], *, narrow: bool = False, legend: bool = True) -> Figure:
    """Accuracy against the energy of one inference (log axis), one panel a scope on the same axes.

    Horizontal bars are the low and high bound of the energy, vertical ones the 95 % interval of the accuracy, which is
    that of the earliest time since programming. Filled: batch 1. Hollow: the best batch. Measured energies have a panel
    of their own. Figures in different panels include different things and are not ranked.

    Args:
        rows: results of one run.
        narrow: panels below each other, for a telephone.
        legend: False where the page around it explains the marks.

    Raises:
        HpmlError: there are no rows.
    """
    targets = summarise(rows)
    panels = _panels(targets)
    with _drawing():
        count = max(len(panels), 1)
        height = 1.0 + 1.75 * count if narrow else 3.9
        figure = _figure(3.7, height) if narrow else _figure(7.8, height)
        grid = figure.subplots(*((count, 1) if narrow else (1, count)), sharex=True, sharey=True, squeeze=False).ravel()
        drawn: dict[str, Any] = {}
        for axes, (scope, points) in zip(grid, panels.items(), strict=False):
            axes.set_title(scope, loc="left", fontweight="bold")
            for point in points:
                drawn.setdefault(point.target.name, _draw_point(axes, point))
        for axes in grid:
            axes.set_facecolor("none")
            axes.grid(which="major")
            axes.set_axisbelow(True)
        _energy_axis(grid, panels)
        rule = "\nPanels of different scope are not ranked against each other." if len(panels) > 1 else ""
        figure.supxlabel("energy per inference (log axis)" + rule, fontsize=9)
        figure.supylabel("test accuracy, %", fontsize=9)
        if not panels:
            grid[0].set(xticks=[], yticks=[])
            grid[0].text(0.5, 0.5, "no target has both", transform=grid[0].transAxes, ha="center")
        handles, labels = list(drawn.values()), list(drawn)
        if any(not p.first for points in panels.values() for p in points):
            from matplotlib.lines import Line2D

            hollow = {"linestyle": "none", "marker": "o", "color": INK, "markersize": 6}
            handles += [Line2D([], [], **hollow), Line2D([], [], markerfacecolor=PAPER, **hollow)]
            labels += ["batch 1", "best batch"]
        if legend:
            _legend(figure, handles, labels, 1.0)
    return figure


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
            key = f"scope: {cost.scope}" if cost.how == "estimated" else "measured here"
            first = cost.batch == min(c.batch for c in target.costs if c.how == cost.how)
            found.setdefault(key, []).append(_Point(target, cost, accuracy, first))
    order = [f"scope: {s}" for s in SCOPES]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _draw_point(axes: Axes, point: _Point) -> Any:
    from matplotlib.lines import Line2D

    style, energy, accuracy = style_of(point.target), point.cost.energy_j, point.accuracy
    if energy is None:
        raise AssertionError("only targets with an energy are drawn")
    axes.errorbar(
        [energy.nominal],
        [100 * accuracy.mean],
        # bounds of 0 and infinity run to the edge of the log axis
        xerr=[[energy.nominal - max(energy.low, 1e-30)], [min(energy.high, 1e30) - energy.nominal]],
        yerr=[[100 * (accuracy.mean - accuracy.ci95[0])], [100 * (accuracy.ci95[1] - accuracy.mean)]],
        color=style.colour,
        linestyle="none",
        elinewidth=1.2,
        capsize=2.5,
        marker=style.marker,
        markersize=7,
        markerfacecolor=style.colour if point.first else PAPER,
        markeredgecolor=PAPER if point.first else style.colour,
        markeredgewidth=0.8 if point.first else 1.4,
    )
    words = f"{point.target.name}, batch {point.cost.batch:,}, {point.cost.how}: {figure_of(energy, 'J')}, "
    _tip(axes, energy.nominal, 100 * accuracy.mean, words + _accuracy_words(accuracy))
    return Line2D(
        [], [], color=style.colour, linestyle="none", marker=style.marker, markersize=7, markeredgecolor=PAPER
    )


def _energy_axis(grid: Any, panels: dict[str, list[_Point]]) -> None:
    from math import ceil, floor, log10

    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    bounds = [b for points in panels.values() for p in points if p.cost.energy_j for b in _positive(p.cost.energy_j)]
    if not bounds:
        return
    low, high = floor(log10(min(bounds)) - 0.15), ceil(log10(max(bounds)) + 0.15)
    step = max(1, ceil((high - low) / (4 if len(grid) > 1 else 8)))
    if step == 2 or step > 3:
        step = 3 * ceil(step / 3)  # whole engineering prefixes: nJ, µJ, mJ
    first = step * ceil(low / step)
    for axes in grid:
        axes.set_xscale("log")
        axes.set_xlim(10**low, 10**high)
        axes.xaxis.set_major_locator(FixedLocator([10.0**d for d in range(first, high + 1, step)]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: re.sub(r"\.0+(?= )", "", si(value, "J", micro="µ")))
        )


def _positive(band: Any) -> list[float]:
    return [v for v in (band.low, band.nominal, band.high) if 0 < v < float("inf")]


# ------------------------------------------------------------------------------------------------ energy by component


def energy_by_component(rows: Sequence[Row], *, narrow: bool = False, most: int = 7) -> Figure:
    """Where the estimated energy of one inference goes at batch 1: a bar a component, as a share of the total.

    Shares may be compared between targets; the totals beside the names may not where scopes differ.

    Args:
        rows: results of one run.
        narrow: labels above the bars, for a telephone.
        most: components drawn a target; the smaller ones are summed.

    Raises:
        HpmlError: there are no rows.
    """
    targets = [t for t in summarise(rows) if t.components]
    blocks = [(t, _largest(t, most)) for t in targets]
    with _drawing():
        lines = sum(len(parts) + 1.5 for _, parts in blocks)
        figure = _figure(3.7 if narrow else 7.8, max(1.6, 0.55 + (0.33 if narrow else 0.22) * lines))
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        y = 0.0
        ticks: list[tuple[float, str]] = []
        for target, parts in blocks:
            total = sum(joules for _, joules, _ in parts)
            scope = target.estimates[0].scope if target.estimates else target.card.scope
            title = f"{shortened(target.name, 30 if narrow else 60)}: {si(total, 'J', micro='µ')} ({scope})"
            axes.text(0 if narrow else 0.8, y, title, fontweight="bold", va="center")
            y += 1
            for name, joules, share in parts:
                colour = style_of(target).colour
                if narrow:
                    axes.barh(y + 0.28, 100 * share, height=0.36, color=colour)
                    axes.text(0, y - 0.16, shortened(name, 26), va="center")
                    axes.text(100, y - 0.16, _share(joules, share), va="center", ha="right")
                else:
                    axes.barh(y, 100 * share, height=0.62, color=colour)
                    axes.text(100 * share + 0.8, y, _share(joules, share), va="center", fontsize=8.5)
                    ticks.append((y, shortened(name)))
                y += 1
            y += 0.5
        axes.set_ylim(y - 0.5, -0.7)
        axes.set_xlim(0, 100 if narrow else 122)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_xlabel("share of the energy of one inference at batch 1, %")
        axes.spines["bottom"].set_bounds(0, 100)
        axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
        axes.tick_params(axis="y", length=0)
        if narrow:
            axes.spines["left"].set_visible(False)
        if not blocks:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no target has an energy estimate", transform=axes.transAxes, ha="center")
    return figure


def _largest(target: TargetSummary, most: int) -> list[tuple[str, float, float]]:
    """(name, joules, share) of the largest components; the rest in one."""
    parts = [(c.name, c.energy_j.nominal, c.share) for c in target.components]
    if len(parts) <= most:
        return parts
    rest = parts[most - 1 :]
    return [*parts[: most - 1], (f"{len(rest)} smaller ones", sum(p[1] for p in rest), sum(p[2] for p in rest))]


def _share(joules: float, share: float) -> str:
    shown = "<0.1" if 0 < share < 0.0005 else percent(share, 1)
    return f"{shown} %, {si(joules, 'J', micro='µ')}"


# ---------------------------------------------------------------------------------------------------------------- SVG


def to_svg(figure: Figure, *, prefix: str = "") -> str:
    """A figure as SVG text: the same figure gives the same characters, text stays text in the reader's own font.

    Args:
        figure: from one of the functions above.
        prefix: put before every id, so that several figures can stand in one page.
    """
    buffer = StringIO()
    with _drawing():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"'DejaVu Sans'(, [^;\"]*)?(?=[;\"])", _FONT, svg)
    svg = re.sub(rf'<g id="{_TIP}([^"]*)">', r"<g><title>\1</title>", svg)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)
    return _shared_styles(svg).strip()


def _shared_styles(svg: str) -> str:
    """Put the style that all markers of a group share on the group: a thousand dots need it once."""

    def hoist(match: re.Match[str]) -> str:
        styles = set(re.findall(r'<use [^>]*?( style="[^"]*")/>', match[0]))
        marks = match[0].count("<use ")
        if len(styles) != 1 or match[0].count(next(iter(styles))) != marks:
            return match[0]
        style = next(iter(styles))
        return match[0].replace(style, "").replace("<g ", f"<g{style} ", 1)

    svg = re.sub(r"<g clip-path=\"[^\"]*\">\s*(?:<use [^>]*/>\s*)+</g>", hoist, svg)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)
    return re.sub(r"\n\s*", "\n", svg)
