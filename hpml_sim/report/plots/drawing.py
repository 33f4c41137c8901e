"""What all plots share: matplotlib's settings, the style of a target, legends, hover texts, SVG."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from hpml_sim.report.plots.theme import COLORS, DASHES, GRID, INK, MARKERS
from hpml_sim.report.summary import TargetSummary
from hpml_sim.report.wording import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIP = "tip:"
"""Beginning of the gid of what shows the rest of it under the pointer (see `to_svg`)."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True)
class Style:
    """How one target is drawn, in every plot and in the page's table.

    Attributes:
        color: of its marks and lines.
        marker: as matplotlib names it.
        dashes: of its lines, as matplotlib's `linestyle` takes them.
    """

    color: str
    marker: str
    dashes: Any


def style_of(target: TargetSummary) -> Style:
    """Color, marker and dashes of a `target`: by its place in the run, the same in every plot."""
    i = target.index
    return Style(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib's settings while a figure is made or written; those of the caller come back afterwards."""
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


def new_figure(width_in: float, height_in: float, *, background: str = "none") -> Figure:
    """An empty figure that pyplot does not hold, and that a notebook shows; call it inside `drawing`.

    Args:
        width_in: inches.
        height_in: inches.
        background: a color; "none" leaves it to the page.
    """
    from hpml_sim.report.plots.notebook_figure import NotebookFigure

    return NotebookFigure(figsize=(width_in, height_in), layout="constrained", facecolor=background)


def add_legend(figure: Figure, handles: list[Any], labels: list[str], handle_em: float) -> None:
    """A legend above the axes with as many columns as the longest label leaves room for.

    Args:
        figure: that gets it.
        handles: marks and lines; none leave the legend out.
        labels: one a handle; long ones are shortened.
        handle_em: width of the handles, in the font's size.
    """
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


def add_tip(axes: Axes, x: float, y: float, text: str) -> None:
    """Lay an invisible mark over a point; in the SVG it shows a text under the pointer (see `to_svg`).

    Args:
        axes: where the point lies.
        x: of the point, in the axes' units.
        y: of the point, in the axes' units.
        text: what is shown.
    """
    axes.plot([x], [y], marker="o", markersize=15, alpha=0, markeredgewidth=0, clip_on=False, zorder=9, gid=TIP + text)


def to_svg(figure: Figure, *, prefix: str = "") -> str:
    """A figure as SVG text: the same figure gives the same characters, text stays text in the reader's own font.

    Args:
        figure: from one of the functions above.
        prefix: put before every id, so that one page can hold several figures.
    """
    buffer = StringIO()
    with drawing():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: 'DejaVu Sans'[^;\"]*; ", "", svg)  # once, at the root
    svg = re.sub(r"'DejaVu Sans'(, [^;\"]*)?(?=[;\"])", _FONT, svg).replace("<svg ", f'<svg font-family="{_FONT}" ', 1)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(rf'<g id="{TIP}([^"]*)">', r"<g><title>\1</title>", svg)
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
    # fewer digits in coordinates; what people read keeps all of its own
    svg = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\d+\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: _compact(path[0]), svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def _compact(path: str) -> str:
    """A path's data in fewer characters; a level piece that is all but without length is a dot."""

    def dot(piece: re.Match[str]) -> str:
        return f"M{piece[1]} {piece[2]}h.1" if abs(float(piece[3]) - float(piece[1])) < 0.5 else piece[0]

    path = re.sub(r"\s*([MLHVCQz])\s*", r"\1", path.strip())
    path = re.sub(r"M(\S+) ([-.\d]+)L(\S+) \2(?=M|$)", dot, path)
    return re.sub(r"\.00(?=\D|$)", "", path)
