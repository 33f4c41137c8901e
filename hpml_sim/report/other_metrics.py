"""The metrics of a run beside its main one: all times and machines, each with its spread and interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpml_sim.report.metric_words import MetricWords
from hpml_sim.report.summary import TargetSummary, pooled
from hpml_sim.report.wording import listing, time_label
from hpml_sim.results import Row


@dataclass(frozen=True)
class OtherLine:
    """The other metrics of a machine at one time.

    Attributes:
        target: the machine.
        time: since programming, in words; "" where nothing drifts.
        over: what ± runs over; the interval of a single value is over the test samples.
        cells: of each metric the mean with its ±, and the 95 % interval; empty where it has no value.
    """

    target: TargetSummary
    time: str
    over: str
    cells: tuple[tuple[str, str], ...]


def other_words(rows: Sequence[Row]) -> list[MetricWords]:
    """The metrics after the first one, in the order of the task.

    Args:
        rows: of one run, which has one task.
    """
    found = {score.metric: score for row in rows for score in row.scores[1:]}
    return [MetricWords(score.metric, score.unit, score.higher_is_better) for score in found.values()]


def named_others(rows: Sequence[Row]) -> str:
    """The names of the metrics after the first one, as a listing; "" where there are none.

    Args:
        rows: of one run.
    """
    return listing([words.name for words in other_words(rows)]) if other_words(rows) else ""


def other_lines(rows: Sequence[Row], targets: Sequence[TargetSummary]) -> list[OtherLine]:
    """A line for each machine and time that has another metric than the main one.

    Args:
        rows: of one run.
        targets: what `summarize` made of the rows.
    """
    words, found = other_words(rows), []
    for target in targets:
        own = [row for row in rows if row.target == target.name]
        for time in dict.fromkeys(row.time_s for row in own):
            cells, over = [], ""
            for metric in words:
                scores = [s for row in own if row.time_s == time for s in row.scores[1:] if s.metric == metric.name]
                if not scores:
                    cells.append(("", ""))
                    continue
                shown = pooled(scores)
                spread = f" ± {metric.spread(shown.std)}" if shown.n > 1 else ""
                low, high = (metric.value(bound) for bound in shown.ci95)
                cells.append((f"{metric.value(shown.mean)}{spread}", f"{low} to {high}"))
                over = shown.spread
            if over:
                found.append(OtherLine(target, "" if time is None else time_label(time), over, tuple(cells)))
    return found
