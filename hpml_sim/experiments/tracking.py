"""Finished runs in MLflow (extra `track`): one of its runs for the whole, and below it one for each row."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hpml_sim.errors import HpmlError, needs
from hpml_sim.results import Row, to_frame
from hpml_sim.tasks.metric import column_of
from hpml_sim.units.times import format_time

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from hpml_sim.experiments.result import Comparison

_log = logging.getLogger(__name__)

EXPERIMENT = "hpml_sim"
SERVER_TIMEOUT_S = 5.0
"""How long a tracking server may take to answer when a run begins; MLflow itself waits for minutes at its end."""
_RUN, _ROW = "hpml_sim.run", "hpml_sim.row"
"""Tags by which what was logged before is known again."""


def check_store(where: str) -> None:
    """Refuse a store that cannot take a run, before the run is computed. Nothing is written.

    Args:
        where: address of a tracking server, of a database, or a folder.

    Raises:
        HpmlError: MLflow is missing, the folder cannot be made or is a file, or no server answers at the address.
    """
    with needs(f"mlflow={where!r}", "hpml_sim[track]"):
        import mlflow  # noqa: F401
    if "://" not in where:
        folder = Path(where).expanduser().absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise HpmlError(f"mlflow={where!r}: {there} is no folder that can be written; choose another folder")
        return
    address = urlsplit(where)
    if address.scheme not in ("http", "https"):
        return
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=SERVER_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise HpmlError(
            f"mlflow={where!r}: no server answers ({type(error).__name__}: {error}); start one with `mlflow server`, "
            "or give a folder"
        ) from error


def log_run(where: str, comparison: Comparison) -> int:
    """Log a finished comparison, sweep or search; what an earlier call logged is not logged twice.

    Args:
        where: address of a tracking server (https://...), of a database (sqlite:///...), or a folder, which then gets
            a database of its own.
        comparison: the run; with a folder, its table, report and `run.json` become artifacts.

    Returns:
        How many rows were logged now.

    Raises:
        HpmlError: MLflow is missing, or the server or folder does not take it; the rows on disk are safe.
    """
    with needs(f"mlflow={where!r}", "hpml_sim[track]"):
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    folder = None if "://" in where else Path(where).expanduser().resolve()
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # of MLflow and its database, about themselves
            warnings.simplefilter("ignore")
            client = MlflowClient(tracking_uri=where if folder is None else f"sqlite:///{folder / 'mlflow.db'}")
            logged = _log_rows(client, comparison, None if folder is None else (folder / "artifacts").as_uri())
    except (MlflowException, OSError, ImportError) as error:
        raise HpmlError(
            f"mlflow={where!r}: {type(error).__name__}: {error}; the rows themselves are safe. Mend the address, then "
            "run again with --resume, which computes nothing anew"
        ) from error
    hint = "" if folder is None else f"; see it with: mlflow ui --backend-store-uri sqlite:///{folder / 'mlflow.db'}"
    _log.info("%d rows logged to MLflow at %s%s", logged, where, hint)
    return logged


def _log_rows(client: MlflowClient, comparison: Comparison, artifacts: str | None) -> int:
    if (plan := comparison.plan) is None:
        raise HpmlError("mlflow: these rows lie without the run.json of their run; give the folder that holds both")
    known = client.get_experiment_by_name(EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT, artifact_location=artifacts)
    runs = _all_runs(client, experiment, f"tags.`{_RUN}` = '{plan.hash}'")
    parent = next((run.info.run_id for run in runs if _ROW not in run.data.tags), None)
    if parent is None:
        name = f"{plan.model} on {plan.data} {plan.hash}"
        parent = client.create_run(experiment, run_name=name, tags={_RUN: plan.hash}).info.run_id
        for key in ("model", "data", "version", "task", "seeds", "chips", "epochs", "finetune_epochs", "lr"):
            client.log_param(parent, key, getattr(plan, key))
    done = {run.data.tags[_ROW] for run in runs if _ROW in run.data.tags and run.info.status == "FINISHED"}
    logged = 0
    for row in comparison.rows:
        if repr(row.key) not in done:
            _log_row(client, experiment, parent, row)
            logged += 1
    if comparison.folder is not None:
        for name in ("run.json", "table.csv", "front.csv", "report.html"):
            if (comparison.folder / name).exists():
                client.log_artifact(parent, str(comparison.folder / name))
    client.set_terminated(parent)
    return logged


def _log_row(client: MlflowClient, experiment: str, parent: str, row: Row) -> None:
    from mlflow.entities import Metric, Param

    tags = {_RUN: row.run, _ROW: repr(row.key), "mlflow.parentRunId": parent}
    name = f"{row.target} seed {row.seed}" + ("" if row.time_s is None else f" {format_time(row.time_s)}")
    run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    settings = {
        "target": row.target, "card": row.card.name, "card_version": row.card.version, "seed": row.seed,
        "time_s": row.time_s, **row.options,
    }  # fmt: skip
    client.log_batch(
        run,
        params=[Param(key, str(value)) for key, value in settings.items()],
        metrics=[Metric(key, float(value), timestamp=int(1000 * time.time()), step=0) for key, value in _metrics(row)],
    )
    client.set_terminated(run)


def _metrics(row: Row) -> Iterator[tuple[str, float]]:
    """The figures under the names of the table; those of a batch size carry it."""
    scores = tuple(f"{column_of(score.metric)}_" for score in row.scores)
    for line in to_frame([row]).to_dict("records"):
        for key, value in line.items():
            score = key.startswith(scores)
            figure = score or key.startswith(("energy", "latency", "throughput", "area", "measured"))
            if figure and isinstance(value, (int, float)) and not math.isnan(value):
                yield (key if score else f"{key}.batch_{line['batch']}"), value


def _all_runs(client: MlflowClient, experiment: str, which: str) -> list[Run]:
    found, token = [], None
    while True:
        page = client.search_runs([experiment], which, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
