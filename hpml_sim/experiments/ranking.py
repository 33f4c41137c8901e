"""The targets of a run in order of one figure, at one scope, and how sure the order is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from hpml_sim.cost import Estimate, rank
from hpml_sim.cost.certainty import CERTAIN, order
from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.report.ranking_words import sureness
from hpml_sim.report.summary import TargetSummary, pooled, summarize
from hpml_sim.results import Row
from hpml_sim.tasks.metric import column_of
from hpml_sim.tasks.score import RATIO, SHARE
from hpml_sim.units.bands import Band
from hpml_sim.units.display import html_table, text_table
from hpml_sim.units.formatting import digits, si_band

Criterion = str
"""What targets can be ranked by: energy, latency, throughput, area, score, or the name of a metric of the run."""
_COLUMNS: dict[str, str] = {
    "energy": "energy_j",
    "latency": "latency_s",
    "throughput": "throughput_hz",
    "area": "area_mm2",
}
_UNITS = {"energy_j": "J", "latency_s": "s", "throughput_hz": "/s", "area_mm2": "mm²"}
_HEADS = {column: criterion for criterion, column in _COLUMNS.items()}
_NOTE = "ratio and certainty: to the target before"


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
        figures = [str(name).removesuffix("_nominal") for name in self.columns if str(name).endswith("_nominal")]
        for column in figures:
            bounds = [f"{column}_{bound}" for bound in ("low", "nominal", "high")]
            if set(bounds) | {"place", "target", "order"} <= set(self.columns):
                others = [name for name in ("place", "target", "scope", "batch") if name in self.columns]
                if "probability" not in self.columns or set(self["scope"]) != {"system"}:
                    lines = [
                        [*(line[o] for o in others), self._figure(column, *(line[b] for b in bounds)), line["order"]]
                        for line in self.to_dict("records")
                    ]
                    return [*others, _HEADS.get(column, column), "order"], lines
                others = [name for name in others if name != "scope"]
                lines = [
                    [
                        *(line[name] for name in others),
                        self._figure(column, *(line[b] for b in bounds)),
                        *_certainty(line),
                    ]
                    for line in self.to_dict("records")
                ]
                return [*others, _HEADS.get(column, column), "ratio", "certainty"], lines
        return None

    def _figure(self, column: str, low: float, nominal: float, high: float) -> str:
        if column in _UNITS:
            return si_band(Band(low, nominal, high), _UNITS[column])
        unit = self.attrs.get("unit", "")
        if unit in (SHARE, RATIO):
            return f"{100 * nominal:.2f} % ({100 * low:.2f}..{100 * high:.2f})"
        return f"{nominal:.4g} {unit}".rstrip() + f" ({low:.4g}..{high:.4g})"


def _certainty(line: Mapping[Hashable, Any]) -> tuple[str, str]:
    """How many times the figure of the target before, and how sure the order is; what decides, where it is not."""
    if line["place"] == 1:
        return "", ""
    sure = sureness(line["probability"])
    if not line["decides"]:
        return "1.0 x", "the same"
    return f"{digits(line['ratio'], 2)} x", sure if line["probability"] >= CERTAIN else f"{sure}: {line['decides']}"


@dataclass(frozen=True)
class _Ranked:
    """One target with its figure: bounds of the estimate, or of the score's 95 % interval."""

    target: str
    scope: str
    batch: int | None
    low: float
    nominal: float
    high: float
    estimate: Estimate | None = None


def ranked(
    rows: Sequence[Row],
    by: Criterion = "energy",
    *,
    batch: int | None = 1,
    scope: Literal["system", "own"] = "system",
    phase: Literal["prefill", "decode"] | None = None,
) -> Ranking:
    """The targets of a run, the best first; `Comparison.rank` describes it.

    Args:
        rows: of one run.
        by: "energy", "latency", "throughput" or "area", as estimated; "score", the task's first metric, or a metric by
            its name, at the earliest time.
        batch: samples processed together; None takes the best batch of each target.
        scope: "system", which every machine has, or "own" for that of the cards.
        phase: of a language model: "decode", energy and throughput of a token that is made, or "prefill", of a token of
            a prompt; None takes "decode" where there is one.

    Returns:
        One line a target; targets without the figure are left out.

    Raises:
        ScopeError: the estimates have different scopes.
        HpmlError: a criterion that does not exist, or that no target has a figure for.
    """
    metrics = {score.metric: score for row in rows for score in row.scores}
    metric = next(iter(metrics), None) if by == "score" else next((m for m in metrics if by in (m, column_of(m))), None)
    if by not in (*_COLUMNS, "score") and metric is None:
        raise UnknownNameError("criterion by", str(by), [*_COLUMNS, "score", *metrics])
    if scope not in ("system", "own"):
        raise HpmlError(f"rank: scope={shown(scope)}: must be 'system', or 'own' for that of the cards")
    given = rows
    if phase not in (None, "prefill", "decode"):
        raise HpmlError(f"rank: phase={shown(phase)}: must be 'prefill' or 'decode'")
    makes = any(row.decodes for row in rows)
    if phase is not None and not any(e.tokens for row in rows for e in row.estimates):
        raise HpmlError(f"rank: phase={phase!r}: is for language models, and this run has none; leave it out")
    if phase == "decode" and not makes:
        raise HpmlError("rank: phase='decode': this network makes no text token by token; take 'prefill'")
    decode = makes and phase != "prefill"
    if decode or scope == "system":
        own, system = ("decodes", "decode_systems") if decode else ("estimates", "systems")
        chosen = system if scope == "system" else own
        rows = [row.model_copy(update={"estimates": getattr(row, chosen), "measurements": []}) for row in rows]
    targets = summarize(rows)
    if by in _COLUMNS:
        found, column, higher = _costs(targets, by, batch), _COLUMNS[by], by == "throughput"
    elif metric is not None:
        found, column, higher = _scores(rows, metric), column_of(metric), metrics[metric].higher_is_better
    else:
        found, column, higher = [], "", True
    if not found:
        wanted = "" if by not in _COLUMNS or batch == 1 else f" at batch={batch}"
        own = scope == "system" and by in _COLUMNS and any(row.estimates for row in given)
        hint = "rank(scope='own') has those of the cards" if own else ".table() shows what there is"
        raise HpmlError(f"rank: no target has a figure of by={by!r}{wanted}; {hint}")
    found.sort(key=lambda item: -item.nominal if higher else item.nominal)
    lines = []
    for place, item in enumerate(found, start=1):
        before = found[max(place - 2, 0)]
        overlap = place > 1 and item.low <= before.high and before.low <= item.high
        includes = {"scope": item.scope, "batch": item.batch} if by in _COLUMNS else {}
        sure: dict[str, Any] = {}
        if by in _COLUMNS:
            sure = {"ratio": 1.0, "probability": 1.0, "decides": "", "projection": False}
            if item.estimate is not None:
                sure["projection"] = item.estimate.projection
                if place > 1 and before.estimate is not None:
                    found_order = order(before.estimate, item.estimate, by)  # type: ignore[arg-type]
                    sure |= {
                        "ratio": found_order.ratio,
                        "probability": found_order.probability,
                        "decides": found_order.decides,
                    }
        lines.append(
            {
                "place": place,
                "target": item.target,
                **includes,
                f"{column}_low": item.low,
                f"{column}_nominal": item.nominal,
                f"{column}_high": item.high,
                "order": "overlaps" if overlap else "apart",
                **sure,
            }
        )
    ranking = Ranking(lines)
    if metric is not None and by not in _COLUMNS:
        ranking.attrs["unit"] = metrics[metric].unit
    return ranking


def _scores(rows: Sequence[Row], metric: str) -> list[_Ranked]:
    """Each target's score at its earliest time, over all seeds."""
    found = []
    for target in dict.fromkeys(row.target for row in rows):
        own = [(row, score) for row in rows if row.target == target for score in row.scores if score.metric == metric]
        if own:
            earliest = min(row.time_s or 0.0 for row, _ in own)
            there = [(row, score) for row, score in own if (row.time_s or 0.0) == earliest]
            shown = pooled([score for _, score in there])
            scope = there[0][0].card.scope
            found.append(_Ranked(target, scope, None, shown.ci95[0], shown.mean, shown.ci95[1]))
    return found


def _costs(targets: Sequence[TargetSummary], by: str, batch: int | None) -> list[_Ranked]:
    found, estimates = [], []
    for target in targets:
        cost = target.cost("estimated", batch)
        band = None if cost is None else getattr(cost, _COLUMNS[by])
        if cost is None or band is None:
            continue
        own = [e for e in target.estimates if e.batch == cost.batch]
        estimates += own
        first = own[0] if own else None
        found.append(_Ranked(target.name, cost.scope, cost.batch, band.low, band.nominal, band.high, first))
    rank(estimates)  # refuses estimates of different scope
    return found
