"""Which machine? The order of all machines at system scope, how many times, and how sure that is, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

from hpml_sim.cost import Estimate, crossover_hz
from hpml_sim.cost.certainty import order
from hpml_sim.cost.system.duty import at_rate
from hpml_sim.report.summary import TargetSummary
from hpml_sim.report.wording import figure, listing
from hpml_sim.units.formatting import digits, si

MOST_PAIRED = 6
"""Up to so many machines there is a sentence for each pair; of more, for each machine and the next one."""
Named = tuple[str, Estimate]
SLOW_HZ = 1.0
"""Inferences a second of a machine that mostly waits."""


def systems(targets: Sequence[TargetSummary], *, best: bool = False) -> list[Named]:
    """(name, estimate at system scope) of the targets that have one, least energy first.

    Args:
        targets: of the run.
        best: at the best batch, in place of batch 1.
    """
    found = [(t.name, t.systems[-1 if best else 0]) for t in targets if t.systems]
    return sorted(found, key=lambda item: item[1].energy_j.nominal)


def sureness(probability: float) -> str:
    """A probability in words: never certain, never more digits than are known.

    Args:
        probability: of an order, from 0.5 to 1.

    Example:
        >>> sureness(0.9996), sureness(0.934), sureness(0.5)
        ('> 99 %', '93 %', '50 %')
    """
    return "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def answer(targets: Sequence[TargetSummary], *, every_pair: bool = True) -> list[str]:
    """The ranking at system scope in paragraphs: what each takes, the order with its certainty, what is a projection.

    Args:
        targets: of the run; those without an estimate at system scope are left out.
        every_pair: a sentence for each pair of up to six machines; False: for each machine and the next one.
    """
    found = systems(targets)
    if not found:
        return []
    what = "Energy of one inference at batch 1, everything around the machine included (system scope)"
    listed = [f"{name} {figure(e.energy_j, 'J')}" for name, e in found]
    parts = [f"{what}, least first: {listing(listed)}."]
    pairs = combinations(found, 2) if every_pair and len(found) <= MOST_PAIRED else pairwise(found)
    parts += [_sentence(a, b) for a, b in pairs]
    parts += [_shares(*found[0]), _batched(targets, found[0]), _waiting(found)]
    if projected := [name for name, e in found if e.projection]:
        verb = "are projections" if len(projected) > 1 else "is a projection"
        parts.append(f"{listing(projected)} {verb}: such systems were never built; what is around the chips was added.")
    return [part for part in parts if part]


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


def _batched(targets: Sequence[TargetSummary], leader: Named) -> str:
    """What machines that batch take at their best batch, against the leader at batch 1."""
    name, first = leader
    found = [(other, e) for other, e in systems(targets, best=True) if e.batch > 1 and other != name]
    words = []
    for other, e in found:
        ahead = order(first, e)
        times = digits(e.energy_j.nominal / first.energy_j.nominal, 2)
        sure = sureness(ahead.probability)
        sure = f"{sure} sure" if ahead.certain else f"{sure} sure, decided by {ahead.decides}"
        words.append(f"{other} takes {figure(e.energy_j, 'J')} at batch {e.batch:,} ({times} times; {sure})")
    return f"With as many samples at a time as pay, against {name} at batch 1: {listing(words)}." if words else ""


def _waiting(found: Sequence[Named]) -> str:
    """Average power of machines that mostly wait, and the rates at which two that follow each other change places."""
    able = [(name, at_rate(e, SLOW_HZ)) for name, e in found if e.throughput_hz.nominal >= SLOW_HZ]
    if not able:
        return ""
    powers = [(name, e.reported_separately["average_power_w"]) for name, e in able]
    powers.sort(key=lambda item: item[1].nominal)
    words = [f"{name} {figure(power, 'W')}" for name, power in powers]
    text = f"At one inference a second, idle power included, they draw on average: {listing(words)}."
    changes = [(a, b, rate) for (a, one), (b, two) in pairwise(found) if (rate := crossover_hz(one, two)) is not None]
    if changes:
        said = [f"{b} draws less than {a} below {digits(rate, 2)} a second" for a, b, rate in changes]
        text += f" {listing(said)}."
    return text
