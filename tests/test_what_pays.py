"""The page of what compression pays shows the kept results, and in them holds what physics predicts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CROSSBARS, SPIKING, GPUS = ("pcm-hermes", "reram-neurram"), ("loihi-2", "spinnaker-2"), ("h200", "jetson-orin")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compression_benchmark", ROOT / "benchmarks" / "compression.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, str, str], dict[str, Any]]:
    lines = (ROOT / "benchmarks" / "results" / "compression.jsonl").read_text(encoding="utf-8").splitlines()
    return {(c["network"], c["row"], c["column"]): c for c in map(json.loads, lines)}


def _saved(cells: Any, network: str, row: str, column: str, of: str = "energy_j") -> float:
    """The nominal figure over that of the dense row."""
    return cells[network, row, column][of][1] / cells[network, "dense", column][of][1]


def test_the_page_shows_the_kept_cells(benchmark):
    page = (ROOT / "docs" / "what_pays.md").read_text(encoding="utf-8")
    assert benchmark.with_tables(page, benchmark.kept(benchmark.RESULTS)) == page
    assert "x 1.00" in page


def test_every_cell_has_a_figure_or_a_reason(benchmark, cells):
    for network in benchmark.NETWORKS:
        for row in benchmark.ROWS:
            for column in benchmark.COLUMNS:
                cell = cells[network, row, column]
                assert ("energy_j" in cell) != ("why" in cell)
    for column in SPIKING:
        assert "SiLU, softmax" in cells["smollm2", "dense", column]["why"]


def test_scattered_zeros_pay_on_neuromorphic_machines_alone(cells):
    for network in ("cnn", "spiking"):
        assert _saved(cells, network, "unstructured", "loihi-2") < 0.85
        assert all(_saved(cells, network, "unstructured", c) == pytest.approx(1) for c in (*GPUS, "cpu", *CROSSBARS))
    assert all(_saved(cells, "smollm2", "unstructured", c) == pytest.approx(1) for c in (*GPUS, "cpu", *CROSSBARS))


def test_two_of_four_pay_on_gpus_and_not_on_crossbars_or_the_cpu(cells):
    for network in ("cnn", "spiking"):
        assert all(_saved(cells, network, "2:4", c, "best_energy_j") < 0.9 for c in GPUS)
    for network in ("smollm2", "llama"):
        assert all(_saved(cells, network, "2:4", c) < 0.98 for c in GPUS)
        assert _saved(cells, network, "2:4", "cpu") == pytest.approx(1)
    assert all(_saved(cells, "smollm2", "2:4", c) == pytest.approx(1) for c in CROSSBARS)


def test_whole_channels_and_rows_pay_on_crossbars_and_bits_do_not(cells):
    for column in CROSSBARS:
        for row in ("channels", "rows"):
            assert _saved(cells, "smollm2", row, column) < 0.75
        assert _saved(cells, "smollm2", "int4", column) == pytest.approx(1, rel=0.01)


def test_bits_pay_where_bytes_of_weights_are_the_limit(cells):
    assert _saved(cells, "llama", "int4", "jetson-orin") < 0.4
    assert _saved(cells, "llama", "int4", "h200") < 0.6
    assert _saved(cells, "smollm2", "int4", "jetson-orin") < 0.75
    assert _saved(cells, "smollm2", "int4", "cpu") < 0.75
