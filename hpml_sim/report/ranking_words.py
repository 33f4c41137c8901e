"""Which machine? The order of all machines at system scope, how many times, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

from hpml_sim.cost import Estimate, crossover_hz
from hpml_sim.cost.certainty import order
from hpml_sim.cost.system.duty import at_rate
from hpml_sim.report.inference_words import InferenceWords, Question, questions
from hpml_sim.report.metric_words import MetricWords, words_of
from hpml_sim.report.summary import TargetSummary, times_of
from hpml_sim.report.wording import figure, listing, si_page, span_page, time_label
from hpml_sim.units.display import text_table
from hpml_sim.units.formatting import digits, si

MOST_PAIRED = 6
"""Up to so many machines there is a sentence for each pair; of more, for each machine and the next one."""
Named = tuple[str, Estimate]
FAR_POINTS, FAR_TIMES = 0.05, 1.5
"""A score so far from the best is named: of percentages the difference, of errors the ratio."""
SLOW_HZ = 1.0
"""Inferences a second of a machine that mostly waits."""


@dataclass(frozen=True)
class Place:
    """One machine of the answer.

    Attributes:
        name: of the target.
        projection: whether no such system was built.
        scores: at the earliest and, where it drifts, the latest time.
        figures: (nominal, bounds) of energy, latency and throughput.
        ratio: to the energy of the machine before; "" of the first.
        sure: of the order to the machine before; "" of the first.
        open: whether that order is less than nine in ten sure.
    """

    name: str
    projection: bool
    scores: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    ratio: str = ""
    sure: str = ""
    open: bool = False


@dataclass(frozen=True)
class Answer:
    """The machines in order, least energy first, for one question.

    Attributes:
        name: "" or, of a language model, "decode" or "prefill".
        words: what the figures are of.
        score_heads: times of the scores, or "".
        places: one a machine.
        open_orders: a sentence for each pair whose order is less than nine in ten sure.
        batched: what the best batches take; "" where no machine batches.
        projections: which systems were never built; "" where all were.
        pairs: the other pairs, a sentence each.
        lost: which machines do not do the work that the best one does; "" of none.
    """

    name: str
    words: InferenceWords
    score_heads: tuple[str, ...]
    places: tuple[Place, ...]
    open_orders: tuple[str, ...]
    batched: str
    projections: str
    pairs: tuple[str, ...]
    lost: str = ""

    @property
    def said(self) -> tuple[str, ...]:
        """What a reader must know beside the table."""
        return tuple(filter(None, (self.lost, *self.open_orders, self.batched, self.projections)))


def sureness(probability: float) -> str:
    """A probability in words: never certain, never more digits than are known.

    Args:
        probability: of an order, from 0.5 to 1.

    Example:
        >>> sureness(0.9996), sureness(0.934), sureness(0.5)
        ('> 99 %', '93 %', '50 %')
    """
    return "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def answers(targets: Sequence[TargetSummary]) -> list[Answer]:
    """The ranking at system scope as tables: of a language model one for making a token and one for reading a prompt.

    Args:
        targets: of the run; those without an estimate at system scope are left out.
    """
    found = [_answer(question, targets) for question in questions(targets)]
    lost = _losses(targets)
    return [replace(found[0], lost=lost), *found[1:]] if found else []


def _answer(question: Question, targets: Sequence[TargetSummary]) -> Answer:
    found = question.ranked()
    by_name = {target.name: target for target in targets}
    times = times_of(targets)
    ends: list[float | None] = [times[0], times[-1]] if len(times) > 1 else [*times] or [None]
    words = words_of(targets)
    places = []
    for position, (name, e) in enumerate(found):
        scores = [by_name[name].at(time) for time in ends]
        shown = tuple("—" if score is None else words.value(score.mean, 1) for score in scores)
        figures = tuple(
            (si_page(band.nominal, unit), span_page(band))
            for band, unit in ((e.energy_j, "J"), (e.latency_s, "s"), (e.throughput_hz, ""))
        )
        ratio = sure = ""
        is_open = False
        if position:
            before = order(found[position - 1][1], e)
            ratio = f"{digits(before.ratio, 2)} x" if before.decides else "the same"
            sure = sureness(before.probability) if before.decides else ""
            is_open = bool(before.decides) and not before.certain
        places.append(Place(name, e.projection, shown, figures, ratio, sure, is_open))
    pairs = list(combinations(found, 2)) if len(found) <= MOST_PAIRED else list(pairwise(found))
    opened = [(a, b) for a, b in pairs if (o := order(a[1], b[1])).decides and not o.certain]
    closed = [_sentence(a, b) for a, b in pairs if (a, b) not in opened]
    closed += [_shares(*found[0]), _waiting(found, question.words)]
    heads = tuple("" if time is None else time_label(time) for time in ends)
    return Answer(
        name=question.name,
        words=question.words,
        score_heads=heads,
        places=tuple(places),
        open_orders=tuple(_sentence(a, b) for a, b in opened),
        batched=_batched(question),
        projections=_projections(found),
        pairs=tuple(filter(None, closed)),
    )


def answer(targets: Sequence[TargetSummary], *, width: int = 80) -> str:
    """The ranking at system scope for a terminal: a table for each question, and what a reader must know beside it.

    Best batches, the other pairs and what decides an open order stand in the report.

    Args:
        targets: of the run; those without an estimate at system scope are left out.
        width: characters in a line of the tables.

    Returns:
        "" where no target has an estimate at system scope.
    """
    found = answers(targets)
    if not found:
        return ""
    score = words_of(targets).named
    tables = [_table(each, score, width) for each in found]
    known = dict.fromkeys(text for each in found for text in (each.lost, each.projections) if text)
    return "\n\n".join(["\n\n".join(tables), *(["\n".join(known)] if known else [])])


def _table(found: Answer, score: str, width: int) -> str:
    """The places of an answer, as on the page, with the bounds of energy alone: a terminal has no room for more."""
    rate = 2 if found.name else 1  # of a language model tokens a second, of others the latency
    heads = [head if k else f"{score} {head}".rstrip() for k, head in enumerate(found.score_heads)]
    columns = [
        "machine",
        *heads,
        f"energy{found.words.short}",
        found.words.rate if rate == 2 else "latency",
        "",
        "sure",
    ]
    rows = []
    for place in found.places:
        (energy, bounds), (speed, _) = place.figures[0], place.figures[rate]
        sure = f"{place.sure}, open" if place.open else place.sure
        rows.append([place.name, *place.scores, f"{energy} ({bounds})", speed, place.ratio, sure])
    title = f"Which machine? {found.words.title or 'One inference'}: least energy first, whole systems at batch 1"
    return f"{title}\n{text_table(columns, rows, width=width)}"


def _losses(targets: Sequence[TargetSummary]) -> str:
    """Which machines do not do the work that the best one does, so that their energy is that of something else."""
    words = words_of(targets)
    times = times_of(targets)
    first, last = (times[0], times[-1]) if times else (None, None)
    means = [score.mean for target in targets if (score := target.at(first)) is not None]
    if not means:
        return ""
    best = min(means, key=words.rank)
    said = []
    for target in targets:
        at = [(time, score.mean) for time in dict.fromkeys((first, last)) if (score := target.at(time)) is not None]
        if any(_loses(mean, best, words) for _, mean in at):
            when = " and ".join(
                words.with_unit(words.value(mean, 1)) + (f" after {time_label(time)}" if time is not None else "")
                for time, mean in (at if target.drifts else [(None, at[0][1])])
            )
            said.append(f"{target.name} has {when}")
    if not said:
        return ""
    return (
        f"Energy is not all: the best {words.name} is {words.with_unit(words.value(best, 1))}, and {listing(said)}. "
        "Training for the hardware may win some of that back: finetune_epochs=, or adapters (hs.lora)."
    )


def _loses(mean: float, best: float, words: MetricWords) -> bool:
    """Whether a score is far from the best: 5 points of a percentage, or half as much again of an error."""
    if words.in_percent:
        return abs(mean - best) > FAR_POINTS
    return not words.higher_is_better and best > 0 and mean > FAR_TIMES * best


def _projections(found: Sequence[Named]) -> str:
    projected = [name for name, e in found if e.projection]
    if not projected:
        return ""
    verb = "are projections" if len(projected) > 1 else "is a projection"
    return f"{listing(projected)} {verb}: such systems were never built; what is around the chips was added."


def order_of(found: Sequence[Named]) -> list[str]:
    """A sentence for each machine and the next one, least energy first.

    Args:
        found: names and estimates of one scope.
    """
    ranked = sorted(found, key=lambda item: item[1].energy_j.nominal)
    return [_sentence(a, b) for a, b in pairwise(ranked)]


def _sentence(lower: Named, higher: Named) -> str:
    """One pair: how many times the energy, how sure, and what decides where that is under nine in ten."""
    (name, a), (other, b) = lower, higher
    found = order(a, b)
    if not found.decides:
        return f"{other} takes the same energy as {name}: the same work on the same card."
    times = f"{other} takes {digits(found.ratio, 2)} times the energy of {name}"
    if found.certain:
        return f"{times} ({sureness(found.probability)} sure of the order)."
    if found.probability < 0.5:
        less = sureness(1 - found.probability)
        words = f"By nominal values {times}; yet its bounds reach less far up, and with {less} it takes less"
        return f"{words}; what decides is {found.decides}."
    return f"{times}, but that is only {sureness(found.probability)} sure; what decides is {found.decides}."


def _shares(name: str, estimate: Estimate) -> str:
    """What the leading machine spends its energy on, the three largest parts."""
    parts = list(estimate.by_component().items())[:3]
    total = estimate.energy_j.nominal or 1.0
    words = [f"{part} {si(band.nominal, 'J', micro='µ')} ({band.nominal / total:.0%})" for part, band in parts]
    return f"{name} spends most on {listing(words)}."


def _batched(question: Question) -> str:
    """What machines that batch take at their best batch, against the leader at batch 1."""
    name, first = question.ranked()[0]
    best = question.ranked(best=True)
    if dict(best)[name].batch > 1:  # the leader works on several at a time as well
        listed = [f"{other} {figure(e.energy_j, 'J')} at batch {e.batch:,}" for other, e in best]
        steps = " ".join(_sentence(a, b) for a, b in pairwise(best))
        return f"With as many {question.words.batch} at a time as pay: {listing(listed)}. {steps}".rstrip()
    found = [(other, e) for other, e in question.ranked(best=True) if e.batch > 1 and other != name]
    words = []
    for other, e in found:
        ahead = order(first, e)
        times = digits(e.energy_j.nominal / first.energy_j.nominal, 2)
        sure = sureness(ahead.probability)
        sure = f"{sure} sure" if ahead.certain else f"{sure} sure, decided by {ahead.decides}"
        words.append(f"{other} takes {figure(e.energy_j, 'J')} at batch {e.batch:,} ({times} times; {sure})")
    what = question.words.batch
    return f"With as many {what} at a time as pay, against {name} at batch 1: {listing(words)}." if words else ""


def _waiting(found: Sequence[Named], words: InferenceWords) -> str:
    """Average power of machines that mostly wait, and the rates at which two that follow each other change places."""
    if any(e.tokens > 1 for _, e in found):  # figures are by the token, the machine wakes for a prompt
        return ""
    able = [(name, at_rate(e, SLOW_HZ)) for name, e in found if e.throughput_hz.nominal >= SLOW_HZ]
    if not able:
        return ""
    powers = [(name, e.reported_separately["average_power_w"]) for name, e in able]
    powers.sort(key=lambda item: item[1].nominal)
    drawn = [f"{name} {figure(power, 'W')}" for name, power in powers]
    text = f"At one {words.noun} a second, idle power included, they draw on average: {listing(drawn)}."
    changes = [(a, b, rate) for (a, one), (b, two) in pairwise(found) if (rate := crossover_hz(one, two)) is not None]
    if changes:
        said = [f"{b} draws less than {a} below {digits(rate, 2)} a second" for a, b, rate in changes]
        text += f" {listing(said)}."
    return text
