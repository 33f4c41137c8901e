"""A transformer is trained for the hardware on two processes, sharded by FSDP2 or copied by DDP, as on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.analog.layers import crossbars
from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes

EXACT = {"training_noise": 0.0, "output_noise": 0.0, "weight_clip": None}


def made(adapters: bool = False) -> tuple[LanguageModel, hs.Converted]:
    """A small language model and itself on crossbars, ranges known: processes would learn them from other inputs."""
    torch.manual_seed(0)
    sizes = LlamaSizes(30, width=16, depth=2, heads=2, kv_heads=1, hidden=32, longest=40, rotary_base=1e4, eps=1e-5)
    net = LanguageModel(sizes)
    analog = hs.convert(net, hs.Analog("pcm-hermes", input_range="dynamic", **EXACT), skip="head")
    if adapters:
        analog = hs.lora(analog, rank=2)
    hs.calibrate(analog, texts().tensors[0])
    for crossbar in crossbars(analog).values():
        crossbar.observations.fill_(51)
    return net, analog


def texts() -> TensorDataset:
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(30, (16, 13), generator=drawn)
    return TensorDataset(ids[:, :-1], ids[:, 1:])


def trained(model: torch.nn.Module, **options):
    """Two steps an epoch; the second batch cannot be shared out evenly."""
    data = TensorDataset(*(t[:15] for t in texts().tensors))
    return hs.fit(model, data, task="language_model", epochs=2, batch_size=8, lr=1e-2, show_progress=False, **options)


CASES = {
    "fsdp": {},
    "fsdp, checkpointing": {"checkpoint": True, "max_grad_norm": 0.5},
    "fsdp, adapters": {},
    "ddp, checkpointing": {"checkpoint": True},
    "ddp, bfloat16": {"autocast": "bfloat16", "checkpoint": True},
    "ddp, adapters": {},
}


def run_case(name: str, teach: bool):
    """One training, sharded or not by whoever has made a process group."""
    net, analog = made(adapters="adapters" in name)
    if name.startswith("fsdp") and torch.distributed.is_initialized():
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        for block in analog.network.blocks.children():
            fully_shard(block, mesh=mesh)
        fully_shard(analog, mesh=mesh)
    options = {"teacher": net, "alpha": 1.0, "temperature": 1.0} if teach else {}
    return analog, trained(analog, **CASES[name], **options)


def full(model: torch.nn.Module) -> dict[str, Any]:
    """The whole state dict, wherever its parts lie."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    if not torch.distributed.is_initialized():
        return model.state_dict()
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


_WORKER = """
import json, sys
import torch
sys.path.insert(0, {folder!r})
from test_scale_out import CASES, full, made, run_case
torch.distributed.init_process_group("gloo")
found, states = {{}}, {{}}
for name in CASES:
    model, history = run_case(name, "adapters" in name)
    states[name] = full(model)
    found[name] = history.loss
    if name == "fsdp":
        held = sum(p.to_local().numel() for p in model.parameters())
        found["held"] = [held, sum(p.numel() for p in model.parameters())]
if torch.distributed.get_rank() == 0:
    torch.save(states, {states!r})
    print("FOUND " + json.dumps(found))
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def found(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("scale_out")
    script, states = folder / "worker.py", folder / "states.pt"
    script.write_text(_WORKER.format(folder=str(Path(__file__).parent), states=str(states)))
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, ran.stderr
    return {**json.loads(lines[0].removeprefix("FOUND ")), "states": torch.load(states, weights_only=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_train_as_one_does(found, name):
    model, history = run_case(name, "adapters" in name)
    close = 0.02 if "bfloat16" in name else 1e-3
    assert found[name] == pytest.approx(history.loss, rel=close)
    alone, together = model.state_dict(), found["states"][name]
    assert alone.keys() == together.keys()
    start = made(adapters="adapters" in name)[1].state_dict()
    moved = [key for key in alone if alone[key].is_floating_point() and not torch.equal(alone[key], start[key])]
    assert len(moved) > 10
    for key in moved:
        if "crossbar" not in key:  # Adam divides by the size of a gradient: small ones may step in another direction
            assert float((alone[key] - together[key]).abs().mean()) < (3e-3 if "bfloat16" in name else 3e-4), key


@pytest.mark.slow
def test_each_process_holds_its_part_and_the_whole_loads_into_a_plain_network(found):
    held, whole = found["held"]
    assert held < 0.6 * whole
    _, plain = made()
    plain.load_state_dict(found["states"]["fsdp"])
    chips = hs.program(plain, chips=2, seed=0)
    assert torch.isfinite(chips.at("1 day")(texts().tensors[0])).all()
