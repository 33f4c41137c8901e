"""Search: the trials that were asked for and no more, the same ones after a stop, and a front that is one."""

import itertools
import math
from pathlib import Path

import numpy as np
import optuna
import pytest

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.experiments import execution
from hpml_sim.report.plots.pareto import on_front
from hpml_sim.results import ResultFile

OWN = Path(__file__).parents[1] / "own_code.py"
MODEL, DATA = f"{OWN}:net", f"{OWN}:data"
SPACE = {
    "steps": hs.Range(1, 20),
    "model.width": hs.Range(2, 64, log=True),
    "neuron.beta": [0.5, 0.95],
    "neuron.reset": ["subtract", "zero"],
}
SMALL = {"epochs": 1, "finetune_epochs": 1, "jobs": 1}


def search(trials, **options):
    return hs.search(MODEL, DATA, "loihi", search_space=SPACE, trials=trials, **{**SMALL, **options})


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return search(14, out=tmp_path_factory.mktemp("search") / "run")


def test_each_trial_has_its_options_and_objectives(straight):
    table = straight.trials
    assert table["trial"].tolist() == [-1, *range(14)]
    assert table["steps"][1:].between(1, 20).all()
    assert table["neuron.reset"][1:].isin(["subtract", "zero"]).all()
    assert table.attrs["units"] == {"accuracy_mean": "share", "energy_j": "J"}
    for _, line in table[1:].iterrows():
        row = next(
            r
            for r in straight.comparison.rows
            if r.options.get("steps") == line["steps"]
            and r.options["model.width"] == line["model.width"]
            and r.options["neuron.beta"] == line["neuron.beta"]
            and r.options["neuron.reset"] == line["neuron.reset"]
        )
        assert line["accuracy_mean"] == row.score.mean
        assert line["energy_j"] == row.estimates[0].energy_j.nominal


def test_what_lies_in_the_folder(straight):
    folder = straight.comparison.folder
    assert {"trials.csv", "front.csv", "front.svg", "search.journal", "results.jsonl", "report.html"} <= {
        p.name for p in folder.iterdir()
    }


def test_a_row_is_on_the_front_if_no_other_dominates_it(straight):
    points = np.random.default_rng(0).integers(0, 6, (60, 3)).astype(float)
    larger = [True, False, False]

    def dominates(a, b):
        better = [x > y if up else x < y for x, y, up in zip(a, b, larger, strict=True)]
        worse = [x < y if up else x > y for x, y, up in zip(a, b, larger, strict=True)]
        return any(better) and not any(worse)

    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert on_front(points, larger).tolist() == expected
    for a, b in itertools.pairwise(straight.front.itertuples()):
        assert a.accuracy_mean > b.accuracy_mean
        assert a.energy_j > b.energy_j


class StoppedError(Exception):
    pass


def stopping_after(monkeypatch, rows):
    """A stop as rude as a kill: in the middle of a trial, which stays unfinished in the journal."""
    compute, count = execution.rows, itertools.count(1)

    def stop(*arguments):
        if next(count) > rows:
            raise StoppedError
        return compute(*arguments)

    monkeypatch.setattr(execution, "rows", stop)


def test_stopped_twice_it_ends_with_the_same_trials_and_not_one_more(straight, tmp_path, monkeypatch):
    for rows in (4, 3):
        with monkeypatch.context() as patch:
            stopping_after(patch, rows)
            with pytest.raises(StoppedError):
                search(14, out=tmp_path / "run", resume=True)
    journal = tmp_path / "run" / "search.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 6, "tri')  # killed while it wrote
    (tmp_path / "run" / "search.journal.lock").symlink_to(journal)  # killed while it held the journal's lock
    found = search(14, out=tmp_path / "run", resume=True)
    assert found.trials.equals(straight.trials)
    keys = [row.key for row in ResultFile(tmp_path / "run" / "results.jsonl").read()]
    assert len(keys) == len(set(keys))
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    assert len(optuna.load_study(study_name="search", storage=storage).trials) == 14


def test_a_larger_number_goes_on_and_a_smaller_one_computes_nothing(straight, tmp_path):
    folder = straight.comparison.folder
    more = search(16, out=folder, resume=True)
    assert more.trials[:15].drop(columns="on_front").equals(straight.trials.drop(columns="on_front"))
    assert len(more.trials) == 17
    before = (folder / "results.jsonl").read_bytes()
    assert len(search(5, out=folder, resume=True).trials) == 6
    assert (folder / "results.jsonl").read_bytes() == before


def test_one_objective_and_three():
    best = search(3, objectives=["energy"])
    assert len(best.front) == 1
    assert float(best.front["energy_j"].iloc[0]) == float(best.trials["energy_j"].min())
    three = search(2, objectives=["score", "energy", "latency"])
    assert {"accuracy_mean", "energy_j", "latency_s"} < set(three.trials.columns)
    assert all(math.isfinite(v) for v in three.trials["latency_s"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"objectives": ["speed"]}, "objectives.*='speed': .*score, energy, latency"),
        ({"objectives": []}, "at least one"),
        ({"trials": 0}, "trials=0"),
        ({"targets": {"a": "loihi", "b": "cpu"}}, "one machine"),
        ({"search_space": {"stepz": [1]}}, "Did you mean 'steps'"),
        ({"targets": "pcm", "search_space": {"adc_bits": [4, 6]}}, "objective 'energy'.*no such figure"),
    ],
)
def test_what_cannot_be_searched_is_named(arguments, said):
    asked = {"targets": "loihi", "search_space": SPACE, "trials": 2, **arguments}
    with pytest.raises(HpmlError, match=said):
        hs.search(MODEL, DATA, **asked, chips=1, times=["1 s"], **SMALL)
