"""Networks as snnTorch's tutorials write them, through convert, fit, evaluate and estimate.

Each test's oracle is the network's own floating-point forward.
"""

from __future__ import annotations

import gc

import pytest
import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.conversion.cloning import clone
from hpml_sim.spiking.snntorch_import import leaky

STEPS = 5


class Tutorial5(nn.Module):
    """States by hand, a loop inside, spikes and membranes of all steps."""

    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 12), snn.Leaky(beta=0.95)
        self.fc2, self.lif2 = nn.Linear(12, 10), snn.Leaky(beta=0.95)

    def forward(self, x):
        x = x.flatten(1)
        m1, m2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, membranes = [], []
        for _ in range(STEPS):
            s1, m1 = self.lif1(self.fc1(x), m1)
            s2, m2 = self.lif2(self.fc2(s1), m2)
            spikes.append(s2)
            membranes.append(m2)
        return torch.stack(spikes), torch.stack(membranes)


class Tutorial6(nn.Module):
    """A convolutional network whose neurons keep their states; spikes are summed."""

    def __init__(self):
        super().__init__()
        gradient = surrogate.fast_sigmoid(slope=25)
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.MaxPool2d(2),
            snn.Leaky(0.5, spike_grad=gradient, init_hidden=True),
            nn.Flatten(),
            nn.Linear(36, 10),
            snn.Leaky(0.5, spike_grad=gradient, init_hidden=True, output=True),
        )

    def forward(self, x):
        utils.reset(self.net)
        return torch.stack([self.net(3 * x)[0] for _ in range(STEPS)]).sum(0)


class Recurrent(nn.Module):
    """Regression with RLeaky neurons: the membrane of the last step."""

    def __init__(self):
        super().__init__()
        self.fc1, self.hidden = nn.Linear(64, 8), snn.RLeaky(beta=0.9, linear_features=8)
        self.fc2, self.out = nn.Linear(8, 1), snn.Leaky(beta=0.9, reset_mechanism="none")

    def forward(self, x):
        spikes, membrane = self.hidden.init_rleaky()
        last = self.out.init_leaky()
        for _ in range(STEPS):
            spikes, membrane = self.hidden(self.fc1(3 * x.flatten(1)), spikes, membrane)
            _, last = self.out(self.fc2(spikes), last)
        return last


class Population(nn.Module):
    """Several output neurons a class."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 12),
            snn.Leaky(0.9, init_hidden=True),
            nn.Linear(12, 30),
            snn.Leaky(0.9, init_hidden=True, output=True),
        )

    def forward(self, x):
        utils.reset(self.net)
        spikes = torch.stack([self.net(x)[0] for _ in range(STEPS)])
        return spikes.sum(0).unflatten(1, (10, 3)).sum(2)


class Frames(nn.Module):
    """Tutorial 7: each step has a frame of its own."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 12),
            snn.Synaptic(0.8, 0.9, init_hidden=True),
            nn.Linear(12, 10),
            snn.Leaky(0.9, init_hidden=True, output=True),
        )

    def forward(self, x):
        utils.reset(self.net)
        return torch.stack([self.net(3 * frame)[0] for frame in x.flatten(1, 2).unbind(1)]).sum(0)


class Node(nn.Module):
    """A neuron as SpikingJelly has it: the membrane is an attribute."""

    def __init__(self):
        super().__init__()
        self.v, self.gradient = 0.0, surrogate.atan()

    def forward(self, x):
        self.v = self.v + (x - self.v) / 2
        spikes = self.gradient(self.v - 1.0)
        self.v = (1 - spikes) * self.v
        return spikes


class Jelly(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), Node(), nn.Linear(12, 10), Node())

    def forward(self, x):
        self.net[2].v = self.net[4].v = 0.0
        return sum(self.net(5 * x) for _ in range(STEPS)) / STEPS


def made(kind):
    torch.manual_seed(0)
    return kind()


def data(kind):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(24, 1, 8, 8, generator=generator)
    y = x.sum((1, 2, 3))[:, None] / 64 if kind is Recurrent else torch.randint(0, 10, (24,), generator=generator)
    return TensorDataset(x, y)


def task(kind):
    return hs.tasks.classification(outputs=lambda out: out[0].sum(0)) if kind is Tutorial5 else None


OWN = [Tutorial5, Tutorial6, Recurrent, Population, Frames]


def same(a, b):
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("kind", OWN)
def test_a_network_of_ones_own_on_a_neuromorphic_machine(kind):
    net, x = made(kind), data(kind).tensors[0]
    with torch.no_grad():
        want = net(x)
        own = hs.convert(net, "loihi")
        assert same(own(x), want)
        assert same(own(x), want)  # from rest again, though the copy is none that snnTorch built
    whole = hs.evaluate(own, data(kind), task=task(kind), batch_size=24).mean
    assert hs.evaluate(net, data(kind), task=task(kind), batch_size=7).mean == pytest.approx(whole, rel=1e-5)
    counts = hs.workload(own, data=x)
    assert counts.kind == "spiking"
    assert {layer.steps for layer in counts.layers if layer.op == "neuron"} == {8 if kind is Frames else STEPS}
    assert hs.estimate(counts, "loihi").energy_j.nominal > 0


@pytest.mark.parametrize("kind", [Tutorial5, Recurrent])
def test_a_network_of_ones_own_on_crossbars_is_scored_chip_by_chip(kind):
    net, given = made(kind), data(kind)
    chips = hs.program(hs.convert(net, hs.Analog("pcm-hermes", output_noise=0.0), skip="fc2"), chips=2, seed=0).at(
        "1 s"
    )
    of = task(kind) or hs.tasks.regression()
    score = hs.evaluate(chips, given, task=of)
    x, y = given.tensors
    with torch.no_grad():
        out = chips(x)
    if kind is Tutorial5:
        alone = [float((spikes.sum(0).argmax(1) == y).float().mean()) for spikes in out[0]]
    else:
        alone = [float((values - y).square().mean().sqrt()) for values in out]
    assert score.n == 2
    assert list(score.values) == pytest.approx(alone, rel=1e-5)


def test_what_a_neuron_keeps_of_its_last_call_is_no_weight():
    net, x = made(Tutorial6), data(Tutorial6).tensors[0]
    with torch.no_grad():
        net(x)  # its neurons hold the reset of this call, (batch, ...), beside their states
        analog = hs.convert(net, hs.Analog("pcm-hermes", output_noise=0.0))
        assert analog(x).shape == (24, 10)  # and no warning, which would fail this test


class Looped(nn.Module):
    """A time loop around a network of one step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        return sum(self.step(3 * x.flatten(1)) for _ in range(STEPS))


def test_a_loop_around_a_converted_network_goes_on_from_step_to_step():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(64, 10), snn.Leaky(0.9, init_hidden=True))
    x, _ = data(Tutorial6).tensors
    ideal = hs.Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal", output_noise=0.0)
    looped = Looped(hs.convert(one, ideal))
    with torch.no_grad():
        current, membrane, spikes = one[0](3 * x.flatten(1)), torch.zeros(24, 10), torch.zeros(24, 10)
        for _ in range(STEPS):
            membrane = 0.9 * membrane + current - (membrane > 1).float()
            spikes += (membrane > 1).float()
    assert spikes.sum() > 100
    for batch_size in (24, 7):
        score = hs.evaluate(looped, TensorDataset(x, spikes), task="regression", batch_size=batch_size)
        assert score.mean == 0  # rmse: each step goes on from the one before


@pytest.mark.parametrize("kind", [*OWN, Jelly])
def test_training_starts_each_batch_from_rest(kind):
    net = made(kind)
    before = [weight.detach().clone() for weight in net.parameters()]
    hs.fit(net, (data(kind), data(kind)), epochs=1, task=task(kind), show_progress=False)
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(torch.isfinite(weight).all() for weight in net.parameters())


def test_neurons_that_nobody_resets_start_each_batch_from_rest():
    class Kept(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(64, 10), snn.Leaky(0.9, init_hidden=True)

        def forward(self, x):
            return sum(self.lif(3 * self.fc(x.flatten(1))) for _ in range(STEPS))

    torch.manual_seed(0)
    net, given = Kept(), data(Tutorial6)
    first = hs.evaluate(net, given, batch_size=24).mean
    assert hs.evaluate(net, given, batch_size=7).mean == first
    held = net.lif.mem
    net(given.tensors[0])
    kept = net.lif.mem
    hs.evaluate(net, given)
    assert net.lif.mem is kept is not held  # what the user's own loop holds stays


def test_snntorchs_reset_finds_the_neurons_of_copies_as_long_as_they_live():
    net = made(Population)
    gc.collect()  # copies of other tests
    known = sum(one is not None for one in snn.SpikingNeuron.instances)
    leaky(torch.tensor(0.9), torch.tensor(1.0), "zero")  # a neuron that is taken off snnTorch's list
    copied = clone(net)
    copied.net(torch.rand(2, 64))
    utils.reset(copied.net)
    assert not copied.net[2].mem.any()
    assert sum(one is not None for one in snn.SpikingNeuron.instances) == known + 2
    places = len(snn.SpikingNeuron.instances)
    del copied
    gc.collect()
    # snnTorch may be going through its list by numbers at this moment: no place goes before the next copy
    assert len(snn.SpikingNeuron.instances) == places
    assert sum(one is not None for one in snn.SpikingNeuron.instances) == known
    utils.reset(net.net)
    del net
    clone(made(Population))
    assert None not in snn.SpikingNeuron.instances


@pytest.mark.parametrize("setting", ["beta", "threshold"])
def test_a_setting_of_a_neuron_that_is_nan_trains_nothing(setting):
    net = made(Population)
    setattr(net.net[2], setting, torch.tensor(torch.nan))
    before = [weight.detach().clone() for weight in net.parameters()]
    with pytest.raises(hs.HpmlError, match=rf"fit: the weights 'net\.2\.{setting}' hold NaN; they came so"):
        hs.fit(net, data(Population), epochs=1, show_progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    with pytest.raises(hs.HpmlError, match=rf"evaluate: the weights 'network\.net\.2\.{setting}' hold NaN"):
        hs.evaluate(hs.convert(net, "loihi"), data(Population))


def test_what_cannot_be_run_is_refused_in_one_line():
    step = nn.Sequential(nn.Linear(64, 10), snn.Leaky(0.9, init_hidden=True))
    with pytest.raises(hs.HpmlError, match=r"its forward\(\) is one time step: hs.spiking.fuse"):
        hs.convert(step, "loihi")
    with pytest.raises(hs.HpmlError, match=r"no nn\.ReLU found, so nothing can spike"):
        hs.convert(Jelly(), "loihi")
    with pytest.raises(hs.HpmlError, match=r"time steps of its own: steps of hs\.Spiking make those of a ReLU"):
        hs.convert(made(Population), hs.Spiking("loihi", steps=3))
    mixed = made(Tutorial5)
    mixed.act = nn.ReLU()
    with pytest.raises(hs.HpmlError, match="layer 'act': ReLU beside spiking neurons"):
        hs.convert(mixed, "loihi")
