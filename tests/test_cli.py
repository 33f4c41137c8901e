import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hpml_sim.results import ResultFile

CLI = [sys.executable, "-m", "hpml_sim.cli"]


def hpml(*arguments, **options):
    return subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False, timeout=300, **options)


@pytest.mark.parametrize(
    ("arguments", "guess"),
    [
        (["--on", "pcm-hermse"], "pcm-hermes"),
        (["--on", "cpu", "--data", "digitz"], "digits"),
        (["--on", "cpu", "--model", "mpl"], "mlp"),
    ],
)
def test_a_typo_costs_one_line_and_status_2(arguments, guess):
    done = hpml("compare", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"Did you mean {guess!r}?" in done.stderr


def test_an_unknown_verb_is_status_2():
    assert hpml("compair").returncode == 2


def test_help_names_every_verb():
    done = hpml("--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in ("compare", "doctor", "cards", "validate", "report"))


def test_compare_prints_the_table_and_writes_the_folder(tmp_path):
    out = tmp_path / "run"
    arguments = ["compare", "--on", "cpu", "loihi", "--epochs", "1", "--out", str(out)]
    done = hpml(*arguments)
    assert done.returncode == 0, done.stderr
    assert "loihi" in done.stdout
    assert "\x1b" not in done.stdout, "no colours where there is no terminal"
    assert {p.name for p in out.iterdir()} == {"run.json", "results.jsonl", "table.csv", "report.html"}

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


def test_cards_are_listed_shown_and_checked(tmp_path):
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
