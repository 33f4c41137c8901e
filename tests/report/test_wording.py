"""Numbers in words: prefixes, significant digits, times."""

import math

import pytest

from hpml_sim.report.wording import listing, names, percent, ranges, shortened, time_label
from hpml_sim.units.bands import Band
from hpml_sim.units.formatting import digits, si, span


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (2.12e-7, "J", "212 nJ"),
        (1.0e-3, "J", "1.00 mJ"),
        (999.6e-6, "J", "1.00 mJ"),  # three digits carry into the next prefix
        (999.4e-6, "J", "999 uJ"),
        (0.0, "J", "0 J"),
        (1.7e6, "", "1.70 M"),
        (12.0, "", "12.0"),
        (math.inf, "s", "∞ s"),
        (1e-21, "J", "0.00100 aJ"),
    ],
)
def test_si_keeps_three_digits_and_an_engineering_prefix(value: float, unit: str, shown: str) -> None:
    assert si(value, unit) == shown


def test_micro_has_two_spellings() -> None:
    assert (si(2e-6, "J"), si(2e-6, "J", micro="µ")) == ("2.00 uJ", "2.00 µJ")


@pytest.mark.parametrize(
    ("value", "shown"), [(42_440.0, "42,400"), (1494.0, "1490"), (0.02124, "0.0212"), (60.0, "60.0"), (0.0, "0")]
)
def test_digits_never_in_exponent_notation(value: float, shown: str) -> None:
    assert digits(value) == shown


def test_span_takes_the_prefix_of_the_nominal_value() -> None:
    assert span(Band(106e-9, 212e-9, 424e-9)) == "106\N{EN DASH}424"
    assert span(Band(0.9e-6, 1.1e-6, 1.4e-6), figures=2) == "0.90\N{EN DASH}1.4"
    assert span(Band.exact(3.0)) == ""
    assert span(Band(0.0, 0.0, 2e-9)) == "0\N{EN DASH}2.00 n"
    assert span(Band(1.0, 2.0, math.inf)) == "1.00\N{EN DASH}∞"


@pytest.mark.parametrize(
    ("seconds", "label"),
    [
        (1.0, "1 s"),
        (20.0, "20 s"),
        (0.0, "0 s"),
        (1e-3, "1.00 ms"),
        (60.0, "1 min"),
        (3600.0, "1 h"),
        (86400.0, "1 day"),
        (2 * 86400.0, "2 days"),
        (7 * 86400.0, "1 week"),
        (365 * 86400.0, "1 year"),
        (365.25 * 86400.0, "1 year"),
        (5400.0, "90 min"),
        (1.5 * 365 * 86400.0 + 30, "1.5 years"),
    ],
)
def test_times_as_people_say_them(seconds: float, label: str) -> None:
    assert time_label(seconds) == label


def test_words() -> None:
    assert percent(0.97222) == "97.22"
    assert [listing(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert names(list("abcdefgh"), 4) == "a, b, c and 5 others"
    assert names(list("abcd"), 4) == "a, b, c and d"
    assert shortened("x" * 40, 11) == "xxxxx…xxxxx"
    assert ranges([2, 5, 6, 7, 9, 10]) == "2, 5\N{EN DASH}7, 9, 10"
    assert shortened("short") == "short"
