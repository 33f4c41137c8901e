import functools
import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpml_sim.cli import VERBS, main, runs
from hpml_sim.cli.examples import EXAMPLES
from hpml_sim.data import list_data
from hpml_sim.experiments.config_files import template
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
        (["--targets", "pcm-hermse"], "pcm-hermes"),
        (["--targets", "cpu", "--data", "digitz"], "digits"),
        (["--targets", "cpu", "--model", "mpl"], "mlp"),
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
        [*CLI, "compare", "--targets", "pcm-hermse"], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_an_unknown_verb_is_guessed(hpml):
    done = hpml("compair")
    assert done.returncode == 2
    assert "Did you mean 'compare'?" in done.stderr
    assert "--chips" in hpml("compare", "--targets", "cpu", "--chps", "3").stderr


def test_help_names_every_verb(hpml):
    done = hpml("--help")
    assert done.returncode == 0
    verbs = ("compare", "sweep", "search", "run", "init", "doctor", "cards", "networks", "data", "validate", "report")
    assert all(verb in done.stdout for verb in verbs)
    assert "130 stopped by Ctrl-C" in done.stdout.replace("\n", " ")


def test_it_says_its_version(hpml):
    done = hpml("--version")
    assert (done.returncode, done.stdout) == (0, f"hpml-sim {importlib.metadata.version('hpml_sim')}\n")


TYPED_BY_USERS = (
    "HPML_SIM",
    "config.json",
    "adc_bits",
    "output_noise",
    "language_model",
    "gpu_products.csv",
    "image_networks.csv",
)
"""Names that a user writes as they are, whatever they look like."""


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_shows_examples_and_nothing_of_the_inside(hpml, verb):
    done = hpml(*verb.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("\n".join(f"  {example}" for example in EXAMPLES[verb]))
    shown = done.stdout
    for typed in TYPED_BY_USERS:
        shown = shown.replace(typed, "")
    for inside in ("asked", "config.", "STR", "{None}", "INT", "PATH", "FLOAT", "None", "_", "Arguments"):
        assert inside not in shown, inside
    assert all(line == line.rstrip() and len(line) <= 120 for line in done.stdout.splitlines())


@pytest.mark.parametrize("command", [command for commands in EXAMPLES.values() for command in commands])
def test_every_example_is_understood(command, monkeypatch, tmp_path):
    if command.startswith("eval"):
        command = command.split("$(")[1].split(")")[0]
    words = shlex.split(command)[1:]
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(template())
    asked = []
    for verb, function in list(VERBS.items()):
        if verb != "run":
            monkeypatch.setitem(
                VERBS, verb, functools.wraps(function)(lambda *_, _verb=verb, **__: asked.append(_verb))
            )
    monkeypatch.setattr(runs, "_execute", lambda *_, **__: asked.append("run") or 0)
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code in (0, None)
    assert asked == ([] if "--help" in words else [" ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--targets", "cpu", "--chps", "3"], "unknown option --chps; did you mean --chips?"),
        (["compare", "--targets", "cpu", "--frobnicate"], "unknown option --frobnicate"),
        (["compare", "--targets", "cpu", "--chips", "3", "4"], "'4': no option takes this value; leave it out"),
        (["compare", "mlp"], "'mlp': no option takes this value; did you mean --model mlp?"),
        (["compare", "mlp", "digits"], "did you mean --model mlp --data digits?"),
        (["sweep", "loihi", "--chips", "3"], "'loihi': no option takes this value; did you mean --targets loihi?"),
        (["compare", "mine.py:make"], "did you mean --model mine.py:make?"),
        (["compare", "--targets", "cpu", "--chips", "x"], "--chips: 'x' is no whole number; give --chips NUMBER"),
        (["compare", "--targets", "cpu", "--lr", "x"], "--lr: 'x' is no number; give --lr NUMBER"),
        (["compare", "--targets", "cpu", "--seeds", "a", "b"], "--seeds: cannot take 'a', 'b'"),
        (["compare"], "targets: give at least one machine"),
        (["estimate"], "missing: MODEL, --targets CARD [CARD ...]"),
        (["estimate", "mlp", "--targets", "cpu", "--precision", "bf99"], "--precision 'bf99': did you mean 'bf16'?"),
        (
            ["search", "--targets", "loihi", "--search-space", "steps=1,2", "--objectives", "speed"],
            "one of energy, latency, score",
        ),
        (["cards", "pcm-hermes"], "did you mean `hpml-sim cards show pcm-hermes`?"),
        (["compare", "mpl", "--targets", "cpu"], "'mpl': no option takes this value; did you mean --model mlp?"),
        (["cards", "shw"], "Did you mean 'cards show'?"),
        (["cards", "show"], "missing: CARD"),
        (["run"], "missing: FILE"),
        (["--versoin"], "unknown option --versoin"),
    ],
)
def test_a_mistake_in_the_usage_costs_one_line_and_status_2(hpml, arguments, said):
    done = hpml(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


@pytest.mark.parametrize("words", [["compare", "--model", "mine.py"], ["estimate", "mine.py"], ["profile", "mine.py"]])
def test_a_file_as_a_model_is_told_what_to_add(hpml, own, words):
    done = hpml(*words, *([] if words[0] == "profile" else ["--targets", "cpu"]))
    assert done.returncode == 2
    assert done.stderr == "hpml-sim: model 'mine.py': say which callable of the file is meant, such as mine.py:Net\n"


def test_networks_and_data_are_listed(hpml):
    networks = {entry["name"]: entry["runs"] for entry in json.loads(hpml("networks", "--json").stdout)}
    assert networks["mlp"]
    assert not networks["llama-3-70b"]
    data = {entry["name"]: entry for entry in json.loads(hpml("data", "--json").stdout)}
    assert data["digits"]["here"]
    assert data["mnist"]["here"] or "hpml-sim data get mnist" in data["mnist"]["get"]
    assert "llama-3-70b" in hpml("networks").stdout
    assert "digits" in hpml("data").stdout
    assert set(data) == set(list_data())


def test_an_estimate_says_what_an_inference_is(hpml):
    shown = hpml("estimate", "llama-3-8b", "--targets", "h200")
    assert "a prompt of 2,048 tokens" in " ".join(shown.stdout.split())
    (decoded,) = json.loads(hpml("estimate", "llama-3-8b", "--targets", "h200", "--phase", "decode", "--json").stdout)
    assert (decoded["phase"], decoded["sequence"], decoded["context"]) == ("decode", 1, 2048)


def test_an_estimate_of_fewer_weights_and_bits(hpml):
    token = ["estimate", "llama-3-8b", "--targets", "h200", "--phase", "decode", "--json"]
    found = [hpml(*token, *more) for more in ([], ["--prune", "2:4"], ["--prune", "2:4", "--quantize", "int8"])]
    joules = [json.loads(done.stdout)[0]["energy_j"]["nominal"] for done in found]
    assert joules == sorted(joules, reverse=True)
    assert len(set(joules)) == 3
    (small,) = json.loads(hpml(*token, "--kv-bits", "4", "--context", "8000").stdout)
    assert any("4 bits" in sentence for sentence in small["assumptions"])
    own = ["estimate", "mlp", "--targets", "pcm-hermes", "loihi", "--data", "digits", "--json"]
    dense, pruned = (json.loads(hpml(*own, *more).stdout) for more in ([], ["--prune", "unstructured=0.8"]))
    assert pruned[0]["energy_j"] == dense[0]["energy_j"]  # crossbars save nothing on scattered zeros
    assert pruned[1]["mapping"]["synapses"] < 0.3 * dense[1]["mapping"]["synapses"]


def test_compare_prints_the_table_and_writes_the_folder(hpml, tmp_path):
    out = tmp_path / "run"
    arguments = ["compare", "--targets", "cpu", "loihi", "--epochs", "1", "--out", str(out)]
    done = hpml(*arguments)
    assert done.returncode == 0, done.stderr
    assert "loihi" in done.stdout
    assert "\x1b" not in done.stdout, "no colors where there is no terminal"
    assert {"run.json", "run.toml", "results.jsonl", "table.csv", "report.html"} <= {p.name for p in out.iterdir()}

    refused = hpml(*arguments)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = hpml(*arguments, "--resume", "--json")
    there = ["cpu", "cpu, fine-tuned", "loihi", "cpu, integer twin of loihi"]
    assert [json.loads(line)["target"] for line in resumed.stdout.splitlines()] == there

    (out / "report.html").unlink()
    assert hpml("report", str(out)).returncode == 0
    assert (out / "report.html").exists()


def test_ctrl_c_leaves_the_finished_rows(tmp_path):
    out = tmp_path / "run"
    file = out / "results.jsonl"
    arguments = ["compare", "--targets", "cpu", "loihi", "--epochs", "400", "--out", str(out)]
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


def test_several_gpus_serve_a_language_model(hpml, tmp_path):
    asked = ("estimate", "llama-3-70b", "--targets", "h200", "--devices", "2", "--phase", "decode", "--json")
    (found,) = json.loads(hpml(*asked).stdout)
    said = {name: found[name] for name in ("phase", "sequence", "context", "batch", "devices")}
    assert said == {"phase": "decode", "sequence": 1, "context": 2048, "batch": 1, "devices": 2}
    assert found["mapping"]["tensor"] == 2
    shown = hpml("estimate", "qwen3-8b", "--targets", "h100", "--phase", "serve", "--output", "300", "--batch", "best")
    assert "one token of an answer; prompts of 512, answers of 300 tokens" in " ".join(shown.stdout.split())
    refused = hpml(*asked, "--parallel", "tensor=3")
    assert refused.returncode == 2
    assert "possible over 2: data=2, pipeline=2, tensor=2" in refused.stderr
    assert "must be best, or ways by name" in hpml(*asked, "--parallel", "fast").stderr
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, '
                                          '"n_positions": 1024, "vocab_size": 50257}')  # fmt: skip
    (own,) = json.loads(hpml("estimate", str(tmp_path / "config.json"), "--targets", "cpu", "--json").stdout)
    assert (own["phase"], own["sequence"]) == ("prefill", 512)


def test_a_network_is_estimated_without_weights(hpml):
    done = hpml("estimate", "llama-3-70b", "--targets", "h200", "pcm-hermes", "--json")
    assert done.returncode == 0, done.stderr
    gpu, crossbar = json.loads(done.stdout)
    assert (gpu["mapping"]["devices"], gpu["scope"], crossbar["scope"]) == (2, "board", "core")
    assert crossbar["mapping"]["chips"] > 10_000
    assert any("chip to chip" in sentence for sentence in crossbar["excluded"])
    shown = hpml("estimate", "llama-3-70b", "--targets", "h200", "pcm-hermes").stdout
    assert "2 devices" in shown
    assert "16,571 chips" in shown
    assert "not ranked" in shown


def test_spiking_machines_are_estimated_from_samples_only(hpml):
    done = hpml("estimate", "mlp", "--targets", "loihi", "--data", "digits", "--json")
    assert json.loads(done.stdout)[0]["mapping"]["spikes"] > 0
    refused = hpml("estimate", "resnet50", "--targets", "loihi")
    assert refused.returncode == 2
    assert "how often neurons fire" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet5", "--targets", "cpu"], "Did you mean 'resnet50'"),
        (["resnet50", "--targets", "cpu", "--sequence", "8"], "takes no sequence"),
        (["resnet50", "--targets", "cpu", "--data", "digits"], "comes with its own input"),
        (["mlp", "--targets", "cpu", "--phase", "decode"], "generate text"),
        (["mlp", "--targets", "cpu", "--prune", "2-4"], "--prune '2-4': unknown; did you mean '2:4'?"),
        (["mlp", "--targets", "cpu", "--prune", "channels=x"], "such as channels=0.3"),
        (["mlp", "--targets", "cpu", "--prune", "channels=1.5"], "must be a finite number > 0 and < 1"),
        (["mlp", "--targets", "cpu", "--prune", "2:4=0.3"], "has a share of its own"),
        (["mlp", "--targets", "cpu", "--prune", "tiles"], "whose tiles are meant"),
        (["mlp", "--targets", "cpu", "--quantize", "int5"], "--quantize 'int5': unknown"),
        (["mlp", "--targets", "cpu", "--quantize", "int8", "--precision", "bf16"], "the network is quantized"),
        (["resnet50", "--targets", "cpu", "--prune", "channels"], "a network by name has no weights"),
        (["llama-3-8b", "--targets", "h200", "--phase", "decode", "--kv-bits", "5"], "must be one of 4, 8, 16"),
        (["json:loads", "--targets", "cpu"], "json:loads"),
        (["mlp", "--targets", "cpu", "--precision", "bf16"], "has a peak for fp32 only"),
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
    arguments = ["compare", *own, "--targets", "pcm-hermes", "loihi", "h200", "--json"]
    done = subprocess.run([*CLI, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    by_target = {row["target"]: row for row in rows}
    # the crossbar trained on after the conversion; the digital network that trained as long stands beside it
    assert set(by_target) == {"pcm-hermes", "loihi", "h200", "h200, fine-tuned", "h200, integer twin of loihi"}
    assert all(row["data"] == "mine.py:stripes" and row["model"] == "mine.py:Net" for row in rows)
    assert by_target["h200"]["scores"][0]["mean"] > 0.9, "it learns"
    assert by_target["pcm-hermes"]["scores"][0]["mean"] > 0.8
    assert [layer["layer"] for layer in by_target["pcm-hermes"]["layers"] if layer["tiles"]] == ["features", "head"]
    assert list(tmp_path.glob("*.jsonl")) == []


def test_init_dry_run_run_and_flags_that_override(own, hpml, tmp_path):
    done = hpml("init", "mine.toml")
    assert (done.returncode, "hpml-sim run mine.toml" in done.stderr) == (0, True)
    assert "--force" in hpml("init", "mine.toml").stderr
    asked = ["run", "mine.toml", *own, "--targets", "loihi", "pcm-hermes", "--out", "out"]
    dry = hpml(*asked, "--dry-run", "--json")
    said = json.loads(dry.stdout)
    assert (said["rows"], said["rows_done"], said["networks"]) == (3, 0, 1)
    assert said["seconds"] > 0
    assert "measured here" in said["provenance"]
    assert not (tmp_path / "out").exists()
    assert hpml(*asked, "--log-file", "said.txt").returncode == 0
    assert "3 rows of run" in (tmp_path / "said.txt").read_text()  # with the integer twin of loihi
    assert "0 s" in hpml("run", "out/run.toml", "--resume", "--dry-run").stdout.replace("1 s", "0 s")
    assert json.loads(hpml("report", "out", "--json").stdout)["rows"] == 3
    assert hpml("run", "nothing.toml").returncode == 2
    assert "did you mean 'chips'" in _with(tmp_path / "bad.toml", "[compare]\nchipz = 1", hpml)


def test_a_file_keeps_its_machines_and_its_sweep_and_options_override_both(own, hpml, tmp_path):
    (tmp_path / "mine.toml").write_text(
        "[compare]\nmodel = 'mine.py:Net'\ndata = 'mine.py:stripes'\nepochs = 1\n"
        "[compare.targets]\nquick = { card = 'loihi', steps = 2 }\n"
        "[sweep]\nsearch_space = { 'model.width' = [2, 4] }\n[run]\njobs = 1\n"
    )

    def targets(*options):
        done = hpml("run", "mine.toml", "--dry-run", "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["targets"]

    assert targets() == ["quick model.width=2", "quick model.width=4"]
    assert targets("--search-space", "steps=3") == ["quick steps=3"]
    assert targets("--targets", "loihi-2") == ["loihi-2 model.width=2", "loihi-2 model.width=4"]


def _with(path, text, hpml):
    path.write_text(text)
    return hpml("run", str(path)).stderr


def test_a_sweep_and_a_search_from_the_command_line(own, hpml):
    swept = hpml(
        "sweep", *own, "--targets", "loihi", "--search-space", "steps=2,3", "model.width=2,4", "--jobs", "1", "--json"
    )
    assert [json.loads(line)["options"] for line in swept.stdout.splitlines()] == [
        {"steps": s, "model.width": w} for s in (2, 3) for w in (2, 4)
    ]
    arguments = ["--targets", "loihi", "--search-space", "steps=1..6", "--trials", "3", "--jobs", "1"]
    shown = hpml("search", *own, *arguments)
    assert "as given" in shown.stdout
    trials = [json.loads(line) for line in hpml("search", *own, *arguments, "--json").stdout.splitlines()]
    assert [trial["trial"] for trial in trials] == [-1, 0, 1, 2]


def test_the_shell_completes(hpml):
    assert "search" in hpml("completion", "bash").stdout


def test_layers_are_assigned(hpml):
    options = ["--epochs", "1", "--times", "1 day", "--chips", "1", "--loses-at-most", "0.2", "--json"]
    done = hpml("assign", *options, "--search-space", "adc_bits=4,8")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert found["lost"] <= 0.2
    assert found["energy_j"] < found["digital_energy_j"]
    assert [row["layer"] for row in found["layers"] if row["target"] != "digital"] == list(found["targets"])
    assert {target["card"] for target in found["targets"].values()} == {"pcm-hermes"}


def test_an_assignment_of_options_that_no_crossbar_has(hpml):
    done = hpml("assign", "--search-space", "model.width=4,8")
    assert done.returncode == 2
    assert "options of the network are not assigned to its layers" in done.stderr
