"""Rows as a table: one line a (row, batch), with units in the column names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpml_sim.results.rows import Row
from hpml_sim.training.score import SHARE

if TYPE_CHECKING:
    import pandas as pd


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows flattened: one line a (row, batch), the options of a sweep as columns of their own.

    Args:
        rows: of one run, in any order.

    Returns:
        Shares in [0, 1], joules, seconds, square millimeters: `frame.attrs["units"]` has the unit of each column that
        has one. `frame.attrs["rows"]` holds the full rows.
    """
    import pandas as pd

    frame = pd.DataFrame([line for row in rows for line in _flat(row)])
    frame.attrs["rows"] = list(rows)
    frame.attrs["units"] = {name: unit for name in frame.columns if (unit := _unit(name))}
    return frame


_UNITS = {"accuracy": SHARE, "_j": "J", "_s": "s", "_hz": "1/s", "_mm2": "mm\u00b2"}
"""Unit of a column whose name, without the bound, begins or ends like this. Accuracies are shares."""


def _unit(column: str) -> str | None:
    name = column
    for bound in ("_low", "_nominal", "_high"):
        name = name.removesuffix(bound)
    if name in ("accuracy_n", "accuracy_over"):
        return None
    return next((unit for end, unit in _UNITS.items() if name.startswith(end) or name.endswith(end)), None)


def _flat(row: Row) -> Iterator[dict[str, Any]]:
    accuracy = row.accuracy
    head = {
        "target": row.target,
        "kind": row.card.kind,
        "card": row.card.name,
        "card_version": row.card.version,
        "seed": row.seed,
        "time_s": row.time_s,
        **{name: value for name, value in row.options.items() if name not in ("card", "seed")},
        "accuracy_mean": accuracy.mean if accuracy else None,
        "accuracy_std": accuracy.std if accuracy else None,
        "accuracy_ci95_low": accuracy.ci95[0] if accuracy else None,
        "accuracy_ci95_high": accuracy.ci95[1] if accuracy else None,
        "accuracy_n": accuracy.n if accuracy else None,
        "accuracy_over": accuracy.over if accuracy else None,
    }
    measured = {m.batch: m for m in row.measurements}
    batches = sorted({e.batch for e in row.estimates} | set(measured)) or [None]
    estimates = {e.batch: e for e in row.estimates}
    for batch in batches:
        estimate = None if batch is None else estimates.get(batch)
        measurement = None if batch is None else measured.get(batch)
        # spikes on crossbars are estimated from the crossbar's card, whose scope may be another than the target's
        scope = estimate.scope if estimate else row.card.scope
        line: dict[str, Any] = {**head, "batch": batch, "scope": scope}
        line["estimate_provenance"] = estimate.provenance if estimate else None
        for name in ("energy_j", "latency_s", "throughput_hz", "area_mm2"):
            band = getattr(estimate, name) if estimate else None
            for bound in ("low", "nominal", "high"):
                line[f"{name}_{bound}"] = getattr(band, bound) if band else None
        line["measured_latency_s"] = measurement.latency_s if measurement else None
        line["measured_throughput_hz"] = measurement.throughput_hz if measurement else None
        line["measured_energy_j"] = measurement.energy_j if measurement else None
        line["measured_provenance"] = measurement.provenance if measurement else None
        line["measured_on"] = measurement.device if measurement else None
        line["notes"] = " ".join(row.notes)
        yield line
