"""The plots as inline SVG that follows the page's theme, with their legends and the texts for screen readers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from hpml_sim.report import findings, plots
from hpml_sim.report.metric_words import MetricWords, words_of
from hpml_sim.report.ranking_words import Answer, answers
from hpml_sim.report.summary import TargetSummary
from hpml_sim.report.wording import names
from hpml_sim.results import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MAX_DRAWN = 16
"""Targets in the plots over time and by part: more would be neither seen nor light enough to send."""
_MAX_POINTS = 32
_MAX_ROOFS = 6


def page_plots(rows: Sequence[Row], targets: list[TargetSummary]) -> dict[str, dict[str, Any]]:
    """Name of the plot -> its two widths as SVG, its words, its legend, and which targets it leaves out."""
    words, asked = words_of(targets), answers(targets)
    roofed = [t for t in targets if any(True for _ in plots.layer_points(t))]
    costed = [t for t in targets if t.supported and any(c.energy_j for c in t.costs)]
    points = set(plots.notable(costed, _MAX_POINTS))
    drawn = set(plots.notable(targets, _MAX_DRAWN))
    roofs = set(plots.notable(roofed, _MAX_ROOFS))
    seen = [t for t in targets if t.name in drawn]
    alts = {
        "time": " ".join([f"{words.title} over time.", *findings.accuracy(targets), *findings.drift(targets)]),
        "energy": " ".join([f"Energy against {words.name}.", *findings.energy(targets)]),
        **{f"answer{number}": _answer_alt(a) for number, a in enumerate(asked)},
        "parts": f"Energy by component and by layer. {findings.components(targets)}",
        "roofline": f"Roofline. {findings.limits(targets)}",
    }
    figures: dict[str, Callable[[bool], Figure]] = {
        "time": lambda narrow: plots.accuracy_over_time(rows, only=drawn, narrow=narrow, legend=False),
        "energy": lambda narrow: plots.energy_against_accuracy(rows, only=points, narrow=narrow, legend=False),
        **{
            f"answer{number}": lambda narrow, a=a: plots.which_machine(rows, only=drawn, narrow=narrow, phase=a.name)
            for number, a in enumerate(asked)
        },
        "parts": lambda narrow: plots.energy_by_part(rows, only=drawn, narrow=narrow),
        "roofline": lambda narrow: plots.layer_roofline(rows, only=roofs, narrow=narrow, legend=False),
    }
    lines = [(g[0], names([t.name for t in g]) + (" (same line)" if len(g) > 1 else "")) for g in plots.same_line(seen)]
    legends = {
        "time": lines,
        "energy": [(t, t.name) for t in costed if t.name in points],
        **{f"answer{number}": [] for number in range(len(asked))},
        "parts": [],
        "roofline": [(t, t.name) for t in roofed if t.name in roofs],
    }
    left_out = {
        "time": _left_out(len(drawn), len(targets), words),
        "energy": _left_out(len(points), len(costed), words),
        **{f"answer{number}": _left_out(len(drawn), len(targets), words) for number in range(len(asked))},
        "parts": _left_out(len(drawn), len(targets), words),
        "roofline": _left_out(len(roofs), len(roofed), words),
    }
    return {
        name: {
            "wide": _themed(plots.to_svg(draw(False), prefix=f"{name}-w-")),
            "narrow": _themed(plots.to_svg(draw(True), prefix=f"{name}-n-")),
            "alt": alts[name].strip(),
            "legend": legends[name],
            "left_out": left_out[name],
        }
        for name, draw in figures.items()
    }


def _answer_alt(found: Answer) -> str:
    """What the plot of machines says, for those who do not see it."""
    said = [f"{place.name} {place.figures[0][0]} ({place.figures[0][1]})" for place in found.places]
    return f"All machines at system scope, energy of {found.words.one}, least first: {', '.join(said)}."


def _left_out(drawn: int, targets: int, words: MetricWords) -> str:
    if drawn == targets:
        return ""
    best = "the most accurate" if words.is_accuracy else f"those of the best {words.name}"
    return f"{drawn} of {targets} targets are drawn: those on a Pareto front, then {best}. The table shows all."


def _themed(svg: str) -> Markup:
    """A plot whose ink, grid and background follow the page's theme, hidden from screen readers (its frame speaks)."""
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)  # it would hold for the page
    svg = svg.replace(plots.INK, "currentColor").replace(plots.GRID, "var(--plot-grid)")
    svg = svg.replace(plots.PAPER, "var(--surface)").replace(plots.COLORS[0], "var(--plot-blue)")
    svg = re.sub(
        r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg
    )
    return Markup(svg.replace("xlink:href", "href"))


_SHAPES = {
    "o": '<circle cx="7" cy="7" r="4.6"/>',
    "s": '<path d="M2.6 2.6h8.8v8.8H2.6z"/>',
    "^": '<path d="M7 1.8 12.2 12H1.8z"/>',
    "D": '<path d="M7 1.2 12.8 7 7 12.8 1.2 7z"/>',
    "v": '<path d="M7 12.2 1.8 2h10.4z"/>',
    "P": '<path d="M5 1.8h4V5h3.2v4H9v3.2H5V9H1.8V5H5z"/>',
    "X": '<path d="M4 1.8 7 4.6l3-2.8L12.2 4 9.4 7l2.8 3-2.2 2.2L7 9.4l-3 2.8L1.8 10l2.8-3-2.8-3z"/>',
    "<": '<path d="M1.8 7 12 1.8v10.4z"/>',
    ">": '<path d="M12.2 7 2 1.8v10.4z"/>',
    "p": '<path d="M7 1.6 12.4 5.6 10.3 12H3.7L1.6 5.6z"/>',
}


def swatch(target: TargetSummary) -> Markup:
    """The marker that stands for the target in the plots."""
    style = plots.style_of(target)
    color = style.color.replace(plots.COLORS[0], "var(--plot-blue)")
    shape = _SHAPES[style.marker]
    return Markup(f'<svg class="swatch" viewBox="0 0 14 14" aria-hidden="true" style="fill:{color}">{shape}</svg>')
