"""The table in the terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from hpml_sim.report.table import comparison_table
from hpml_sim.units.bands import Band
from tests.report.example_rows import TARGETS, example_rows


def shown(width: int, **keywords: object) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False, color_system=None)
    console.print(comparison_table(example_rows(**keywords), width=width))  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_fits_its_terminal_and_loses_nothing(width: int) -> None:
    text = shown(width)
    assert max(len(line) for line in text.splitlines()) <= width
    for name in TARGETS:
        assert name in text
    # header and figures of the last column: nothing was cut at the right
    for figure in ("area", "mm²", "814", "1.32 mJ", "49.3 nJ", "±0.3", "36.4 us"):
        assert figure in text
    assert "…" not in text


def test_missing_figures_have_footnotes() -> None:
    text = shown(120)
    assert "—¹" in text
    assert "¹ cpu: no energy measured: no RAPL counter" in text
    assert "² reram-neurram: the noise model rests on measurements at 1 s and at 1 day" in text


def test_says_how_each_figure_came_about_and_what_may_be_ranked() -> None:
    text = shown(120)
    assert text.count("estimated") >= 7
    assert text.count("measured") >= 2
    assert "figures of different scope are not ranked" in text
    assert "accuracy over 25 chips: pcm-hermes and reram-neurram" in text


def test_a_terminal_too_narrow_loses_columns_not_digits() -> None:
    text = shown(60)
    assert max(len(line) for line in text.splitlines()) <= 60
    assert "no room for: area" in text
    assert "1.32 mJ" in text
    many = shown(80, targets=("pcm-hermes",), times=tuple(3600.0 * k for k in range(1, 20)))
    assert max(len(line) for line in many.splitlines()) <= 80
    assert "no room for: area, rate, accuracy at" in many


def test_wide_figures_are_never_cut() -> None:
    rows = example_rows(targets=("h200",))
    wide = Band(low=4.3e8, nominal=9.7e8, high=1.49e9)
    estimates = [replace(e, throughput_hz=wide, batch=65536) for e in rows[0].estimates]
    console = Console(width=80, file=io.StringIO())
    console.print(comparison_table([rows[0].model_copy(update={"estimates": estimates})], width=80))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for figure in ("430\N{EN DASH}1500", "814", "65536"):
        assert figure in text


def test_several_seeds() -> None:
    assert "accuracy over 5 seeds of 25 chips" in shown(100, seeds=(0, 1, 2, 3, 4))


def test_no_drift_no_times() -> None:
    text = shown(100, targets=("cpu",))
    assert "accuracy" in text
    assert "1 year" not in text


def test_names_are_not_markup() -> None:
    text = shown(120, rename={"loihi": "[red]x[/red]"})
    assert "[red]x[/red]" in text


def test_more_notes_than_superscripts() -> None:
    text = shown(120, targets=("reram-neurram",), times=tuple(3600.0 * k for k in range(1, 12)))
    assert "—(11)" in text
