"""The findings of a run in sentences: computed from the rows, and never more than the bounds allow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hpml_sim.report.inference_words import words_of_inference
from hpml_sim.report.metric_words import MetricWords, words_of
from hpml_sim.report.summary import SCOPES, AccuracySummary, Cost, TargetSummary, times_of
from hpml_sim.report.wording import figure, listing, names, percent, time_label
from hpml_sim.units.bands import Band
from hpml_sim.units.formatting import digits, si

_MOST = 5
"""Items named in one sentence; the others are counted, and the table shows all."""
_Ranked = tuple[TargetSummary, Cost, Band]


def findings(targets: Sequence[TargetSummary]) -> list[tuple[str, list[str]]]:
    """(subject, paragraphs) for the head of the report, in the order of its sections."""
    found = [
        (words_of(targets).title, accuracy(targets)),
        ("Drift", drift(targets)),
        ("Energy", energy(targets)),
        ("Batch", batches(targets)),
        ("Measured here", measured(targets)),
    ]
    return [(subject, paragraphs) for subject, paragraphs in found if paragraphs]


def accuracy(targets: Sequence[TargetSummary]) -> list[str]:
    """Scores at the earliest time, the best first, and what their spreads run over."""
    words = words_of(targets)
    times = times_of(targets)
    start = times[0] if times else None
    shown = [(t, t.at(start)) for t in targets]
    ranked = sorted([(t, a) for t, a in shown if a is not None], key=lambda item: words.rank(item[1].mean))
    if not ranked:
        return ["No target has an accuracy yet."] if words.is_accuracy else [f"No target has a figure of {words.name}."]
    groups: dict[str, list[str]] = {}
    for target, figure_ in ranked:
        spread = f" ± {words.spread(figure_.std, 1)}" if figure_.n > 1 else ""
        value = words.with_unit(f"{words.value(figure_.mean, 1)}{spread}")
        groups.setdefault(value, []).append(target.name)
    parts = [f"{names(who, 3)} {value}" for value, who in groups.items()]
    if len(parts) > _MOST:
        parts = [*parts[: _MOST - 1], f"others {'down' if words.higher_is_better else 'up'} to {parts[-1]}"]
    when = f", {time_label(start)} after programming" if start is not None else ""
    what = "Test samples classified correctly" if words.is_accuracy else f"{words.title} ({words.direction})"
    found = [f"{what}{when}: {listing(parts)}."]
    lacking = [t.name for t, a in shown if a is None]
    if lacking:
        found.append(f"No data for {names(lacking)} at that time.")
    spreads: dict[str, list[str]] = {}
    for target, figure_ in ranked:
        spreads.setdefault(figure_.spread, []).append(target.name)
    if len(spreads) > 1 and any(figure_.n == 1 for _, figure_ in ranked):
        parts = [f"those of {names(who)} run over {spread}" for spread, who in spreads.items()]
        found.append(
            f"Intervals: {listing(parts)}; these describe different things, so a small difference does not rank the "
            "targets."
        )
    return found


def drift(targets: Sequence[TargetSummary]) -> list[str]:
    """How much of its score each target that drifts loses, the largest loss first, and the times without data."""
    words = words_of(targets)
    changes: list[tuple[float, str]] = []
    gaps: dict[str, list[str]] = {}
    for target in targets:
        known = [(t, a) for t, a in target.supported if t is not None]
        if len(known) > 1:
            (start, first), (end, last) = known[0], known[-1]
            period = f"from {time_label(start)} to {time_label(end)}"
            values = words.value(first.mean, 1), words.value(last.mean, 1)
            if words.unchanged(first.mean, last.mean):
                what = "" if words.is_accuracy else f" {words.name}"
                text = f"{target.name} stays at{what} {words.with_unit(values[1])} {period}."
            else:
                text = (
                    f"{words.change(target.name, first.mean, last.mean)} {period} "
                    f"({values[0]} to {words.with_unit(values[1])}{_chip_by_chip(first, last, words)})."
                )
            changes.append((words.rank(first.mean) - words.rank(last.mean), text))
        if missing := gaps_of(target):
            gaps.setdefault(listing(missing), []).append(target.name)
    parts = [text for _, text in sorted(changes, key=lambda item: item[0])]
    if len(parts) > _MOST:
        parts = [*parts[: _MOST - 1], f"{len(parts) - _MOST + 1} more in the table."]
    parts += [f"No data at {when} for {names(who)}; nothing is extrapolated." for when, who in gaps.items()]
    return parts


def _chip_by_chip(first: AccuracySummary, last: AccuracySummary, words: MetricWords) -> str:
    """How many chips moved as their mean did: each is compared with itself, as chips differ more than they drift."""
    if len(first.values) < 2 or len(first.values) != len(last.values):
        return ""
    worse = words.rank(last.mean) > words.rank(first.mean)
    moved = sum(
        (words.rank(b) > words.rank(a)) if worse else (words.rank(b) < words.rank(a))
        for a, b in zip(first.values, last.values, strict=True)
    )
    of = len(first.values)
    many = f"all {of} chips are" if moved == of else f"{moved} of {of} chips {'is' if moved == 1 else 'are'}"
    return f"; {many} {'worse' if worse else 'better'}"


def gaps_of(target: TargetSummary) -> list[str]:
    """Times of the run at which the device model of `target` has no data, in words."""
    return [time_label(t) for t, a in target.accuracy.items() if t is not None and a is None]


def first_costs(targets: Sequence[TargetSummary]) -> dict[str, list[_Ranked]]:
    """Scope -> estimated costs at the smallest batch, lowest energy first; scopes from the smallest to the largest."""
    groups: dict[str, list[_Ranked]] = {}
    for target in targets:
        estimated = [c for c in target.costs if c.provenance == "estimated"]
        if estimated and estimated[0].energy_j is not None:
            groups.setdefault(estimated[0].scope, []).append((target, estimated[0], estimated[0].energy_j))
    ordered = sorted(groups.items(), key=lambda item: SCOPES.index(item[0]) if item[0] in SCOPES else len(SCOPES))
    return {scope: sorted(found, key=lambda item: item[2].nominal) for scope, found in ordered}


def energy(targets: Sequence[TargetSummary]) -> list[str]:
    """Estimated energies at batch 1, ranked within a scope and never across."""
    groups = first_costs(targets)
    parts = []
    for scope, found in groups.items():
        words = [f"{target.name} {figure(band, 'J')}" for target, _, band in found]
        if len(found) == 1:
            parts.append(f"Scope {scope}: {words[0]}.")
            continue
        verdicts = [_step(a, b) for a, b in pairwise(found)]
        if len(found) > _MOST:
            words, verdicts = [*words[: _MOST - 1], f"others up to {words[-1]}"], verdicts[: _MOST - 2]
        parts.append(f"Scope {scope}, lowest first: {listing(words)}; {'; '.join(verdicts)}.")
    if not parts:
        return []
    rule = "Different scopes include different things and are not ranked against each other."
    one = words_of_inference(targets).one
    return [f"Estimated for {one} at batch 1.", *parts, *([rule] if len(groups) > 1 else [])]


def _step(lower: _Ranked, higher: _Ranked) -> str:
    """How many times the energy of the one the other takes, or that their bounds leave the order uncertain."""
    if higher[2] == lower[2] and higher[0].card.name == lower[0].card.name:
        return f"{higher[0].name} takes the same energy as {lower[0].name}"
    if higher[2].low <= lower[2].high or lower[2].nominal <= 0:
        return f"the bands of {lower[0].name} and {higher[0].name} overlap, so their order is uncertain"
    ratio = digits(higher[2].nominal / lower[2].nominal, 2)
    return f"{higher[0].name} takes about {ratio} times the energy of {lower[0].name}"


def batches(targets: Sequence[TargetSummary]) -> list[str]:
    """What batching saves the targets that can batch, and which others they then overtake."""
    parts, overtaken = [], []
    noun = words_of_inference(targets).noun
    article = f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
    for target in targets:
        estimated = [c for c in target.costs if c.provenance == "estimated"]
        if len(estimated) > 1 and estimated[0].energy_j and estimated[-1].energy_j:
            one, best = estimated[0].energy_j, estimated[-1].energy_j
            parts.append(
                f"{target.name} goes from {si(one.nominal, 'J', micro='µ')} to {si(best.nominal, 'J', micro='µ')} "
                f"{article} at batch {estimated[-1].batch:,}"
            )
            if others := _overtaken(target, targets):
                overtaken.append(
                    f"At its best batch {target.name} takes less energy than {names(others)}, which "
                    f"{'take' if len(others) > 1 else 'takes'} less at batch 1 (scope {estimated[0].scope})."
                )
    if len(overtaken) > _MOST:
        more = f"{len(overtaken) - _MOST + 1} more change their order; the table shows them."
        overtaken = [*overtaken[: _MOST - 1], more]
    return [f"{names(parts, _MOST)} (estimated).", *overtaken] if parts else []


def _overtaken(target: TargetSummary, targets: Sequence[TargetSummary]) -> list[str]:
    """Targets with less energy at batch 1, but more where each has its best batch, at all values within the bounds."""
    firsts = {t.name: band for found in first_costs(targets).values() for t, _, band in found}
    bests = {t.name: [c for c in t.costs if c.provenance == "estimated"][-1] for t in targets if t.name in firsts}
    mine = bests[target.name]
    return [
        name
        for name, best in bests.items()
        if best.scope == mine.scope
        and best.energy_j is not None
        and mine.energy_j is not None
        and firsts[name].nominal < firsts[target.name].nominal
        and best.energy_j.low > mine.energy_j.high
    ]


def measured(targets: Sequence[TargetSummary]) -> list[str]:
    """Time and energy as measured on this machine, beside the estimate of the same target."""
    parts = []
    for target in targets:
        found = [c for c in target.costs if c.provenance == "measured"]
        if not found:
            continue
        clock = found[0]
        one = f"A prompt of {clock.tokens:,} tokens" if clock.tokens else "One inference"
        what = one if clock.batch == 1 else f"One batch of {clock.batch:,}"
        text = f"{what} on {target.name} took {figure(clock.latency_s, 's')} on {clock.device}"
        estimate = next((c for c in target.costs if c.provenance == "estimated" and c.batch == clock.batch), None)
        if estimate is not None:
            inside = estimate.latency_s.low <= clock.latency_s.nominal <= estimate.latency_s.high
            where = "inside" if inside else "outside"
            text += f"; the card's estimate is {figure(estimate.latency_s, 's')}: {where} its band"
        if clock.energy_j is not None:
            text += f". Energy: {figure(clock.energy_j, 'J')} {words_of_inference(targets).per} ({clock.origin})"
        elif clock.energy_reason:
            text += f". Energy was not measured: {clock.energy_reason}"
        parts.append(text + ".")
    if len(parts) > _MOST:
        parts = [*parts[: _MOST - 1], f"{len(parts) - _MOST + 1} more in the table."]
    return parts


def components(targets: Sequence[TargetSummary]) -> str:
    """The largest component of each target."""
    words = [
        f"{t.name}: {t.components[0].name} ({percent(t.components[0].share, 0)} %)" for t in targets if t.components
    ]
    return f"Largest share of the energy at batch 1: {names(words, 8)}." if words else ""


def limits(targets: Sequence[TargetSummary]) -> str:
    """What takes the time of the layers on each CPU and GPU, at the smallest and at the best batch."""
    parts = []
    for target in targets:
        for estimate in target.estimates:
            if estimate.roof is None:
                continue
            spent: dict[str, float] = {}
            for layer in estimate.roof.layers:
                spent[layer.limit] = spent.get(layer.limit, 0.0) + layer.time_s
            most = max(spent, key=lambda limit: spent[limit])
            share = spent[most] / sum(spent.values()) if sum(spent.values()) else 1.0
            parts.append(f"{target.name} at batch {estimate.batch:,}: {most} ({percent(share, 0)} %)")
    return f"What limits the layers, by share of their time: {names(parts, 8)}." if parts else ""
