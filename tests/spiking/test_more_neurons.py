"""Every fused neuron against snnTorch's own in its loop, and the two that snnTorch lacks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from torch import nn

from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking import (
    AdaptiveNeurons,
    AlphaNeurons,
    IzhikevichNeurons,
    LapicqueNeurons,
    LeakyNeurons,
    RecurrentNeurons,
    SynapticNeurons,
    fuse,
)

WIDTH = 7


def recurrent(**options):
    torch.manual_seed(1)
    return snn.RLeaky(0.9, linear_features=WIDTH, **options)


def makers():
    vector = torch.linspace(0.5, 0.9, WIDTH)
    yield "synaptic", lambda **o: snn.Synaptic(0.8, vector, learn_alpha=True, learn_beta=True, **o)
    yield "alpha", lambda **o: snn.Alpha(0.95, vector, **o)
    yield "lapicque", lambda **o: snn.Lapicque(R=2.0, C=3.0, time_step=0.7, **o)
    yield "lapicque-beta", lambda **o: snn.Lapicque(0.8, **o)
    yield "one-to-one", lambda **o: snn.RLeaky(0.9, V=0.3, all_to_all=False, **o)
    yield "all-to-all", recurrent
    yield "leaky-at-once", lambda **o: snn.Leaky(vector, **{**o, "reset_mechanism": "zero"}, reset_delay=False)


MAKERS = dict(makers())


def loop(neuron, x):
    out = [neuron(current) for current in x.unbind(0)]
    return [torch.stack(parts) for parts in zip(*out, strict=True)]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("gradient", ["atan", "SFS"])
def test_fused_equals_snntorchs_loop(kind, reset, gradient):
    neuron = MAKERS[kind](
        threshold=0.6,
        reset_mechanism=reset,
        spike_grad=getattr(surrogate, gradient)(),
        init_hidden=True,
        output=True,
        learn_threshold=True,
    )
    fast = fuse(neuron)
    x = 0.5 * torch.randn(20, 3, WIDTH, generator=torch.Generator().manual_seed(0)) + 0.2
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    want, got = loop(neuron, theirs), fast(ours)
    if kind == "one-to-one" or kind == "all-to-all":
        want = [want[0], want[-1]]  # snnTorch gives (spikes, membrane) too
    assert len(got) == len(want)
    assert 0 < want[0].sum() < want[0].numel()
    for value, wanted in zip(got, want, strict=True):
        np.testing.assert_array_equal(value.detach(), wanted.detach())
    want[0].square().sum().backward()
    got[0].square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
    mine = {name.split(".")[-1]: p.grad for name, p in fast.named_parameters()}
    for name, parameter in neuron.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(
                mine[name.split(".")[-1]].reshape(parameter.shape), parameter.grad, rtol=1e-4, atol=1e-4
            )


def test_a_network_of_several_kinds():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, WIDTH),
        snn.Synaptic(0.8, 0.9, init_hidden=True),
        nn.Linear(WIDTH, WIDTH),
        recurrent(init_hidden=True),
        nn.Linear(WIDTH, 4),
        snn.Alpha(0.9, 0.8, init_hidden=True, output=True),
    )
    x = torch.rand(15, 2, 5)
    fast = fuse(net)
    out = fast(x)
    want = loop(net, x)
    assert [part.shape for part in out] == [(15, 2, 4)] * 4
    assert (out[0] != want[0]).float().mean() < 0.02
    assert torch.equal(pickle.loads(pickle.dumps(fast))(x)[0], out[0])
    assert torch.equal(copy.deepcopy(fast)(x[:, :1])[0], out[0][:, :1])
    fast.eval()(x)
    counted = {type(m): m.spike_count for m in fast.modules() if isinstance(m, LeakyNeurons)}
    assert set(counted) == {SynapticNeurons, RecurrentNeurons, AlphaNeurons}
    assert counted[AlphaNeurons] == int(out[0].sum())  # also where states are returned


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (lambda: snn.RLeaky(0.9, conv2d_channels=2, kernel_size=3), "a recurrent Conv2d has no fused equal"),
        (lambda: snn.Synaptic(0.9, 0.8, reset_mechanism="zero", reset_delay=False), "reset_delay=False"),
        (lambda: snn.Lapicque(0.8, learn_beta=True), "never uses its beta"),
        (lambda: snn.RSynaptic(0.9, 0.8, linear_features=3), "RSynaptic has a memory and no fused equal"),
    ],
)
def test_what_has_no_fused_equal_is_named(neuron, message):
    with pytest.raises(ConversionError, match=message):
        fuse(neuron())


def test_adaptation_slows_a_neuron_down():
    drive = torch.full((60, 1), 0.4)
    adaptive = AdaptiveNeurons(0.9, 1.0, rho=0.99, kappa=0.3, steps=60)(drive)
    plain = AdaptiveNeurons(0.9, 1.0, kappa=0.0, steps=60)(drive)
    leaky = LeakyNeurons(0.9, 1.0, steps=60)(drive)
    assert torch.equal(plain, leaky)  # without adaptation: leaky, reset by subtraction
    at = torch.nonzero(adaptive[:, 0]).flatten()
    assert adaptive.sum() < plain.sum()
    assert (at[-1] - at[-2]) > (at[1] - at[0])


def test_izhikevich_rests_without_current_and_fires_with_it():
    neurons = IzhikevichNeurons(steps=400)
    assert neurons(torch.zeros(400, 2)).sum() == 0
    drive = torch.full((400, 2), 10.0, requires_grad=True)
    spikes = neurons(drive)
    assert 2 < spikes[:, 0].sum() < 20
    spikes.sum().backward()
    assert torch.isfinite(drive.grad).all()
    assert drive.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SynapticNeurons(1.2), r"SynapticNeurons: alpha=1.2 must lie in \[0, 1\]"),
        (lambda: SynapticNeurons(0.9, engine="snntorch"), "do not have this option"),
        (lambda: AlphaNeurons(0.5, 0.8), "0 < beta < alpha < 1"),
        (lambda: LapicqueNeurons(1.0, 0.5, 1.0), r"exceeds R C=0.5"),
        (lambda: LapicqueNeurons(-1.0), "resistance=-1.0 must be > 0"),
        (lambda: RecurrentNeurons(nn.Linear(3, 4)), "must be square"),
        (lambda: AdaptiveNeurons(kappa=-0.1), "kappa=-0.1 must be >= 0"),
        (lambda: AdaptiveNeurons(rho=2.0), r"rho=2.0 must lie in \[0, 1\]"),
        (lambda: IzhikevichNeurons(time_step=2.0), r"time_step=2.0 ms must lie in \(0, 1\]"),
        (lambda: LeakyNeurons(0.9, reset_delay=False, engine="snntorch"), "locks up"),
        (
            lambda: RecurrentNeurons(nn.Linear(3, 3), steps=2)(torch.zeros(4, 5)),
            r"the weights are \(neurons, neurons\)",
        ),
        (lambda: RecurrentNeurons(nn.Linear(3, 3))(torch.zeros(4, 3, dtype=torch.long)), "must be floating point"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(HpmlError, match=message):
        make()


def test_both_engines_agree_at_once():
    x = 0.6 * torch.randn(12, 5, generator=torch.Generator().manual_seed(0)) + 0.2
    results = []
    for engine in ("fused", "snntorch"):
        neurons = LeakyNeurons(0.9, reset="zero", reset_delay=False, steps=6, engine=engine, surrogate="sigmoid")
        drive = x.clone().requires_grad_()
        spikes, membrane = neurons.run(neurons.unfold(drive))
        (spikes.sum() + membrane.sum()).backward()
        results.append((spikes.detach(), membrane.detach(), drive.grad))
    for fused, theirs in zip(*results, strict=True):
        torch.testing.assert_close(fused, theirs)
