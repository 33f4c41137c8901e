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
    RecurrentSynapticNeurons,
    SynapticNeurons,
    fuse,
)

WIDTH = 7


def recurrent(**options):
    torch.manual_seed(1)
    return snn.RLeaky(0.9, linear_features=WIDTH, **options)


def rsynaptic(**options):
    torch.manual_seed(1)
    return snn.RSynaptic(0.7, 0.8, linear_features=WIDTH, **options)


def at_once(options):
    """snnTorch's own "subtract" locks up here, so "zero" takes its place."""
    reset = "zero" if options["reset_mechanism"] == "subtract" else options["reset_mechanism"]
    return {**options, "reset_mechanism": reset, "reset_delay": False}


def makers():
    vector = torch.linspace(0.5, 0.9, WIDTH)
    yield "synaptic", lambda **o: snn.Synaptic(0.8, vector, learn_alpha=True, learn_beta=True, **o)
    yield "alpha", lambda **o: snn.Alpha(0.95, vector, **o)
    yield "lapicque", lambda **o: snn.Lapicque(R=2.0, C=3.0, time_step=0.7, **o)
    yield "lapicque-beta", lambda **o: snn.Lapicque(0.8, **o)
    yield "one-to-one", lambda **o: snn.RLeaky(0.9, V=0.3, all_to_all=False, **o)
    yield "all-to-all", recurrent
    yield "synaptic-at-once", lambda **o: snn.Synaptic(0.8, vector, learn_alpha=True, **at_once(o))
    yield "one-to-one-at-once", lambda **o: snn.RLeaky(0.9, V=0.3, all_to_all=False, learn_beta=True, **at_once(o))
    yield "all-to-all-at-once", lambda **o: recurrent(**at_once(o))
    yield "rsynaptic", lambda **o: rsynaptic(learn_alpha=True, learn_beta=True, **o)
    yield "rsynaptic-one-to-one", lambda **o: snn.RSynaptic(0.8, 0.9, V=vector, all_to_all=False, **o)
    yield "leaky-at-once", lambda **o: snn.Leaky(vector, **at_once(o))


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


@pytest.mark.parametrize("kind", [snn.RLeaky, snn.RSynaptic])
def test_recurrent_convolutions_equal_snntorchs_loop(kind):
    torch.manual_seed(2)
    decays = (0.9,) if kind is snn.RLeaky else (0.7, 0.9)
    neuron = kind(*decays, conv2d_channels=2, kernel_size=3, threshold=0.6, init_hidden=True, output=True)
    fast = fuse(neuron)
    x = 0.5 * torch.randn(8, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.3
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    want, got = loop(neuron, theirs), fast(ours)
    assert 0 < want[0].sum() < want[0].numel()
    assert torch.equal(got[0], want[0])
    want[0].square().sum().backward()
    got[0].square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)
    mine = dict(fast.network.neurons.recurrent.named_parameters())
    for name, parameter in neuron.recurrent.named_parameters():
        torch.testing.assert_close(mine[name].grad, parameter.grad, rtol=1e-4, atol=1e-4)


def test_recurrent_synaptic_at_once_which_snntorch_cannot():
    """An oracle in numpy, float64, from the equations of `kernels/recurrent/reference.py`."""
    torch.manual_seed(1)
    neuron = snn.RSynaptic(0.7, 0.8, linear_features=WIDTH, reset_mechanism="zero", reset_delay=False)
    neuron = neuron.double()
    x = torch.randn(30, 4, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spikes, current, membrane = fuse(neuron)(x)
    weight, bias = (p.detach().numpy() for p in (neuron.recurrent.weight, neuron.recurrent.bias))
    alpha, beta = float(neuron.alpha), float(neuron.beta)
    i = m = s = np.zeros((4, WIDTH))
    for t in range(30):
        i = alpha * i + x[t].numpy() + s @ weight.T + bias
        v = beta * m + i
        s = (v > 1.0).astype(float)
        m = v * (1 - s)
        np.testing.assert_array_equal(spikes[t].detach(), s)
        np.testing.assert_allclose(current[t].detach(), i, atol=1e-12)
        np.testing.assert_allclose(membrane[t].detach(), m, atol=1e-12)
    assert spikes.sum() > 50


@pytest.mark.parametrize("make", [
    lambda: RecurrentSynapticNeurons(0.6, nn.Linear(3, 3).double(), 0.8, 0.5, reset_delay=False, learn_alpha=True),
    lambda: RecurrentNeurons(nn.Linear(3, 3).double(), 0.8, 0.5, reset="zero", reset_delay=False),
    lambda: SynapticNeurons(0.6, 0.8, 0.5, reset_delay=False, learn_alpha=True),
])  # fmt: skip
def test_gradients_at_once_against_autograd(make):
    """The same equations step by step, differentiated by autograd with the same surrogate."""
    torch.manual_seed(0)
    neurons = make().double()
    x = (0.5 * torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.3).double()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    neurons.steps = 9
    alpha = getattr(neurons, "alpha", None)
    layer = getattr(neurons, "recurrent", None)
    spike = surrogate.atan()
    m = i = s = torch.zeros(2, 3, dtype=torch.float64)
    total, weight = 0.0, torch.linspace(-1, 1, 9 * 6, dtype=torch.float64).reshape(9, 2, 3)
    for t, current in enumerate(theirs.unbind(0)):
        i = (0 if alpha is None else alpha * i) + current + (0 if layer is None else layer(s))
        v = neurons.beta * m + i
        s = spike(v - neurons.threshold).double()
        m = v - s * (v if neurons.reset == "zero" else neurons.threshold)
        total = total + (s * weight[t]).sum()
    total.backward()
    want = {name: p.grad.clone() for name, p in neurons.named_parameters()}
    neurons.zero_grad()
    out = neurons(ours.flatten(0, 1)).unflatten(0, (9, 2))
    assert 0 < out.sum() < out.numel()
    (out * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert want
    for name, parameter in neurons.named_parameters():
        torch.testing.assert_close(parameter.grad, want[name])


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
        (lambda: snn.Synaptic(0.9, 0.8, reset_delay=False), "reset_delay=False with reset_mechanism='subtract'"),
        (lambda: snn.Lapicque(0.8, learn_beta=True), "never uses its beta"),
        (lambda: nn.Sequential(snn.SConv2dLSTM(1, 2, 3)), "SConv2dLSTM has a memory and no fused equal"),
    ],
)
def test_what_has_no_fused_equal_is_named(neuron, message):
    with pytest.raises(ConversionError, match=message):
        fuse(neuron())


def test_adaptation_slows_a_neuron_down():
    drive = torch.full((60, 1), 0.4)
    adaptive = AdaptiveNeurons(0.9, 1.0, adaptation_decay=0.99, adaptation=0.3, steps=60)(drive)
    plain = AdaptiveNeurons(0.9, 1.0, adaptation=0.0, steps=60)(drive)
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
        (lambda: AdaptiveNeurons(adaptation=-0.1), "adaptation=-0.1 must be >= 0"),
        (lambda: AdaptiveNeurons(adaptation_decay=2.0), r"adaptation_decay=2.0 must lie in \[0, 1\]"),
        (lambda: IzhikevichNeurons(time_step=2.0), r"time_step=2.0: must be a finite number > 0 and <= 1"),
        (lambda: LeakyNeurons(0.9, reset_delay=False, engine="snntorch"), "silent above its threshold"),
        (lambda: RecurrentNeurons(nn.Conv2d(3, 4, 3)), "must keep the number of channels"),
        (
            lambda: RecurrentNeurons(nn.Linear(3, 3), steps=2)(torch.zeros(4, 5)),
            r"does not take the spikes of \(1, 2, 5\) .*its weights are \[\(3, 3\), \(3,\)\]",
        ),
        (
            lambda: RecurrentNeurons(nn.Conv2d(3, 3, 3), steps=2)(torch.zeros(4, 3, 5, 5)),
            r"does not take the spikes of \(1, 2, 3, 5, 5\) .*to currents of that shape",
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
        spikes, *_, membrane = neurons.run_steps(neurons.unfold(drive))
        (spikes.sum() + membrane.sum()).backward()
        results.append((spikes.detach(), membrane.detach(), drive.grad))
    for fused, theirs in zip(*results, strict=True):
        torch.testing.assert_close(fused, theirs)
