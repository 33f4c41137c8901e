"""What chips could not do after a training is said before it; inputs and buffers of a network are left alone."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs


class Pruned(nn.Module):
    """Returns as many rows beside its logits as the values happen to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.a(x)
        return {"logits": self.b(h), "kept": h[h.sum(-1) > 0]}


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x += 1
        return self.a(x)


@pytest.fixture
def data() -> TensorDataset:
    torch.manual_seed(0)
    return TensorDataset(torch.rand(64, 8), torch.randint(0, 3, (64,)))


def test_compare_refuses_outputs_of_other_shapes_before_it_trains(data, monkeypatch):
    def trains(*_args, **_kwargs):
        raise AssertionError("it trained")

    monkeypatch.setattr("hpml_sim.experiments.pipeline.fit", trains)
    line = r"Seen in network \(Pruned\), line \d+ of test_before_training.py: return"
    with pytest.raises(hs.HpmlError, match=line):
        hs.compare(Pruned(), (data, data), {"it": "pcm-hermes"}, epochs=1, chips=3)


def test_fit_warns_of_them_before_it_trains(data):
    analog = hs.convert(Pruned(), "pcm-hermes")
    with pytest.warns(RuntimeWarning, match=r"cannot run together after the training: .* line \d+ of test_before"):
        hs.fit(analog, data, epochs=1, show_progress=False)


def test_weights_outside_the_network_are_named():
    stranger = nn.Linear(3, 3)

    class Outside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return stranger(self.a(x))

    analog = hs.convert(Outside(), "pcm-hermes")
    with pytest.warns(RuntimeWarning, match=r"no part of the network: stranger \(3, 3\) in network \(Outside\), line"):
        hs.calibrate(analog, torch.rand(4, 8))


@pytest.mark.parametrize("call", ["evaluate", "workload", "calibrate", "chips", "measure"])
def test_networks_that_write_into_inputs_and_buffers_change_nothing(call, data):
    net = InPlace()
    x = data.tensors[0]
    before = x.clone()
    if call == "evaluate":
        assert hs.evaluate(net, data).mean == hs.evaluate(net, data).mean
    elif call == "workload":
        hs.workload(net, data=x)
    elif call == "measure":
        hs.measure(net, x, min_window_s=0.01, windows=1, warmup_s=0.0)
    else:
        analog = hs.convert(net, "pcm-hermes")
        hs.calibrate(analog, x)
        assert float(analog.network.calls) == 0
        if call == "chips":
            hs.evaluate(hs.program(analog, chips=2, seed=0).at("1 day"), data)
    assert torch.equal(x, before)
    assert float(net.calls) == 0
