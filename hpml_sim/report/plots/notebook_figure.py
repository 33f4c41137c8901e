"""A matplotlib figure that a notebook shows as a picture."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure

from hpml_sim.report.plots.theme import PAPER


class NotebookFigure(Figure):
    """A figure that pyplot does not hold. Jupyter shows others only if they can draw themselves, as this one can."""

    def _repr_png_(self) -> bytes:
        """What IPython asks for; twice the resolution of the screen, on paper whatever the theme."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=144, facecolor=PAPER)
        return buffer.getvalue()
