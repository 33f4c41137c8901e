"""Hooks of the user stay with what takes the place of a layer."""

from __future__ import annotations

import pytest
import snntorch as snn
import torch
from torch import nn
from torch.nn import functional as F

from hpml_sim.conversion import convert
from hpml_sim.spiking import calibrated, fuse
from hpml_sim.targets import Spiking


def note(seen, name):
    return lambda _module, _inputs, output: seen.append((name, output.detach().clone()))


def test_hooks_on_neurons_and_layers_of_a_fused_network():
    torch.manual_seed(0)
    seen = []
    net = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), snn.Leaky(0.9, threshold=0.2, init_hidden=True), nn.Linear(5, 2)
    )
    for name, module in net.named_children():
        module.register_forward_hook(note(seen, name))
    fuse(net).eval()(torch.rand(7, 4, 6))
    assert sorted(name for name, _ in seen) == ["0", "1", "2", "3"]
    assert dict(seen)["2"].shape == (28, 5)
    assert dict(seen)["2"].unique().tolist() == [0, 1]


def test_a_hook_that_changes_spikes_does_so_in_one_pass_and_in_a_loop():
    class Net(nn.Module):
        def __init__(self, mixes):
            super().__init__()
            self.mixes = mixes
            self.act = snn.Leaky(0.9, threshold=0.2, init_hidden=True)

        def forward(self, x):
            return self.act(x - x.mean(0) if self.mixes else x)

    for mixes in (False, True):
        net = Net(mixes)
        net.act.register_forward_hook(lambda _module, _inputs, spikes: torch.mul(spikes, 3))
        net.act.register_forward_pre_hook(lambda _module, args: (2 * args[0],))
        x = torch.rand(7, 4, 6)
        assert torch.equal(fuse(net)(x), torch.stack([net(step) for step in x]))
        net.act.reset_hidden()


def test_backward_hooks_and_hooks_with_keywords():
    seen = []
    neuron = snn.Leaky(0.9, init_hidden=True)
    neuron.register_full_backward_hook(lambda _module, _in, out: seen.append(out[0].shape))
    neuron.register_forward_hook(lambda _m, _args, kwargs, _out: seen.append(kwargs), with_kwargs=True)
    fuse(nn.Sequential(neuron))(torch.rand(3, 4, 6).requires_grad_()).sum().backward()
    assert seen == [{}, (12, 6)]


class Functions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


@pytest.mark.parametrize("make", [lambda net: convert(net, Spiking("loihi", steps=4)), lambda net: calibrated(net, X)])
@pytest.mark.parametrize("build", [Functions, lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))])
def test_hooks_of_a_relu_network(build, make):
    torch.manual_seed(0)
    net, seen = build(), []
    for name, module in net.named_modules():
        module.register_forward_hook(note(seen, name))
    model = make(net).eval()
    seen.clear()
    model(X)
    assert sorted(name for name, _ in seen) == sorted(dict(net.named_modules()))
    if "1" in dict(seen):
        assert set(dict(seen)["1"].unique().tolist()) <= {0, 1}


X = torch.rand(5, 8)
