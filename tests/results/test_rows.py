"""Rows on disk: whole or not at all, whoever writes and whatever crashes."""

import dataclasses
import json
import random
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from hpml_sim.cost import Estimate
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.result import load_results
from hpml_sim.measurement import Measurement, Window
from hpml_sim.results import SCHEMA, ResultFile, Row, config_hash, to_frame
from hpml_sim.tasks.score import Score
from hpml_sim.units.bands import Band


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
        "scores": [
            {
                "values": [0.9],
                "mean": 0.9,
                "std": 0.0,
                "n": 1,
                "samples": 10,
                "ci95": (0.8, 0.95),
            }
        ],
        "estimates": [
            {
                "card": "cpu",
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


@pytest.mark.parametrize("version", [1, 2, 3, 4, SCHEMA + 1, "2", None])
def test_another_format_is_refused_in_one_line_that_says_who_wrote_it(tmp_path, version):
    path = tmp_path / "results.jsonl"
    old = {**row().model_dump(mode="json"), "schema_version": version, "versions": {"hpml_sim": "0.1.0"}}
    path.write_text(json.dumps(old) + "\n")
    with pytest.raises(HpmlError, match=r"line 1: hpml_sim 0\.1\.0 wrote .*compute it again") as refused:
        ResultFile(path).read()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        b'{"schema_version": 5, "target": 3}',
        b"[]",
        b"3",
        b"{",
        b'{"target": "cpu"}',
        b'{"\xff": 1}',
        b"[" * 100_000,
        b'{"schema_version": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_line_that_is_no_row_is_refused_in_one_line(tmp_path, line):
    path = tmp_path / "results.jsonl"
    ResultFile(path).append(row())
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(HpmlError, match=r"line 2: not a result row: .*--resume") as refused:
        ResultFile(path).read()
    assert "\n" not in str(refused.value)


def test_no_flipped_bit_of_a_row_is_read(tmp_path):
    """But for one in a line's end: then two lines are one, or a last line is torn, which is said."""
    file = ResultFile(tmp_path / "results.jsonl")
    rows = [row(seed=seed) for seed in range(2)]
    for one in rows:
        file.append(one)
    good, draw = file.path.read_bytes(), random.Random(0)
    for _ in range(500):
        bit = draw.randrange(8 * (len(good) - 1))
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        file.path.write_bytes(damaged)
        with pytest.raises(HpmlError, match=r"results\.jsonl, line [12]: ") as refused:
            file.read()
        assert "\n" not in str(refused.value)


def test_a_row_that_stands_twice_is_refused(tmp_path):
    file = ResultFile(tmp_path / "results.jsonl")
    file.append(row())
    file.path.write_bytes(file.path.read_bytes() * 2)
    with pytest.raises(HpmlError, match="rows 1 and 2 are of the same"):
        file.read()


def test_the_frame_has_a_line_a_batch_and_units_in_its_names(tmp_path):
    ResultFile(tmp_path / "results.jsonl").append(row())
    result = load_results(tmp_path)
    assert result.rows == (row(),)
    frame = result.table()
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


def test_rows_of_a_run_that_was_replaced_are_written_anew(tmp_path, caplog):
    path = tmp_path / "results.jsonl"
    writer = ResultFile(path)
    assert writer.append(row(seed=0))
    assert writer.append(row(seed=1))
    path.unlink()  # as `--force` does
    assert ResultFile(path).append(row(seed=2))
    assert writer.append(row(seed=0)), "its key is of the run before"
    assert not writer.append(row(seed=2)), "the other writer's"
    assert [r.seed for r in ResultFile(path).read()] == [2, 0]
    assert "already" in caplog.text


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


def measurement(**changes):
    figures = {
        "device": "a CPU",
        "batch": 1,
        "latency_s": 2e-5,
        "latency_p10_s": 1e-5,
        "latency_p90_s": 3e-5,
        "throughput_hz": 5e4,
        "calls": 3,
        "energy_j": None,
        "energy_provenance": None,
        "energy_reason": "no meter",
        "window_s": 1e-4,
        "samples_s": (1e-5, 2e-5, 3e-5),
        "windows": ({"seconds": 1e-4, "calls": 3, "joules": None},),
    }
    return {**figures, **changes}


def test_a_measurement_comes_back_without_the_time_of_every_call(tmp_path):
    one = row(measurements=[Measurement(**measurement(windows=(Window(1e-4, 3, None),)))])
    ResultFile(tmp_path / "results.jsonl").append(one)
    (back,) = ResultFile(tmp_path / "results.jsonl").read()
    assert back == one
    assert one.measurements[0].samples_s == (1e-5, 2e-5, 3e-5)
    assert back.measurements[0].samples_s == ()
    assert b"samples_s" not in (tmp_path / "results.jsonl").read_bytes()


def test_a_row_holds_the_objects_that_the_library_computes_with():
    one = row(scores=[Score.of([0.9, 0.8], samples=10)])
    assert isinstance(one.score, Score)
    assert isinstance(one.estimates[0], Estimate)
    assert isinstance(one.estimates[0].energy_j, Band)
    assert one.score == Score.of([0.9, 0.8], samples=10)


def estimate(**changes):
    return {**dataclasses.asdict(row().estimates[0]), **changes}


def accuracy(**changes):
    return {**dataclasses.asdict(row().score), **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": [accuracy(mean=float("nan"))]},
        {"accuracy": accuracy(values=[float("inf")])},
        {"scores": [accuracy(mean=7.5)]},
        {"scores": [accuracy(n=2)]},
        {"scores": [accuracy(unknown=1)]},
        {"measurements": [measurement(latency_s=float("nan"))]},
        {"measurements": [measurement(energy_j=float("inf"))]},
        {"measurements": [measurement(throughput_hz=0.0)]},
        {"estimates": [estimate(energy_j={"low": -2.0, "nominal": 1.0, "high": 3.0})]},
        {"estimates": [estimate(energy_j={"low": 2.0, "nominal": 1.0, "high": 3.0})]},
        {
            "estimates": [
                {
                    **dataclasses.asdict(row().estimates[0]),
                    "latency_s": {"low": 0.0, "nominal": float("nan"), "high": 3.0},
                }
            ]
        },
    ],
)
def test_figures_that_make_no_sense_are_no_row(changes):
    with pytest.raises(ValidationError):
        row(**changes)


def test_an_infinite_bound_comes_back(tmp_path):
    band = {"low": 0.0, "nominal": 1.0, "high": float("inf")}
    one = row(estimates=[{**dataclasses.asdict(row().estimates[0]), "throughput_hz": band}])
    ResultFile(tmp_path / "results.jsonl").append(one)
    assert ResultFile(tmp_path / "results.jsonl").read() == [one]


def test_the_frame_says_its_units_and_has_the_options_as_columns():
    frame = to_frame([row(options={"adc_bits": 4}, time_s=60.0)])
    units = frame.attrs["units"]
    assert (units["energy_j_low"], units["measured_latency_s"], units["time_s"]) == ("J", "s", "s")
    assert (units["area_mm2_high"], units["throughput_hz_nominal"], units["accuracy_ci95_low"]) == (
        "mm²",
        "1/s",
        "share",
    )
    without = {"target", "kind", "card", "seed", "batch", "scope", "notes", "accuracy_n", "accuracy_over", "adc_bits"}
    assert not without & units.keys()
    assert frame["adc_bits"].tolist() == [4, 4]
