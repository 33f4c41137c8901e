import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO, Band

figures = st.floats(0, 1e12, allow_nan=False, allow_infinity=False)
bands = st.tuples(figures, figures, figures).map(lambda three: Band(*sorted(three)))


@given(bands, bands)
def test_sums_and_products_keep_the_order_of_the_bounds(a, b):
    for c in (a + b, a * b, a * 3.0, 2.0 * a, a / 7.0, a.maximum(b), a.inverse()):
        assert 0 <= c.low <= c.nominal <= c.high


@given(bands)
def test_zero_is_neutral_and_exact_has_no_width(a):
    assert a + ZERO == a
    assert a * Band.exact(1.0) == a


def test_inverse_swaps_the_bounds():
    assert Band(1.0, 2.0, 4.0).inverse() == Band(0.25, 0.5, 1.0)
    assert Band(0.0, 1.0, 2.0).inverse() == Band(0.5, 1.0, math.inf)


def test_within_and_factor():
    assert Band.within(10.0, 0.25) == Band(7.5, 10.0, 12.5)
    assert Band.factor(10.0, 2.0) == Band(5.0, 10.0, 20.0)


@pytest.mark.parametrize(
    "bad", [(2, 1, 3), (1, 3, 2), (-1, 0, 1), (math.nan, 1, 2), (0, math.nan, 1), (0, 1, math.nan)]
)
def test_disordered_negative_or_nan_bounds_are_refused(bad):
    with pytest.raises(HpmlError, match="0 <= low <= nominal <= high"):
        Band(*bad)


@pytest.mark.parametrize("bad", [("a", "b", "c"), (None, 1, 2), (1, 2, [3])])
def test_bounds_that_are_no_numbers_are_refused(bad):
    with pytest.raises(HpmlError, match="bounds must be numbers"):
        Band(*bad)
