"""A unit is text that someone else wrote: it is looked up, never computed."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpml_sim.units.unit_parsing import si_factor

HOSTILE = [
    "J^(9^9^9)",
    "J^999999999",
    "J**9**9**9",
    "(1/0)*J",
    "J/0",
    "(" * 5000 + "J" + ")" * 5000,
    "J" * 100_000,
    "*".join(["J"] * 5000),
    "9" * 5000,
    "J^-",
    "J\x00",
    "J\n",
    "__import__('os')",
    "1e400 J",
    "",
]


@pytest.mark.parametrize("unit", HOSTILE, ids=[f"{k}" for k in range(len(HOSTILE))])
def test_what_is_no_unit_is_refused_at_once_on_one_short_line(unit):
    start = time.perf_counter()
    with pytest.raises(ValueError, match="allowed here: J, uJ") as refusal:
        si_factor(unit, "joule", "J, uJ")
    assert time.perf_counter() - start < 1
    assert len(str(refusal.value)) < 150
    assert "\n" not in str(refusal.value)


@given(st.text(alphabet="JmsWBpfuk1290^*/()- .%µe", max_size=60))
@example("1^9/1^9*J")
@example("PJ^9/PJ^8")
def test_any_text_is_a_unit_with_a_finite_factor_or_refused(unit):
    try:
        factor = si_factor(unit, "joule", "J")
    except ValueError as refusal:
        assert str(refusal).endswith("allowed here: J")  # noqa: PT017
    else:
        assert 0 < factor < float("inf")


@pytest.mark.parametrize(
    ("unit", "si_unit", "factor"),
    [("W*s", "joule", 1.0), ("W * s", "joule", 1.0), ("nJ/ms", "watt", 1e-6), ("mm^2*um^-1", "meter", 1.0)],
)
def test_products_and_quotients_of_units(unit, si_unit, factor):
    assert si_factor(unit, si_unit, "") == pytest.approx(factor, rel=1e-12)
