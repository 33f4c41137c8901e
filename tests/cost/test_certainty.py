"""How sure an order is, against closed forms of the lognormal distribution."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpml_sim.cost import Estimate, Term, estimate
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


@pytest.mark.parametrize(("ratio", "a", "b"), [(3.0, 8.0, 2.5), (1.5, 2.0, 3.0)])
def test_a_converter_takes_its_share_of_what_varies(ratio, a, b):
    """Two supplies that lose the same share change no order: the probability is that of what they feed."""

    def fed(name: str, load: Band) -> Estimate:
        bare = made(name, ("", load))
        taken = Term("", "supply", load * 0.2, (), "power-supply")
        return replace(bare, terms=(*bare.terms, taken), energy_j=load + taken.energy_j)

    found = order(fed("a", Band.factor(1.0, a)), fed("b", Band.factor(ratio, b)))
    spread = np.hypot(np.log(a), np.log(b)) / NormalDist().inv_cdf(0.95)
    assert found.probability == pytest.approx(NormalDist().cdf(np.log(ratio) / spread), abs=0.012)


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


def test_limits_are_never_passed_and_any_value_between_them_is_as_likely():
    values = _values("any", Band(1.0, 4.0, 64.0), flat=True)
    assert values.min() >= 1.0
    assert values.max() <= 64.0
    # by the logarithm: half of the cases below the nominal value, a quarter below its geometric mean with the bound
    assert np.quantile(values, [0.25, 0.5, 0.75]) == pytest.approx([2.0, 4.0, 16.0], rel=1e-3)
    assert np.corrcoef(values, _values("any", Band(1.0, 4.0, 64.0)))[0, 1] > 0.5  # the same part varies the same way


@pytest.mark.parametrize(("ratio", "a"), [(1.5, 2.0), (1.2, 5.0), (3.0, 2.0)])
def test_the_probability_against_a_card_with_limits(ratio, a):
    """A is log-uniform between 1/a and a, B is exact: P(A < B) = (1 + ln ratio / ln a) / 2, at most 1."""
    first, second = made("a", ("", Band.factor(1.0, a))), made("b", ("", Band.exact(ratio)))
    found = order(replace(first, bounds="limits"), second)
    assert found.probability == pytest.approx(min(1.0, (1 + np.log(ratio) / np.log(a)) / 2), abs=1e-3)
    assert order(first, second).probability != pytest.approx(found.probability, abs=1e-3)


def test_a_small_host_is_a_choice_between_limits():
    """As a component of a whole system, of which nothing else is uncertain here."""
    band = Band.factor(1.0, 4.0)
    found = order(made("a", ("host-edge", band)), made("b", ("", Band.exact(2.0))))
    assert found.probability == pytest.approx(0.75, abs=1e-3)
    assert order(made("a", ("pcie", band)), made("b", ("", Band.exact(2.0)))).probability > 0.79


def test_an_estimate_says_what_its_bounds_are():
    found = estimate(mlp(10, 10), digital())
    assert found.bounds == "percentiles"
    assert type(found).from_dict(replace(found, bounds="limits").to_dict()).bounds == "limits"
