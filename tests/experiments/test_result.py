"""What a `Comparison` shows of itself, ranks, and is after it was read again; on rows that were made up."""

from __future__ import annotations

import json
import logging
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import hpml_sim as hs
from hpml_sim.experiments.plan import Plan
from hpml_sim.experiments.result import Comparison, load_results
from hpml_sim.results import ResultFile
from hpml_sim.units.bands import Band

sys.path.insert(0, str(Path(__file__).parents[1]))
from report.example_rows import TARGETS, example_rows


def plan(targets=TARGETS) -> Plan:
    return Plan(
        version="0.1.0", model="mlp 64-128-10", fingerprint="f", data="digits", task={},
        came_trained=False,
        targets={name: {"target": "Digital", "card": name} for name in targets}, options={}, seeds=(0,), chips=25,
        times_s=(1.0, 3600.0), epochs=5, finetune_epochs=3, lr=5e-3, timed=True,
        card_versions=dict.fromkeys(targets, 1), search={},
    )  # fmt: skip


def comparison(targets=TARGETS, **options) -> Comparison:
    return Comparison(tuple(example_rows(targets=targets, **options)), plan(targets), None)


def test_a_notebook_and_a_terminal_show_a_short_table():
    """0.1 printed 36,291 characters."""
    result = comparison()
    text = repr(result)
    assert len(text) < 1500
    assert max(map(len, text.splitlines())) <= 80
    assert all(name in text for name in ("cpu", "h200", "pcm-hermes", "loihi", "measured"))
    html = result._repr_html_()
    assert len(html) < 10_000
    assert html.count("<tr>") == len(text.splitlines()) - 2  # all lines but the title and the note
    assert "± " in html


def test_many_targets_are_counted_in_the_end():
    result = comparison(rename=None)
    rows = tuple(row.model_copy(update={"target": f"{row.target}-{k}"}) for k in range(30) for row in result.rows)
    many = Comparison(rows, None, None)
    assert len(repr(many).splitlines()) == 15
    assert re.search(r"\d+ more lines in \.table\(\)", repr(many))
    assert len(many._repr_html_()) < 30_000


def test_names_are_text_in_a_notebook():
    result = comparison(targets=("cpu",), rename={"cpu": "<script>alert(1)</script>"})
    assert "<script>" not in result._repr_html_()


def test_energy_is_ranked_within_one_scope_and_says_how_sure_the_order_is():
    ranked = comparison(targets=("pcm-hermes", "reram-neurram", "loihi")).rank("energy", scope="own")
    assert ranked["target"].tolist() == ["reram-neurram", "pcm-hermes", "loihi"]
    assert ranked["place"].tolist() == [1, 2, 3]
    assert all(low <= nominal for low, nominal in zip(ranked["energy_j_low"], ranked["energy_j_nominal"], strict=True))
    assert ranked["order"].tolist() == ["apart", "apart", "apart"]
    assert set(ranked["scope"]) == {"chip"}


def test_a_ranking_prints_every_column_within_80_characters():
    ranked = comparison(targets=("pcm-hermes", "reram-neurram", "loihi")).rank("energy", scope="own")
    text = repr(ranked)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].split() == ["place", "target", "scope", "batch", "energy", "order"]
    assert "2.08 nJ" in text.splitlines()[1]
    assert "..." not in text
    html = ranked._repr_html_()
    assert html is not None
    assert "2.08 nJ" in html
    assert len(repr(ranked[ranked["place"] == 1]).splitlines()) == 3
    assert "energy_j_low" in repr(ranked[["target", "energy_j_low"]])


def test_bounds_that_overlap_leave_the_order_open():
    first, second = example_rows(targets=("pcm-hermes",), times=(1.0,))[0], example_rows(targets=("loihi",))[0]
    same = replace(second.estimates[0], energy_j=first.estimates[0].energy_j * 1.01)
    result = Comparison((second.model_copy(update={"estimates": [same]}), first), None, None)
    assert result.rank("energy", scope="own")["order"].tolist() == ["apart", "overlaps"]
    assert result.rank("energy", scope="own")["target"].tolist() == ["pcm-hermes", "loihi"]


def test_figures_of_different_scope_are_refused_in_one_line():
    with pytest.raises(hs.HpmlError, match=r"board: h200") as refused:
        comparison().rank("energy", scope="own")
    assert type(refused.value).__name__ == "ScopeError"
    assert "\n" not in str(refused.value)


def test_accuracy_and_throughput_rank_the_largest_first():
    result = comparison()
    accuracies = result.rank("accuracy")["accuracy_nominal"].tolist()
    assert accuracies == sorted(accuracies, reverse=True)
    chips = comparison(targets=("pcm-hermes", "reram-neurram"))
    assert chips.rank("throughput", scope="own")["target"].tolist() == ["pcm-hermes", "reram-neurram"]
    assert chips.rank("latency", scope="own")["target"].tolist() == ["pcm-hermes", "reram-neurram"]


def test_the_best_batch_is_ranked_where_asked():
    result = comparison(targets=("cpu",))
    assert result.rank("energy", scope="own")["batch"].tolist() == [1]
    assert result.rank("energy", batch=None, scope="own")["batch"].tolist() == [16384]
    with pytest.raises(hs.HpmlError, match="no target has a figure of by='energy' at batch=3"):
        result.rank("energy", batch=3, scope="own")


def test_an_unknown_criterion_is_refused_with_a_guess():
    with pytest.raises(hs.HpmlError, match="Did you mean 'energy'"):
        comparison().rank("enrgy")  # pyright: ignore[reportArgumentType]


def write(folder: Path, result: Comparison) -> None:
    file = ResultFile(folder / "results.jsonl")
    for row in reversed(result.rows):  # any order
        file.append(row)
    assert result.plan is not None
    held = {"hash": result.plan.hash, **asdict(result.plan)}
    (folder / "run.json").write_text(json.dumps(held))


def test_load_results_gives_the_comparison_again(tmp_path):
    result = replace(comparison(), folder=tmp_path)
    write(tmp_path, result)
    again = load_results(tmp_path)
    assert again == result
    assert again.plan == result.plan
    assert again.hash == again.plan.hash
    assert load_results(tmp_path / "results.jsonl") == result
    assert again.table().equals(result.table())
    assert again.report(tmp_path / "again.html").read_text() == result.report(tmp_path / "one.html").read_text()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"hash": 3}', "[" * 100_000, '{"seeds": "x"}', "\xff"])
def test_a_plan_that_cannot_be_read_costs_the_settings_alone(tmp_path, text, caplog):
    write(tmp_path, comparison())
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with caplog.at_level(logging.WARNING):
        again = load_results(tmp_path)
    assert again.plan is None
    assert "run.json cannot be read" in caplog.text
    assert again.hash == "3f9c0a7be12d"
    assert again.report(tmp_path / "report.html").exists()


@pytest.mark.parametrize("path", [None, 3, ["runs"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(hs.HpmlError, match=r"load_results: path=.*must be the folder of a run"):
        load_results(path)
    with pytest.raises(hs.HpmlError, match=r"report: path=.*must be the file to write"):
        comparison(targets=("loihi",)).report(path)


def test_figures_are_pictures_in_a_notebook():
    figure = comparison().plot()
    assert figure._repr_png_().startswith(b"\x89PNG")  # pyright: ignore[reportAttributeAccessIssue]


def test_no_rows_are_said():
    empty = Comparison((), None, None)
    assert repr(empty).startswith("Comparison without rows")
    assert "Comparison without rows" in empty._repr_html_()
    with pytest.raises(hs.HpmlError, match="no result rows"):
        empty.rank("energy", scope="own")


def test_a_band_of_one_value_shows_no_bounds():
    row = example_rows(targets=("loihi",))[0]
    exact = replace(row.estimates[0], latency_s=Band.exact(1e-3))
    html = Comparison((row.model_copy(update={"estimates": [exact]}),), None, None)._repr_html_()
    assert ">1.00 ms<" in html
