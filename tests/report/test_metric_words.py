"""Every part of the report speaks of the metric that the rows hold: its name, its unit and which way is better."""

import io
import re

import pytest
from rich.console import Console

from hpml_sim.experiments.result import Comparison
from hpml_sim.report import findings, plots
from hpml_sim.report.html import render_report
from hpml_sim.report.metric_words import MetricWords, is_logarithmic, words_of
from hpml_sim.report.overview import overview, remark
from hpml_sim.report.summary import summarize
from hpml_sim.report.table import comparison_table
from hpml_sim.results import Row
from hpml_sim.tasks.score import Score
from tests.report.example_rows import (
    HOUR,
    example_rows,
    language_rows,
    regression_rows,
    rescored,
    two_metrics_rows,
)

DIGITAL = ("cpu", "h200", "loihi")
CHIPS = ("cpu", "pcm-hermes")


def printed(rows: list[Row], width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(comparison_table(rows, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def label_of(figure: object) -> str:
    """What the vertical axis of a plot is called."""
    axes = figure.axes[0].get_ylabel()  # type: ignore[attr-defined]
    return axes or figure.get_supylabel()  # type: ignore[attr-defined]


def test_the_table_shows_an_error_as_the_number_it_is() -> None:
    text = printed(regression_rows(targets=DIGITAL))
    head = text.splitlines()
    assert any("RMSE" in line for line in head)
    assert re.search(r"loihi +4\.17 ", text)
    assert re.search(r"cpu +2\.78 ", text)
    assert "277" not in text
    assert "accuracy" not in text
    assert "%" not in text
    assert "RMSE (lower is better) over 360 test samples" in text


def test_the_table_of_chips_names_metric_and_unit_in_its_title() -> None:
    text = printed(regression_rows(targets=CHIPS), 140)
    assert "mlp 64-128-10 on digits: RMSE in K at a time since programming" in text
    assert "accuracy" not in text
    assert ": perplexity at a time since programming" in printed(language_rows(targets=CHIPS), 140)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_long_name_is_broken_and_no_figure_is_cut(width: int) -> None:
    rows = rescored(example_rows(targets=DIGITAL), lambda a: a, "Spearman correlation", higher=True)
    text = printed(rows, width)
    assert max(map(len, text.splitlines())) <= width
    assert "Spearman" in text
    assert "correlation" in text
    assert "0.972" in text
    assert "97.2" not in text


def test_accuracies_stay_percentages() -> None:
    text = printed(example_rows(targets=DIGITAL))
    assert "accuracy" in text
    assert "97.2" in text
    assert "is better" not in text
    assert overview(example_rows(targets=DIGITAL))[0][2] == "%"


def test_the_small_table_says_metric_unit_and_direction() -> None:
    rows = regression_rows(targets=CHIPS)
    heads, lines = overview(rows)
    assert heads[2:4] == ["RMSE K 1 s", "RMSE K 1 year"]
    assert remark(rows) == "RMSE: lower is better"
    assert lines[0][2] == "2.778"
    heads, lines = overview(language_rows(targets=("cpu",)))
    assert heads[2] == "perplexity"
    assert float(lines[0][2]) == pytest.approx(20, rel=0.01)
    assert str(Comparison(rows, None, None)).count("lower is better") == 1
    assert remark(example_rows(targets=DIGITAL)) == ""


def test_other_metrics_stand_in_the_report_with_spread_and_interval() -> None:
    rows = two_metrics_rows()
    assert remark(rows) == "perplexity: lower is better; also measured: token accuracy"
    assert "also measured, in the report and in table.csv: token accuracy" in printed(rows)
    page = render_report(rows)
    table = page[page.index("Other metrics: token accuracy") :].partition("</table>")[0]
    assert "Token accuracy, % <small>higher is better</small>" in table
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"<tr.*?</tr>", table)[1:]]
    assert len(lines) == sum(len(target.supported) for target in summarize(rows))
    chips = next(line for line in lines if line[0] == "pcm-hermes" and line[1] == "1\N{NO-BREAK SPACE}s")
    score = next(row for row in rows if row.target == "pcm-hermes" and row.time_s == 1.0).scores[1]
    assert chips[2] == f"{100 * score.mean:.2f} ± {100 * score.std:.2f}"
    assert chips[3] == f"{100 * score.ci95[0]:.2f} to {100 * score.ci95[1]:.2f}"
    assert chips[4] == f"{score.n} chips"
    alone = next(line for line in lines if line[0] == "cpu")
    assert (alone[1], alone[4]) == ("any", "360 test samples")
    assert "±" not in alone[2]
    assert "Other metrics" not in render_report(language_rows(seeds=(0,)))


def test_the_best_comes_first_where_lower_is_better() -> None:
    first = findings.accuracy(summarize(regression_rows(targets=DIGITAL)))[0]
    assert first == "RMSE (lower is better): cpu and h200 2.78 K and loihi 4.17 K."
    accuracies = findings.accuracy(summarize(example_rows(targets=DIGITAL)))[0]
    assert accuracies == "Test samples classified correctly: cpu and h200 97.2 % and loihi 95.8 %."


def test_drift_is_worded_for_the_metric() -> None:
    text = " ".join(findings.drift(summarize(language_rows())))
    assert re.search(r"The perplexity of pcm-hermes rises by \d\.\d+ from 1 s to 1 year \(\d\d\.\d to \d\d\.\d", text)
    assert "points" not in text
    assert "%" not in text
    rate = rescored(example_rows(), lambda a: 1 - a, "word error rate", unit="ratio")
    text = " ".join(findings.drift(summarize(rate)))
    assert re.search(
        r"The word error rate of pcm-hermes rises by \d\.\d points from 1 s to 1 year \(3\.\d to 4\.\d %", text
    )
    text = " ".join(findings.drift(summarize(example_rows())))
    assert re.search(r"pcm-hermes loses \d\.\d points from 1 s to 1 year", text)


def test_a_perplexity_that_explodes_is_told_as_a_ratio_and_chip_by_chip() -> None:
    """Of three chips the Student intervals overlap; each chip against itself leaves no doubt."""
    first, *_, last = rescored(example_rows(targets=("pcm-hermes",)), lambda a: 1 - a, "perplexity", unit="")
    of = {"metric": "perplexity", "unit": "", "higher_is_better": False}
    rows = [
        row.model_copy(update={"scores": (Score.of(values, 2048, **of),)})
        for row, values in ((first, [227.0, 269.0, 365.0]), (last, [60_000.0, 104_000.0, 250_000.0]))
    ]
    (said,) = findings.drift(summarize(rows))
    assert said == (
        "The perplexity of pcm-hermes rises 480 times from 1 s to 1 year (287 to 138,000; all 3 chips are worse)."
    )
    rows[1] = last.model_copy(update={"scores": (Score.of([200.0, 350.0, 500.0], 2048, **of),)})
    assert "rises by 63 from 1 s to 1 year (287 to 350; 2 of 3 chips are worse)" in findings.drift(summarize(rows))[0]


def test_the_worst_change_is_named_first() -> None:
    targets = summarize(regression_rows(targets=("pcm-hermes", "reram-neurram"), times=(1.0, 86400.0)))
    by_change = sorted(targets, key=lambda t: t.supported[0][1].mean - t.supported[-1][1].mean)
    assert by_change[0].name in findings.drift(targets)[0]


def test_axes_are_named_for_the_metric() -> None:
    for draw in (plots.accuracy_over_time, plots.energy_against_accuracy):
        assert label_of(draw(example_rows())) == "test accuracy, %"
        assert label_of(draw(regression_rows())) == "test RMSE, K (lower is better)"
        assert label_of(draw(language_rows())) == "test perplexity (log axis, lower is better)"


def test_a_perplexity_is_drawn_on_a_log_axis_with_plain_numbers() -> None:
    for draw in (plots.accuracy_over_time, plots.energy_against_accuracy):
        figure = draw(language_rows())
        axes = figure.axes[0]
        assert axes.get_yscale() == "log"
        figure.canvas.draw()
        low, high = axes.get_ylim()
        inside = [tick for tick in axes.get_yticks() if low <= tick <= high]
        assert len(inside) >= 3
        assert all(float(tick.get_text()) > 1 for tick in axes.get_yticklabels() if tick.get_text())
        assert draw(regression_rows()).axes[0].get_yscale() == "linear"


def test_other_positive_figures_get_a_log_axis_over_a_decade() -> None:
    rows = example_rows(targets=("cpu", "loihi"))
    wide = rescored(rows, lambda a: 1e-4 if a > 0.96 else 3e-2, "MSE")
    targets = summarize(wide)
    shown = [s for t in targets for _, s in t.supported]
    assert is_logarithmic(words_of(targets), shown)
    assert not is_logarithmic(words_of(targets), shown[:1])


def test_the_pareto_front_follows_the_direction() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0)]
    assert plots.pareto_front(points, higher_is_better=False) == [(1.0, 5.0), (2.0, 3.0), (4.0, 1.0)]
    assert plots.pareto_front(points) == [(1.0, 5.0)]
    names = plots.notable(summarize(regression_rows()), 2)
    assert names == plots.notable(summarize(example_rows()), 2)


@pytest.mark.parametrize(("rows", "name"), [(regression_rows, "RMSE"), (language_rows, "perplexity")])
def test_the_page_never_says_accuracy_of_another_metric(rows, name: str) -> None:
    page = render_report(rows(times=(1.0, HOUR)))
    page = re.sub(r'href="data:[^"]*"|<script.*?</script>|<style.*?</style>', "", page, flags=re.DOTALL)
    text = page.replace("estimated from the accuracy of such figures", "")  # of a card's figures
    assert not re.findall(r".{40}accurac.{40}", text, flags=re.IGNORECASE)
    assert f"{name[0].upper()}{name[1:]} over time</h2>" in text
    assert f"Energy against {name}</h2>" in text
    assert "Left and down is better" in text
    assert "lower is better" in text


def test_the_page_of_accuracies_is_as_it_was() -> None:
    page = render_report(example_rows(times=(1.0, HOUR)))
    assert "Accuracy: share of the test samples classified correctly, in %, mean ± standard deviation" in page
    assert "Left and up is better" in page
    assert "test accuracy, %" in page
    assert "is better, mean" not in page


def test_numbers_have_sensible_digits() -> None:
    plain, share = MetricWords("MSE", "", False), MetricWords()
    assert [plain.value(v) for v in (2.7798, 18.7345, 123456.0, -0.51234, 0.0)] == [
        "2.780",
        "18.73",
        "123,500",
        "-0.5123",
        "0",
    ]
    assert plain.value(3.21e-9) == "3.210e-09"
    assert plain.spread(0.01234) == "0.012"
    assert share.value(0.97222) == "97.22"
    assert share.with_unit("97.22") == "97.22 %"
    assert MetricWords("PSNR", "dB").axis(log=False) == "test PSNR, dB"
