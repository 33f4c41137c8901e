"""Sweeps: which points, the same rows wherever they are computed, and never one twice, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import hpml_sim as hs
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.experiments.config import SweepConfig
from hpml_sim.experiments.points import sweep_points
from hpml_sim.experiments.target_list import labeled_targets
from hpml_sim.results import ResultFile
from hpml_sim.targets.checking import checked

OWN = Path(__file__).parents[1] / "own_code.py"
MODEL, DATA = f"{OWN}:net", f"{OWN}:data"
SMALL = {"chips": 1, "epochs": 1, "finetune_epochs": 0, "times": ["1 s", "1 day"]}
SPACE = {"adc_bits": [4, 6], "model.width": [4, 8], "steps": [2, 3]}
TARGETS = ["pcm-hermes", "loihi"]


def figures(rows):
    """What must be equal wherever a row was computed."""
    reported_separately = {"machine", "run"}
    return {row.key: row.model_dump(exclude=reported_separately) for row in rows}


@pytest.fixture(scope="module")
def alone():
    return hs.sweep(MODEL, DATA, TARGETS, search_space=SPACE, seeds=2, jobs=1, **SMALL)


def points(search_space, targets=("pcm-hermes",), **options):
    config = checked(SweepConfig, {"search_space": search_space, **options})
    return sweep_points(config, labeled_targets(targets), "mlp")


# ------------------------------------------------------------------------------------------------------- which points


def test_every_combination_of_the_options_that_a_target_has():
    found = points({"adc_bits": [4, "default"], "steps": [5], "model.width": [8, 16]}, targets=TARGETS)
    assert [p.label for p in found] == [
        "pcm-hermes adc_bits=4 model.width=8",
        "pcm-hermes adc_bits=4 model.width=16",
        "pcm-hermes model.width=8",
        "pcm-hermes model.width=16",
        "loihi steps=5 model.width=8",
        "loihi steps=5 model.width=16",
    ]
    assert found[0].target == hs.Analog("pcm-hermes", adc_bits=4)
    assert found[0].network == {"width": 8}
    assert found[-1].target == hs.Spiking("loihi", steps=5)


def test_options_of_synapses_and_of_targets_of_ones_own():
    targets = {"hybrid": {"card": "loihi", "synapses": {"card": "pcm-hermes"}}}
    found = points({"synapses.output_noise": [0.0, 0.1]}, targets)
    assert [p.target.synapses.output_noise for p in found] == [0.0, 0.1]


def test_random_trials_stay_in_their_ranges_and_repeat():
    space = {
        "output_noise": hs.Range(0.001, 0.1, log=True),
        "adc_bits": hs.Range(4, 6),
        "compensation": ["none", "column"],
    }
    drawn = points(space, trials=200, trial_seed=1)
    assert [p.options for p in drawn] == [p.options for p in points(space, trials=200, trial_seed=1)]
    assert [p.options for p in drawn] != [p.options for p in points(space, trials=200, trial_seed=2)]
    levels = [p.options["output_noise"] for p in drawn]
    assert all(0.001 <= n <= 0.1 for n in levels)
    # log-uniform: half below the geometric mean; 200 trials leave [70, 130] once in 50,000 seeds
    assert 70 <= sum(n < 0.01 for n in levels) <= 130
    assert {p.options["adc_bits"] for p in drawn} == {4, 5, 6}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "nothing to vary"),
        ({"adc_bit": [4]}, "Did you mean 'adc_bits'"),
        ({"width": [4]}, "'model.width'"),
        ({"model.depth": [4]}, "model.depth"),
        ({"adc_bits": [4, 4]}, "none twice"),
        ({"adc_bits": []}, "at least one value"),
        ({"adc_bits": [99]}, "adc_bits=99"),
        ({"adc_bits": hs.Range(4, 8)}, "trials="),
        ({"adc_bits": {"low": 8, "high": 4}}, "low must be below high"),
        ({"card": ["loihi"]}, "kind 'neuromorphic'"),
    ],
)
def test_what_cannot_be_swept_over_is_named_before_anything_runs(space, said, tmp_path):
    with pytest.raises(HpmlError, match=said):
        hs.sweep("mlp", "digits", ["pcm-hermes"], search_space=space, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_that_is_made_already_has_no_arguments():
    with pytest.raises(UnknownNameError, match=r"model\.width"):
        hs.sweep(hs.models.mlp(64, 10), "digits", ["pcm-hermes"], search_space={"model.width": [4]})


# ---------------------------------------------------------------------------------------- the same rows, and only once


def test_options_are_columns_and_the_clock_is_left_alone(alone):
    table = alone.table()
    assert len(alone.rows) == 2 * (4 * 2 + 4)
    assert set(table["adc_bits"].dropna()) == {4, 6}
    assert set(table["model.width"]) == {4, 8}
    energy = table[table["card"] == "pcm-hermes"].groupby(["model.width", "adc_bits"])["energy_j_nominal"].first()
    assert all(energy[width, 4] < energy[width, 6] for width in (4, 8)), "coarser converters take less"
    assert table.attrs["units"]["energy_j_nominal"] == "J"
    assert "adc_bits" not in table.attrs["units"]
    assert not any(row.measurements for row in alone.rows)


def test_two_processes_give_the_rows_of_one(alone, tmp_path):
    two = hs.sweep(MODEL, DATA, TARGETS, search_space=SPACE, seeds=2, jobs=2, out=tmp_path / "run", **SMALL)
    assert figures(two.rows) == figures(alone.rows)
    assert [r.key for r in two.rows] == [r.key for r in alone.rows]
    assert len(ResultFile(tmp_path / "run" / "results.jsonl").read()) == len(alone.rows)
    assert two.plan.hash == alone.plan.hash


@pytest.mark.slow
def test_a_dask_cluster_one_of_whose_workers_is_killed_gives_the_same_rows(alone, tmp_path):
    scheduler_file = tmp_path / "scheduler.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(what, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(scheduler_file)]
        with (tmp_path / "dask.log").open("a") as log:
            return subprocess.Popen(
                [*command, "--no-dashboard", *options], stdout=log, stderr=log, cwd=tmp_path, env=environment
            )

    scheduler = start("scheduler", "--port", "0")
    workers = [start("worker", "--no-nanny", "--nthreads", "2") for _ in range(2)]
    out = tmp_path / "run"
    killed = threading.Event()

    def kill_one_halfway():
        file = out / "results.jsonl"
        while not (file.exists() and file.read_bytes().count(b"\n") >= 4):
            time.sleep(0.01)
        workers[0].kill()
        killed.set()

    try:
        deadline = time.monotonic() + 120
        while not scheduler_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        address = json.loads(scheduler_file.read_text())["address"]
        threading.Thread(target=kill_one_halfway, daemon=True).start()
        found = hs.sweep(MODEL, DATA, TARGETS, search_space=SPACE, seeds=2, dask=address, out=out, **SMALL)
        assert killed.is_set()
        assert workers[0].wait(timeout=10) == -signal.SIGKILL
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
    assert figures(found.rows) == figures(alone.rows)
    assert len(ResultFile(out / "results.jsonl").read()) == len(alone.rows)


def test_no_scheduler_is_said():
    with pytest.raises(HpmlError, match="no scheduler answers"):
        hs.sweep(MODEL, DATA, TARGETS, search_space=SPACE, dask="nonsense://nowhere", **SMALL)


KILLED_TEN_TIMES = """
    import os, random, signal, sys, time
    from pathlib import Path
    import hpml_sim as hs
    from hpml_sim.analog import program
    from hpml_sim.results import ResultFile

    model, data, out = sys.argv[1:]
    file = Path(out) / "results.jsonl"

    def sweep():
        space = {"adc_bits": [4, 5, 6, 7], "dac_bits": [4, 5]}
        options = dict(seeds=2, chips=1, epochs=1, finetune_epochs=0, jobs=1, out=out, resume=True)
        return hs.sweep(model, data, ["pcm-hermes"], search_space=space, **options)

    def content():
        return file.read_bytes() if file.exists() else b""

    import aihwkit.inference, optuna  # imports are not what is to be killed
    moments, interrupted, before = random.Random(0), 0, b""
    for attempt in range(10):
        child = os.fork()
        if child == 0:
            sweep()
            os._exit(0)
        if attempt >= 2:  # the first two are killed whenever, the others some rows later, wherever they then are
            end, enough = time.monotonic() + 60, before.count(b"\\n") + moments.randint(1, 4)
            while content().count(b"\\n") < enough and time.monotonic() < end:
                time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.2 if attempt < 2 else 0.02))
        os.kill(child, signal.SIGKILL)
        interrupted += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        after = content()
        whole = before[: before.rfind(b"\\n") + 1]
        assert after.startswith(whole), "a finished row was changed"
        before = after
    unfinished = before.count(b"\\n")
    done = sweep()
    rows = ResultFile(file).read()
    print(interrupted, unfinished, len(rows), len({row.key for row in rows}), len(done.rows))
"""


@pytest.mark.slow
def test_killed_ten_times_it_ends_with_every_row_once(tmp_path):
    """`kill -9` at random moments: 64 rows, none twice, none torn; what was finished stays as it was."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED_TEN_TIMES), MODEL, DATA, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    interrupted, unfinished, *counts = map(int, done.stdout.split())
    assert interrupted == 10
    assert 0 < unfinished < 64, "the kills must fall into the run"
    assert counts == [64, 64, 64]


def test_a_worker_that_dies_is_replaced(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    options = {"search_space": {"steps": [2, 3]}, "seeds": 2, **SMALL}
    found = hs.sweep(f"{OWN}:fatal_once", DATA, ["loihi"], jobs=2, **options)
    assert (tmp_path / "died").exists()
    assert "a worker process died" in caplog.text
    healthy = hs.sweep(MODEL, DATA, ["loihi"], jobs=1, **options)
    assert [row.score for row in found.rows] == [row.score for row in healthy.rows]


def test_workers_that_always_die_are_said():
    with pytest.raises(HpmlError, match=r"died 3 times.*--resume"):
        hs.sweep(f"{OWN}:fatal", DATA, ["cpu"], search_space={"precision": ["fp32", "bf16"]}, jobs=2, **SMALL)


def test_two_runs_in_one_folder_at_a_time_are_refused(tmp_path):
    from hpml_sim.experiments.run_folder import open_run

    first = hs.compare(MODEL, DATA, ["loihi"], out=tmp_path / "run", **SMALL)
    with (
        open_run(tmp_path / "run", first.plan, resume=True),
        pytest.raises(HpmlError, match="another process is running"),
    ):
        hs.compare(MODEL, DATA, ["loihi"], out=tmp_path / "run", resume=True, **SMALL)


def test_what_is_not_finite_costs_its_own_accuracy_and_nothing_else(tmp_path):
    rows = hs.sweep(
        f"{OWN}:diverging", DATA, TARGETS, search_space={"adc_bits": [4, 6]}, jobs=1, out=tmp_path, **SMALL
    ).rows
    assert len(rows) == 5
    assert all(row.score is None and "no accuracy: the loss became nan" in row.notes[0] for row in rows)
    assert hs.load_results(tmp_path).table()["accuracy_mean"].tolist() == [None] * 5
