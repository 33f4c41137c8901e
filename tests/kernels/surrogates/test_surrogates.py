from __future__ import annotations

import pickle

import numpy as np
import pytest
import snntorch as snn
import torch

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels.lif import leaky
from hpml_sim.kernels.surrogates import SURROGATES, Surrogate, surrogate

RESETS = ["subtract", "zero", "none"]
WORKING = sorted(set(SURROGATES) - {"LSO"})


def rectangle(u, grad, spikes):
    return grad * (u.abs() < 0.5).to(u.dtype)


def loop(x, neuron):
    membrane, spikes, membranes = torch.zeros_like(x[0]), [], []
    for current in x.unbind(0):
        spike, membrane = neuron(current, membrane)
        spikes.append(spike.to(x.dtype))
        membranes.append(membrane)
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize("name", [*WORKING, "custom"])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_snntorch_to_the_last_bit(name, reset, dtype):
    generator = torch.Generator().manual_seed(3)
    x = (0.6 * torch.randn(15, 4, 33, generator=generator) + 0.2).to(dtype)
    grads = [torch.randn(15, 4, 33, generator=generator).to(dtype) for _ in range(2)]
    kind, theirs = name, getattr(snn.surrogate, name, snn.surrogate.atan)
    if name == "custom":
        kind, theirs = rectangle, lambda: snn.surrogate.custom_surrogate(rectangle)
    if name == "sigmoid":  # where it is finite in snnTorch
        kind, theirs = surrogate("sigmoid", 5), lambda: snn.surrogate.sigmoid(5)
    results = []
    for engine in ("numba", "torch", "numba-cuda", "snntorch"):
        on_gpu = engine == "numba-cuda" and torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        if on_gpu and name == "SSO":
            continue  # a GPU draws other numbers
        drive = x.to(device, copy=True).requires_grad_()
        if engine == "snntorch":
            out = loop(drive, snn.Leaky(0.9, reset_mechanism=reset, spike_grad=theirs()))
        elif engine == "numba-cuda" and not torch.cuda.is_available():
            out = leaky(drive[:4, :1, :5], 0.9, 1.0, reset=reset, surrogate=kind, engine=engine)
            out[0].sum().backward()  # the simulator is slow: that it runs, and equality in test_lif.py
            continue
        else:
            out = leaky(drive, 0.9, 1.0, reset=reset, surrogate=kind, engine=engine)
        with torch.random.fork_rng():
            torch.manual_seed(7)  # for SSO, whose gradient is drawn
            torch.autograd.backward(out, [grad.to(device) for grad in grads])
        results.append((*(value.detach().cpu() for value in (*out, drive.grad)), on_gpu))
    for *got, on_gpu in results[:-1]:
        for value, want in zip(got, results[-1], strict=False):
            assert value.dtype == dtype
            if on_gpu and name not in ("atan", "fast_sigmoid"):
                np.testing.assert_allclose(value, want, rtol=1e-3, atol=1e-5)  # by torch, whose exp is another there
            elif dtype == torch.float64 and name in ("sigmoid", "spike_rate_escape"):
                # snnTorch multiplies by the slope in float32, because its spikes are float32
                np.testing.assert_allclose(value.detach(), want.detach(), rtol=1e-3, atol=1e-5)
            else:
                np.testing.assert_array_equal(value.detach(), want.detach())


def test_sigmoid_is_finite_where_snntorchs_is_not():
    u = torch.tensor([[-5.0, -4.0, -0.1, 0.1, 4.0]], dtype=torch.float32)
    ones = torch.ones_like(u)
    mended = surrogate("sigmoid").gradient(u, ones, (u > 0).float())
    s = 1 / (1 + np.exp(-25 * u.double().numpy()))
    np.testing.assert_allclose(mended, 25 * s * (1 - s), rtol=1e-5, atol=1e-9)
    drive = u.clone().requires_grad_()
    snn.surrogate.sigmoid()(drive).sum().backward()
    assert torch.isnan(drive.grad[0, :2]).all()  # the day snnTorch mends it, ours may go


def test_lso_has_the_gradient_that_its_documentation_gives():
    u = torch.tensor([[-2.0, -0.1, 0.0, 0.1, 2.0]])
    got = surrogate("LSO", slope=0.3).gradient(u, torch.full_like(u, 2.0), (u > 0).float())
    np.testing.assert_allclose(got, [[0.6, 0.6, 0.6, 2.0, 2.0]], rtol=1e-6)
    drive = u.clone().requires_grad_()
    with pytest.raises(TypeError):  # broken in snnTorch 1.0
        snn.surrogate.LSO()(drive)


def test_learned_threshold_takes_every_surrogate():
    x = torch.randn(10, 3, 8, generator=torch.Generator().manual_seed(0))
    for name in ("triangular", "SFS", "spike_rate_escape"):
        theta = torch.tensor(1.0, requires_grad=True)
        leaky(x, 0.9, theta, surrogate=name)[0].square().sum().backward()
        neuron = snn.Leaky(0.9, threshold=1.0, learn_threshold=True, spike_grad=getattr(snn.surrogate, name)())
        loop(x, neuron)[0].square().sum().backward()
        torch.testing.assert_close(theta.grad, neuron.threshold.grad, rtol=1e-4, atol=1e-4)


def test_one_object_names_it_and_survives_pickle():
    made = surrogate("SFS", B=0.5)
    assert made == Surrogate("SFS", (25.0, 0.5))
    assert str(made) == "SFS(slope=25, B=0.5)"
    assert surrogate(made) is made
    assert pickle.loads(pickle.dumps(made)) == made
    assert surrogate("spike_rate_escape", 3.0).parameters == (3.0, 25.0)
    assert surrogate("spike_rate_escape", slope=3.0).parameters == (1.0, 3.0)
    assert surrogate("spike_rate_escape", beta=2.0, slope=3.0).parameters == (2.0, 3.0)
    assert surrogate("atan", slope=3.0).parameters == (3.0,)
    assert str(surrogate(torch.relu)) == "custom()"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("atn",), {}, "unknown surrogate 'atn'. Did you mean 'atan'"),
        (("SFS",), {"bound": 1.0}, "unknown parameter of surrogate 'SFS' 'bound'"),
        (("heaviside", 2.0), {}, "'heaviside' has no parameter"),
        (("atan", float("nan")), {}, "alpha=nan: must be a finite number"),
        (("atan", 2.0), {"slope": 3.0}, "one parameter; give it once"),
        (("spike_rate_escape", 2.0), {"beta": 3.0}, "one parameter; give it once"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises((HpmlError, UnknownNameError), match=message):
        surrogate(*arguments, **options)
