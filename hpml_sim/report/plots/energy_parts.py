"""Where the energy of one inference goes: a bar for each component and each layer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from hpml_sim.report.plots.drawing import TIP, drawing, new_figure, style_of
from hpml_sim.report.summary import Part, TargetSummary, summarize
from hpml_sim.report.wording import figure as figure_text
from hpml_sim.report.wording import percent, shortened
from hpml_sim.results import Row
from hpml_sim.units.bands import ZERO
from hpml_sim.units.formatting import si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Block = tuple[TargetSummary, list[Part], list[Part]]
_HEADS = ("by component", "by layer")
_XLABEL = "share of the energy at batch 1, %"


def energy_by_part(
    rows: Sequence[Row], *, only: Collection[str] | None = None, narrow: bool = False, most: int = 8
) -> Figure:
    """Where the estimated energy of one inference goes at batch 1: shares by component and, beside them, by layer.

    Shares may be compared between targets; the totals beside the names may not where scopes differ.

    Args:
        rows: results of one run.
        only: names of the targets that are drawn; None draws all.
        narrow: labels above the bars and layers below components, for a telephone.
        most: bars of one target in one column; the smaller parts are summed.

    Raises:
        HpmlError: there are no rows.
    """
    blocks: list[_Block] = [
        (t, largest(t.components, most), largest(t.layer_parts, most)) for t in summarize(rows, only) if t.components
    ]
    with drawing():
        if not blocks:
            figure = new_figure(3.7 if narrow else 7.8, 1.6)
            axes = figure.add_subplot()
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no target has an energy estimate", transform=axes.transAxes, ha="center")
            return figure
        return _narrow(blocks) if narrow else _wide(blocks)


def largest(parts: Sequence[Part], most: int) -> list[Part]:
    """The largest parts in their order; the others are summed behind them."""
    if len(parts) <= most:
        return list(parts)
    kept = {id(p) for p in sorted(parts, key=lambda p: -p.energy_j.nominal)[: most - 1]}
    rest = [p for p in parts if id(p) not in kept]
    others = Part(f"{len(rest)} smaller ones", sum((p.energy_j for p in rest), ZERO), sum(p.share for p in rest), ())
    return [*(p for p in parts if id(p) in kept), others]


def _wide(blocks: list[_Block]) -> Figure:
    """Components on the left, layers on the right; a target's bars begin on the same line."""
    lines = sum(max(len(components), len(layers)) + 1.6 for _, components, layers in blocks)
    figure = new_figure(7.8, 0.85 + 0.225 * lines)
    grid = figure.subplots(1, 2)
    ticks: tuple[list[tuple[float, str]], ...] = ([], [])
    y = 0.0
    for target, *columns in blocks:
        grid[0].text(1, y, _title(target, 60), fontweight="bold", va="center")
        for axes, parts, labels in zip(grid, columns, ticks, strict=True):
            for line, part in enumerate(parts, start=1):
                axes.barh(y + line, 100 * part.share, height=0.62, color=style_of(target).color, clip_on=False)
                axes.text(100 * part.share + 1.5, y + line, _share(part), va="center", fontsize=8.5)
                _hover(axes, target, part, y + line - 0.5, 1.0)
                labels.append((y + line, shortened(part.name, 22)))
        y += max(map(len, columns)) + 1.6
    for axes, labels, head in zip(grid, ticks, _HEADS, strict=True):
        _share_axis(axes, y - 1.0, right=166)
        axes.set_title(head, loc="left")
        axes.set_yticks([place for place, _ in labels], [name for _, name in labels])
    figure.supxlabel(_XLABEL, fontsize=9)
    return figure


def _narrow(blocks: list[_Block]) -> Figure:
    """Everything below each other, a part's name above its bar."""
    lines = sum(len(components) + len(layers) + 3.9 for _, components, layers in blocks)
    figure = new_figure(3.7, 0.55 + 0.29 * lines)
    axes = figure.add_subplot()
    y = 0.0
    for target, *columns in blocks:
        axes.text(0, y, _title(target, 30), fontweight="bold", va="center")
        for head, parts in zip(_HEADS, columns, strict=True):
            y += 1
            axes.text(0, y, head, va="center", fontsize=8.5, style="italic")
            for part in parts:
                y += 1
                axes.barh(y + 0.28, 100 * part.share, height=0.36, color=style_of(target).color, clip_on=False)
                axes.text(0, y - 0.16, shortened(part.name, 26), va="center")
                axes.text(100, y - 0.16, _share(part), va="center", ha="right")
                _hover(axes, target, part, y - 0.5, 1.0)
        y += 1.9
    _share_axis(axes, y - 1.0, right=100)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.set_xlabel(_XLABEL)
    return figure


def _share_axis(axes: Axes, bottom: float, *, right: float) -> None:
    axes.set_facecolor("none")
    axes.set_ylim(bottom, -0.7)
    axes.set_xlim(0, right)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.spines["bottom"].set_bounds(0, 100)
    axes.tick_params(axis="y", length=0)


def _title(target: TargetSummary, most: int) -> str:
    total = sum(part.energy_j.nominal for part in target.components)
    return f"{shortened(target.name, most)}: {si(total, 'J', micro='µ')} ({target.estimates[0].scope})"


def _share(part: Part) -> str:
    shown = "<0.1" if 0 < part.share < 0.0005 else percent(part.share, 1)
    return f"{shown} %, {si(part.energy_j.nominal, 'J', micro='µ')}"


def _hover(axes: Axes, target: TargetSummary, part: Part, y: float, height: float) -> None:
    """The whole line answers the pointer: the bar of a small share would be too small to hit."""
    words = f"{target.name}, {part.name}: {figure_text(part.energy_j, 'J')}, {percent(part.share, 2)} % of the total"
    axes.barh(y, 100, height=height, align="edge", alpha=0, linewidth=0, clip_on=False, gid=TIP + words)
