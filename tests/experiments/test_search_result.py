"""What a `SearchResult` shows of itself, on trials that were made up."""

from __future__ import annotations

import pandas as pd

from hpml_sim.experiments.result import Comparison
from hpml_sim.experiments.search_result import SearchResult


def found(trials: int = 40) -> SearchResult:
    numbers = list(range(-1, trials))
    table = pd.DataFrame(
        {
            "trial": numbers,
            "adc_bits": [float("nan"), *(4 + k % 5 for k in range(trials))],
            "mode <b>": ["x"] * len(numbers),
            "accuracy_mean": [0.9 + 0.001 * k for k in numbers],
            "energy_j": [1e-6 * (2 + k) for k in numbers],
            "on_front": [True] * len(numbers),
        }
    )
    table.attrs["units"] = {"accuracy_mean": "share", "energy_j": "J"}
    table.attrs["metric"] = "accuracy"
    table.attrs["higher_is_better"] = {"accuracy_mean": True, "energy_j": False}
    return SearchResult(table, ("score", "energy"), Comparison((), None, None))


def test_a_terminal_shows_the_best_of_the_front():
    text = repr(found())
    assert text.splitlines()[0] == "Search for accuracy, energy: 40 trials, and the configuration as given"
    assert len(text.splitlines()) == 13
    assert max(map(len, text.splitlines())) <= 80
    assert "front of 41" in text
    assert "93.9" in text.splitlines()[2]  # the first objective decides the order


def test_a_notebook_shows_the_whole_front_as_text_and_the_plot_as_a_picture():
    html = found()._repr_html_()
    assert html.count("<tr>") == 42
    assert "<b>" not in html
    assert "1.00 uJ" in html
    assert found().plot()._repr_png_().startswith(b"\x89PNG")  # pyright: ignore[reportAttributeAccessIssue]


def test_one_objective_is_drawn_over_the_trials():
    result = found(5)
    one = SearchResult(result.trials.drop(columns="energy_j"), ("score",), result.comparison)
    assert one.plot().axes[0].get_xlabel() == "trial"
    assert repr(one).startswith("Search for accuracy: 5 trials, and the configuration as given")
