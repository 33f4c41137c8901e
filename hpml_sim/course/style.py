"""The look of the notebooks, which is that of the reports, and a first line that says where one ran."""

from __future__ import annotations

import platform

from hpml_sim.report.plots.theme import COLORS, GRID, INK

__all__ = ["COLORS", "start"]


def start() -> str:
    """Set the style of all plots that follow, and say what this runs on.

    Returns:
        One line: versions, processor, GPU or none. A notebook shows it as the result of its first cell.
    """
    import matplotlib as mpl
    import torch
    from cycler import cycler

    import hpml_sim

    mpl.rcParams.update(
        {
            "axes.edgecolor": INK,
            "axes.grid": True,
            "axes.labelcolor": INK,
            "axes.prop_cycle": cycler(color=COLORS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlecolor": INK,
            "axes.titlesize": 10.5,
            "axes.axisbelow": True,
            "figure.constrained_layout.use": True,
            "figure.figsize": (7.2, 4.0),
            "font.size": 10,
            "grid.color": GRID,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "svg.fonttype": "path",
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    )
    _vector_graphics()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = f"hpml_sim {hpml_sim.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    return f"{versions}; {torch.get_num_threads()} CPU threads, {gpu}"


def _vector_graphics() -> None:
    """Figures as SVG where a notebook shows them; a plain script has no such thing."""
    try:
        from IPython.core.getipython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if get_ipython() is not None:
        set_matplotlib_formats("svg")
