from __future__ import annotations

import copy

import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import surrogate, utils
from torch import nn

from hpml_sim.analog import calibrate, program
from hpml_sim.analog.chip_pass import ChipPass, running
from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking import LeakyNeurons, fuse
from hpml_sim.targets import Analog


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 9),
        snn.Leaky(0.9, init_hidden=True, reset_mechanism="zero", spike_grad=surrogate.fast_sigmoid(10)),
        nn.Sequential(nn.Linear(9, 4), snn.Leaky(torch.full((4,), 0.8), threshold=0.5, init_hidden=True, output=True)),
    )


def test_network_equals_snntorchs_loop():
    net = network()
    x = torch.rand(12, 5, 6)
    fast = fuse(net)
    for neuron in (net[1], net[2][1]):
        neuron.reset_mem()
    steps = [net(current) for current in x.unbind(0)]
    want_spikes, want_membrane = (torch.stack(part) for part in zip(*steps, strict=True))
    spikes, membrane = fast(x)
    assert spikes.shape == membrane.shape == (12, 5, 4)
    assert 0 < spikes.mean() < 1
    # one large product against twelve small ones: the last bit of a sum may differ, so few spikes may
    assert (spikes != want_spikes).float().mean() < 0.01
    torch.testing.assert_close(membrane, want_membrane)
    assert fast(x[:3, :2])[0].shape == (3, 2, 4)  # other steps and batch, nothing to reset


def test_neuron_alone_is_equal_to_the_last_bit():
    x = torch.randn(20, 3, 7)
    neuron = snn.Leaky(0.85, threshold=0.7, learn_beta=True, learn_threshold=True)
    fast = fuse(neuron)
    assert sorted(name.split(".")[-1] for name, _ in fast.named_parameters()) == ["beta", "threshold"]
    membrane, spikes, membranes = torch.zeros(3, 7), [], []
    for current in x.unbind(0):
        spike, membrane = neuron(current, membrane)
        spikes.append(spike)
        membranes.append(membrane)
    got_spikes, got_membranes = fast(x)
    np.testing.assert_array_equal(got_spikes.detach(), torch.stack(spikes).detach())
    np.testing.assert_array_equal(got_membranes.detach(), torch.stack(membranes).detach())


def test_the_original_stays_and_weights_are_copies():
    net = network()
    before = copy.deepcopy(net.state_dict())
    fast = fuse(net)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.zero_()
    assert isinstance(net[1], snn.Leaky)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    utils.reset(net)  # snnTorch's own tools still see its neurons


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(2, 2), "no snntorch.Leaky found in Linear"),
        (nn.Sequential(snn.SLSTM(3, 3, init_hidden=True)), "layer '0': SLSTM has a memory"),
        (nn.Sequential(snn.Leaky(0.9)), r"layer '0': init_hidden=False inside a network"),
        (snn.Leaky(0.9, reset_delay=False), "neuron: reset_delay=False with"),
        (snn.Leaky(0.9, graded_spikes_factor=2.0), "graded_spikes_factor"),
        (snn.Leaky(0.9, spike_grad=torch.sigmoid), "spike_grad=.*take one that snntorch.surrogate makes"),
        (snn.Leaky(0.9, surrogate_disable=True), "surrogate_disable"),
        (snn.Leaky(0.9, state_quant=lambda m: m), "state_quant"),
    ],
)
def test_what_has_no_fused_equal_is_named(module, message):
    with pytest.raises(ConversionError, match=message):
        fuse(module)


class Tutorial(nn.Module):
    """As snnTorch's tutorial 5 writes a network: the states by hand, the time loop in forward()."""

    def __init__(self, hidden=False):
        super().__init__()
        self.hidden = hidden
        self.fc1 = nn.Linear(6, 9)
        self.lif1 = snn.Leaky(beta=0.95, init_hidden=hidden)
        self.fc2 = nn.Linear(9, 4)
        self.lif2 = snn.Leaky(beta=0.95, init_hidden=hidden)

    def forward(self, x):
        if self.hidden:
            return torch.stack([self.lif2(self.fc2(self.lif1(self.fc1(x)))) for _ in range(5)])
        spikes = []
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        for _ in range(5):
            spk1, mem1 = self.lif1(self.fc1(x), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            spikes.append(spk2)
        return torch.stack(spikes)


def test_a_time_loop_in_forward_is_said_clearly():
    with pytest.raises(ConversionError, match=r"layer 'lif1': init_hidden=False .*own time loop; write one time step"):
        fuse(Tutorial())
    fast = fuse(Tutorial(hidden=True))
    with pytest.raises(ConversionError, match=r"more than once in a pass. A forward\(\) with its own time loop"):
        fast(torch.rand(5, 2, 6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_is_kept(dtype):
    fast = fuse(network()).to(dtype)
    x = torch.rand(12, 5, 6).to(dtype).requires_grad_()
    spikes, membrane = fast(x)
    assert spikes.dtype == membrane.dtype == dtype  # snnTorch 1.0 gives float32 spikes
    spikes.sum().backward()
    assert x.grad.dtype == dtype
    assert all(p.grad.dtype == dtype for p in fast.parameters())


@pytest.mark.parametrize("gradient", [surrogate.LSO(), surrogate.sigmoid()])
def test_broken_surrogates_are_mended(gradient):
    """snnTorch's LSO raises on the way back; its sigmoid gives NaN far below the threshold."""
    fast = fuse(snn.Leaky(0.9, spike_grad=gradient, init_hidden=True))
    x = torch.linspace(-9, 3, 24).reshape(1, 1, 24).requires_grad_()
    fast(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_input_without_steps():
    fast = fuse(snn.Leaky(0.9, init_hidden=True))
    with pytest.raises(HpmlError, match=r"expected \(steps, batch, ...\)"):
        fast(torch.zeros(3))
    with pytest.raises(HpmlError, match="steps >= 1"):
        fast(torch.zeros(0, 3))


def test_batch_norms_see_one_step_after_the_other_in_training():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), snn.Leaky(0.9, threshold=0.5, init_hidden=True))
    fast = fuse(net)
    x = torch.rand(8, 5, 6) * torch.linspace(0.1, 2, 8).view(-1, 1, 1)  # another mean at every step
    for training in (True, False):
        net.train(training)
        fast.train(training)
        utils.reset(net)
        want = torch.stack([net(step) for step in x.unbind(0)])
        assert 0.05 < want.mean() < 0.95
        assert (fast(x) != want).float().mean() < 0.01
        torch.testing.assert_close(fast.network[1].norm.running_var, net[1].running_var)
    constant = x[:1].expand(4, 5, 6)
    fast.train()(constant)
    net.train()
    for step in constant.unbind(0):
        net(step)
    torch.testing.assert_close(fast.network[1].norm.running_mean, net[1].running_mean)


def test_a_fused_network_runs_on_crossbars_chip_by_chip():
    """Each chip is what it is alone, and what snnTorch's loop makes of that chip's currents."""
    net = network()
    model = convert(fuse(net), Analog("pcm", output_noise=0.0))
    x = torch.rand(12, 5, 6)
    calibrate(model, x)
    chips = program(model, chips=3, seed=1)
    together = chips.at("1 day")
    spikes, membrane = together(x)
    assert spikes.shape == membrane.shape == (3, 12, 5, 4)
    assert not torch.equal(spikes[0], spikes[2])
    alone = program(model, chips=1, seed=1).at("1 day")(x)
    assert torch.equal(spikes[0], alone[0][0])

    assert together.chip_by_chip is None
    first, second = (together.network.network.network[i] for i in (0, 2))
    for chip in range(3):
        neurons = [copy.deepcopy(net[1]), copy.deepcopy(net[2][1])]
        utils.reset(nn.Sequential(*neurons))
        found = []
        for step in x.unbind(0):
            with running(ChipPass(chip)):
                hidden = neurons[0](first(step))
                found.append(neurons[1](second[0](hidden))[0])
        assert (torch.stack(found) != spikes[chip]).float().mean() < 0.01


def test_neurons_in_a_users_own_module_know_the_chips():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), LeakyNeurons(0.9, steps=4), nn.Linear(9, 3))
    model = convert(net, Analog("pcm", output_noise=0.0))
    x = torch.rand(4 * 5, 6)
    calibrate(model, x)
    three = program(model, chips=3).at(0)(x)
    assert torch.equal(three[0], program(model, chips=1).at(0)(x)[0])


@pytest.mark.filterwarnings("ignore")  # dynamo warns of what it does itself
def test_compiled_and_exported():
    fast = fuse(network())
    x = torch.rand(5, 3, 6)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(fast, backend="eager")(x)[0], fast(x)[0])
    with pytest.raises(HpmlError, match="Spiking networks travel as NIR graphs"):
        torch.export.export(fast, (x,))


def test_networks_that_spike_already_are_pointed_to_fuse():
    with pytest.raises(ConversionError, match=r"spikes already.*one time step: hs\.spiking\.fuse"):
        convert(network(), "loihi")


SEVERAL = {
    "spike_rate_escape": ({"beta": 1, "slope": 25}, {"beta": 2.0, "slope": 5.0}, {"beta": 0.5, "slope": 1.0}),
    "SFS": ({"slope": 25, "B": 1}, {"slope": 3.0, "B": 0.25}),
    "SSO": ({"mean": 0, "variance": 0.2}, {"mean": 0.5, "variance": 0.1}),
    "atan": ({"alpha": 4.0},),
    "fast_sigmoid": ({"slope": 10.0},),
    "sigmoid": ({"slope": 5.0},),
    "triangular": ({"threshold": 2.0},),
}


@pytest.mark.parametrize(("kind", "given"), [(kind, given) for kind, all_of in SEVERAL.items() for given in all_of])
def test_every_parameter_of_a_surrogate_keeps_its_name(kind, given):
    neuron = snn.Leaky(0.9, spike_grad=getattr(surrogate, kind)(**given))
    fused = fuse(neuron)
    kept = fused.network.neurons.surrogate
    assert (kept.name, kept.parameters) == (kind, tuple(map(float, given.values())))
    x = torch.linspace(-2, 4, 7)[None, None]
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.manual_seed(0)
    neuron(theirs[0], torch.zeros(1, 7))[0].sum().backward()
    torch.manual_seed(0)
    fused(ours)[0].sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("beta", [1.2, 1.0, 0.9, -0.1])
@pytest.mark.parametrize(
    "make",
    [
        lambda beta: snn.Leaky(beta, learn_beta=True),
        lambda beta: snn.Synaptic(0.8, beta, learn_alpha=True, learn_beta=True),
        lambda beta: snn.Synaptic(beta, 0.8, learn_alpha=True, learn_beta=True),
        lambda beta: snn.RLeaky(beta, linear_features=4, learn_beta=True),
    ],
    ids=["Leaky", "Synaptic beta", "Synaptic alpha", "RLeaky"],
)
def test_a_learned_decay_outside_its_range_has_the_gradient_of_snntorchs(make, beta):
    torch.manual_seed(0)
    neuron = make(beta)
    fused, x = fuse(neuron), torch.rand(6, 3, 4)
    states = [torch.zeros(3, 4) for _ in fused(x)[1:]]
    if isinstance(neuron, snn.RLeaky):
        states = [torch.zeros(3, 4), torch.zeros(3, 4)]
    total = torch.zeros(())
    for step in x:
        spikes, *states = neuron(step, *states)
        if isinstance(neuron, snn.RLeaky):
            states = [spikes, *states]
        total = total + spikes.sum()
    total.backward()
    fused(x)[0].sum().backward()
    ours = fused.network.neurons
    for name in ("beta", "alpha"):
        if hasattr(neuron, name):
            assert getattr(ours, name).item() == getattr(neuron, name).item()
            torch.testing.assert_close(getattr(ours, name).grad, getattr(neuron, name).grad)
