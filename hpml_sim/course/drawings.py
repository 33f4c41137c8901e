"""The pictures of the machines, drawn by code: each function returns a new matplotlib figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpml_sim.report.plots import COLOURS, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN = COLOURS[:3]


def memory_and_crossbar() -> Figure:
    """Where a matrix-vector product moves data: a processor beside its memory, and a crossbar that is the memory."""
    figure, (left, right) = _panels(2, (8.6, 3.9))
    left.set_title("Processor: the weights travel")
    _grid_of_weights(left, x=0.2, y=1.3, side=2.4, cells=6)
    left.text(1.4, 3.95, "memory\nn m weights", ha="center", va="bottom")
    left.annotate(
        "",
        (5.3, 2.5),
        (2.75, 2.5),
        arrowprops={"arrowstyle": "simple", "mutation_scale": 34, "color": _ORANGE, "lw": 0},
    )
    left.text(4.0, 2.95, "4 n m bytes,\neach time", ha="center", va="bottom", color=INK)
    _box(left, 5.4, 1.7, 1.9, 1.6, "arithmetic\nunit", _BLUE)
    left.annotate("", (6.35, 1.65), (6.35, 0.5), arrowprops={"arrowstyle": "-|>", "lw": 1.6, "color": INK})
    left.text(6.5, 0.9, "x: n values", va="center")
    left.annotate("", (6.35, 4.5), (6.35, 3.35), arrowprops={"arrowstyle": "-|>", "lw": 1.6, "color": INK})
    left.text(6.5, 4.0, "y: m values", va="center")
    left.set(xlim=(0, 8.7), ylim=(0, 5.2))
    right.set_title("Crossbar: the weights stay, the physics multiplies and adds")
    _crossbar(right, rows=4, cols=4)
    return figure


def _crossbar(ax: Axes, rows: int, cols: int) -> None:
    """Word lines from the left with voltages, bit lines downwards with currents, a conductance at each crossing."""
    for i in range(rows):
        y = rows - i
        ax.plot([0.35, cols + 0.6], [y, y], color=INK, lw=1.2)
        _box(ax, -0.85, y - 0.25, 1.15, 0.5, f"DAC  $V_{i + 1}$", _BLUE)
    for j in range(cols):
        x = j + 1
        ax.plot([x, x], [rows + 0.5, 0.25], color=INK, lw=1.2)
        _box(ax, x - 0.4, -0.35, 0.8, 0.55, f"ADC\n$I_{j + 1}$", _ORANGE)
    for i in range(rows):
        for j in range(cols):
            ax.plot(j + 1, rows - i, "o", ms=11, color=_GREEN, mec=PAPER, mew=1)
    ax.annotate(
        "conductance $G_{ij}$\n= weight",
        (cols, rows - 1),
        (cols + 0.9, rows - 0.6),
        arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.8},
        va="center",
    )
    ax.text(cols + 0.9, 1.2, "$I_j = \\sum_i G_{ij}\\,V_i$\nOhm: product\nKirchhoff: sum", va="center")
    ax.set(xlim=(-1.0, cols + 3.3), ylim=(-0.6, rows + 0.9))


def _grid_of_weights(ax: Axes, x: float, y: float, side: float, cells: int) -> None:
    from matplotlib.patches import Rectangle

    step = side / cells
    for i in range(cells):
        for j in range(cells):
            ax.add_patch(Rectangle((x + i * step, y + j * step), step, step, fc=_GREEN, ec=PAPER, alpha=0.75))


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, **options: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    ax.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", fc="none", ec=colour, lw=1.6, **options
        )
    )
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=INK, fontsize=9)


def _panels(count: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure with panels side by side and no axes drawn."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, count, figsize=size)
    for ax in figure.axes:
        ax.axis("off")
    return figure, axes
