"""snnTorch's neurons in a chip's integers, held against Python's integers and against ours over all steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import nn
from torch.nn.utils.prune import l1_unstructured

import hpml_sim as hs
from hpml_sim.spiking.fixed_point_neurons import IntegerArithmetic, integers_of
from hpml_sim.spiking.snntorch_integers import put_in_integers

TOP = 1024


def whole(neuron, resolution=TOP, state_bits=24, decay_bits=12):
    neuron = neuron.eval()
    put_in_integers("lif", neuron, IntegerArithmetic(resolution, state_bits, decay_bits))
    return neuron


def currents(scale=0.5, steps=40):
    return scale * torch.randn(steps, 5, generator=torch.Generator().manual_seed(0)) + 0.2


def stepped(neuron, x):
    """What a loop that passes states by hand sees: spikes and all states of each step, (steps, neurons)."""
    states, seen = (), []
    with torch.no_grad():
        for row in x:
            out = neuron(row[None], *states)
            recurrent = isinstance(neuron, (snn.RLeaky, snn.RSynaptic))
            states = out if recurrent else out[1:]
            seen.append(torch.cat(out))
    return torch.stack(seen, 1)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_leaky_equals_integers_by_hand(reset):
    x = currents()
    spikes, membrane = stepped(whole(snn.Leaky(0.9, reset_mechanism=reset)), x)
    decay = round(float(torch.tensor(0.9)) * 4096)
    for n in range(5):
        v, want = 0, []
        for current in x[:, n].tolist():
            fired = v > TOP
            kept = 0 if fired and reset == "zero" else v
            v = math.trunc(kept * decay / 4096) + round(current * TOP) - TOP * (fired and reset == "subtract")
            want.append(v)
        np.testing.assert_array_equal(membrane[:, n] * TOP, want)
        np.testing.assert_array_equal(spikes[:, n], np.array(want) > TOP)


def test_recurrent_equals_integers_by_hand():
    torch.manual_seed(0)
    neuron, x = snn.RLeaky(0.9, linear_features=5), currents()
    weight, bias = neuron.recurrent.weight.tolist(), neuron.recurrent.bias.tolist()
    spikes, membrane = stepped(whole(neuron), x)
    decay, v, fired = round(float(torch.tensor(0.9)) * 4096), [0] * 5, [0] * 5
    for step, row in enumerate(x.tolist()):
        back = [round((sum(w * s for w, s in zip(weight[n], fired, strict=True)) + bias[n]) * TOP) for n in range(5)]
        v = [math.trunc(v[n] * decay / 4096) + round(row[n] * TOP) + back[n] - TOP * (v[n] > TOP) for n in range(5)]
        fired = [int(value > TOP) for value in v]
        np.testing.assert_array_equal(membrane[step] * TOP, v)
        np.testing.assert_array_equal(spikes[step], fired)
    assert spikes.sum() > 10


def linear():
    torch.manual_seed(0)
    return nn.Linear(5, 5)


def with_layer(neuron, layer):
    neuron.recurrent = layer
    return neuron


PAIRS = {
    "leaky": (snn.Leaky(0.9, threshold=0.7), hs.spiking.LeakyNeurons(0.9, 0.7)),
    "leaky, at once": (
        snn.Leaky(0.9, reset_mechanism="zero", reset_delay=False),
        hs.spiking.LeakyNeurons(0.9, reset="zero", reset_delay=False),
    ),
    "synaptic": (snn.Synaptic(0.6, 0.9, threshold=0.7), hs.spiking.SynapticNeurons(0.6, 0.9, 0.7)),
    "synaptic, zero": (
        snn.Synaptic(0.6, 0.9, reset_mechanism="zero"),
        hs.spiking.SynapticNeurons(0.6, 0.9, reset="zero"),
    ),
    "recurrent": (
        with_layer(snn.RLeaky(0.9, linear_features=5, threshold=0.7), linear()),
        hs.spiking.RecurrentNeurons(linear(), 0.9, 0.7),
    ),
    "one to one, zero": (
        snn.RLeaky(0.9, V=0.3, all_to_all=False, reset_mechanism="zero"),
        hs.spiking.RecurrentNeurons(0.3, 0.9, reset="zero"),
    ),
    "recurrent synaptic": (
        with_layer(snn.RSynaptic(0.6, 0.9, linear_features=5), linear()),
        hs.spiking.RecurrentSynapticNeurons(0.6, linear(), 0.9),
    ),
    "lapicque": (
        snn.Lapicque(R=2.0, C=3.0, time_step=1.0),
        hs.spiking.LapicqueNeurons(2.0, 3.0, 1.0),
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_a_loop_over_snntorchs_neurons_gives_what_ours_give_over_all_steps(kind):
    theirs, ours = PAIRS[kind]
    x = currents(1.5)
    ours = integers_of(ours, TOP).eval()
    ours.steps = len(x)
    want = [part[0, :, 0] for part in ours.run_steps(x[None, :, None])]
    got = stepped(whole(theirs), x)
    assert want[0].sum() > 10
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["recurrent", "recurrent synaptic", "lapicque"])
def test_a_sequence_in_pieces_is_the_sequence(kind):
    neurons, x = integers_of(PAIRS[kind][1], TOP).eval(), currents(1.5)[None, :, None]
    neurons.steps = 40
    want = neurons.run_steps(x)
    neurons.steps = 20
    first = neurons.run_steps(x[:, :20])
    second = neurons.run_steps(x[:, 20:], neurons.final_states(*first))
    for a, b, c in zip(want, first, second, strict=True):
        assert torch.equal(a, torch.cat([b, c], 1))


def test_membranes_that_never_fire_equal_integers_by_hand():
    readout, x = integers_of(hs.spiking.LeakyIntegrators(0.9, steps=40), 4096, state_bits=16).eval(), currents(20.0)
    got, v = readout(x)[:, 0], 0
    for current, found in zip(x[:, 0].tolist(), got.tolist(), strict=True):
        v = math.trunc(v * round(float(torch.tensor(0.9)) * 4096) / 4096) + round(current * 256)
        v = max(min(v, 2**15 - 1), -(2**15))
        assert found * 256 == v
    assert torch.equal(readout.train()(x), hs.spiking.LeakyIntegrators(0.9, steps=40)(x))


class Net(nn.Module):
    """Batch norm, kept states, and a readout of membranes."""

    def __init__(self, neuron=None):
        super().__init__()
        self.fc1, self.norm = nn.Linear(64, 12), nn.BatchNorm1d(12)
        self.lif = neuron or snn.Leaky(0.9, init_hidden=True)
        self.fc2, self.out = nn.Linear(12, 10), snn.Leaky(0.9, reset_mechanism="none")

    def forward(self, x):
        self.lif.reset_mem()
        membrane = self.out.init_leaky()
        for _ in range(5):
            _, membrane = self.out(self.fc2(self.lif(self.norm(self.fc1(3 * x.flatten(1))))), membrane)
        return membrane


def test_a_network_in_integers():
    torch.manual_seed(0)
    net, x = Net(), torch.rand(6, 1, 8, 8)
    net.norm.running_var.fill_(0.2)
    own = hs.convert(net, "loihi").eval()
    whole = hs.spiking.fixed_point(own, example=x)
    with torch.no_grad():
        floating, got = own(x), whole(x)
        assert torch.equal(got, whole(x))  # from rest again
        assert torch.equal(own(x), floating)  # the network itself is as it was
    assert 0 < (got - floating).abs().median() < 0.02  # but for a few spikes that tip over
    assert torch.equal((got * 4096).round(), got * 4096)
    weight = whole.network.fc1.weight
    norm = net.norm
    assert norm.running_var is not None
    folded = (net.fc1.weight * (norm.weight / torch.sqrt(norm.running_var + norm.eps))[:, None]).detach()
    scale = 2.0 ** math.ceil(math.log2(folded.abs().max() / 127))  # folded, though the loop calls it five times
    assert torch.equal(weight, (folded / scale).round() * scale)
    report = whole.report.set_index("layer")
    assert report.why["fc1"].startswith("8-bit weights x 2^")
    assert report.why["lif"] == "integers, threshold 4096"
    whole.train()
    with torch.no_grad():
        assert not torch.equal((whole(x) * 4096).round(), whole(x) * 4096)  # training stays in floating point


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable feature")
def test_what_has_no_integers_says_so():
    with pytest.raises(hs.HpmlError, match="layer 'lif': snnTorch's Alpha has no integer arithmetic; Leaky"):
        hs.spiking.fixed_point(hs.convert(Net(snn.Alpha(0.9, 0.8, init_hidden=True)), "loihi"))
    with pytest.raises(hs.HpmlError, match="layer 'lif': inhibition among neurons"):
        hs.spiking.fixed_point(hs.convert(Net(snn.Leaky(0.9, inhibition=True, init_hidden=True)), "loihi"))
    with pytest.raises(hs.HpmlError, match="layer 'lif': its state_quant rounds its states already"):
        hs.spiking.fixed_point(hs.convert(Net(snn.Leaky(0.9, state_quant=torch.round, init_hidden=True)), "loihi"))
    pruned = Net()
    l1_unstructured(pruned.fc1, "weight", amount=0.5)
    with pytest.raises(hs.HpmlError, match="layer 'fc1': its weight is computed from other parameters at every call"):
        hs.spiking.fixed_point(hs.convert(pruned, "loihi"))
    mixed = Net()
    mixed.more = nn.LSTM(12, 4)
    with pytest.raises(hs.HpmlError, match="layer 'more': LSTM has the matrix 'weight_ih_l0'"):
        hs.spiking.fixed_point(hs.convert(mixed, "loihi"))
