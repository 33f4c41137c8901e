"""Rows on disk: whole or not at all, whoever writes and whatever crashes."""

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from hpml_sim.errors import HpmlError
from hpml_sim.results import ResultFile, Row, config_hash, load_results, to_frame


def row(target="cpu", seed=0, time_s=None, **changes):
    fields = {
        "run": "0" * 12,
        "model": "mlp",
        "data": "digits",
        "target": target,
        "config": {"target": "Digital", "card": "cpu"},
        "card": {"name": "cpu", "title": "a CPU", "kind": "digital", "version": 1, "scope": "board"},
        "seed": seed,
        "time_s": time_s,
        "accuracy": {
            "values": [0.9],
            "mean": 0.9,
            "std": 0.0,
            "n": 1,
            "samples": 10,
            "ci95": (0.8, 0.95),
            "over": "test samples",
        },
        "estimates": [
            {
                "provenance": "estimated:cpu",
                "scope": "board",
                "batch": batch,
                "energy_j": {"low": 1e-6, "nominal": 2e-6, "high": 3e-6},
                "latency_s": {"low": 1e-6, "nominal": 2e-6, "high": 3e-6},
                "throughput_hz": {"low": 1.0, "nominal": 2.0, "high": 3.0},
                "area_mm2": None,
                "terms": [],
                "mapping": {},
                "excluded": [],
                "sources": {},
            }
            for batch in (1, 64)
        ],
        "measurements": [],
        "layers": [],
        "notes": ["<&>"],
        "versions": {},
        "machine": {},
    }
    return Row.model_validate({**fields, **changes})


def test_rows_come_back_as_they_were_written(tmp_path):
    file = ResultFile(tmp_path / "run" / "results.jsonl")
    rows = [row(seed=i, time_s=float(i)) for i in range(3)]
    for r in rows:
        file.append(r)
    assert file.read() == rows


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_torn_last_line_is_dropped_said_and_written_over(tmp_path, caplog, cut):
    file = ResultFile(tmp_path / "results.jsonl")
    file.append(row(seed=0))
    file.append(row(seed=1))
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-cut])
    assert [r.seed for r in file.read()] == [0]
    assert "torn" in caplog.text
    file.append(row(seed=2))
    assert [r.seed for r in file.read()] == [0, 2]


def test_many_writers_never_mix_their_lines(tmp_path):
    path = tmp_path / "results.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: ResultFile(path).append(row(seed=seed)), range(64)))
    assert sorted(r.seed for r in ResultFile(path).read()) == list(range(64))


def test_a_full_disk_loses_nothing_and_says_what_to_do(tmp_path):
    """The limit on the size of files stands for a full disk: the write fails part of the way."""
    script = f"""
        import resource, sys
        sys.path.insert(0, {str(tmp_path.parent)!r})
        from hpml_sim.errors import HpmlError
        from hpml_sim.results import ResultFile, Row
        from pathlib import Path
        file = ResultFile(Path({str(tmp_path / "results.jsonl")!r}))
        row = Row.model_validate_json(Path({str(tmp_path / "row.json")!r}).read_text())
        file.append(row)
        size = file.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        try:
            file.append(row.model_copy(update=dict(seed=1)))
        except HpmlError as error:
            assert "--resume" in str(error), error
            assert file.path.stat().st_size == size
            print("refused, whole:", len(file.read()))
    """
    (tmp_path / "row.json").write_text(row().model_dump_json())
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "refused, whole: 1", done.stderr


def test_another_format_is_refused_with_the_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps({**row().model_dump(mode="json"), "schema_version": 99}) + "\n")
    with pytest.raises(HpmlError, match=r"line 1: format 99"):
        ResultFile(path).read()
    path.write_text('{"schema_version": 1, "target": 3}\n')
    with pytest.raises(HpmlError, match="line 1: not a result row"):
        ResultFile(path).read()


def test_the_frame_has_a_line_a_batch_and_units_in_its_names(tmp_path):
    ResultFile(tmp_path / "results.jsonl").append(row())
    frame = load_results(tmp_path)
    assert frame["batch"].tolist() == [1, 64]
    assert frame["energy_j_nominal"].tolist() == [2e-6, 2e-6]
    assert frame["accuracy_mean"].tolist() == [0.9, 0.9]
    assert frame["measured_energy_j"].tolist() == [None, None]
    assert frame.attrs["rows"] == [row()]


def test_no_results_there(tmp_path):
    with pytest.raises(HpmlError, match="no results there"):
        load_results(tmp_path)


def test_the_hash_ignores_the_order_of_keys():
    assert config_hash({"a": 1, "b": [2, 3]}) == config_hash({"b": [2, 3], "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})


def test_format_1_is_brought_up_to_date(tmp_path):
    old = {**row().model_dump(mode="json"), "schema_version": 1}
    del old["options"]
    (tmp_path / "results.jsonl").write_text(json.dumps(old) + "\n")
    assert ResultFile(tmp_path / "results.jsonl").read() == [row()]


def test_rows_of_two_runs_are_never_mixed(tmp_path):
    file = ResultFile(tmp_path / "results.jsonl")
    file.append(row())
    file.append(row(seed=1, run="1" * 12))
    with pytest.raises(HpmlError, match=r"several runs.*never mixed"):
        load_results(tmp_path)


def test_a_row_that_another_writer_has_written_is_not_written_twice(tmp_path, caplog):
    mine, other = ResultFile(tmp_path / "results.jsonl"), ResultFile(tmp_path / "results.jsonl")
    assert mine.append(row(seed=0))
    assert other.append(row(seed=1))
    assert not mine.append(row(seed=1))
    assert not other.append(row(seed=0))
    assert mine.append(row(seed=2))
    assert "already" in caplog.text
    assert [r.seed for r in mine.read()] == [0, 1, 2]


def test_processes_that_write_the_same_rows_write_each_once(tmp_path):
    script = f"""
        from pathlib import Path
        from hpml_sim.results import ResultFile, Row
        folder = Path({str(tmp_path)!r})
        row = Row.model_validate_json((folder / "row.json").read_text())
        for seed in range(40):
            ResultFile(folder / "results.jsonl").append(row.model_copy(update=dict(seed=seed)))
    """
    (tmp_path / "row.json").write_text(row().model_dump_json())
    writers = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)]) for _ in range(2)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert sorted(r.seed for r in ResultFile(tmp_path / "results.jsonl").read()) == list(range(40))


def accuracy(**changes):
    return {**row().accuracy.model_dump(), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": accuracy(mean=float("nan"))},
        {"accuracy": accuracy(values=[float("inf")])},
        {"estimates": [{**row().estimates[0].model_dump(), "energy_j": {"low": 2.0, "nominal": 1.0, "high": 3.0}}]},
        {
            "estimates": [
                {**row().estimates[0].model_dump(), "latency_s": {"low": 0.0, "nominal": float("nan"), "high": 3.0}}
            ]
        },
    ],
)
def test_figures_that_make_no_sense_are_no_row(changes):
    with pytest.raises(ValidationError):
        row(**changes)


def test_an_infinite_bound_comes_back(tmp_path):
    band = {"low": 0.0, "nominal": 1.0, "high": float("inf")}
    one = row(estimates=[{**row().estimates[0].model_dump(), "throughput_hz": band}])
    ResultFile(tmp_path / "results.jsonl").append(one)
    assert ResultFile(tmp_path / "results.jsonl").read() == [one]


def test_the_frame_says_its_units_and_has_the_options_as_columns():
    frame = to_frame([row(options={"adc_bits": 4}, time_s=60.0)])
    units = frame.attrs["units"]
    assert (units["energy_j_low"], units["measured_latency_s"], units["time_s"]) == ("J", "s", "s")
    assert (units["area_mm2_high"], units["throughput_hz_nominal"], units["accuracy_ci95_low"]) == ("mm²", "1/s", "1")
    without = {"target", "kind", "card", "seed", "batch", "scope", "notes", "accuracy_n", "accuracy_over", "adc_bits"}
    assert not without & units.keys()
    assert frame["adc_bits"].tolist() == [4, 4]
