"""A figure that a notebook shows."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

from hpml_sim.report.plots.drawing import PAPER


class ShownFigure(Figure):
    """A figure that no pyplot knows. Jupyter shows only those that one does, unless they can draw themselves."""

    def _repr_png_(self) -> bytes:
        """What IPython asks for; twice the resolution of the screen, on paper whatever the theme."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=144, facecolor=PAPER)
        return buffer.getvalue()
