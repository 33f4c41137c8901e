"""The roofline plot: one sees what limits what, and where tiles and cores stand beside processors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpml_sim.cost.roofline_points import Kind, Point, Roof
from hpml_sim.errors import HpmlError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS: dict[Kind, str] = {"layer": "o", "measured": "s", "kernel": "^", "tile": "D", "core": "*"}
_SAID: dict[Kind, str] = {
    "layer": "layer, estimated",
    "measured": "layer, measured here",
    "kernel": "kernel, measured",
    "tile": "crossbar tile",
    "core": "neuromorphic core",
}
_NAMED = 24  # points that get their name written beside them


def plot_roofline(roofs: Sequence[Roof], points: Sequence[Point], *, title: str = "") -> Figure:
    """Operations a second against operations a byte, both logarithmic; a line a roof, a mark a point.

    A mark on the slope is limited by memory, one under the flat part by arithmetic; the gap to the line is what
    launches, the power limit or the kernel itself cost.

    Args:
        roofs: of processors. points: of layers, kernels, tiles and cores. title: above it.

    Raises:
        HpmlError: nothing to draw.

    Source: S. Williams, A. Waterman, D. Patterson, Roofline, CACM 52(4):65, 2009.
    """
    if not roofs and not points:
        raise HpmlError("plot_roofline: no roof and no point; name a card (--on h200) or a network (--model mlp)")
    from matplotlib.figure import Figure

    from hpml_sim.report.plots import COLORS

    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes: Any = figure.subplots()
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
        said = f"{roof.name}: {_si(roof.rate.nominal)}OP/s, {_si(roof.bandwidth.nominal)}B/s"
        axes.plot(corners, [roof.at(x) for x in corners], color=color, linestyle=style, linewidth=1.6, label=said)
    _name_roofs(axes, roofs, right)
    seen: set[tuple[str, str]] = set()
    for point in points:
        color = colors[point.machine]
        label = f"{_SAID[point.kind]}: {point.machine}" if point.machine else _SAID[point.kind]
        first = (point.kind, point.machine) not in seen
        seen.add((point.kind, point.machine))
        axes.plot(
            [point.intensity],
            [point.rate],
            linestyle="none",
            marker=_MARKERS[point.kind],
            markersize=10 if point.kind == "core" else 7,
            color=color,
            markeredgecolor="#1b1f24",
            markeredgewidth=0.6,
            label=label if first else None,
        )
    axes.set_xlim(left, right)
    if len(points) <= _NAMED:
        _name(axes, points)
    axes.grid(which="major", color="#d5d9df", linewidth=0.6)
    axes.set_xlabel("operations a byte that crosses the edge of the weights' memory")
    axes.set_ylabel("operations a second")
    axes.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=2)
    return figure


def _name_roofs(axes: Any, roofs: Sequence[Roof], right: float) -> None:
    """The precision above the end of each line; once where two of them lie together."""
    from math import log10

    taken: list[tuple[str, float]] = []
    for roof in roofs:
        precision, y = roof.name.rpartition(" ")[2], log10(roof.at(right))
        if not any(precision == other and abs(y - b) < 0.15 for other, b in taken):
            axes.annotate(
                precision, (right, roof.at(right)), (-3, 3), textcoords="offset points", ha="right", fontsize=7.5
            )
            taken.append((precision, y))


def _name(axes: Any, points: Sequence[Point]) -> None:
    """Names beside the marks: to the left at the right edge, and below where another name stands close by."""
    from math import log10

    edge = log10(axes.get_xlim()[1]) - 1
    taken: list[tuple[float, float]] = []
    for point in points:
        x, y = log10(point.intensity), log10(point.rate)
        below = any(abs(x - a) < 0.5 and abs(y - b) < 0.35 for a, b in taken)
        taken.append((x, y))
        side, aligned = (-7, "right") if x > edge else (7, "left")
        said = f"{point.name} ({point.limit})" if point.limit else point.name
        axes.annotate(
            said,
            (point.intensity, point.rate),
            (side, -11 if below else 3),
            textcoords="offset points",
            ha=aligned,
            fontsize=7.5,
        )


def _si(value: float) -> str:
    from hpml_sim.report._format import si

    return si(value, "")
