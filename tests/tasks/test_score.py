"""`Score`: its fields are those that others build on, and it refuses what is no figure."""

import pytest

import hpml_sim as hs
from hpml_sim.tasks.score import Score


def test_names_that_others_build_on():
    score = Score.of([0.9, 0.8], samples=100)
    assert (score.metric, score.unit, score.higher_is_better) == ("accuracy", "share", True)
    assert (score.n, score.samples, score.values) == (2, 100, (0.9, 0.8))
    assert score.mean == pytest.approx(0.85)
    assert score.ci95[0] < score.mean < score.ci95[1]
    assert hs.Score is Score


def test_what_it_shows_is_short_and_in_percent():
    one, many = Score.of([0.95], samples=360), Score.of([0.9, 0.8], samples=100)
    assert str(one) == "95.00 % accuracy (95 % interval 92.24..96.81, 360 samples)"
    assert str(many).startswith("85.00 ± 7.07 % accuracy (95 % interval 21.47..100.00, 2 chips)")
    assert repr(many) == f"<Score {many}>"
    assert "85.00 ± 7.07 %" in many._repr_html_()
    assert len(many._repr_html_()) < 1000


def test_another_metric_shows_its_own_unit():
    score = Score((3.5,), 100, 3.5, 0.0, 1, (3.0, 4.0), metric="loss", unit="nat", higher_is_better=False)
    assert str(score) == "3.5 nat loss (95 % interval 3..4, 100 samples)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": float("nan")}, "must be finite"),
        ({"values": (float("inf"),)}, "must be finite"),
        ({"values": ()}, "must be finite, with n values"),
        ({"n": 2}, "with n values"),
        ({"values": (7.5,), "mean": 7.5}, r"must all lie in \[0, 1\]"),
        ({"ci95": (-0.1, 0.9)}, r"must all lie in \[0, 1\]"),
    ],
)
def test_figures_that_make_no_sense_are_refused(changes, message):
    fields = {"values": (0.9,), "samples": 10, "mean": 0.9, "std": 0.0, "n": 1, "ci95": (0.8, 0.95)}
    with pytest.raises(hs.HpmlError, match=message):
        Score(**{**fields, **changes})


def test_no_values_are_refused():
    with pytest.raises(hs.HpmlError, match="at least one value"):
        Score.of([], samples=3)
