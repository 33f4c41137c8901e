"""The roofline plots: `layer_roofline` of the layers in a run's results, `machine_roofline` of processors and kernels.

Source: S. Williams, A. Waterman, D. Patterson, Roofline, Communications of the ACM 52(4):65, 2009.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

from hpml_sim.cost import Roof
from hpml_sim.cost.roofline_points import Kind, Point
from hpml_sim.cost.roofline_points import Roof as MachineRoof
from hpml_sim.errors import HpmlError
from hpml_sim.report.plots.drawing import add_legend, add_tip, drawing, new_figure, style_of
from hpml_sim.report.plots.theme import COLORS, GRID, INK, PAPER
from hpml_sim.report.summary import TargetSummary, layer_label, summarize
from hpml_sim.report.wording import percent, shortened, tick
from hpml_sim.results import Row
from hpml_sim.units.formatting import digits, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_KIND_MARKERS: dict[Kind, str] = {"layer": "o", "measured": "s", "kernel": "^", "tile": "D", "core": "*"}
_KIND_WORDS: dict[Kind, str] = {
    "layer": "layer, estimated",
    "measured": "layer, measured here",
    "kernel": "kernel, measured",
    "tile": "crossbar tile",
    "core": "neuromorphic core",
}
_MAX_NAMED = 24
"""Points that get their name written beside them; more would cover each other."""


@dataclass(frozen=True)
class LayerPoint:
    """One layer at one batch size.

    Attributes:
        target: that runs the layer.
        batch: samples processed together.
        layer: its name, with what it was before conversion.
        operations: arithmetic operations of the batch (a MAC is two).
        traffic_bytes: to and from DRAM.
        intensity: operations a byte of DRAM traffic.
        rate_hz: operations a second in the estimate.
        ceiling_hz: what the roof allows at that intensity, operations a second.
        share: of the time that the layers take, in [0, 1].
        limit: "compute", "memory", "launch" or "power".
        first: whether `batch` is the smallest.
    """

    target: TargetSummary
    batch: int
    layer: str
    operations: float
    traffic_bytes: float
    intensity: float
    rate_hz: float
    ceiling_hz: float
    share: float
    limit: str
    first: bool


def layer_points(target: TargetSummary) -> Iterator[LayerPoint]:
    """The layers of a `target` under its roof, at batch 1 and at the best batch; none where weights stay in place."""
    for estimate in target.estimates:
        if (roof := estimate.roof) is None:
            continue
        total = sum(layer.time_s for layer in roof.layers)
        for layer in roof.layers:
            if layer.operations <= 0 or layer.traffic_bytes <= 0 or layer.time_s <= 0:
                continue  # a layer without arithmetic or traffic has no place on logarithmic axes
            intensity = layer.operations / layer.traffic_bytes
            yield LayerPoint(
                target,
                estimate.batch,
                layer_label(layer.layer, target.layers),
                layer.operations,
                layer.traffic_bytes,
                intensity,
                layer.operations / layer.time_s,
                min(roof.operations_hz.nominal, roof.bandwidth.nominal * intensity),
                layer.time_s / total,
                layer.limit,
                estimate.batch == min(e.batch for e in target.estimates),
            )


def layer_roofline(
    rows: Sequence[Row], *, only: Collection[str] | None = None, narrow: bool = False, legend: bool = True
) -> Figure:
    """Operations a second of each layer against its operations a byte, a panel for each CPU or GPU.

    The line is what the card's efficiencies leave of its peaks, the band around it their low and high bounds. Filled:
    batch 1. Hollow: the best batch. A mark is as large as the layer's share of the time; its distance to the line is
    what launches (or the power limit) cost. Crossbars and spiking chips keep their weights in place and have no such
    roof.

    Args:
        rows: results of one run.
        only: names of the targets that are drawn; None draws all.
        narrow: panels below each other, for a telephone.
        legend: False where the page around it explains the marks.

    Raises:
        HpmlError: there are no rows.

    Source: S. Williams, A. Waterman, D. Patterson, Roofline, Communications of the ACM 52(4):65, 2009.
    """
    targets = [t for t in summarize(rows, only) if any(True for _ in layer_points(t))]
    count = max(len(targets), 1)
    columns = 1 if narrow else min(count, 2)
    lines = -(-count // columns)
    with drawing():
        figure = new_figure(3.7 if narrow else 7.8, 0.6 + (2.5 if narrow else 3.1) * lines)
        grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes in grid:
            axes.set_facecolor("none")
            axes.set_visible(False)
        if not targets:
            grid[0].set_visible(True)
            grid[0].set_axis_off()
            grid[0].text(0.5, 0.5, "no CPU or GPU with an estimate", transform=grid[0].transAxes, ha="center")
            return figure
        points = {t.name: list(layer_points(t)) for t in targets}
        window = _window([p for found in points.values() for p in found])
        for axes, target in zip(grid, targets, strict=False):
            axes.set_visible(True)
            axes.set_title(shortened(target.name, 40), loc="left", fontweight="bold")
            roof = next(e.roof for e in target.estimates if e.roof is not None)
            _draw_roof(axes, roof, window)
            for point in sorted(points[target.name], key=lambda p: -p.share):
                _draw_layer(axes, point)
            _log_axes(axes, window)
            _name_layers(axes, [p for p in points[target.name] if p.first])
        figure.supxlabel("operations per byte of memory traffic (log axis)", fontsize=9)
        figure.supylabel("operations per second (log axis)", fontsize=9)
        if legend:
            from matplotlib.lines import Line2D

            hollow = {"linestyle": "none", "marker": "o", "color": INK, "markersize": 6}
            marks = [Line2D([], [], **hollow), Line2D([], [], markerfacecolor=PAPER, **hollow)]
            add_legend(figure, marks, ["batch 1", "best batch"], 1.0)
    return figure


def machine_roofline(roofs: Sequence[MachineRoof], points: Sequence[Point], *, title: str = "") -> Figure:
    """Processors and what runs on them in one plane: operations a second against operations a byte, both logarithmic.

    A mark on the slope is limited by memory, one under the flat part by arithmetic; the gap to the line is what
    launches, the power limit or the kernel itself cost.

    Args:
        roofs: a line each; ceilings of processors.
        points: a mark each; layers, kernels, crossbar tiles and neuromorphic cores.
        title: above the plot.

    Raises:
        HpmlError: nothing to draw.

    Source: S. Williams, A. Waterman, D. Patterson, Roofline, CACM 52(4):65, 2009.
    """
    if not roofs and not points:
        raise HpmlError("machine_roofline: no roof and no point; give a card or a network")
    with drawing():
        figure = new_figure(9, 5.6, background=PAPER)
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.set_yscale("log")
        across = [p.intensity for p in points] + [r.ridge for r in roofs]
        left, right = min(across) / 5, max(across) * 5
        # what ran on a processor has the color of its roof, whose name has the precision behind the machine's
        machines = list(dict.fromkeys([*(r.name.rpartition(" ")[0] for r in roofs), *(p.machine for p in points)]))
        colors = {machine: COLORS[i % len(COLORS)] for i, machine in enumerate(machines)}
        for roof in roofs:
            color = colors[roof.name.rpartition(" ")[0]]
            corners = [left, *([roof.ridge] if left < roof.ridge < right else []), right]
            style = "-" if roof.measured else (0, (6, 2))
            label = f"{roof.name}: {si(roof.rate.nominal, '')}OP/s, {si(roof.bandwidth.nominal, '')}B/s"
            axes.plot(corners, [roof.at(x) for x in corners], color=color, linestyle=style, linewidth=1.6, label=label)
        _name_precisions(axes, roofs, right)
        seen: set[tuple[str, str]] = set()
        for point in points:
            color = colors[point.machine]
            label = f"{_KIND_WORDS[point.kind]}: {point.machine}" if point.machine else _KIND_WORDS[point.kind]
            first = (point.kind, point.machine) not in seen
            seen.add((point.kind, point.machine))
            axes.plot(
                [point.intensity],
                [point.rate],
                linestyle="none",
                marker=_KIND_MARKERS[point.kind],
                markersize=10 if point.kind == "core" else 7,
                color=color,
                markeredgecolor=INK,
                markeredgewidth=0.6,
                label=label if first else None,
            )
        axes.set_xlim(left, right)
        if len(points) <= _MAX_NAMED:
            _name_points(axes, points)
        axes.grid(which="major")
        axes.set_xlabel("operations per byte moved into or out of the weights' memory")
        axes.set_ylabel("operations per second")
        axes.set_title(title, loc="left", fontsize=10)
        figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=2)
    return figure


def _name_precisions(axes: Axes, roofs: Sequence[MachineRoof], right: float) -> None:
    """The precision above the end of each line; once where two of them lie together."""
    taken: list[tuple[str, float]] = []
    for roof in roofs:
        precision, y = roof.name.rpartition(" ")[2], log10(roof.at(right))
        if not any(precision == other and abs(y - b) < 0.15 for other, b in taken):
            axes.annotate(
                precision, (right, roof.at(right)), (-3, 3), textcoords="offset points", ha="right", fontsize=7.5
            )
            taken.append((precision, y))


def _name_points(axes: Axes, points: Sequence[Point]) -> None:
    """Names beside the marks: to the left at the right edge, and below where another name is close by."""
    edge = log10(axes.get_xlim()[1]) - 1
    taken: list[tuple[float, float]] = []
    for point in points:
        x, y = log10(point.intensity), log10(point.rate)
        below = any(abs(x - a) < 0.5 and abs(y - b) < 0.35 for a, b in taken)
        taken.append((x, y))
        side, aligned = (-7, "right") if x > edge else (7, "left")
        text = f"{point.name} ({point.limit})" if point.limit else point.name
        axes.annotate(
            text,
            (point.intensity, point.rate),
            (side, -11 if below else 3),
            textcoords="offset points",
            ha=aligned,
            fontsize=7.5,
        )


@dataclass(frozen=True)
class _Window:
    """What the axes show: operations a byte from left to right, operations a second from bottom to top."""

    left: float
    right: float
    bottom: float
    top: float


def _window(points: list[LayerPoint]) -> _Window:
    """All layers, and of every roof its ridge and some of the flat part."""
    roofs = [e.roof for p in points for e in p.target.estimates if e.roof is not None]
    ridges = [roof.operations_hz.nominal / roof.bandwidth.nominal for roof in roofs]
    x = [p.intensity for p in points]
    return _Window(
        left=min(*x, min(ridges) / 10) / 2,
        right=max(*x, max(ridges)) * 4,
        bottom=min(p.rate_hz for p in points) / 3,
        top=max(roof.operations_hz.high for roof in roofs) * 2.5,
    )


def _draw_roof(axes: Axes, roof: Roof, window: _Window) -> None:
    def heights(operations_hz: float, bandwidth: float, x: list[float]) -> list[float]:
        return [min(operations_hz, bandwidth * v) for v in x]

    rate, band = roof.operations_hz, roof.bandwidth
    corners = [rate.low / band.low, rate.nominal / band.nominal, rate.high / band.high]
    x = sorted([window.left, window.right, *(v for v in corners if window.left < v < window.right)])
    low, high = heights(rate.low, band.low, x), heights(rate.high, band.high, x)
    axes.fill_between(x, low, high, color=GRID, alpha=0.6, linewidth=0, zorder=1)
    axes.plot(x, heights(rate.nominal, band.nominal, x), color=INK, linewidth=1.3, zorder=2)
    behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}
    write: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "bbox": behind, "zorder": 3.5}
    flat = f"{si(rate.nominal, 'op/s')}"
    axes.annotate(flat, (window.right, rate.nominal), (-4, 5), ha="right", va="bottom", **write)
    slope_x = (window.left * min(corners[1], window.right)) ** 0.5
    slope = f"{si(band.nominal, 'B/s')}"
    axes.annotate(slope, (slope_x, band.nominal * slope_x), (7, -3), ha="left", va="top", **write)


def _draw_layer(axes: Axes, point: LayerPoint) -> None:
    style = style_of(point.target)
    x = [point.intensity] * 2
    axes.plot(x, [point.rate_hz, point.ceiling_hz], color=style.color, linewidth=0.7, alpha=0.45, zorder=3)
    axes.plot(
        x[:1],
        [point.rate_hz],
        linestyle="none",
        marker=style.marker,
        markersize=4.5 + 6 * point.share**0.5,
        color=style.color,
        markerfacecolor=style.color if point.first else PAPER,
        markeredgecolor=PAPER if point.first else style.color,
        markeredgewidth=0.8 if point.first else 1.4,
        zorder=4,
    )
    words = (
        f"{point.target.name}, batch {point.batch:,}, layer {point.layer}: {digits(point.intensity)} op/byte, "
        f"{si(point.rate_hz, 'op/s')}, {digits(100 * point.rate_hz / point.ceiling_hz, 2)} % of the roof; "
        f"limited by {point.limit}; {percent(point.share, 0)} % of the layers' time"
    )
    add_tip(axes, point.intensity, point.rate_hz, words)


def _name_layers(axes: Axes, points: list[LayerPoint]) -> None:
    """Names beside the marks of batch 1, those that take longest first; none over another."""
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: -p.share):
        (x, y) = axes.transAxes.inverted().transform(axes.transData.transform((point.intensity, point.rate_hz)))
        if any(abs(x - a) < 0.22 and abs(y - b) < 0.07 for a, b in taken):
            continue
        taken.append((x, y))
        side, where = (-8, "right") if x > 0.8 else (8, "left")
        axes.annotate(
            shortened(point.layer, 18),
            (point.intensity, point.rate_hz),
            (side, 0),
            textcoords="offset points",
            ha=where,
            va="center",
            fontsize=8.5,
        )


def _log_axes(axes: Axes, window: _Window) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    def ticks(low: float, high: float, most: int) -> list[float]:
        first, last = ceil(log10(low)), floor(log10(high))
        step = max(1, ceil((last - first + 1) / most))
        return [10.0**d for d in range(first, last + 1) if d % step == 0]

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(window.left, window.right)
    axes.set_ylim(window.bottom, window.top)
    axes.grid(which="major")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(FixedLocator(ticks(window.left, window.right, 6)))
    axes.yaxis.set_major_locator(FixedLocator(ticks(window.bottom, window.top, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, "op/s")))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
