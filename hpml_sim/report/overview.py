"""The comparison in a few columns: what a `Comparison` shows of itself in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from hpml_sim.report.inference_words import words_of_inference
from hpml_sim.report.metric_words import MetricWords, words_of
from hpml_sim.report.other_metrics import named_others
from hpml_sim.report.summary import Cost, TargetSummary, summarize, times_of
from hpml_sim.report.wording import time_label
from hpml_sim.results import Row
from hpml_sim.units.formatting import BandLike, digits, si, si_band


def overview(rows: Sequence[Row], *, every_time: bool = False) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of a small table: a line a target, batch and way in which its cost is known.

    Args:
        rows: results of one run; none give no lines.
        every_time: a column for each time since programming and one for the throughput, and bounds beside every
            figure; False shows the score at the earliest and at the latest time, and nominal values alone.

    Returns:
        Headings, and the cells of each line.
    """
    if not rows:
        return [], []
    targets = summarize(rows)
    times: list[float | None] = [*times_of(targets)] or [None]
    if not every_time and len(times) > 2:
        times = [times[0], times[-1]]
    words = words_of(targets)
    heads = ["target", "scope", *(_score_head(words, time) for time in times)]
    heads += ["batch", "energy", "latency", *(["throughput"] if every_time else [])]
    lines = []
    for target in targets:
        costs: Sequence[Cost | None] = [*target.costs, *target.decodes] or [None]
        for place, cost in enumerate(costs):
            named = [target.name, *(_score(target, time, words, spread=every_time) for time in times)]
            shown = named if place == 0 else [""] * len(named)
            lines.append([shown[0], _scope(target, cost), *shown[1:], *_cost(cost, every_time)])
    return heads, lines


def _scope(target: TargetSummary, cost: Cost | None) -> str:
    """What the figures of a line include, or that they were measured."""
    return target.card.scope if cost is None else "measured" if cost.provenance == "measured" else cost.scope


def _score_head(words: MetricWords, time: float | None) -> str:
    """Heading of a column of scores: a bare "%" is the accuracy."""
    name = "%" if words.is_accuracy else f"{words.name}{' ' + words.sign if words.sign else ''}"
    return name if time is None else f"{name} {time_label(time)}"


def remark(rows: Sequence[Row]) -> str:
    """What to say below the small table: which way the main metric is better, and what else was measured.

    Args:
        rows: results of one run.

    Returns:
        "" where all of it goes without saying, as for accuracies.
    """
    words, others = words_of(summarize(rows)), named_others(rows)
    said = [f"{words.name}: {words.hint}"] if words.hint else []
    said += [f"also measured: {others}"] if others else []
    if words_of_inference(summarize(rows)).noun == "token":
        said.append("energy is by the token")
    return "; ".join(said)


def _score(target: TargetSummary, time_s: float | None, words: MetricWords, *, spread: bool) -> str:
    shown = target.at(time_s)
    if shown is None:
        return "—"
    floating = target.floating_point
    beside = "" if floating is None or not spread else f" ({words.value(floating.mean)} in floating point)"
    return words.value(shown.mean) + (f" ± {words.spread(shown.std)}" if spread and shown.n > 1 else "") + beside


def _cost(cost: Cost | None, in_full: bool) -> list[str]:
    if cost is None:
        return ["—"] * (4 if in_full else 3)
    what = {"prefill": " prompt", "decode": " token"}.get(cost.phase, "")
    shown = si_band if in_full else _nominal
    energy = "—" if cost.energy_j is None else shown(cost.energy_j, "J")
    rate = [f"{digits(cost.throughput_hz.nominal)}{' tokens' if what else ''}/s"] if in_full else []
    return [f"{cost.batch:,}{what}", energy, shown(cost.latency_s, "s"), *rate]


def _nominal(band: BandLike, unit: str) -> str:
    return si(band.nominal, unit)
