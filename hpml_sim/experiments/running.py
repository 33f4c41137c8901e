"""`run`: what a TOML file asks for, whether that is a comparison, a sweep or a search."""

from __future__ import annotations

from pathlib import Path

from hpml_sim.experiments.comparison import compared
from hpml_sim.experiments.config import RunConfig
from hpml_sim.experiments.config_files import read_runfile
from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.searching import SearchResult, searched
from hpml_sim.experiments.sweeping import swept


def run(asked: str | Path | RunConfig) -> Comparison | SearchResult:
    """Carry out the run that a file describes (`hpml-sim init` writes one with comments).

    Args:
        asked: path of the TOML file, or its contents as read.

    Returns:
        What `compare`, `sweep` or `search` returns.

    Raises:
        HpmlError: a mistake in the file, or in what it asks for; raised before anything is computed.
    """
    asked = asked if isinstance(asked, RunConfig) else read_runfile(asked)
    if asked.search is not None:
        return searched(asked)
    if asked.sweep is not None:
        return swept(asked)
    return compared(asked)
