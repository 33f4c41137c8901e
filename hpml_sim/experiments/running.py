"""`run` and `dry_run`: what a TOML file asks for, whether that is a comparison, a sweep or a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpml_sim.errors import HpmlError, shown
from hpml_sim.experiments.config import RunConfig
from hpml_sim.experiments.config_files import read_config
from hpml_sim.experiments.experiment import Experiment
from hpml_sim.experiments.preview import DryRun
from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.search_result import SearchResult

ConfigLike = str | Path | RunConfig | Mapping[str, Any]
"""The path of a TOML file, what `read_config` made of it, or its tables as a mapping."""


def run(config: ConfigLike) -> Comparison | SearchResult:
    """Carry out the run that a file describes (`hpml-sim init` writes one with comments).

    Args:
        config: path of the TOML file, or its tables as a mapping: `compare`, then `sweep` or `search`, and `run`.

    Returns:
        What `compare`, `sweep` or `search` returns.

    Raises:
        HpmlError: a mistake in the file, or in what it asks for; raised before anything is computed or written.

    Example:
        >>> import hpml_sim as hs
        >>> settings = {"model": "mlp", "data": "digits", "targets": ["loihi"], "epochs": 1}
        >>> [row.target for row in hs.run({"compare": settings}).rows]
        ['loihi', 'hailo-8, integer twin of loihi']
    """
    return _experiment(config).run()


def dry_run(config: ConfigLike) -> DryRun:
    """Say what a run would do and for how long. What `run` would refuse is refused here, in the same words.

    Args:
        config: path of the TOML file, or its tables as a mapping: `compare`, then `sweep` or `search`, and `run`.

    Returns:
        How many rows and trainings there are, and how long they take; nothing is written.

    Raises:
        HpmlError: whatever `run` would refuse.

    Example:
        >>> import hpml_sim as hs
        >>> settings = {"model": "mlp", "data": "digits", "targets": ["loihi"], "seeds": 3, "epochs": 1}
        >>> said = hs.dry_run({"compare": settings})
        >>> said.rows, said.networks, said.seconds > 0
        (6, 3, True)
    """
    return _experiment(config).preview()


def _experiment(config: ConfigLike) -> Experiment:
    if not isinstance(config, (str, Path, RunConfig, Mapping)):
        raise HpmlError(f"config={shown(config)}: give the path of a TOML file, or its tables as a mapping")
    return Experiment(read_config(config) if isinstance(config, (str, Path)) else config)
