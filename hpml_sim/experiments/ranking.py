"""The targets of a run in order of one figure; figures of different scope are never ranked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from hpml_sim.cost import rank
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.report.summary import TargetSummary, summarize
from hpml_sim.results import Row

if TYPE_CHECKING:
    import pandas as pd

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


@dataclass(frozen=True)
class _Ranked:
    """One target with its figure: bounds of the estimate, or of the accuracy's 95 % interval."""

    target: str
    scope: str
    batch: int | None
    low: float
    nominal: float
    high: float


def ranked(rows: Sequence[Row], by: Criterion = "energy", *, batch: int | None = 1) -> pd.DataFrame:
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
    import pandas as pd

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
                "order": "open" if overlap else "clear",
            }
        )
    return pd.DataFrame(lines)


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
