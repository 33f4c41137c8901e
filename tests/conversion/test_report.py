"""What a converted network shows of itself: every column within 80 characters, in a notebook as a table."""

from __future__ import annotations

import pickle

import pandas as pd
import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.conversion import Converted, LayerReport
from hpml_sim.targets import Analog

COLUMNS = ["layer", "was", "became", "tiles", "utilization", "why"]
LATER = ["input_range", "converter_db"]
LONG = "its weights are used by forward() itself, so that there is no product to be mapped onto a crossbar"


def report_of(*layers: LayerReport):
    return Converted(nn.Identity(), Analog("pcm"), layers).report


def words(text: str) -> list[str]:
    return text.split()


def test_the_report_is_a_dataframe_for_everything_but_printing():
    report = hs.convert(hs.models.mlp(64, 32, 10), "pcm-hermes").report
    assert isinstance(report, pd.DataFrame)
    assert list(report.columns) == [*COLUMNS[:-1], *LATER, "why"]
    assert int(report["tiles"].sum()) == 2
    assert list(report[report["became"] == "digital"]["layer"]) == ["0", "2"]
    assert pickle.loads(pickle.dumps(report)).equals(report)
    assert pd.DataFrame(report.to_dict("list")).equals(pd.DataFrame(report))


@pytest.mark.parametrize("length", [1, 20, 45, 70])
@pytest.mark.parametrize("became", ["digital", "AnalogMultiheadAttention"])
@pytest.mark.parametrize("why", ["", "short", LONG])
def test_every_column_is_printed_within_80_characters(length, became, why):
    names = [f"{'x' * length}{place}" for place in range(3)]
    report = report_of(*(LayerReport(name, "MultiheadAttention", became, 4, 0.25, why=why) for name in names))
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80
    assert [word for word in words(text) if word in COLUMNS] == COLUMNS
    for name in names:  # whole, however long
        assert name in words(text)
    assert words(text).count(became) == 3
    assert text.count("25.0 %") == words(text).count("4") == 3
    for word in words(why):
        assert words(text).count(word) == 3 * words(why).count(word)
    assert "…" not in text


def test_ranges_are_columns_once_data_have_passed():
    torch.manual_seed(0)  # which range loses least depends on the weights
    analog = hs.convert(hs.models.mlp(64, 32, 10), "pcm-hermes")
    assert not any(name in str(analog.report) for name in LATER)
    hs.calibrate(analog, torch.rand(40, 1, 8, 8))
    report = analog.report
    assert list(report["input_range"]) == ["", "dynamic", "", "dynamic"]
    assert report["converter_db"].dropna().between(30, 60).all()
    assert report["converter_db"].isna().tolist() == [True, False, True, False]
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in text.splitlines()[0] for name in LATER)


def test_whole_numbers_are_printed_as_such_and_empty_cells_are_empty():
    text = str(report_of(LayerReport("0", "Linear", "AnalogLinear", 2, 1.0), LayerReport("1", "ReLU", "digital")))
    assert "nan" not in text.lower()
    assert "None" not in text
    assert "2.0" not in text
    assert "AnalogLinear      2        100 %" in text


def test_of_many_layers_the_first_and_last_are_printed():
    report = report_of(*(LayerReport(str(place), "Linear", "AnalogLinear", 1, 0.5) for place in range(200)))
    text = str(report)
    assert "200 rows; .to_string() shows all of them" in text
    assert len(text.splitlines()) == 1 + 60 + 1 + 1
    with pd.option_context("display.max_rows", None):
        assert len(str(report).splitlines()) == 201


def test_selected_rows_look_the_same_and_other_tables_as_pandas_shows_them():
    report = report_of(
        LayerReport("0", "Linear", "AnalogLinear", 2, 0.5), LayerReport("1", "ReLU", "digital", why=LONG)
    )
    assert max(map(len, str(report[report["became"] == "digital"]).splitlines())) <= 80
    indexed = report.set_index("layer")
    assert str(indexed) == str(pd.DataFrame(indexed))
    assert indexed._repr_html_() == pd.DataFrame(indexed)._repr_html_()


def test_a_notebook_shows_the_report_and_nothing_is_taken_for_markup():
    converted = hs.convert(hs.models.mlp(64, 10), "pcm-hermes")
    shown = converted._repr_html_()
    assert all(f">{column}<" in shown for column in COLUMNS)
    assert "AnalogLinear" in shown
    assert "Analog(&#x27;pcm-hermes&#x27;)" in shown
    page = report_of(LayerReport("<b>", "Linear", "digital", why="<script>"))._repr_html_()
    assert page is not None
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


def test_the_network_itself_prints_as_torch_prints_it():
    converted = hs.convert(hs.models.mlp(64, 10), "pcm-hermes")
    assert str(converted).startswith("AnalogModel(\n  (network): Sequential(")
    assert converted(torch.rand(2, 64)).shape == (2, 10)
