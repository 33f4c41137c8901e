import pytest

from hpml_sim.errors import HpmlError
from hpml_sim.units.times import format_time, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0.0),
        (2.5, 2.5),
        ("3600", 3600.0),
        ("1 s", 1.0),
        ("30min", 1800.0),
        ("1 h", 3600.0),
        ("1 day", 86400.0),
        ("2 Days", 172800.0),
        ("1 week", 604800.0),
        ("1 month", 2592000.0),
        ("1 year", 31536000.0),
        ("10 years", 315360000.0),
        ("1e3 s", 1000.0),
        ("0.5 h", 1800.0),
    ],
)
def test_times_as_people_write_them(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1 fortnight", "h", "1 h 5 min", None, True, [1]])
def test_what_is_not_a_time_is_refused(text):
    with pytest.raises(HpmlError, match="time"):
        parse_time(text)


@pytest.mark.parametrize("text", [-1, "-1 h", float("nan"), float("inf"), "nan"])
def test_times_before_programming_are_refused(text):
    with pytest.raises(HpmlError, match="time"):
        parse_time(text)


@pytest.mark.parametrize("seconds", [0.0, 0.25, 1.0, 60.0, 90.0, 3600.0, 86400.0, 172800.0, 604800.0, 31536000.0])
def test_a_formatted_time_is_read_back(seconds):
    assert parse_time(format_time(seconds)) == seconds


def test_usual_times_are_written_as_usual():
    written = [format_time(t) for t in (1, 60, 3600, 86400, 172800, 604800, 31536000, 315360000, 100)]
    assert written == ["1 s", "1 min", "1 h", "1 day", "2 days", "1 week", "1 year", "10 years", "100 s"]
