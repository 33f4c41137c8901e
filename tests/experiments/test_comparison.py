"""The main job in small: few epochs, few chips, every kind of machine."""

import gc
import json
import weakref

import pandas as pd
import pytest
import torch

import hpml_sim as hs
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.results import ResultFile, to_frame

TARGETS = ["cpu", "h200", "pcm-hermes", "reram-neurram", "loihi"]
TWINS = ["cpu, integer twin of loihi", "h200, integer twin of loihi"]
SMALL = {"epochs": 2, "finetune_epochs": 1, "chips": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    return hs.compare("mlp", "digits", TARGETS, out=folder, **SMALL)


def by_key(rows):
    return {row.key: row for row in rows}


def test_a_row_for_each_target_seed_and_time(run):
    year = 365 * 86400.0
    times = (1.0, 3600.0, 86400.0, year)
    drifting = {(card, 0, t) for card in ("pcm-hermes", "reram-neurram") for t in times}
    once = {"cpu", "cpu, fine-tuned", "h200", "loihi", *TWINS}
    assert set(by_key(run.rows)) == drifting | {(card, 0, None) for card in once}


def test_three_passes_are_kept_apart_and_say_how(run):
    for row in run.rows:
        assert all(e.provenance == f"estimated:{row.card.name}" and e.scope == row.card.scope for e in row.estimates)
        assert row.estimates
        measured_here = row.target == "cpu"
        assert bool(row.measurements) == measured_here or row.card.name == "h200"
        for m in row.measurements:
            assert m.provenance == "measured:clock"
            assert m.energy_j is None or m.energy_j > 0
            assert m.energy_j is not None or m.energy_reason


def test_every_figure_is_positive_ordered_and_sourced(run):
    for row in run.rows:
        for e in row.estimates:
            for band in (e.energy_j, e.latency_s, e.throughput_hz):
                assert 0 < band.low <= band.nominal <= band.high
            assert sum(t.energy_j.nominal for t in e.terms) == pytest.approx(e.energy_j.nominal, rel=1e-9)
            assert e.sources
            used = {source for term in e.terms for source in term.sources}
            assert used <= set(e.sources)


def test_a_time_without_data_is_said_never_extrapolated(run):
    rows = by_key(run.rows)
    assert rows["reram-neurram", 0, 1.0].score.n == 3
    assert rows["reram-neurram", 0, 3600.0].score is None
    assert any("1 day" in note for note in rows["reram-neurram", 0, 3600.0].notes)
    assert rows["pcm-hermes", 0, 3600.0].score.n == 3


def test_what_lies_in_the_folder(run):
    folder = run.folder
    written = {"run.json", "run.toml", "results.jsonl", "networks", "run.log", "table.csv", "report.html"}
    assert {p.name for p in folder.iterdir()} == written
    assert by_key(ResultFile(folder / "results.jsonl").read()) == by_key(run.rows)
    table = pd.read_csv(folder / "table.csv")
    assert set(table["target"]) == {*TARGETS, "cpu, fine-tuned", *TWINS}
    assert (folder / "report.html").stat().st_size < 1_000_000
    assert json.loads((folder / "run.json").read_text())["hash"] == run.plan.hash


def test_again_gives_the_same_bits(run, tmp_path):
    torch.rand(3)
    again = hs.compare("mlp", "digits", TARGETS, **SMALL)
    assert [(r.key, r.score) for r in again.rows] == [(r.key, r.score) for r in run.rows]
    assert [r.estimates for r in again.rows] == [r.estimates for r in run.rows]
    assert again.plan.hash == run.plan.hash


def test_a_folder_with_a_run_is_refused_resumed_or_replaced(tmp_path):
    folder = tmp_path / "run"
    options = {"epochs": 1, "finetune_epochs": 0, "chips": 2, "times": ["1 s", "1 day"], "out": folder}
    first = hs.compare("mlp", "digits", ["pcm-hermes", "loihi"], **options)
    with pytest.raises(HpmlError, match=r"--resume.*--force"):
        hs.compare("mlp", "digits", ["pcm-hermes", "loihi"], **options)
    with pytest.raises(HpmlError, match="chips: 2 there, 4 asked"):
        hs.compare("mlp", "digits", ["pcm-hermes", "loihi"], resume=True, **{**options, "chips": 4})

    file = folder / "results.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1][:-7])  # killed while it wrote the second row
    resumed = hs.compare("mlp", "digits", ["pcm-hermes", "loihi"], resume=True, **options)
    assert [(r.key, r.score) for r in resumed.rows] == [(r.key, r.score) for r in first.rows]
    assert len(ResultFile(file).read()) == len(lines)
    assert file.read_bytes().startswith(lines[0])

    before = file.read_bytes()
    with pytest.raises(UnknownNameError):
        hs.compare("mlp", "digitz", ["loihi"], force=True, out=folder)
    assert file.read_bytes() == before, "a mistake in the arguments must not cost the rows"
    replaced = hs.compare("mlp", "digits", ["loihi"], force=True, **options)
    keys = [("loihi", 0, None), ("hailo-8, integer twin of loihi", 0, None)]
    assert [r.key for r in ResultFile(file).read()] == keys == [r.key for r in replaced.rows]


def test_spikes_on_crossbars_and_labels_of_ones_own():
    targets = {
        "hybrid": hs.Spiking("loihi", steps=5, synapses=hs.Analog("pcm-hermes")),
        "coarse": hs.Analog(adc_bits=3),
    }
    rows = hs.compare("mlp", "digits", targets, epochs=1, finetune_epochs=1, chips=2, times=["1 day"]).rows
    keys = [("hybrid", 0, 86400.0), ("coarse", 0, 86400.0), ("hailo-8, integer twin of hybrid", 0, None)]
    assert [r.key for r in rows] == keys
    assert rows[1].notes == ["scores are with adc_bits=3; energy, time and area are the card's, with 8"]
    assert rows[0].estimates[0].provenance == "estimated:pcm-hermes"
    assert rows[0].config["synapses"]["card"] == "pcm-hermes"
    assert rows[0].card.scope == "chip"
    assert to_frame(rows[:1])["scope"].tolist() == ["core"], "the scope of the estimate, not of the target's card"


def test_the_estimate_follows_the_options_of_the_target():
    targets = {
        "plain": hs.Analog("pcm-hermes"),
        "sliced": hs.Analog("pcm-hermes", levels=4, slices=3),
        "coarse": hs.Analog("pcm-hermes", adc_bits=4),
        "noise only": hs.Analog("pcm"),
    }
    rows = hs.compare("mlp", "digits", targets, epochs=1, finetune_epochs=0, chips=2, times=["1 day"]).rows
    plain, sliced, coarse, without = rows
    assert sliced.estimates[0].mapping["utilization"] > plain.estimates[0].mapping["utilization"]
    assert sliced.estimates[0].energy_j.nominal > plain.estimates[0].energy_j.nominal
    assert len(coarse.notes) == 1
    assert "energy and time with adc_bits=4 are scaled from the card's 8" in coarse.notes[0]
    assert coarse.estimates[0].energy_j.nominal < plain.estimates[0].energy_j.nominal
    assert any("4-bit outputs" in sentence for sentence in coarse.estimates[0].assumptions)
    assert without.score.n == 2
    assert without.estimates == []
    assert any(note.startswith("no estimate: ") for note in without.notes)


def test_a_network_of_the_users_own_and_several_seeds(tmp_path, monkeypatch):
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    rows = hs.compare(
        "mynet:net", "digits", ["pcm-hermes"], seeds=2, epochs=1, finetune_epochs=0, chips=2, times=[60]
    ).rows
    assert [r.key for r in rows] == [("pcm-hermes", 0, 60.0), ("pcm-hermes", 1, 60.0)]
    assert rows[0].score != rows[1].score


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "mpl"}, "Did you mean 'mlp'"),
        ({"data": "digitz"}, "Did you mean 'digits'"),
        ({"targets": ["pcm-hermse"]}, "Did you mean 'pcm-hermes'"),
        ({"targets": []}, "at least one"),
        ({"targets": ["cpu", "cpu"]}, "twice"),
        ({"chips": 0}, "chips=0"),
        ({"seeds": []}, "at least one seed"),
        ({"epochs": -1}, "epochs=-1"),
        ({"times": ["1 fortnight"]}, "1 fortnight"),
        ({"times": [-1]}, "-1"),
        ({"model": "nowhere:net"}, "nowhere"),
        ({"model": "json:loads"}, "json:loads"),
    ],
)
def test_mistakes_are_named_before_anything_runs(arguments, said, tmp_path):
    asked = {"model": "mlp", "data": "digits", "targets": ["cpu"], "out": tmp_path / "run", **arguments}
    with pytest.raises(HpmlError, match=said):
        hs.compare(**asked)
    assert not (tmp_path / "run").exists()


def test_the_chips_of_one_time_are_gone_before_those_of_the_next_are_made(monkeypatch):
    alive, most = weakref.WeakSet(), []
    at = hs.Chips.at

    def counted(chips, time):
        most.append(len(alive))  # what earlier times left behind; no garbage collection helps
        model = at(chips, time)
        alive.add(model)
        return model

    monkeypatch.setattr(hs.Chips, "at", counted)
    gc.disable()
    try:
        hs.compare("mlp", "digits", ["pcm-hermes"], epochs=0, finetune_epochs=0, chips=2, times=["1 s", "1 h", "1 day"])
    finally:
        gc.enable()
    assert most == [0, 0, 0, 0]  # the first ones are tried before any training


def test_a_neuromorphic_row_is_scored_in_the_integers_of_its_card(tmp_path):
    run = hs.compare("mlp", "digits", ["loihi", "truenorth"], epochs=3, finetune_epochs=1, out=tmp_path / "run")
    loihi, truenorth, _twin = run.rows
    assert loihi.scores[1].metric == "floating-point accuracy"
    assert loihi.floating_point == loihi.scores[1]
    assert "weights of 8 bits, states of 24 bits, decays of 12 bits" in loihi.simulated
    assert any("8-bit weights x 2^" in layer["why"] for layer in loihi.layers)
    assert truenorth.floating_point is None
    assert "does not say how wide its weights are" in truenorth.simulated
    frame = run.table()
    assert frame.set_index("target").floating_point_accuracy_mean["loihi"] == loihi.scores[1].mean
    page = run.report(tmp_path / "report.html").read_text()
    assert "loating-point accuracy" in page
    assert "floating-point accuracy" in str(run)


OWN = """
import snntorch as snn, torch
from torch import nn
from snntorch import utils

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), snn.Leaky(0.9, init_hidden=True),
            nn.Linear(16, 10), snn.Leaky(0.9, init_hidden=True, output=True),
        )

    def forward(self, x):
        utils.reset(self.net)
        return torch.stack([self.net(3 * x)[0] for _ in range(5)]).sum(0)
"""


def test_a_spiking_network_from_a_file_is_scored_in_the_integers_of_the_card(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    run = hs.compare(f"{tmp_path / 'mine.py'}:Mine", "digits", ["loihi-2", "truenorth"], epochs=2, finetune_epochs=0)
    loihi, truenorth = run.rows  # a network that spikes by itself has no integer twin
    assert "weights of 8 bits, states of 24 bits, decays of 12 bits" in loihi.simulated
    assert "does not say how wide its weights are" in truenorth.simulated
    assert truenorth.floating_point is None
    assert loihi.floating_point.mean == truenorth.scores[0].mean > 0.3  # the same network
    assert loihi.scores[0].mean == pytest.approx(loihi.floating_point.mean, abs=0.05)
    assert [layer["why"] for layer in loihi.layers if layer["was"] == "Leaky"] == ["integers, threshold 4096"] * 2
