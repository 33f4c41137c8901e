"""How sure an order is, against closed forms of the lognormal distribution."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpml_sim.cost import Term, estimate
from hpml_sim.cost.certainty import DRAWS, _values, order
from hpml_sim.errors import HpmlError, ScopeError
from hpml_sim.units.bands import Band

from .machines import digital, mlp


def made(card: str, *terms: tuple[str, Band]):
    """An estimate of nothing but these (origin, energy)."""
    base = estimate(mlp(10, 10), digital())
    parts = tuple(Term("", f"part {k}", band, (), origin) for k, (origin, band) in enumerate(terms))
    total = sum((band for _, band in terms), Band(0, 0, 0))
    return replace(base, card=card, terms=parts, energy_j=total)


def test_low_and_high_are_the_5th_and_95th_percentile():
    values = _values("any", Band(2.0, 3.0, 12.0))
    assert np.quantile(values, [0.05, 0.5, 0.95]) == pytest.approx([2.0, 3.0, 12.0], rel=1e-3)
    assert (values > 0).all()
    assert len(values) == DRAWS


@pytest.mark.parametrize(("ratio", "a", "b"), [(1.5, 2.0, 3.0), (4.0, 2.0, 2.0), (1.1, 10.0, 1.2)])
def test_the_probability_is_that_of_two_lognormals(ratio, a, b):
    """P(A < B) = Phi(ln ratio / sqrt(s_a^2 + s_b^2)), with s = ln(band factor) / 1.645."""
    found = order(made("a", ("", Band.factor(1.0, a))), made("b", ("", Band.factor(ratio, b))))
    spread = np.hypot(np.log(a), np.log(b)) / NormalDist().inv_cdf(0.95)
    assert (found.first, found.second) == ("a", "b")
    assert found.ratio == pytest.approx(ratio)
    assert found.probability == pytest.approx(NormalDist().cdf(np.log(ratio) / spread), abs=0.012)


def test_components_that_two_machines_share_vary_together():
    """A host that both have in full cancels; two hosts of the same band do not."""
    shared = [
        made(n, ("host", Band.factor(e, 100.0)), ("", Band.factor(e / 1e3, 1.01))) for n, e in (("a", 1), ("b", 1.2))
    ]
    apart = [made(n, (f"host-{n}", Band.factor(e, 100.0))) for n, e in (("a", 1), ("b", 1.2))]
    assert order(*shared).probability == pytest.approx(1.0, abs=1e-6)
    assert order(*apart).probability < 0.6
    assert not order(*apart).certain
    assert order(*apart).decides in ("component host-a", "component host-b")


def test_the_part_that_decides_is_the_one_that_is_known_least():
    a = made("a", ("", Band.factor(1.0, 1.1)), ("host-edge", Band.factor(1.0, 20.0)))
    b = made("b", ("", Band.factor(2.5, 1.3)))
    assert order(a, b).decides == "component host-edge"
    b = made("b", ("", Band.factor(2.5, 100)))
    assert order(a, b).decides == "the figures of card b"


def test_the_same_machine_twice_is_a_tie():
    a = made("a", ("", Band.factor(1.0, 2.0)))
    assert order(a, a).probability == 0.5


positive = st.floats(0.01, 100)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(positive, positive, st.floats(1, 50), st.floats(1, 50))
def test_either_way_round_it_is_the_same_order(x, y, a, b):
    one, two = made("a", ("", Band.factor(x, a))), made("b", ("", Band.factor(y, b)))
    first, second = order(one, two), order(two, one)
    if x != y:
        assert first == second
    assert 0.5 - 0.012 <= first.probability <= 1
    assert first.ratio >= 1


def test_a_third_machine_changes_nothing_and_order_is_repeatable():
    a, b = made("a", ("", Band.factor(1.0, 3.0))), made("b", ("", Band.factor(1.5, 3.0)))
    before = order(a, b)
    order(a, made("c", ("", Band.factor(1.2, 9.0))))
    assert order(a, b) == before


def test_bounds_of_zero_and_infinity_are_far_away():
    a, b = made("a", ("", Band(0.0, 1.0, float("inf")))), made("b", ("", Band.factor(2.0, 1.1)))
    assert 0.5 < order(a, b).probability < 0.65


def test_what_cannot_be_ordered():
    a = made("a", ("", Band.exact(1.0)))
    with pytest.raises(ScopeError, match="scope='system'"):
        order(a, replace(a, scope="system"))
    with pytest.raises(HpmlError, match="has no area"):
        order(a, replace(a, area_mm2=None), "area")
    with pytest.raises(HpmlError, match="must be one of"):
        order(a, a, "beauty")
