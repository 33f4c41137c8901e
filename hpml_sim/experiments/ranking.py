"""The targets of a run in order of one figure; figures of different scope are never ranked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from hpml_sim.cost import rank
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.report.summary import TargetSummary, summarize
from hpml_sim.results import Row
from hpml_sim.units.bands import Band
from hpml_sim.units.display import html_table, text_table
from hpml_sim.units.formatting import si_band

Criterion = Literal["energy", "latency", "throughput", "area", "accuracy"]
"""What targets can be ranked by."""
_COLUMNS: dict[str, str] = {
    "energy": "energy_j",
    "latency": "latency_s",
    "throughput": "throughput_hz",
    "area": "area_mm2",
    "accuracy": "accuracy",
}
_HIGHER_IS_BETTER = ("throughput", "accuracy")
_UNITS = {"energy_j": "J", "latency_s": "s", "throughput_hz": "/s", "area_mm2": "mm²"}
_NOTE = "order: overlaps where the bounds meet those of the target before"


class Ranking(pd.DataFrame):
    """A DataFrame with a row a target, which prints each figure with its bounds, all columns within 80 characters.

    Rows chosen from it are shown in the same way; a table of other columns is shown as pandas does.
    """

    @property
    def _constructor(self) -> type[Ranking]:
        return Ranking

    def __repr__(self) -> str:
        shown = self._shown()
        return super().__repr__() if shown is None else text_table(*shown, note=_NOTE)

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        shown = self._shown()
        if shown is None:
            return super()._repr_html_()  # type: ignore[operator]
        return html_table("Ranking", shown[1], columns=shown[0], note=_NOTE)

    def _shown(self) -> tuple[list[str], list[list[object]]] | None:
        """Headings and cells, the figure and its bounds in one; None for a table of other columns."""
        for criterion, column in _COLUMNS.items():
            bounds = [f"{column}_{bound}" for bound in ("low", "nominal", "high")]
            if set(bounds) | {"place", "target", "order"} <= set(self.columns):
                others = [name for name in ("place", "target", "scope", "batch") if name in self.columns]
                lines = [
                    [*(line[name] for name in others), _figure(column, *(line[b] for b in bounds)), line["order"]]
                    for line in self.to_dict("records")
                ]
                return [*others, criterion, "order"], lines
        return None


def _figure(column: str, low: float, nominal: float, high: float) -> str:
    if column == "accuracy":
        return f"{100 * nominal:.2f} % ({100 * low:.2f}..{100 * high:.2f})"
    return si_band(Band(low, nominal, high), _UNITS[column])


@dataclass(frozen=True)
class _Ranked:
    """One target with its figure: bounds of the estimate, or of the accuracy's 95 % interval."""

    target: str
    scope: str
    batch: int | None
    low: float
    nominal: float
    high: float


def ranked(rows: Sequence[Row], by: Criterion = "energy", *, batch: int | None = 1) -> Ranking:
    """The targets of a run, the best first; `Comparison.rank` describes it.

    Args:
        rows: of one run.
        by: "energy", "latency", "throughput" or "area", as estimated, or "accuracy" at the earliest time.
        batch: samples processed together; None takes the best batch of each target.

    Returns:
        One line a target; targets without the figure are left out.

    Raises:
        ScopeError: the estimates have different scopes.
        HpmlError: a criterion that does not exist, or that no target has a figure for.
    """
    if by not in get_args(Criterion):
        raise UnknownNameError("criterion by", str(by), get_args(Criterion))
    targets = summarize(rows)
    found = _accuracies(targets) if by == "accuracy" else _costs(targets, by, batch)
    if not found:
        wanted = "" if by == "accuracy" or batch == 1 else f" at batch={batch}"
        raise HpmlError(f"rank: no target has a figure of by={by!r}{wanted}; .table() shows what there is")
    found.sort(key=lambda item: -item.nominal if by in _HIGHER_IS_BETTER else item.nominal)
    column = _COLUMNS[by]
    lines = []
    for place, item in enumerate(found, start=1):
        before = found[max(place - 2, 0)]
        overlap = place > 1 and item.low <= before.high and before.low <= item.high
        includes = {} if by == "accuracy" else {"scope": item.scope, "batch": item.batch}
        lines.append(
            {
                "place": place,
                "target": item.target,
                **includes,
                f"{column}_low": item.low,
                f"{column}_nominal": item.nominal,
                f"{column}_high": item.high,
                "order": "overlaps" if overlap else "apart",
            }
        )
    return Ranking(lines)


def _accuracies(targets: Sequence[TargetSummary]) -> list[_Ranked]:
    found = []
    for target in targets:
        if target.supported:
            score = target.supported[0][1]
            found.append(_Ranked(target.name, target.card.scope, None, score.ci95[0], score.mean, score.ci95[1]))
    return found


def _costs(targets: Sequence[TargetSummary], by: str, batch: int | None) -> list[_Ranked]:
    found, estimates = [], []
    for target in targets:
        cost = target.cost("estimated", batch)
        band = None if cost is None else getattr(cost, _COLUMNS[by])
        if cost is None or band is None:
            continue
        estimates += [e for e in target.estimates if e.batch == cost.batch]
        found.append(_Ranked(target.name, cost.scope, cost.batch, band.low, band.nominal, band.high))
    rank(estimates)  # refuses estimates of different scope
    return found
