"""The answer in sentences, from rows with estimates at system scope made by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import hpml_sim as hs
from hpml_sim.cost import Estimate, Term
from hpml_sim.experiments.result import Comparison
from hpml_sim.report import findings
from hpml_sim.report.plots import operations_a_joule, which_machine
from hpml_sim.report.ranking_words import answer, answers, sureness
from hpml_sim.report.summary import summarize
from hpml_sim.results import Row
from hpml_sim.units.bands import Band

from .example_rows import example_rows


def system(row: Row, *terms: tuple[str, Band], projection: bool = False, batch: int = 1) -> Estimate:
    total = sum((band for _, band in terms), Band(0, 0, 0))
    return replace(
        row.estimates[0],
        scope="system",
        batch=batch,
        energy_j=total,
        latency_s=Band.exact(1e-3),
        throughput_hz=Band.exact(1e3),
        terms=tuple(Term("", "host" if origin else "mvm", band, (), origin) for origin, band in terms),
        mapping={"operations": 2e6},
        reported_separately={"idle_w": Band.exact(2.0)},
        projection=projection,
    )


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """a: 1 J, of which a host half; b: 3 J, well known; c: 3.1 J of a host that is known to a factor of 30."""
    found = []
    terms = (
        (("host-edge", Band.factor(0.5, 1.2)), ("", Band.factor(0.5, 1.2))),
        (("", Band.factor(3.0, 1.1)),),
        (("host-edge", Band.factor(3.1, 30.0)),),
    )
    for name, own, projected in zip(("pcm-hermes", "loihi", "cpu"), terms, (True, False, False), strict=True):
        row = example_rows(targets=(name,))[0]
        found.append(row.model_copy(update={"systems": [system(row, *own, projection=projected)]}))
    return found


def test_the_ranking_says_ratio_probability_and_what_decides(rows):
    ranked = Comparison(tuple(rows), None, None).rank("energy", scope="system").to_dict("records")
    assert [line["target"] for line in ranked] == ["pcm-hermes", "loihi", "cpu"]
    assert [line["ratio"] for line in ranked] == pytest.approx([1.0, 3.0, 3.1 / 3.0])
    assert ranked[1]["probability"] > 0.99
    assert 0.5 < ranked[2]["probability"] < 0.55
    assert ranked[2]["decides"] == "component host-edge"
    assert [line["projection"] for line in ranked] == [True, False, False]
    text = repr(Comparison(tuple(rows), None, None).rank())
    assert max(map(len, text.splitlines())) <= 80
    assert "3.0 x" in text
    assert "> 99 %" in text


def test_a_sentence_for_each_pair_and_the_component_that_decides(rows):
    (found,) = answers(summarize(rows))
    assert found.pairs[0] == "loihi takes 3.0 times the energy of pcm-hermes (> 99 % sure of the order)."
    assert sum("times the energy of" in s for s in (*found.pairs, *found.open_orders)) == 3
    (open_order,) = [s for s in found.open_orders if "loihi" in s]
    assert open_order.startswith("cpu takes")
    assert re.search(r"but that is only 5\d % sure; what decides is component host-edge\.", open_order)
    assert "pcm-hermes is a projection" in found.projections
    assert found.said == (*found.open_orders, found.projections)
    assert "At one inference a second, idle power included" in " ".join(found.pairs)
    # 2 W x (1 s - 1 ms) + 1 J
    assert "pcm-hermes 3.00 W" in " ".join(found.pairs)


def test_batches_are_set_against_the_leader_at_batch_1(rows):
    board = rows[1].model_copy(
        update={"systems": [*rows[1].systems, system(rows[1], ("", Band.factor(0.5, 1.1)), batch=64)]}
    )
    (found,) = answers(summarize([rows[0], board]))
    assert re.search(r"loihi takes 500 mJ \(455.550\) at batch 64 \(0\.50 times; > 99 % sure\)", found.batched)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_answer_as_a_table_of_few_lines(rows, width):
    lines = answer(summarize(rows), width=width).splitlines()
    assert max(map(len, lines[1:5])) <= width  # what stands around the table are sentences, which the terminal wraps
    assert len(lines) == 7
    assert lines[0].startswith("Which machine? One inference: least energy first")
    assert [line.split()[0] for line in lines[1:5]] == ["machine", "pcm-hermes", "loihi", "cpu"]
    assert re.search(r"3\.0 x +> 99 %$", lines[3])
    assert re.search(r"1\.0 x +5\d %, open$", lines[4])
    assert lines[-1].startswith("pcm-hermes is a projection")


def test_a_machine_that_does_not_drift_has_no_time_behind_its_score(rows):
    worse = rows[2].model_copy(update={"scores": (hs.Score.of([0.5], 360),)})
    (found,) = answers(summarize([rows[0], worse]))
    assert "and cpu has 50.0 %. Training" in found.lost


def test_the_same_energy_is_no_uncertain_order():
    rows = example_rows(targets=("cpu",)) + example_rows(targets=("cpu",), rename={"cpu": "cpu, fine-tuned"})
    said = " ".join(findings.energy(summarize(rows)))
    assert "cpu, fine-tuned takes the same energy as cpu" in said
    assert "overlap" not in said


def test_without_systems_there_is_no_answer():
    assert answers(summarize(example_rows())) == []
    assert answer(summarize(example_rows())) == ""
    with pytest.raises(hs.HpmlError, match=r"rank\(scope='own'\)"):
        Comparison(tuple(example_rows()), None, None).rank("energy")
    with pytest.raises(hs.HpmlError, match="must be 'system', or 'own'"):
        Comparison(tuple(example_rows()), None, None).rank("energy", scope="board")


def test_no_sentence_is_more_certain_than_its_simulation():
    assert sureness(1.0) == "> 99 %"
    assert sureness(0.899) == "90 %"


def test_the_plot_shows_every_machine_and_operations_a_joule(rows):
    figure = which_machine(rows)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["energy", "latency", "throughput", "efficiency"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["cpu", "loihi", "pcm-hermes *"]
    assert operations_a_joule(rows[0].systems[0]).nominal == pytest.approx(2e6)
    assert len(which_machine(example_rows()).axes) == 4


def test_the_rows_come_back_from_their_file(rows, tmp_path):
    again = Row.model_validate_json(rows[0].model_dump_json())
    assert again == rows[0]
    assert again.systems[0].scope == "system"
