"""The benchmark's pairs compute the same, on sizes that fit the simulator: it is ready when a GPU is at hand."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_baselines", repository / "benchmarks" / "baselines.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_pair_of_the_gpu_part_computes_the_same(script, device):
    names = []
    for case in script.gpu_cases(device, small=True):
        assert script.difference(case) <= case.tolerance
        names.append(case.name)
    assert len(names) == (13 if device == "cuda" else 12)  # a CUDA graph needs a GPU


def test_a_pair_that_differs_stops_the_benchmark(script):
    wrong = script.Case("ours", "the peer", lambda: torch.ones(2), lambda: torch.ones(2) * 1.1)
    with pytest.raises(script.DiffersError, match=r"ours differs from the peer by 0\.09"):
        script.difference(wrong)


@pytest.mark.usefixtures("clock")
def test_ratio_is_above_one_where_ours_is_faster(script):
    def takes(seconds: float) -> torch.Tensor:
        time.sleep(seconds)
        return torch.ones(1)

    case = script.Case("quick", "slow", lambda: takes(0.001), lambda: takes(0.01))
    result = script.compare(case, 5, 0.002, lambda: None)
    assert result.ratio == pytest.approx(10, rel=0.01)
    assert result.ratio_p10 <= result.ratio <= result.ratio_p90


def test_without_a_gpu_it_says_so_and_writes_what_it_has(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "gpu_state", lambda: ("no GPU in this machine", {}))
    monkeypatch.setattr(script, "network_cases", lambda window, device: iter(()))
    assert script.main(["--out", str(tmp_path / "results" / "b.json"), "--rounds", "3"]) == 0
    written = json.loads((tmp_path / "results" / "b.json").read_text())
    assert written["gpu"] == {"not_measured": "no GPU in this machine"}
    assert {"cpu", "machine", "versions"} <= set(written)
    assert "GPU: not measured. no GPU in this machine" in capsys.readouterr().out
