"""Readers of served and collective records: files of the published form, written here with figures of the records."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpml_sim.cost.validation.records import collectives, serving
from hpml_sim.cost.validation.records.record import Record, Skipped
from hpml_sim.cost.validation.records.summary import READERS, held_against
from hpml_sim.errors import HpmlError

COLUMNS = (
    "model,architecture,params_b,active_params_b,weights,gpu,gpus,tensor_parallel,expert_parallel,data_parallel,"
    "max_num_seqs,mean_batch,mean_output_tokens,median_itl_ms,energy_per_token_j,power_w_all_gpus,tokens_per_s"
)
SERVED = """
meta-llama__Llama-3.1-8B-Instruct,Dense,8.0,8.0,bfloat16,H100,1,1,1,1,64,63.92,395.5,11.500,0.11858,610.3,5147.2
meta-llama__Llama-3.1-70B-Instruct,Dense,70.0,70.0,bfloat16,H100,4,4,1,1,128,127.61,358.9,27.868,0.56337,2183.8,3876.3
Qwen__Qwen3-30B-A3B-Instruct-2507,MoE,30.0,3.0,bfloat16,H100,2,1,2,1,64,63.93,918.3,18.697,0.27189,894.6,3290.2
google__gemma-3-12b-it,Dense,12.0,12.0,bfloat16,B200,1,1,1,1,128,127.68,728.9,18.889,0.13449,834.3,6203.0
nobody__Nothing-1T,Dense,1000.0,1000.0,bfloat16,H100,1,1,1,1,64,63.92,395.5,11.5,0.1,610.3,5147.2
meta-llama__Llama-3.1-8B-Instruct,Dense,8.0,8.0,bfloat16,X999,1,1,1,1,64,63.92,395.5,11.5,0.1,610.3,5147.2
meta-llama__Llama-3.1-8B-Instruct,Dense,8.0,8.0,mxint7,H100,1,1,1,1,64,63.92,395.5,11.5,0.1,610.3,5147.2
"""


def test_served_rows(tmp_path: Path) -> None:
    path = tmp_path / serving.FILE
    path.write_text(COLUMNS + SERVED)
    found = list(serving.read_serving(path))
    rows = [row for row in found if isinstance(row, Record)]
    skipped = [row for row in found if isinstance(row, Skipped)]
    assert len(rows) == 4 * 4
    assert [row.why.partition(":")[0] for row in skipped] == [
        "nobody__Nothing-1T",
        "no card of x999",
        "weights 'mxint7'",
    ]
    by_name = {(row.name, row.group): row for row in rows}
    llama = by_name["meta-llama__Llama-3.1-8B-Instruct x1, batch 63.92", "dense, step"]
    assert llama.measured == pytest.approx(63.92 / 5147.2)
    for row in rows:
        assert row.low <= row.estimate <= row.high
        assert row.estimate == pytest.approx(row.measured, rel=0.2), row


def test_weights_have_short_names_too(tmp_path: Path) -> None:
    path = tmp_path / serving.FILE
    row = SERVED.splitlines()[1]
    path.write_text(f"{COLUMNS}\n{row}\n{row.replace('bfloat16', 'bf16')}\n{row.replace('bfloat16', 'fp16')}\n")
    found = [row.estimate for row in serving.read_serving(path) if isinstance(row, Record)]
    assert len(found) == 3 * 4
    assert found[:4] == found[4:8] == found[8:]


def test_step_power_and_joules_are_one_figure(tmp_path: Path) -> None:
    path = tmp_path / serving.FILE
    path.write_text(COLUMNS + SERVED)
    rows = [
        row
        for row in serving.read_serving(path)
        if isinstance(row, Record) and row.name.startswith("meta-llama__Llama-3.1-70B")
    ]
    step, _, joules, power = (row.estimate for row in rows)
    assert joules == pytest.approx(step * power / 127.61)


def test_collective_rows(tmp_path: Path) -> None:
    path = tmp_path / collectives.FILE
    path.write_text(
        "machine,collective,gpus,size_as_recorded,median_ms\n"
        "h100_dgx,all_reduce,8,36438016,0.2090\n"
        "a100_pairwise_nvlink,all_reduce,2,53477376,0.3160\n"
        "a100_dgx,all_reduce,2,32243712,2.8760\n"
        "v100_dgx1,all_reduce,2,32243712,2.8760\n"
        "h100_dgx,all_shuffle,2,32243712,2.8760\n"
    )
    found = list(collectives.read_collectives(path))
    rows = [row for row in found if isinstance(row, Record)]
    assert [row.gpu for row in rows] == ["h100", "a100", "a100"]
    for row in rows:
        assert row.estimate == pytest.approx(row.measured, rel=0.15)
    assert [row.why for row in found if isinstance(row, Skipped)] == [
        "v100_dgx1: card v100 has no link 'dgx1'; its links: none",
        "collective 'all-shuffle': known are all-reduce, all-gather, all-to-all, send",
    ]


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "", "fast"])
@pytest.mark.parametrize(
    ("name", "column", "row"),
    [
        (serving.FILE, "tokens_per_s", SERVED.split()[0]),
        (serving.FILE, "power_w_all_gpus", SERVED.split()[0]),
        (collectives.FILE, "median_ms", "h100_dgx,all_reduce,8,36438016,0.2090"),
        (collectives.FILE, "gpus", "h100_dgx,all_reduce,8,36438016,0.2090"),
    ],
)
def test_figures_that_are_none_are_named_with_file_and_line(
    tmp_path: Path, name: str, column: str, row: str, text: str
) -> None:
    header = COLUMNS if name == serving.FILE else "machine,collective,gpus,size_as_recorded,median_ms"
    values = dict(zip(header.split(","), row.split(","), strict=True)) | {column: text}
    (tmp_path / name).write_text(f"{header}\n{row}\n{','.join(values.values())}\n")
    with pytest.raises(HpmlError, match=rf"{name}, line 3: {column}='{text}': must be a (whole )?number above 0"):
        held_against(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_files_without_columns_or_rows_and_rows_without_an_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("")
    with pytest.raises(HpmlError, match=f"{name}: has no column") as refused:
        held_against(tmp_path)
    header = str(refused.value).rpartition(" has ")[2].replace(" ", "")
    path.write_text("\ufeff" + header + "\n", encoding="utf-8")  # as a spreadsheet writes it
    (empty,) = held_against(tmp_path)
    assert (empty.gpu, empty.rows, empty.skipped) == ("(no rows)", 0, 0)
    path.write_text(header + "\na100\n")
    with pytest.raises(HpmlError, match=f"{name}, line 2: ends before"):
        held_against(tmp_path)


def test_splits_and_precisions_that_a_machine_does_not_have_are_skipped(tmp_path: Path) -> None:
    row = SERVED.split()[0]
    (tmp_path / serving.FILE).write_text(
        f"{COLUMNS}\n{row.replace('bfloat16,H100', 'fp8,A100')}\n{row.replace('H100,1,1', 'L40S,2,2')}\n"
        f"{row.replace('H100,1,1', 'H100,3,3')}\n{row.replace('H100,1,1', 'H100,4,2')}\n"
    )
    found = {why for summary in held_against(tmp_path) for why in summary.why}
    name = "meta-llama__Llama-3.1-8B-Instruct"
    assert found == {
        "card a100 has no fp8",
        f"{name}: card l40s has no links between GPUs",
        f"{name}: 3 GPUs cannot share its 32 heads of attention evenly",
        f"{name}: 4 GPUs are not tensor=2",
    }
