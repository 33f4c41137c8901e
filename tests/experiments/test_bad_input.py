"""Settings of a run that cannot be: refused before anything is computed or written, in one line."""

from __future__ import annotations

import pytest
import torch

import hpml_sim as hs
from hpml_sim.cli import main
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.config_files import check_tables, read_config
from hpml_sim.experiments.points import check_values
from hpml_sim.experiments.search_space import from_python, parse_search_space


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"out": ""}, "give a folder, or None"),
        ({"out": "  "}, "give a folder, or None"),
        ({"resume": True}, "resume needs out="),
        ({"force": True}, "force needs out="),
        ({"times": []}, "give at least one time"),
    ],
)
def test_options_that_cannot_be(options, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HpmlError, match=said):
        hs.compare("mlp", "digits", ["h200"], epochs=0, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["[[[", "", "\n"])
def test_a_file_without_a_row_is_refused(text, tmp_path):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(HpmlError, match="no result row"):
        hs.load_results(tmp_path / "x.toml")


@pytest.mark.parametrize(
    ("card", "space", "said"),
    [
        ("loihi", {"neuron.beta": hs.Range(0.8, 2)}, "beta=2"),
        ("pcm-hermes", {"adc_bits": hs.Range(4.5, 6.5)}, "^pcm-hermes: adc_bits=4.5: must be a whole number"),
        ("pcm-hermes", {"adc_bits": ("4",)}, "adc_bits='4'"),
    ],
)
def test_both_ends_of_a_range_are_built(card, space, said):
    with pytest.raises(HpmlError, match=said):
        check_values(space, {card: hs.Analog(card) if card == "pcm-hermes" else hs.Spiking(card)})


@pytest.mark.parametrize("values", [4, "4,5", b"4"])
def test_values_are_a_list_or_a_range(values):
    with pytest.raises(HpmlError, match=r"must be a list of values, or hs\.Range"):
        from_python({"adc_bits": values})


def test_text_is_parsed_in_files_and_not_in_python():
    assert parse_search_space({"adc_bits": ["4"]}) == {"adc_bits": (4,)}
    assert parse_search_space(from_python({"adc_bits": ["4"]})) == {"adc_bits": ("4",)}


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"a": 1}, "^'a': unknown table; known: compare, sweep, search, run$"),
        ({"model": "mlp"}, r"^model: unknown table; put it under \[compare\]$"),
        ({"compare": 3}, r"^compare=3: must be a table, such as \[compare\]$"),
        ({"search": {"targets": ["loihi"]}}, r"search.targets: belongs in \[compare\]"),
        ({"sweep": {"epochs": 1}}, r"sweep.epochs: belongs in \[compare\]"),
        ({"compare": {"out": "x"}}, r"compare.out: belongs in \[run\]"),
        ({}, "the settings are empty"),
    ],
)
def test_tables_that_are_wrong(tables, said):
    with pytest.raises(HpmlError, match=said):
        check_tables(tables)


def test_an_empty_file_and_a_folder(tmp_path):
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(HpmlError, match="the file is empty; `hpml-sim init`"):
        read_config(tmp_path / "empty.toml")
    with pytest.raises(HpmlError, match="is a folder; give the file"):
        read_config(tmp_path)


def test_a_comparison_is_what_compare_gives():
    with pytest.raises(HpmlError, match=r"is what hs\.compare"):
        hs.Comparison(3, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (torch.rand(2, 3), {}, "^measure: .* failed on an input of shape"),
        (torch.rand(2, 64), {"meter": "nvml"}, "meter='nvml': must be a power meter"),
        (torch.rand(2, 64), {"own_process": "yes"}, "own_process='yes': must be True or False"),
    ],
)
def test_a_measurement_that_cannot_be(x, options, said):
    with pytest.raises(HpmlError, match=said):
        hs.measure(hs.models.mlp(64, 16, 10), x, min_window_s=0.01, warmup_s=0.0, **options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["estimate", "mlp", "--targets"], "targets: give at least one machine"),
        (["compare", "--targets", "h200", "--chips", "-1"], "--chips -1: must be"),
        (["compare", "--targets", "h200", "--times"], "--times: give at least one"),
        (["compare", "--targets", "h200", "--out", ""], "give a folder"),
        (["compare", "--targets", "h200", "--resume"], "--resume: resume needs --out, the folder"),
        (["cards", "check", "h200"], "built-in card; `hpml-sim cards show h200`"),
        (["completion"], "missing: {bash,zsh,tcsh}"),
    ],
)
def test_the_command_line_says_it_in_its_own_words(arguments, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_init_makes_no_folder(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["init", str(tmp_path / "a" / "x.toml")])
    assert "there is no folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_callable_is_not_executed(tmp_path):
    (tmp_path / "slips.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(HpmlError, match="a part is missing"):
        hs.compare(f"{tmp_path / 'slips.py'}:", "digits", ["h200"])
    assert not (tmp_path / "ran").exists()
