import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from hpml_sim.cli import main
from hpml_sim.results import ResultFile

CLI = [sys.executable, "-m", "hpml_sim.cli"]


@pytest.fixture
def hpml(capsys):
    """`hpml-sim` in this process, which spares each test the import of torch."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        said = capsys.readouterr()
        return SimpleNamespace(returncode=left.value.code, stdout=said.out, stderr=said.err)

    return run


@pytest.mark.parametrize(
    ("arguments", "guess"),
    [
        (["--on", "pcm-hermse"], "pcm-hermes"),
        (["--on", "cpu", "--data", "digitz"], "digits"),
        (["--on", "cpu", "--model", "mpl"], "mlp"),
    ],
)
def test_a_typo_costs_one_line_and_status_2(hpml, arguments, guess):
    done = hpml("compare", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"Did you mean {guess!r}?" in done.stderr


def test_the_installed_command_says_it_in_one_line_too():
    done = subprocess.run(
        [*CLI, "compare", "--on", "pcm-hermse"], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_an_unknown_verb_is_guessed(hpml):
    done = hpml("compair")
    assert done.returncode == 2
    assert "Did you mean 'compare'?" in done.stderr
    assert "--chips" in hpml("compare", "--on", "cpu", "--chps", "3").stderr


def test_help_names_every_verb(hpml):
    done = hpml("--help")
    assert done.returncode == 0
    verbs = ("compare", "sweep", "search", "run", "init", "doctor", "cards", "validate", "report", "completion")
    assert all(verb in done.stdout for verb in verbs)
    assert "130 stopped by Ctrl-C" in done.stdout.replace("\n", " ")


def test_compare_prints_the_table_and_writes_the_folder(hpml, tmp_path):
    out = tmp_path / "run"
    arguments = ["compare", "--on", "cpu", "loihi", "--epochs", "1", "--out", str(out)]
    done = hpml(*arguments)
    assert done.returncode == 0, done.stderr
    assert "loihi" in done.stdout
    assert "\x1b" not in done.stdout, "no colors where there is no terminal"
    assert {"run.json", "run.toml", "results.jsonl", "table.csv", "report.html"} <= {p.name for p in out.iterdir()}

    refused = hpml(*arguments)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = hpml(*arguments, "--resume", "--json")
    assert [json.loads(line)["target"] for line in resumed.stdout.splitlines()] == ["cpu", "loihi"]

    (out / "report.html").unlink()
    assert hpml("report", str(out)).returncode == 0
    assert (out / "report.html").exists()


def test_ctrl_c_leaves_the_finished_rows(tmp_path):
    out = tmp_path / "run"
    file = out / "results.jsonl"
    arguments = ["compare", "--on", "cpu", "loihi", "--epochs", "400", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*CLI, *arguments], stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 120
    while not (file.exists() and file.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "--resume goes on" in stderr
    assert [row.target for row in ResultFile(file).read()] == ["cpu"]


def test_cards_are_listed_shown_and_checked(hpml, tmp_path):
    listed = json.loads(hpml("cards", "--json").stdout)
    assert {"cpu", "h200", "a100", "pcm-hermes", "pcm-hermes-1phase", "reram-neurram", "loihi"} <= {
        c["name"] for c in listed
    }
    shown = hpml("cards", "show", "loihi")
    assert shown.returncode == 0
    assert "pJ" in shown.stdout
    broken = tmp_path / "mine.toml"
    broken.write_text('kind = "crossbar"\nname = "mine"\n')
    checked = hpml("cards", "check", str(broken))
    assert checked.returncode == 2
    assert "mine.toml: title" in checked.stderr


def test_a_network_is_estimated_without_weights(hpml):
    done = hpml("estimate", "llama-3-70b", "--on", "h200", "pcm-hermes", "--json")
    assert done.returncode == 0, done.stderr
    gpu, crossbar = json.loads(done.stdout)
    assert (gpu["mapping"]["devices"], gpu["scope"], crossbar["scope"]) == (2, "board", "core")
    assert crossbar["mapping"]["chips"] > 10_000
    assert any("chip to chip" in sentence for sentence in crossbar["excluded"])
    shown = hpml("estimate", "llama-3-70b", "--on", "h200", "pcm-hermes").stdout
    assert "2 devices" in shown
    assert "16,571 chips" in shown
    assert "not ranked" in shown


def test_spiking_machines_are_estimated_from_samples_only(hpml):
    done = hpml("estimate", "mlp", "--on", "loihi", "--data", "digits", "--json")
    assert json.loads(done.stdout)[0]["mapping"]["spikes"] > 0
    refused = hpml("estimate", "resnet50", "--on", "loihi")
    assert refused.returncode == 2
    assert "how often neurons fire" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet5", "--on", "cpu"], "Did you mean 'resnet50'"),
        (["resnet50", "--on", "cpu", "--sequence", "8"], "takes no sequence"),
        (["resnet50", "--on", "cpu", "--data", "digits"], "comes with its own input"),
        (["mlp", "--on", "cpu", "--phase", "decode"], "generate text"),
        (["json:loads", "--on", "cpu"], "json:loads"),
        (["mlp", "--on", "cpu", "--precision", "bf16"], "has a peak for fp32 only"),
    ],
)
def test_mistakes_in_an_estimate_are_status_2(hpml, arguments, said):
    done = hpml("estimate", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_validation_says_what_is_outside_and_fails_only_when_asked(hpml):
    done = hpml("validate", "--json")
    points = json.loads(done.stdout)
    assert done.returncode == 0
    assert len(points) >= 60
    assert {"name", "published", "model", "error", "tolerance", "ok", "source"} <= set(points[0])
    assert hpml("validate", "--strict").returncode == (0 if all(p["ok"] for p in points) else 1)


OWN = """
import torch
from torch import nn
from torch.utils.data import Dataset

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.features = nn.Conv2d(1, width, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(width * 16, 2)

    def forward(self, x):
        return self.head(nn.functional.avg_pool2d(self.act(self.features(x)), 2).flatten(1))

class Stripes(Dataset):
    def __init__(self, count, seed):
        self.labels = torch.arange(count) % 2
        self.images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 0.6
        for image, label in zip(self.images, self.labels):
            image[0, 3] += 0.4 * (label == 0)
            image[0, :, 3] += 0.4 * (label == 1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]

def stripes():
    return Stripes(120, 0), Stripes(60, 1)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An empty folder but for a network and a data set that hpml_sim has never seen."""
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return ["--model", "mine.py:Net", "--data", "mine.py:stripes", "--chips", "2", "--epochs", "12", "--times", "1 day"]


def test_a_network_and_data_of_ones_own_are_compared_with_no_code_written(own, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["compare", *own, "--on", "pcm-hermes", "loihi", "h200", "--json"]
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["target"] for row in rows] == ["pcm-hermes", "loihi", "h200"]
    assert all(row["data"] == "mine.py:stripes" and row["model"] == "mine.py:Net" for row in rows)
    digital = rows[2]["accuracy"]["mean"]
    assert digital > 0.9, "it learns"
    assert rows[0]["accuracy"]["mean"] > 0.8
    assert [layer["layer"] for layer in rows[0]["layers"] if layer["tiles"]] == ["features", "head"]
    assert list(tmp_path.glob("*.jsonl")) == []


def test_init_dry_run_run_and_flags_that_override(own, hpml, tmp_path):
    done = hpml("init", "mine.toml")
    assert (done.returncode, "hpml-sim run mine.toml" in done.stderr) == (0, True)
    assert "--force" in hpml("init", "mine.toml").stderr
    asked = ["run", "mine.toml", *own, "--on", "loihi", "pcm-hermes", "--out", "out"]
    dry = hpml(*asked, "--dry-run", "--json")
    said = json.loads(dry.stdout)
    assert (said["rows"], said["rows_done"], said["networks"]) == (2, 0, 1)
    assert said["seconds"] > 0
    assert "measured here" in said["provenance"]
    assert not (tmp_path / "out").exists()
    assert hpml(*asked, "--log-file", "said.txt").returncode == 0
    assert "2 rows of run" in (tmp_path / "said.txt").read_text()
    assert "0 s" in hpml("run", "out/run.toml", "--resume", "--dry-run").stdout.replace("1 s", "0 s")
    assert json.loads(hpml("report", "out", "--json").stdout)["rows"] == 2
    assert hpml("run", "nothing.toml").returncode == 2
    assert "did you mean 'chips'" in _with(tmp_path / "bad.toml", "[compare]\nchipz = 1", hpml)


def _with(path, text, hpml):
    path.write_text(text)
    return hpml("run", str(path)).stderr


def test_a_sweep_and_a_search_from_the_command_line(own, hpml):
    swept = hpml("sweep", *own, "--on", "loihi", "--over", "steps=2,3", "model.width=2,4", "--jobs", "1", "--json")
    assert [json.loads(line)["options"] for line in swept.stdout.splitlines()] == [
        {"steps": s, "model.width": w} for s in (2, 3) for w in (2, 4)
    ]
    arguments = ["--on", "loihi", "--over", "steps=1..6", "--trials", "3", "--jobs", "1"]
    shown = hpml("search", *own, *arguments)
    assert "as given" in shown.stdout
    trials = [json.loads(line) for line in hpml("search", *own, *arguments, "--json").stdout.splitlines()]
    assert [trial["trial"] for trial in trials] == [-1, 0, 1, 2]


def test_the_shell_completes(hpml):
    assert "search" in hpml("completion", "bash").stdout
