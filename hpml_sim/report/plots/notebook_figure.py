"""A matplotlib figure that a notebook shows as a picture."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from hpml_sim.errors import HpmlError
from hpml_sim.errors.files import write_file
from hpml_sim.report.plots.theme import PAPER


class NotebookFigure(Figure):
    """A figure that pyplot does not hold. Jupyter shows others only if they can draw themselves, as this one can."""

    def _repr_png_(self) -> bytes:
        """What IPython asks for; twice the resolution of the screen, on paper whatever the theme."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=144, facecolor=PAPER)
        return buffer.getvalue()


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure to a file, whole or not at all.

    Args:
        path: its suffix decides the format: .svg, .png, .pdf and what else matplotlib knows.
        figure: any.

    Raises:
        HpmlError: a suffix that matplotlib does not know, or a file that cannot be written.
    """
    buffer = BytesIO()
    try:
        figure.savefig(buffer, format=path.suffix.removeprefix(".") or "png", dpi=160)
    except ValueError as error:  # it lists the formats
        raise HpmlError(f"{str(path)!r}: {error}") from None
    write_file(path, buffer.getvalue())
