"""The folder of a run on a disk that is full, and a network that cannot be read."""

import fcntl
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import hpml_sim as hs

OWN = Path(__file__).parents[1] / "own_code.py"
MODEL, DATA = f"{OWN}:net", f"{OWN}:data"
SMALL = {"epochs": 1, "finetune_epochs": 0}

FULL = """
    import resource, sys
    import hpml_sim as hs
    from hpml_sim.errors import HpmlError

    model, data, out, limit = sys.argv[1:]
    import hpml_sim.report.html, pandas, aihwkit.inference, sklearn.datasets
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        hs.compare(model, data, ["loihi"], seeds=2, epochs=1, finetune_epochs=0, out=out)
    except HpmlError as error:
        print(error)
"""


def full(tmp_path, limit):
    """A limit on the size of files stands for the full disk: writes fail part of the way."""
    arguments = [MODEL, DATA, str(tmp_path / "run"), str(limit)]
    # as many threads as here: their number changes the last bits of a sum
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, **threads},
    )  # fmt: skip


def test_a_full_disk_keeps_the_rows_says_so_and_the_run_resumes(tmp_path):
    whole = hs.compare(MODEL, DATA, ["loihi"], seeds=2, **SMALL, out=tmp_path / "whole")
    size = len((tmp_path / "whole" / "results.jsonl").read_bytes())
    for limit, said in ((int(0.7 * size), "could not be written"), (size + 100, "report.html")):
        done = full(tmp_path, limit)
        assert said in done.stdout, done.stderr
        assert "safe" in done.stdout
        resumed = hs.compare(MODEL, DATA, ["loihi"], seeds=2, **SMALL, out=tmp_path / "run", resume=True)
        assert resumed.rows == whole.rows
        subprocess.run(["rm", "-r", str(tmp_path / "run")], check=True)


def test_a_network_that_was_torn_is_trained_again(tmp_path, caplog):
    first = hs.compare(MODEL, DATA, ["loihi"], **SMALL, out=tmp_path)
    (kept,) = (tmp_path / "networks").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    (tmp_path / "results.jsonl").unlink()
    again = hs.compare(MODEL, DATA, ["loihi"], **SMALL, out=tmp_path, resume=True)
    assert "trained again" in caplog.text
    assert again.rows == first.rows


def test_the_log_of_a_run_lies_in_its_folder(tmp_path):
    hs.compare(MODEL, DATA, ["loihi"], **SMALL, out=tmp_path)
    log = (tmp_path / "run.log").read_text()
    assert "training" in log
    assert "2 rows of run" in log  # that of the machine, and that of its integer twin


def test_a_run_that_another_process_holds_is_left_alone(tmp_path):
    """A lock that another opening of the file holds: as that of another process, without a race."""
    done = hs.compare(MODEL, DATA, ["loihi"], **SMALL, out=tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    with (tmp_path / "run.log").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for options in ({"resume": True}, {"force": True}):
            with pytest.raises(hs.HpmlError, match="another process is running this very run"):
                hs.compare(MODEL, DATA, ["loihi"], **SMALL, out=tmp_path, **options)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert hs.compare(MODEL, DATA, ["loihi"], **SMALL, out=tmp_path, resume=True).rows == done.rows
