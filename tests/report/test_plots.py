"""The figures: what is drawn, what is not, and the same bytes every time."""

import matplotlib
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text

from hpml_sim.report import plots
from hpml_sim.report.summary import summarise, times_of
from hpml_sim.results import BandRow
from tests.report.example_rows import DAY, HOUR, TARGETS, YEAR, example_rows

ALL = (plots.accuracy_over_time, plots.energy_against_accuracy, plots.energy_by_component)


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
    targets = summarise(example_rows())
    times = times_of(targets)
    by_name = {t.name: [[time for time, _ in piece] for piece in plots._unbroken(t, times)] for t in targets}
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
    assert [len(line.get_xdata()) for line in dots] == [25] * 4  # type: ignore[arg-type]
    values = tuple(i / 999 for i in range(1000))
    thinned = plots._thinned(values)
    assert (len(thinned), min(thinned), max(thinned)) == (200, 0.0, 1.0)


def test_one_panel_a_scope() -> None:
    figure = plots.energy_against_accuracy(example_rows())
    assert [a.get_title(loc="left") for a in figure.axes] == ["scope: chip", "scope: board", "scope: system"]
    assert len({a.get_xlim() for a in figure.axes}) == 1
    figure.draw_without_rendering()  # axis labels exist once they are drawn
    words = " ".join(t.get_text() for t in figure.findobj(Text) if isinstance(t, Text))
    assert "not ranked" in words
    assert "1 µJ" in words


def test_targets_differ_in_marker_as_well_as_colour() -> None:
    styles = [plots.style_of(t) for t in summarise(example_rows())]
    assert len({s.colour for s in styles}) == len({s.marker for s in styles}) == len(TARGETS)


def test_small_components_are_summed() -> None:
    target = summarise(example_rows(targets=("loihi",)))[0]
    parts = plots._largest(target, 3)
    assert [p[0] for p in parts] == ["static", "x86 host", "3 smaller ones"]
    assert sum(p[2] for p in parts) == pytest.approx(1)


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
    band = BandRow(low=0, nominal=1e-6, high=float("inf"))
    row = row.model_copy(update={"estimates": [e.model_copy(update={"energy_j": band}) for e in row.estimates]})
    assert plots.to_svg(plots.energy_against_accuracy([row])).endswith("</svg>")


def test_hover_texts() -> None:
    svg = plots.to_svg(plots.energy_against_accuracy(example_rows()))
    assert "<title>cpu, batch 16,384, estimated: 202 nJ" in svg
    assert "tip:" not in svg
