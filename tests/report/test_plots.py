"""The figures: what is drawn, what is not, and the same bytes every time."""

import math
from dataclasses import replace

import matplotlib
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text

from hpml_sim.report import plots
from hpml_sim.report.plots.accuracy_time import thinned, unbroken
from hpml_sim.report.plots.energy_parts import largest
from hpml_sim.report.summary import summarize, times_of
from hpml_sim.units.bands import Band
from tests.report.example_rows import DAY, HOUR, TARGETS, YEAR, example_rows

ALL = (plots.accuracy_over_time, plots.energy_against_accuracy, plots.energy_by_part, plots.layer_roofline)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("draw", ALL)
def test_svg_is_the_same_every_time(draw, narrow: bool) -> None:
    first, second = (plots.to_svg(draw(example_rows(), narrow=narrow)) for _ in range(2))
    assert first == second
    assert first.startswith("<svg")
    assert "<text" in first  # text stays text
    assert len(first) < 80_000


@pytest.mark.parametrize("draw", ALL)
def test_the_users_settings_do_not_matter_and_are_left_alone(draw) -> None:
    plain = plots.to_svg(draw(example_rows()))
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "#ff0000", "svg.hashsalt": "other"}):
        before = dict(matplotlib.rcParams)
        assert plots.to_svg(draw(example_rows())) == plain
        assert dict(matplotlib.rcParams) == before


def test_nothing_is_drawn_across_a_gap() -> None:
    targets = summarize(example_rows())
    times = times_of(targets)
    by_name = {t.name: [[time for time, _ in piece] for piece in unbroken(t, times)] for t in targets}
    assert by_name["reram-neurram"] == [[1.0], [DAY]]
    assert by_name["pcm-hermes"] == [[1.0, HOUR, DAY, YEAR]]


def test_time_axis_reads_as_people_speak() -> None:
    figure = plots.accuracy_over_time(example_rows())
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1 s", "1 h", "1 day", "1 year"]
    assert axes.get_xscale() == "log"
    assert "no data at 1 h and 1 year: reram-neurram" in axes.get_xlabel()


def test_every_chip_is_a_dot_unless_there_are_very_many() -> None:
    figure = plots.accuracy_over_time(example_rows(targets=("pcm-hermes",)))
    dots = [line for line in figure.axes[0].lines if isinstance(line, Line2D) and line.get_alpha() == 0.30]
    assert [len(line.get_xdata()) for line in dots] == [3 * 25] * 4  # type: ignore[arg-type] # begin, end, gap
    assert plots.to_svg(figure).count("h.1") == 4 * 25
    values = tuple(i / 999 for i in range(1000))
    few = thinned(values)
    assert (len(few), min(few), max(few)) == (200, 0.0, 1.0)


def test_one_panel_a_scope() -> None:
    figure = plots.energy_against_accuracy(example_rows())
    assert [a.get_title(loc="left") for a in figure.axes] == ["scope: chip", "scope: board", "scope: system"]
    figure.draw_without_rendering()  # axis labels exist once they are drawn
    # each scope has its own range, but a decade is equally long in all: a factor looks the same everywhere
    decades = [a.get_window_extent().width / math.log10(a.get_xlim()[1] / a.get_xlim()[0]) for a in figure.axes]
    assert decades == pytest.approx([decades[0]] * 3, rel=1e-3)
    words = " ".join(t.get_text() for t in figure.findobj(Text) if isinstance(t, Text))
    assert "not ranked" in words
    assert "1 µJ" in words


def test_targets_differ_in_marker_as_well_as_color() -> None:
    styles = [plots.style_of(t) for t in summarize(example_rows())]
    assert len({s.color for s in styles}) == len({s.marker for s in styles}) == len(TARGETS)


def test_small_parts_are_summed_and_the_others_keep_their_order() -> None:
    target = summarize(example_rows(targets=("loihi",)))[0]
    parts = largest(target.components, 3)
    assert [p.name for p in parts] == ["static", "x86 host", "3 smaller ones"]
    assert sum(p.share for p in parts) == pytest.approx(1)
    whole = sum(p.energy_j.nominal for p in target.components)
    assert sum(p.energy_j.nominal for p in parts) == pytest.approx(whole)
    parts = largest(target.layer_parts, 2)
    assert [p.name for p in parts] == ["whole machine", "2 smaller ones"]
    assert [p.name for p in target.layer_parts] == ["fc1 Linear", "fc2 Linear", "whole machine"]


def test_pareto_front() -> None:
    points = [(3.0, 0.9), (1.0, 0.5), (2.0, 0.4), (2.0, 0.8), (4.0, 0.9), (5.0, 0.95), (1.0, 0.3)]
    assert plots.pareto_front(points) == [(1.0, 0.5), (2.0, 0.8), (3.0, 0.9), (5.0, 0.95)]
    assert plots.pareto_front([]) == []


def test_notable_targets_are_those_on_a_front_then_the_most_accurate() -> None:
    targets = summarize(example_rows())
    assert plots.notable(targets, 5) == list(TARGETS)
    # of the chips loihi is on no front; cpu and h200 are alone in their scopes
    assert plots.notable(targets, 4) == ["cpu", "h200", "pcm-hermes", "reram-neurram"]
    assert plots.notable(targets, 2) == ["cpu", "h200"]
    figure = plots.energy_by_part(example_rows(), only=["loihi"])
    colors = {patch.get_facecolor() for axes in figure.axes for patch in axes.patches if patch.get_alpha() is None}
    assert colors == {matplotlib.colors.to_rgba(plots.style_of(targets[4]).color)}, "its color in the whole run"


def test_the_front_is_drawn_inside_its_panel_only() -> None:
    figure = plots.energy_against_accuracy(example_rows())
    drawn = {
        a.get_title(loc="left"): [line for line in a.lines if line.get_drawstyle() == "steps-post"] for a in figure.axes
    }
    assert {scope: len(lines) for scope, lines in drawn.items()} == {
        "scope: chip": 1,
        "scope: board": 1,
        "scope: system": 1,
    }
    x, y = drawn["scope: chip"][0].get_data()
    by_name = {t.name: t for t in summarize(example_rows())}
    energies, accuracies = [], []
    for name in ("reram-neurram", "pcm-hermes"):  # loihi takes more and is less accurate than both
        accuracy = by_name[name].at(1.0)
        assert accuracy is not None
        energies.append(by_name[name].costs[0].energy_j.nominal)
        accuracies.append(100 * accuracy.mean)
    assert list(x[:2]) == pytest.approx(energies)
    assert list(y) == pytest.approx([*accuracies, accuracies[-1]])  # it goes on to the edge of the panel


def test_layers_under_the_roof_by_hand() -> None:
    cpu, *_, loihi = summarize(example_rows())
    points = list(plots.layer_points(cpu))
    assert [(p.batch, p.layer, p.limit) for p in points] == [
        (1, "fc1 Linear", "launch"),
        (1, "act ReLU", "launch"),
        (1, "fc2 Linear", "launch"),
        (16384, "fc1 Linear", "memory"),
        (16384, "act ReLU", "memory"),
        (16384, "fc2 Linear", "memory"),
    ]
    first = points[0]
    assert first.intensity == pytest.approx(16384 / (4 * (8192 + 192)))
    assert first.rate_hz == pytest.approx(16384 / 3.3e-6)
    assert first.ceiling_hz == pytest.approx(160e9 * first.intensity)
    assert first.share == pytest.approx(1 / 3)
    assert all(p.rate_hz <= p.ceiling_hz * (1 + 1e-9) for p in points)
    assert list(plots.layer_points(loihi)) == []


def test_one_roof_a_processor_and_every_layer_on_it() -> None:
    figure = plots.layer_roofline(example_rows())
    shown = [a for a in figure.axes if a.get_visible()]
    assert [a.get_title(loc="left") for a in shown] == ["cpu", "h200"]
    svg = plots.to_svg(figure)
    assert svg.count("<title>") == 12
    assert "<title>h200, batch 1, layer fc2 Linear: " in svg
    assert "limited by launch" in svg
    assert "no CPU or GPU" in plots.to_svg(plots.layer_roofline(example_rows(targets=("loihi",))))


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize("name", ["a$b$", "_hidden", "<b>&\"'", "名前", "x" * 120])
def test_odd_names(draw, name: str) -> None:
    for narrow in (False, True):
        svg = plots.to_svg(draw(example_rows(rename={"loihi": name}), narrow=narrow))
        assert "<b>" not in svg


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    "rows",
    [
        example_rows(targets=("cpu",)),
        example_rows(targets=("reram-neurram",), times=(HOUR,)),
        example_rows(targets=("pcm-hermes",), times=(1.0,), chips=1),
    ],
)
def test_little_data(draw, rows) -> None:
    assert plots.to_svg(draw(rows)).endswith("</svg>")


def test_bounds_of_zero_and_infinity() -> None:
    row = example_rows(targets=("cpu",))[0]
    band = Band(low=0, nominal=1e-6, high=float("inf"))
    row = row.model_copy(update={"estimates": [replace(e, energy_j=band) for e in row.estimates]})
    assert plots.to_svg(plots.energy_against_accuracy([row])).endswith("</svg>")


def test_hover_texts() -> None:
    svg = plots.to_svg(plots.energy_against_accuracy(example_rows()))
    assert "<title>cpu, batch 16,384, estimated: 202 nJ" in svg
    assert "tip:" not in svg
    svg = plots.to_svg(plots.layer_roofline(example_rows()))
    assert "0.489 op/byte" in svg  # coordinates are shortened, words are not


def test_a_notebook_shows_a_figure_without_pyplot():
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(plots.energy_against_accuracy(example_rows()))
    assert shown["image/png"].startswith(b"\x89PNG")
