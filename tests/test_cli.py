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


def test_an_unknown_verb_is_status_2(hpml):
    assert hpml("compair").returncode == 2


def test_help_names_every_verb(hpml):
    done = hpml("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("compare", "doctor", "cards", "validate", "report"))


def test_compare_prints_the_table_and_writes_the_folder(hpml, tmp_path):
    out = tmp_path / "run"
    arguments = ["compare", "--on", "cpu", "loihi", "--epochs", "1", "--out", str(out)]
    done = hpml(*arguments)
    assert done.returncode == 0, done.stderr
    assert "loihi" in done.stdout
    assert "\x1b" not in done.stdout, "no colours where there is no terminal"
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
    assert any("chip to chip" in sentence for sentence in crossbar["not_counted"])
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
