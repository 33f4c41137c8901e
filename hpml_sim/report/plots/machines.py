"""All machines of a run at system scope, one below the other: energy, latency, throughput, operations a joule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from hpml_sim.cost import Estimate
from hpml_sim.report.inference_words import questions
from hpml_sim.report.plots.drawing import add_tip, drawing, new_figure, style_of
from hpml_sim.report.plots.theme import PAPER
from hpml_sim.report.summary import TargetSummary, summarize
from hpml_sim.report.wording import figure as figure_text
from hpml_sim.report.wording import shortened, tick
from hpml_sim.results import Row
from hpml_sim.units.bands import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMALLEST, _LARGEST = 1e-30, 1e30
"""Bounds of 0 and infinity run to the edge of a log axis."""


def operations_a_joule(estimate: Estimate) -> Band | None:
    """Operations (two a MAC) of one inference over its energy, OP/J, which is what OP/s/W means; None if not counted.

    Args:
        estimate: of the inference.
    """
    operations = estimate.mapping.get("operations")
    return None if not operations or estimate.energy_j.low <= 0 else estimate.energy_j.inverse() * operations


_PANELS: tuple[tuple[str, str, Callable[[Estimate], Band | None]], ...] = (
    ("energy", "J", lambda e: e.energy_j),
    ("latency", "s", lambda e: e.latency_s),
    ("throughput", "/s", lambda e: e.throughput_hz),  # tokens of a language model
    ("efficiency", "OP/J", operations_a_joule),
)


def which_machine(
    rows: Sequence[Row], *, only: Collection[str] | None = None, narrow: bool = False, phase: str = ""
) -> Figure:
    """Energy, latency, throughput and operations a joule of each machine at system scope, least energy at the top.

    Bars run from the low to the high bound, markers are nominal values: filled at batch 1, hollow at the best batch. A
    name with a star is a projection: no such system was built.

    Args:
        rows: results of one run.
        only: names of the targets that are drawn; None draws all.
        narrow: panels below each other, for a telephone.
        phase: of a language model, "decode" (a token that is made) or "prefill" (a prompt); "" takes the first of
            these that there is.

    Raises:
        HpmlError: there are no rows.
    """
    targets = summarize(rows, only)
    asked = [q for q in questions(targets) if not phase or q.name == phase]
    estimates = dict(asked[0].systems) if asked else {}
    found = [t for t in targets if t.name in estimates]
    found.sort(key=lambda t: -estimates[t.name][0].energy_j.nominal)
    one = asked[0].words.one if asked else "one inference"
    room = 20 if narrow else 32
    names = [
        f"{shortened(t.name, room)} *" if estimates[t.name][0].projection else shortened(t.name, room) for t in found
    ]
    with drawing():
        height = 0.9 + 0.28 * max(len(found), 2)
        figure = new_figure(3.7, 4 * height) if narrow else new_figure(7.8, height)
        shape: dict[str, Any] = {"nrows": 4} if narrow else {"ncols": 4}
        grid = figure.subplots(**shape, sharey=True, squeeze=False).ravel()
        for axes, (title, unit, value) in zip(grid, _PANELS, strict=True):
            axes.set_title(title, loc="left", fontweight="bold", fontsize=9)
            for place, target in enumerate(found):
                first, best = estimates[target.name][0], estimates[target.name][-1]
                for estimate in (first, best):
                    band = value(estimate)
                    if band is not None and band.nominal > 0:
                        _draw(axes, place, target, estimate, band, unit, filled=estimate is first)
            _log_axis(axes, unit)
            axes.set_yticks(range(len(found)), names, fontsize=8)
            axes.set_ylim(-0.6, max(len(found), 2) - 0.4)
            axes.set_facecolor("none")
            axes.grid(which="major", axis="x")
            axes.set_axisbelow(True)
        gap = "\n" if narrow else ", "
        figure.supxlabel(f"{one}{gap}at system scope, log axes; * a projection; hollow: best batch", fontsize=8)
        if not found:
            grid[0].text(0.5, 0.5, "no target has an estimate", transform=grid[0].transAxes, ha="center")
    return figure


def _draw(
    axes: Axes, place: int, target: TargetSummary, estimate: Estimate, band: Band, unit: str, *, filled: bool
) -> None:
    style, first = style_of(target), filled
    axes.errorbar(
        [band.nominal],
        [place + (0.0 if first else -0.22)],
        xerr=[[band.nominal - max(band.low, _SMALLEST)], [min(band.high, _LARGEST) - band.nominal]],
        color=style.color,
        linestyle="none",
        elinewidth=1.2,
        capsize=2.0,
        marker=style.marker,
        markersize=6,
        markerfacecolor=style.color if first else PAPER,
        markeredgecolor=PAPER if first else style.color,
    )
    add_tip(axes, band.nominal, place, f"{target.name}, batch {estimate.batch:,}: {figure_text(band, unit)}")


def _log_axis(axes: Axes, unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(
        LogLocator(base=10.0 if high < 1e3 * low else 100.0 if high < 1e5 * low else 1000.0, numticks=5)
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, unit)))
    axes.tick_params(axis="x", labelsize=7)
