"""Rows as a table: one line a (row, batch), with units in the column names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpml_sim.results.rows import Row
from hpml_sim.tasks.metric import column_of
from hpml_sim.tasks.score import Score

if TYPE_CHECKING:
    import pandas as pd


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows flattened: one line a (row, batch), the options of a sweep as columns of their own.

    Args:
        rows: of one run, in any order.

    Returns:
        Of a language model a line for each phase: `phase`, `tokens`, `context`, and energy and rate by the token.
        A column for each figure of each metric, such as `accuracy_mean`; `metric` names the most important one. Shares
        in [0, 1], joules, seconds, square millimeters: `frame.attrs["units"]` has the unit of each column that has one,
        `frame.attrs["higher_is_better"]` says of each metric which way is better, `frame.attrs["rows"]` holds the full
        rows.
    """
    import pandas as pd

    # a run has one task, and so the same metrics in all rows; some rows lack some
    scores = {score.metric: score for row in rows for score in row.scores}
    metrics = [*scores] or ["accuracy"]
    frame = pd.DataFrame([line for row in rows for line in _flat(row, metrics)])
    frame.attrs["rows"] = list(rows)
    units = _units_of_scores(rows)
    frame.attrs["units"] = {name: unit for name in frame.columns if (unit := units.get(name) or _unit(name))}
    frame.attrs["higher_is_better"] = {metric: score.higher_is_better for metric, score in scores.items()}
    return frame


def _flat_scores(scores: Sequence[Score], metrics: Sequence[str]) -> dict[str, Any]:
    """A column for each figure of each metric, such as accuracy_mean."""
    found = {score.metric: score for score in scores}
    line: dict[str, Any] = {}
    for metric in metrics:
        score, name = found.get(metric), column_of(metric)
        line[f"{name}_mean"] = score.mean if score else None
        line[f"{name}_std"] = score.std if score else None
        line[f"{name}_ci95_low"] = score.ci95[0] if score else None
        line[f"{name}_ci95_high"] = score.ci95[1] if score else None
        line[f"{name}_n"] = score.n if score else None
        line[f"{name}_over"] = score.over if score else None
    return line


_UNITS = {"_j": "J", "_s": "s", "_hz": "1/s", "_mm2": "mm\u00b2"}
"""Unit of a column whose name, without the bound, ends like this."""
_FIGURES = ("mean", "std", "ci95_low", "ci95_high")
"""What is in the unit of a metric, behind its name."""


def _units_of_scores(rows: Sequence[Row]) -> dict[str, str]:
    """Unit of each column of a score."""
    scores = {column_of(score.metric): score for row in rows for score in row.scores}
    return {f"{name}_{part}": score.unit for name, score in scores.items() for part in _FIGURES if score.unit}


def _unit(column: str) -> str | None:
    name = column
    for bound in ("_low", "_nominal", "_high"):
        name = name.removesuffix(bound)
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), None)


def _flat(row: Row, metrics: Sequence[str]) -> Iterator[dict[str, Any]]:
    head = {
        "target": row.target,
        "kind": row.card.kind,
        "card": row.card.name,
        "card_version": row.card.version,
        "seed": row.seed,
        "time_s": row.time_s,
        **{name: value for name, value in row.options.items() if name not in ("card", "seed")},
        "task": row.task,
        "metric": metrics[0] if metrics else None,
        "training": None if row.training is None else str(row.training),
        **_flat_scores(row.scores, metrics),
    }
    measured = {m.batch: m for m in row.measurements}
    language = any(e.tokens for e in row.estimates)
    batches = sorted({e.batch for e in row.estimates} | set(measured)) or [None]
    estimates = {e.batch: e for e in row.estimates}
    found = [(b, None if b is None else estimates.get(b), None if b is None else measured.get(b)) for b in batches]
    found += [(e.batch, e, None) for e in row.decodes]
    for batch, estimate, measurement in found:
        # spikes on crossbars are estimated from the crossbar's card, whose scope may be another than the target's
        scope = estimate.scope if estimate else row.card.scope
        line: dict[str, Any] = {**head, "batch": batch, "scope": scope}
        line["estimate_provenance"] = estimate.provenance if estimate else None
        for name in ("energy_j", "latency_s", "throughput_hz", "area_mm2"):
            band = getattr(estimate, name) if estimate else None
            for bound in ("low", "nominal", "high"):
                line[f"{name}_{bound}"] = getattr(band, bound) if band else None
        if language:
            line["phase"] = estimate.phase if estimate else "prefill"
            line["tokens"] = tokens = estimate.tokens if estimate else max((e.tokens for e in row.estimates), default=0)
            line["context"] = round(estimate.mapping["context"]) if estimate and estimate.phase == "decode" else None
            each = max(tokens, 1)
            for bound in ("low", "nominal", "high"):
                line[f"energy_per_token_j_{bound}"] = getattr(estimate.energy_j, bound) / each if estimate else None
                line[f"tokens_hz_{bound}"] = getattr(estimate.throughput_hz, bound) * each if estimate else None
        line["measured_latency_s"] = measurement.latency_s if measurement else None
        line["measured_throughput_hz"] = measurement.throughput_hz if measurement else None
        line["measured_energy_j"] = measurement.energy_j if measurement else None
        line["measured_provenance"] = measurement.provenance if measurement else None
        line["measured_on"] = measurement.device if measurement else None
        line["notes"] = " ".join(row.notes)
        yield line
