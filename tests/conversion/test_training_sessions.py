"""The seam between `fit` and hardware that is trained in place: any weights can bring a session of their own."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.conversion import training_sessions
from hpml_sim.conversion.training_sessions import register_training_session, training_session
from hpml_sim.errors import HpmlError

SPLIT = TensorDataset(torch.rand(20, 4), torch.arange(20) % 2)


class Counted(nn.Linear):
    """Weights that are written to by a hardware of their own."""


@dataclass
class Session:
    """What `fit` asks, in order."""

    model: nn.Module
    asked: list[str] = field(default_factory=list)

    def learning_rate(self, lr):
        self.asked.append(f"lr {lr}")
        return 0.5

    def optimizer(self, given, lr, *, processes=1):
        self.asked.append(f"optimizer {given} {lr} {processes}")
        return torch.optim.SGD(self.model.parameters(), lr=lr)

    def state(self):
        return self.model.state_dict()

    def restore(self, state):
        self.asked.append("restore")
        self.model.load_state_dict(state)

    def begin(self, before):
        loss, chance = before(7)
        self.asked.append(f"begin {loss > 0} {chance:.3f}")

    def end_epoch(self, epoch, epochs, loss, lr):
        self.asked.append(f"epoch {epoch} of {epochs} at {lr}")

    def writes(self):
        return None


@pytest.fixture
def sessions(monkeypatch):
    """The sessions that were made, the newest last."""
    monkeypatch.setattr(training_sessions, "_FINDERS", list(training_sessions._FINDERS))
    made: list[Session] = []

    @register_training_session
    def find(model):
        if not any(isinstance(module, Counted) for module in model.modules()):
            return None
        made.append(Session(model))
        return made[-1]

    return made


def test_fit_asks_the_session_and_nothing_else(sessions):
    hs.fit(nn.Sequential(Counted(4, 2)), (SPLIT, SPLIT), epochs=2)
    assert sessions[-1].asked == [
        "lr None",
        "optimizer None 0.5 1",
        f"begin True {torch.special.entr(torch.tensor([4 / 7, 3 / 7])).sum():.3f}",
        "epoch 0 of 2 at 0.5",
        "epoch 1 of 2 at 0.5",
    ]


def test_the_session_puts_the_weights_back(sessions):
    bad = TensorDataset(torch.full((8, 4), 3e38), torch.arange(8) % 2)
    net = nn.Sequential(Counted(4, 2))
    before = net[0].weight.detach().clone()
    with pytest.raises(HpmlError, match="the weights are as before"):
        hs.fit(net, (bad, bad), epochs=1)
    assert sessions[-1].asked[-1] == "restore"
    assert torch.equal(net[0].weight, before)


def test_other_models_have_none(sessions):
    assert training_session(nn.Linear(4, 2)) is None
    hs.fit(nn.Sequential(nn.Linear(4, 2)), (SPLIT, SPLIT), epochs=1)
    assert sessions == []


def test_pulsed_devices_have_one():
    converted = hs.convert(nn.Sequential(nn.Linear(4, 2)), hs.InMemory("pcm", device="ecram"))
    assert type(training_session(converted)).__name__ == "InMemoryTraining"


def test_training_names_no_hardware(repository: Path):
    for path in (repository / "hpml_sim" / "training").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(("hpml_sim.analog", "hpml_sim.spiking")), path.name
