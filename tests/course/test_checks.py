"""Messages of the checks: what a student's usual mistakes lead to."""

import matplotlib
import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

import hpml_sim as hs
from hpml_sim import course
from hpml_sim.course import CheckError, answer, check


def energy_j(power_w, time_s, batch=1):
    return power_w * time_s / batch


def test_right_answers_pass_whatever_they_are_made_of():
    check(energy_j, 2.0, 3.0).is_close(6.0, "J")
    check(energy_j, 2.0, 3.0, batch=4).is_close(1.5005, "J")
    check(energy_j, torch.ones(3), 2).is_close(np.full(3, 2.0), "J")
    check(energy_j, np.float32(2), 3).is_between(5, 7, "J")
    check(energy_j, torch.ones(3, 2), 2).has_shape(3, 2)
    check(energy_j, 2, 3).fulfills(lambda e: e > 0, "should be positive")
    answer("bound", {"cpu": "memory"}).equals({"cpu": "memory"})
    answer("levels", np.int64(15)).equals(15)
    answer("batch", None).equals(None)


MISTAKES = {
    "forgotten return": (lambda p, t: None, "returned nothing (None): is the `return` missing?"),
    "milli": (lambda p, t: 1e3 * p * t, "should be 6 J, got 6000 J. It is a thousand times too large: is it in J?"),
    "micro": (lambda p, t: 1e-6 * p * t, "a million times too small"),
    "per cent": (lambda p, t: 100 * p * t, "a share, not a percentage"),
    "sign": (lambda p, t: -p * t, "The sign is the other way round"),
    "own hint": (lambda p, t: 2 * p * t, "Counted twice?"),
    "other": (lambda p, t: 3 * p * t, "That is 3 times the expected"),
    "shape": (lambda p, t: [p, t], "should be one number in J, got shape (2,)"),
    "text": (lambda p, t: f"{p * t} J", "should be one number in J, got '6 J' (str)"),
    "not a number": (lambda p, t: float("nan"), "a division by zero"),
    "list of nothing": (lambda p, t: [None], "should be one number in J, got [None] (list)"),
    "true": (lambda p, t: True, "should be one number in J, got True (bool)"),
    "arguments": (lambda power_w: power_w, "cannot be called: too many positional arguments. It now reads"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_answer_says_what_was_expected(mistake):
    function, message = MISTAKES[mistake]
    function.__name__ = "energy_j"
    with pytest.raises(CheckError) as caught:
        check(function, 2, 3).is_close(6, "J", hints={2: "Counted twice?"})
    assert message in str(caught.value)
    assert str(caught.value).startswith("energy_j(2, 3) ")


def test_arrays_name_the_shape_and_the_worst_element():
    with pytest.raises(CheckError, match=r"numbers of shape \(3,\) in V, got shape \(3, 1\)"):
        answer("v", torch.ones(3, 1)).is_close(torch.ones(3), "V")
    with pytest.raises(CheckError, match=r"v\[1\] should be 2 V, got 5 V"):
        answer("v", [1.0, 5.0, 3.5]).is_close([1, 2, 3], "V")
    with pytest.raises(CheckError, match=r"v\[2\] .* 8: bits or bytes"):
        answer("v", [8.0, 16.0, 24.0]).is_close([1, 2, 3], "byte")
    with pytest.raises(CheckError, match=r"v should have the shape \(2, 5\), got \(5, 2\)"):
        answer("v", np.ones((5, 2))).has_shape(2, 5)
    with pytest.raises(CheckError, match=r"v should have the shape \(2,\), got 7 \(int\)"):
        answer("v", 7).has_shape(2)


def test_hints_and_names():
    with pytest.raises(CheckError, match=r"v\[2\] should be 3, got 4\. Count again\."):
        answer("v", [1, 2, 4]).is_close([1, 2, 3], hint="Count again.")
    with pytest.raises(CheckError, match=r"v should be 3, got 4\. Count again\."):
        answer("v", 4).is_close(3, hint="Count again.")
    with pytest.raises(CheckError, match=r"v should be 3, got 6\. Doubled\."):
        answer("v", 6).is_close(3, hints={1.99: "Nearly.", 2.0: "Doubled."}, hint="Count again.")
    with pytest.raises(CheckError, match=r"v\[1\] should be 2, got 4\. Doubled\."):
        answer("v", [0.0, 4.0, 2.0, 1e-9]).is_close([0.0, 2.0, 1.0, 0.0], hints={2.0: "Doubled."})
    with pytest.raises(CheckError, match=r"v should be 3 s, got 0\.05 s\. It is in minutes"):
        answer("v", 0.05).is_close(3, "s")
    with pytest.raises(CheckError, match=r"v should be 3, got 0\.$"):
        answer("v", 0).is_close(3)
    with pytest.raises(CheckError, match=r"v should be 2 values, got 3\."):
        answer("v", (1, 2, 3)).has_length(2)
    with pytest.raises(CheckError, match=r"v should be 2 values, got 3 \(int\)\."):
        answer("v", 3).has_length(2)
    with pytest.raises(CheckError, match=r"should be None, got -1 of type int\. None at all\."):
        answer("v", -1).equals(None, hint="None at all.")
    with pytest.raises(CheckError, match=r"should be \{'a', 'b', 'c'\}, got \{'c', 'd'\}"):
        answer("v", {"d", "c"}).equals({"c", "b", "a"})
    card = hs.load_card("cpu")
    assert check(lambda *_: 1, card, energy_j, torch.ones(2), torch.ones(9)).name == (
        "<lambda>(<card cpu>, energy_j, [1, 1], <Tensor of shape (9,)>)"
    )


def test_other_values():
    with pytest.raises(CheckError, match="tiles is None: was it set"):
        answer("tiles", None).equals(4)
    with pytest.raises(CheckError, match=r"should be 4 \(of type int\), got '4' of type str"):
        answer("tiles", "4").equals(4)
    with pytest.raises(CheckError, match=r"should be 4, got 5\. Round up"):
        answer("tiles", 5).equals(4, hint="Round up.")
    with pytest.raises(CheckError, match=r"the keys 'cpu', 'h200', got 'cpu'"):
        answer("bound", {"cpu": "memory"}).equals({"cpu": "memory", "h200": "memory"})
    with pytest.raises(CheckError, match="bound is not right at 'cpu': 'compute'"):
        answer("bound", {"cpu": "compute"}).equals({"cpu": "memory"})
    with pytest.raises(CheckError, match=r"share should lie between 0 and 1, got 4\.2\. Divide"):
        answer("share", 4.2).is_between(0, 1, hint="Divide.")
    with pytest.raises(CheckError, match=r"x should be positive; got -1"):
        answer("x", -1).fulfills(lambda x: x > 0, "should be positive")
    with pytest.raises(
        CheckError, match=r"x should be positive; got 'a', for which that cannot be evaluated \(TypeError\)"
    ):
        answer("x", "a").fulfills(lambda x: x > 0, "should be positive")


def test_an_error_in_the_students_function_is_shown_with_their_own_line():
    def layer(x):
        return torch.ones(4, 3) @ x

    with pytest.raises(CheckError) as caught:
        check(layer, torch.ones(5)).has_shape(4)
    text = str(caught.value)
    assert "layer([1, 1, 1, 1, 1]) stopped with RuntimeError" in text
    assert "return torch.ones(4, 3) @ x" in text
    assert caught.value.__suppress_context__

    class Layer(torch.nn.Module):
        def forward(self, x):
            return layer(x)

    with pytest.raises(CheckError, match=r"in your line \d+: return torch.ones\(4, 3\) @ x"):
        check(Layer(), torch.ones(5))
    with pytest.raises(CheckError, match=r"expected a function, got 3 \(int\)"):
        check(3)


def test_a_blank_stays_a_blank():
    def blank():
        raise NotImplementedError

    with pytest.raises(NotImplementedError):
        check(blank)


def test_a_notebook_shows_the_message_without_a_stack_trace(capsys):
    shell = InteractiveShell()
    shell.run_cell("from hpml_sim.course import answer\nanswer('tiles', 5).equals(4)")
    out = capsys.readouterr()
    assert (out.out + out.err).strip() == "CheckError: tiles should be 4, got 5."


def test_start_says_where_it_runs_and_pictures_are_drawn():
    with matplotlib.rc_context():
        assert "torch" in course.start()
        figure = course.drawings.memory_and_crossbar()
        figure.canvas.draw()
    assert {text.get_text() for ax in figure.axes for text in ax.texts} >= {"ADC\n$I_1$", "x: n values"}
    matplotlib.pyplot.close(figure)
