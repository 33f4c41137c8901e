"""Two gloo processes train as one does: gradients, uneven and too small batches, `fit`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hpml_sim.conversion import convert
from hpml_sim.errors import HpmlError
from hpml_sim.networks import models
from hpml_sim.targets import InMemory
from hpml_sim.training import distributed, fit
from hpml_sim.training.distributed import ProcessGroup

_WORKER = """
import copy, json, sys
import torch
from torch.nn.functional import cross_entropy
from hpml_sim import models
from hpml_sim.analog import calibrate
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.targets import Analog
from hpml_sim.training import fit
from hpml_sim.training.distributed import ProcessGroup

group = ProcessGroup.join(torch.device("cpu"))
torch.manual_seed(group.rank)  # DDP must send process 0's weights to the others
net = models.cnn((1, 8, 8), 10, width=4)
analog = convert(models.mlp(64, 16, 10), Analog("pcm-hermes", training_noise=0.0, output_noise=0.0))
calibrate(analog, torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
for crossbar in crossbars(analog).values():
    crossbar.observations.fill_(51)  # a step in which no range is learned: processes learn from different inputs
found = {"size": group.size, "differences": {}}
for name, model in {"cnn": net, "analog mlp": analog}.items():
    together = group.wrap(model.train())
    alone = copy.deepcopy(model)  # after DDP has sent the weights
    for samples in (8, 7, 1):
        drawn = torch.Generator().manual_seed(samples)
        x = torch.rand(samples, 1, 8, 8, generator=drawn)
        labels = torch.randint(10, (samples,), generator=drawn)
        part, weight = group.shard(torch.arange(samples))
        together.zero_grad()
        (cross_entropy(together(x[part]), labels[part]) * weight).backward()
        alone.zero_grad()
        cross_entropy(alone(x), labels).backward()
        pairs = list(zip(model.parameters(), alone.parameters(), strict=True))
        assert all(float(b.grad.abs().max()) > 1e-4 for _, b in pairs)
        difference = max(float((a.grad - b.grad).abs().max()) for a, b in pairs)
        found["differences"][f"{name}, {samples}"] = float(group.all_reduce(torch.tensor(difference)))

torch.manual_seed(0)
trained = models.mlp(64, 16, 10)
history = fit(trained, "digits", epochs=2, seed=3, show_progress=False)
weight = trained[1].weight.detach()
found |= {"loss": history.loss, "accuracy": history.scores, "weight": weight.tolist()}
noisy = convert(models.mlp(64, 16, 10), Analog("pcm-hermes"))
fit(noisy, "digits", epochs=1, show_progress=False)
learned = convert(models.mlp(64, 16, 10), Analog("pcm-hermes", input_range={"name": "learned", "batches": 50}))
fit(learned, "digits", epochs=2, batch_size=40, show_progress=False)  # 72 steps: the ranges are learned from step 50
found["shifts"] = [float(value) for name, value in learned.named_parameters() if name.endswith("range_shift")]
found["same_everywhere"] = all(
    bool(torch.equal(group.all_reduce(value.double()) / group.size, value.double()))
    for value in (*trained.state_dict().values(), *noisy.state_dict().values(), *learned.state_dict().values())
)
if group.rank == 0:
    print("FOUND " + json.dumps(found))
"""


def torchrun(script: Path, processes: int, repository: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run([*command, str(script)], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def found(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    script = tmp_path_factory.mktemp("distributed") / "worker.py"
    script.write_text(_WORKER)
    ran = torchrun(script, 2, repository)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, ran.stderr
    return json.loads(lines[0].removeprefix("FOUND "))


def test_two_processes_gradients_are_those_of_one(found):
    assert found["size"] == 2
    assert set(found["differences"]) == {f"{name}, {n}" for name in ("cnn", "analog mlp") for n in (8, 7, 1)}
    assert max(found["differences"].values()) <= 1e-6


def test_fit_on_two_processes_follows_fit_on_one(found):
    torch.manual_seed(0)
    net = models.mlp(64, 16, 10)
    history = fit(net, "digits", epochs=2, seed=3, show_progress=False)
    assert found["same_everywhere"]
    # gradients differ in the last bits, and Adam divides by their size: small ones may step in another direction
    assert found["loss"] == pytest.approx(history.loss, rel=1e-3)
    assert found["accuracy"] == pytest.approx(history.scores, abs=0.01)
    assert torch.tensor(found["weight"]).sub(net[1].weight.detach()).abs().mean() < 1e-4


def test_ranges_are_learned_on_two_processes(found):
    assert len(found["shifts"]) == 2
    assert all(shift != 0 for shift in found["shifts"])


def test_without_torchrun_there_is_one_process():
    group = ProcessGroup.join(torch.device("cpu"))
    assert group == ProcessGroup(0, 1)
    net = models.mlp(4, 2)
    assert group.wrap(net) is net
    assert group.shard(torch.arange(3))[1] == 1.0


@pytest.mark.parametrize(("samples", "size"), [(8, 2), (7, 3), (2, 4)])
def test_parts_cover_the_batch_and_their_weights_make_the_mean(samples, size):
    values = torch.arange(samples, dtype=torch.float64)
    parts = [ProcessGroup(rank, size).shard(values) for rank in range(size)]
    assert sum(float(p.mean()) * w for p, w in parts) / size == pytest.approx(float(values.mean()))
    assert torch.equal(torch.cat([p for p, w in parts if w]), values)


def test_processes_that_would_share_a_gpu_are_told(monkeypatch):
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(HpmlError, match=r"process 1 of 2 has its model on cuda:0, its own GPU is cuda:1.*set_device"):
        ProcessGroup.join(torch.device("cuda:0"))


def test_pulsed_devices_are_refused_on_several_processes(monkeypatch):
    monkeypatch.setattr(distributed.ProcessGroup, "join", classmethod(lambda cls, device: cls(0, 2)))
    pulsed = convert(models.mlp(64, 10), InMemory("pcm", device="ecram"))
    with pytest.raises(HpmlError, match="pulses cannot be averaged"):
        fit(pulsed, "digits", epochs=1, show_progress=False)
