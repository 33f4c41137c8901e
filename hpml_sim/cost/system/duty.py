"""A machine that waits between inferences: energy an inference, average power, and where two machines change places."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard
from hpml_sim.cost.result import Estimate, Term
from hpml_sim.errors import HpmlError, ScopeError, check_real, shown
from hpml_sim.units.bands import ZERO

if TYPE_CHECKING:
    from hpml_sim.cards import Card

STEADY = ("static", "leakage", "memory-idle", "host")
"""Components of energies that are a power for as long as an inference takes."""
CONVERTERS = ("regulator", "supply", "fans", "cooling")
"""Components that take a share of what they deliver."""
WAITING = "waiting"
"""Component of the energy that is spent between inferences."""


def with_idle(estimate: Estimate, card: Card) -> Estimate:
    """The estimate with what the machine draws while it waits, `reported_separately["idle_w"]`.

    Args:
        estimate: at the card's own scope.
        card: of the machine: idle power of all devices, or static (and host) power of all chips.
    """
    # of crossbars the energy covers an inference from end to end, of all others the time that the machine gives it
    each = estimate.throughput_hz.inverse()
    covered_s = (estimate.latency_s / estimate.batch if isinstance(card, CrossbarCard) else each).nominal
    if math.isfinite(covered_s):
        estimate = replace(estimate, mapping={**estimate.mapping, "covered_s": covered_s})
    if "idle_w" in estimate.reported_separately:
        return estimate
    if isinstance(card, DigitalCard):
        idle = card.power_idle.band() * estimate.mapping.get("devices", 1.0)
    elif isinstance(card, NeuromorphicCard):
        host = ZERO if card.power_host is None else card.power_host.band()
        idle = (card.power_static.band() + host) * estimate.mapping["chips"]
    else:
        idle = ZERO
    return replace(estimate, reported_separately={**estimate.reported_separately, "idle_w": idle})


def at_rate(estimate: Estimate, rate_hz: float) -> Estimate:
    """The same machine at a rate: between inferences it waits, and an inference bears what waiting takes.

    E(r) = E + P_idle max(0, 1 / r - t), with t the time that E covers. Average power = r E(r). In a pipeline of tiles
    inferences overlap once r > 1 / t, and share what flows all the time: it is then that of 1 / r, and not of t.

    Args:
        estimate: without a rate.
        rate_hz: inferences a second, above 0.

    Raises:
        HpmlError: the machine cannot do that many.
    """
    check_real("estimate: rate_hz", rate_hz, above=0)
    most = estimate.throughput_hz
    if rate_hz > most.nominal * (1 + 1e-9) and most.nominal > 0:  # 0: no figure of the card says what it can do
        raise HpmlError(
            f"estimate: rate_hz={rate_hz:g}: {estimate.card} does {most.nominal:.4g} inferences a second at batch "
            f"{estimate.batch} ({most.low:.3g} to {most.high:.3g}); take fewer, a larger batch=, "
            "or more chips= or devices="
        )
    wait = max(0.0, 1 / rate_hz - busy_s(estimate))
    spent = estimate.reported_separately["idle_w"] * wait
    terms = _overlapped(estimate.terms, 1 / (rate_hz * busy_s(estimate))) if rate_hz * busy_s(estimate) > 1 else None
    if terms is None:
        terms = (*estimate.terms, Term("", WAITING, spent)) if spent.high > 0 else estimate.terms
    energy = sum((term.energy_j for term in terms), ZERO)
    return replace(
        estimate,
        energy_j=energy,
        terms=terms,
        rate_hz=rate_hz,
        reported_separately={**estimate.reported_separately, "average_power_w": energy * rate_hz},
    )


def _overlapped(terms: tuple[Term, ...], share: float) -> tuple[Term, ...]:
    """Terms of inferences that overlap: what flows all the time in the share of it, and less of what converts it."""
    before, after = 0.0, 0.0
    found: list[Term] = []
    for term in terms:
        if term.component in CONVERTERS:  # a part of all that comes before it
            shrunk = term.energy_j * (after / before if before else 1.0)
        else:
            shrunk = term.energy_j * (share if term.component in STEADY else 1.0)
        before, after = before + term.energy_j.nominal, after + shrunk.nominal
        found.append(replace(term, energy_j=shrunk))
    return tuple(found)


def busy_s(estimate: Estimate) -> float:
    """Seconds that the energy of one inference covers: idle power before and after it comes on top.

    Args:
        estimate: of it.
    """
    return estimate.mapping.get("covered_s", estimate.latency_s.nominal / estimate.batch)


def crossover_hz(a: Estimate, b: Estimate) -> float | None:
    """The rate at which two machines draw the same power on average; below it the one that idles at less is ahead.

    P(r) = P_idle + r (E - P_idle t): two lines, which cross at (P_b - P_a) / ((E_a - P_a t_a) - (E_b - P_b t_b)).

    Args:
        a: an estimate without a rate.
        b: another one of the same scope.

    Returns:
        Inferences a second; None where one machine is ahead at every rate that both can do.

    Raises:
        ScopeError: they have different scopes.
        HpmlError: one of them is no estimate, or at a rate already.

    Example:
        >>> import hpml_sim as hs
        >>> counts = hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28))
        >>> chip, board = (hs.estimate(counts, card, scope="system") for card in ("pcm-hermes", "jetson-orin"))
        >>> hs.crossover_hz(chip, board) is None  # the chip is ahead at any rate
        True
    """
    for name, one in (("a", a), ("b", b)):
        if not isinstance(one, Estimate):
            raise HpmlError(f"crossover_hz: {name}={shown(one)}: must be an estimate; take hs.estimate(...)")
        if one.rate_hz is not None:
            raise HpmlError(
                f"crossover_hz: {name}: the estimate on {one.card} is at {one.rate_hz:g} inferences a second; leave "
                "rate_hz= out of it"
            )
    if a.scope != b.scope:
        raise ScopeError(
            f"crossover_hz: {a.card} is of scope {a.scope}, {b.card} of {b.scope}; estimate both with scope='system'"
        )
    idle_a, idle_b = (e.reported_separately["idle_w"].nominal for e in (a, b))
    active_a, active_b = (e.energy_j.nominal - idle * busy_s(e) for e, idle in ((a, idle_a), (b, idle_b)))
    if active_a == active_b:
        return None
    rate = (idle_b - idle_a) / (active_a - active_b)
    limit = min(a.throughput_hz.nominal, b.throughput_hz.nominal)
    return rate if 0 < rate <= limit else None
