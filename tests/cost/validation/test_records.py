from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from hpml_sim.cli import main
from hpml_sim.cli.validation import records_table
from hpml_sim.cost.validation.records.images import Setting
from hpml_sim.cost.validation.records.machines import machine
from hpml_sim.cost.validation.records.summary import Summary, held_against
from hpml_sim.errors import HpmlError

PRODUCTS = ("gpu", "model", "layer", "tensor_parallel", "m_tokens", "k", "n", "median_ms_fp16")
IMAGES = ("setting", "model", "image_size", "batch", "images_per_s", "gmacs", "params_m")


def write(path: Path, columns: tuple[str, ...], *rows: tuple[object, ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        tmp_path / "gpu_products.csv",
        PRODUCTS,
        ("a100", "Llama-2-7b-hf", "attn_post_proj", 1, 512, 4096, 4096, 0.088),
        ("h100", "Llama-2-7b-hf", "attn_post_proj", 1, 2048, 4096, 4096, 0.096),
        ("h100", "Llama-2-7b-hf", "attn_post_proj", 1, 1, 4096, 4096, 0.016),
        ("no-such-gpu", "Llama-2-7b-hf", "attn_post_proj", 1, 1, 4096, 4096, 1.0),
    )
    write(
        tmp_path / "image_networks.csv",
        IMAGES,
        ("amp-nchw-pt240-cu124-rtx4090-dynamo", "resnet18", 224, 256, 25948.79, 1.82, 11.69),
        ("amp-nchw-pt240-cu124-rtx4090-dynamo", "no_such_network", 224, 256, 100, 1, 1),
        ("fp32-nchw-pt240-cpu-i7_12700h-dynamo", "resnet18", 224, 1, 62.22, 1.82, 11.69),
    )
    return tmp_path


def test_every_row_is_estimated_or_skipped_by_name(folder: Path) -> None:
    found = {(s.file, s.gpu, s.group): s for s in held_against(folder)}
    h100 = found["gpu_products.csv", "h100", ""]
    assert (h100.rows, h100.skipped, h100.quantity) == (2, 0, "time")
    assert h100.inside == 1
    assert h100.median_abs_log is not None
    assert h100.median_abs_log < 0.2
    assert found["gpu_products.csv", "h100", "to 16 tokens"].rows == 1
    unknown = found["gpu_products.csv", "no-such-gpu", ""]
    assert (unknown.rows, unknown.why) == (0, {"no card of no-such-gpu": 1})
    images = found["image_networks.csv", "amp-nchw-pt240-cu124-rtx4090-dynamo", ""]
    assert (images.rows, images.why) == (1, {"no shape of no_such_network": 1})
    assert images.inside == 1
    assert found["image_networks.csv", "fp32-nchw-pt240-cpu-i7_12700h-dynamo", ""].inside == 1


def test_the_command_prints_a_table_and_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "image_networks.csv").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["validate", "--records", str(folder)])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "a100" in printed
    assert "no card of no-such-gpu" in printed
    with pytest.raises(SystemExit):
        main(["validate", "--records", str(folder), "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {"file", "gpu", "rows", "skipped", "median_ratio", "mape", "inside"} <= set(rows[0])


def test_reasons_take_no_room_from_the_figures() -> None:
    why = {"card x has no table [kernels], and a reason as long as a reason may get; see the documentation": 1}
    summary = Summary("gpu_products.csv", "h100", "time", "", 2, 1, why, 1.0, 0.041, 0.052, 1.0, 1.0, 1.56)
    screen = io.StringIO()
    Console(width=80, file=screen).print(records_table([summary]))
    printed = " ".join(screen.getvalue().split())
    assert all(figure in printed for figure in ("1.000", "0.041", "5.2%", "1.56"))
    assert "[kernels]" in printed


def test_bad_records_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(HpmlError, match=r"must be a folder with one or more of gpu_products\.csv"):
        held_against(tmp_path)
    path = tmp_path / "gpu_products.csv"
    write(path, ("gpu", "m"), ("a100", 1))
    with pytest.raises(HpmlError, match="has no column k, layer"):
        held_against(tmp_path)
    write(path, PRODUCTS, ("a100", "x", "y", 1, 1, 1, 1, "fast"))
    with pytest.raises(HpmlError, match="median_ms_fp16='fast': must be a number above 0"):
        held_against(tmp_path)


def test_settings_and_machines_are_read_from_their_names() -> None:
    old = Setting.of("amp-nhwc-pt113-cu117-rtx3090")
    assert (old.machine, old.precision, old.engine) == ("rtx3090", "fp16", "torch")
    assert (old.channels_last, old.fused_attention) == (True, False)
    new = Setting.of("amp_bf16-nchw-pt291-cu130-pro6000maxq-dynamo")
    assert (new.machine, new.precision, new.engine) == ("pro6000maxq", "bf16", "torch-compile")
    assert (new.channels_last, new.fused_attention) == (False, True)
    with pytest.raises(HpmlError, match="must be precision-layout-versions-machine"):
        Setting.of("fast")
    for name, card in (("4090", "rtx-4090"), ("a100_dgx", "a100"), ("i9_10940x", "i9-10940x"), ("B200", "b200")):
        found = machine(name)
        assert found is not None
        assert found.name == card
    assert machine("tpu") is None
