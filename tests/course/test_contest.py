"""The contest: rules are held, scores repeat, and the best entry within the budget comes first."""

import subprocess
import sys

import pytest
import torch

import hpml_sim as hs
from hpml_sim.course.contest import load_entry, ranking, score
from hpml_sim.errors import HpmlError

ENTRY = """
import torch
import hpml_sim as hs

def entry():
    model = hs.convert(hs.models.mlp(64, 32, 10), "reram-neurram")
    hs.fit(model, "digits", epochs=2, lr=5e-3)
    return model
"""


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network = hs.models.mlp(64, 32, 10)
    hs.fit(network, "digits", epochs=3, lr=5e-3)
    return network


def on(network, *arguments, skip=None, **options):
    model = hs.convert(network, hs.Analog(*arguments, **options), skip=skip)
    hs.calibrate(model, torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    return model


def test_an_entry_within_the_budget_counts_and_its_score_repeats(trained):
    first = score(on(trained, "reram-neurram", training_noise=0.2))
    assert first.broken == ()
    assert first.accuracy.n == 25
    assert 0.5 < first.accuracy.mean < 1
    assert first == score(on(trained, "reram-neurram", training_noise=0.2))


def test_each_rule_is_named_when_it_is_broken(trained):
    assert "over the budget of 5 nJ" in score(on(trained, "pcm-hermes")).broken[0]
    assert any("scope 'chip'" in rule for rule in score(on(trained, "isaac-8bit")).broken)
    # the energy is that of the entry's own converters, so that 12 bits break the budget as well
    budget, changed = score(on(trained, "reram-neurram", adc_bits=12, output_noise=0.0)).broken
    assert "over the budget" in budget
    assert "adc_bits, output_noise differ" in changed
    first = next(name for name, module in trained.named_modules() if isinstance(module, torch.nn.Linear))
    assert any("stayed digital" in rule for rule in score(on(trained, "reram-neurram", skip=[first])).broken)


def test_entries_that_count_come_first(trained):
    good, dear = score(on(trained, "reram-neurram"), "good"), score(on(trained, "pcm-hermes"), "dear")
    assert [s.name for s in ranking([dear, good])] == ["good", "dear"]


def test_what_is_no_entry_is_said(trained, tmp_path):
    with pytest.raises(HpmlError, match="what hs"):
        score(trained)
    with pytest.raises(HpmlError, match="no file"):
        load_entry(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(HpmlError, match="no function entry"):
        load_entry(tmp_path / "empty.py")


def test_the_script_prints_the_table(tmp_path):
    (tmp_path / "mine.py").write_text(ENTRY)
    command = [sys.executable, "-m", "hpml_sim.course.contest", str(tmp_path / "mine.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1. mine on reram-neurram: ")
    assert "nJ an inference: counts" in done.stdout
