"""Which machine takes less energy: figures of one scope only are ranked or divided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hpml_sim.cost.result import Estimate
from hpml_sim.errors import HpmlError, ScopeError, shown


def rank(estimates: Iterable[Estimate]) -> list[Estimate]:
    """The estimates, least nominal energy an inference first.

    Args:
        estimates: of one network on several machines, all of the same scope.

    Returns:
        A new list; equal energies keep their order.

    Raises:
        ScopeError: they have different scopes.
        HpmlError: one of them is no estimate.

    Example:
        >>> import hpml_sim as hs
        >>> counts = hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28))
        >>> costs = [hs.estimate(counts, card) for card in ("pcm-hermes", "pcm-hermes-1phase")]
        >>> [cost.card for cost in hs.rank(costs)]
        ['pcm-hermes-1phase', 'pcm-hermes']
    """
    if isinstance(estimates, (Estimate, str, Mapping)) or not isinstance(estimates, Iterable):
        raise HpmlError(f"rank: estimates={shown(estimates)}: must be a list of estimates, such as [hs.estimate(...)]")
    listed = list(estimates)
    _check({f"rank: estimates[{k}]": estimate for k, estimate in enumerate(listed)})
    return sorted(listed, key=lambda estimate: estimate.energy_j.nominal)


def energy_ratio(a: Estimate, b: Estimate) -> float:
    """How many times the energy of `b` one inference takes on `a`, nominal over nominal.

    Args:
        a: an estimate.
        b: an estimate of the same scope, with an energy above 0.

    Raises:
        ScopeError: the two have different scopes.
        HpmlError: one of them is no estimate, or the energy of `b` is 0.

    Example:
        >>> import hpml_sim as hs
        >>> counts = hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28))
        >>> one, four = (hs.estimate(counts, card) for card in ("pcm-hermes-1phase", "pcm-hermes"))
        >>> round(hs.energy_ratio(four, one), 2)
        3.93
    """
    _check({"energy_ratio: a": a, "energy_ratio: b": b})
    if b.energy_j.nominal == 0:
        raise HpmlError(f"energy_ratio: the energy of b, on card {b.card!r}, is 0; give an estimate above 0")
    return a.energy_j.nominal / b.energy_j.nominal


def _check(estimates: Mapping[str, object]) -> None:
    by_scope: dict[str, list[str]] = {}
    for argument, estimate in estimates.items():
        if not isinstance(estimate, Estimate):
            raise HpmlError(f"{argument}={shown(estimate)}: must be an estimate: hs.estimate(workload, target)")
        by_scope.setdefault(estimate.scope, []).append(estimate.card)
    if len(by_scope) > 1:
        listing = "; ".join(f"{scope}: {', '.join(dict.fromkeys(cards))}" for scope, cards in by_scope.items())
        raise ScopeError(
            f"energies of different scope are not divided or ranked ({listing}); "
            "compare cards of one scope (`hpml-sim cards` shows it)"
        )
