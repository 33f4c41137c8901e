"""Profiles: layers that are known to be slow, operators, a trace that opens, and bad input."""

import gzip
import json
import time

import pytest
import torch
from torch import nn

from hpml_sim.errors import HpmlError
from hpml_sim.measurement.profiling import profile
from hpml_sim.networks.models import cnn, mlp


class Sleeps(nn.Module):
    def forward(self, x):
        time.sleep(0.01)
        return x


@pytest.mark.usefixtures("clock")
def test_time_goes_to_the_layer_that_takes_it():
    net = nn.Sequential(nn.Linear(4, 4), Sleeps(), nn.ReLU())
    found = profile(net, torch.rand(2, 4), calls=5)
    assert list(found.layers["layer"]) == ["0", "1", "2"]
    assert found.layer_s["1"] == pytest.approx(0.01, rel=0.01)
    assert found.layers["share"].tolist()[1] > 0.99
    assert sum(found.layers["share"].tolist()) == pytest.approx(1)
    assert found.call_s >= 0.01
    assert abs(found.between_s) < 1e-4
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.usefixtures("clock")
def test_a_layer_that_runs_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.slow = Sleeps()

        def forward(self, x):
            return self.slow(self.slow(x))

    assert profile(Twice(), torch.rand(1, 2), calls=3).layer_s["slow"] == pytest.approx(0.02, rel=0.01)


def test_operators_are_those_that_ran():
    found = profile(mlp(64, 32, 10), torch.rand(8, 64), calls=4)
    calls = dict(zip(found.operators["operator"], found.operators["calls"], strict=True))
    assert calls["aten::addmm"] == 2
    seconds = found.operators["seconds"].tolist()
    assert seconds == sorted(seconds, reverse=True)
    assert sum(found.operators["share"].tolist()) == pytest.approx(1)
    assert not any(name.startswith("layer ") for name in calls)


@pytest.mark.parametrize("name", ["deep/trace.json", "trace.json.gz"])
def test_the_trace_opens_and_has_the_layers(name, tmp_path):
    found = profile(cnn((1, 8, 8), 10), torch.rand(2, 1, 8, 8), calls=3, trace=tmp_path / name)
    opened = gzip.open if name.endswith(".gz") else open
    with opened(found.trace, "rt") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"layer 0", "layer 3", "aten::addmm"} <= names


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (mlp(4, 2), {"calls": 2}, r"calls=2: must be a whole number >= 3"),
        (mlp(4, 2), {"trace": "trace.txt"}, r"must end in \.json"),
        (nn.Linear(4, 2), {}, "no layers inside"),
        ("mlp", {}, "profile: model='mlp': must be a network"),
    ],
)
def test_bad_input_is_named(model, options, said):
    with pytest.raises(HpmlError, match=said):
        profile(model, torch.rand(1, 4), **options)


def test_a_failing_model_is_left_without_hooks():
    net = mlp(4, 2)
    with pytest.raises(RuntimeError):
        profile(net, torch.rand(1, 5))
    assert net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
