"""The colors, markers and dashes of every plot: of the reports, the machine's roofline, the search, the course.

Colors are those of Okabe and Ito (M. Okabe, K. Ito, Color Universal Design, 2008), which people with any form of
color blindness tell apart; targets differ in marker and line as well. Source of the palette:
https://jfly.uni-koeln.de/color/
"""

from __future__ import annotations

from typing import Any

INK, GRID, PAPER = "#1b1f24", "#d5d9df", "#fffffe"
"""Text and axes, grid, background: unlike any color of a series, so that a page can map them to its own theme."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of series, in this order."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
"""Of series, in this order."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)))
"""Of lines, in this order, as matplotlib's `linestyle` takes them."""
