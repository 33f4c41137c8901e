"""The pictures of the machines, drawn by code: each function returns a new matplotlib figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpml_sim.report.plots.theme import COLORS, INK, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREEN = COLORS[:3]


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


def _box(ax: Axes, x: float, y: float, width: float, height: float, text: str, color: str, **options: Any) -> None:
    from matplotlib.patches import FancyBboxPatch

    ax.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", fc="none", ec=color, lw=1.6, **options
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


def phase_change_cell() -> Figure:
    """A mushroom cell: heater, glass dome, crystal; conducting, and less so."""
    from matplotlib.patches import Wedge

    figure, axes = _panels(3, (8.6, 2.9))
    titles = ("large conductance", "small conductance", "the same, a year later")
    for ax, title, radius, color in zip(axes, titles, (0.55, 1.15, 1.15), (_ORANGE, _ORANGE, COLORS[4]), strict=True):
        ax.set_title(title)
        _fill(ax, 0, 0, 4, 2, _BLUE, 0.35)
        ax.add_patch(Wedge((2, 0), radius, 0, 180, fc=color, ec=PAPER))
        _fill(ax, 1.75, -1.1, 0.5, 1.1, INK, 0.7)
        _fill(ax, 0, 2, 4, 0.3, INK, 0.7)
        ax.set(xlim=(-0.1, 4.1), ylim=(-1.2, 2.5), aspect="equal")
    axes[0].text(0.15, 1.6, "crystal: conducts", va="center")
    axes[0].text(2.4, -0.6, "heater", va="center")
    axes[1].text(2, 0.45, "glass", ha="center", va="center", color=PAPER)
    axes[2].text(2, 0.45, "relaxed glass:\nconducts less", ha="center", va="center", fontsize=8.5)
    return figure


def _fill(ax: Axes, x: float, y: float, width: float, height: float, color: str, alpha: float) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), width, height, fc=color, ec="none", alpha=alpha))


def two_tiles() -> Figure:
    """A layer of 784 inputs on two tiles of 512 rows: each with its own converter and noise, added in digital."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(8.2, 3.4))
    ax.axis("off")
    for y, name, rows in ((2.4, "tile 1", "inputs 1 ... 512"), (0.2, "tile 2", "inputs 513 ... 784")):
        ax.text(0.9, y + 0.65, rows, ha="center", va="center")
        _arrow(ax, (1.85, y + 0.65), (2.35, y + 0.65))
        _fill(ax, 2.4, y, 1.6, 1.3 if "1 ..." in rows else 0.7, _GREEN, 0.75)
        _box(ax, 2.4, y, 1.6, 1.3, name, _GREEN)
        _arrow(ax, (4.05, y + 0.65), (4.75, y + 0.65))
        ax.text(4.95, y + 0.65, "+", ha="center", va="center", fontsize=16)
        _arrow(ax, (4.95, y + 1.3), (4.95, y + 0.85), _ORANGE)
        ax.text(4.95, y + 1.42, r"noise, $\sigma$ = 0.06", ha="center", va="center", color=INK)
        _arrow(ax, (5.15, y + 0.65), (5.75, y + 0.65))
        _box(ax, 5.8, y + 0.35, 0.9, 0.6, "ADC", _ORANGE)
        _arrow(ax, (6.75, y + 0.65), (7.55, 2.15 if y > 1 else 1.75))
    _box(ax, 7.6, 1.6, 1.0, 0.7, "digital\nsum", _BLUE)
    _arrow(ax, (8.65, 1.95), (9.3, 1.95))
    ax.text(9.4, 1.95, "y", va="center")
    ax.set(xlim=(0, 9.7), ylim=(0, 4.1))
    return figure


def converter(bits: int = 3) -> Figure:
    """The staircase of a converter of a few bits, and its error."""
    import matplotlib.pyplot as plt
    import numpy as np

    top = 2 ** (bits - 1) - 1
    x = np.linspace(-1.25, 1.25, 1001)
    y = np.clip(np.round(x * top), -top, top) / top
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.2))
    left.plot(x, x, color=INK, lw=0.8, ls=":")
    left.plot(x, y, color=_BLUE)
    left.set(xlabel="input (share of full scale)", ylabel="output (share of full scale)")
    left.set_title(f"{bits} bits: {2 * top + 1} levels")
    right.plot(x, y - x, color=_ORANGE)
    for edge in (-0.5 / top, 0.5 / top):
        right.axhline(edge, color=INK, lw=0.8, ls=":")
    right.set(xlabel="input (share of full scale)", ylabel="error (share of full scale)", ylim=(-0.3, 0.3))
    right.set_title("error: half a step at most, then clipping")
    return figure


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "lw": 1.4, "color": color, "shrinkA": 0, "shrinkB": 0})
