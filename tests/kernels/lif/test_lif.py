from __future__ import annotations

import threading

import numpy as np
import pytest
import snntorch as snn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels.lif import leaky

from .oracle import leaky_backward, leaky_forward, snntorch_leaky

RESETS, SURROGATES = ["subtract", "zero", "none"], ["atan", "fast_sigmoid"]
ENGINES = ["torch", "numba", "numba-cuda"]


def draw(shape, dtype, seed=0):
    """Input around the threshold, and gradients of spikes and membranes that float32 holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    x, grad_spikes, grad_membrane = (torch.randn(shape, generator=generator) for _ in range(3))
    return (0.6 * x + 0.2).to(dtype), grad_spikes.to(dtype), grad_membrane.to(dtype)


def run(x, grads, *args, **kwargs):
    """Spikes, membranes and input gradient."""
    x = x.clone().requires_grad_()
    spikes, membrane = leaky(x, *args, **kwargs)
    torch.autograd.backward([spikes, membrane], list(grads))
    return spikes.detach(), membrane.detach(), x.grad


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("engine", ENGINES)
def test_float64_equals_the_equations(reset, surrogate, engine):
    parameter = {"atan": 2.0, "fast_sigmoid": 25.0}[surrogate]
    x, grad_spikes, grad_membrane = draw((12, 3, 5), torch.float64)
    device = "cuda" if engine == "numba-cuda" and torch.cuda.is_available() else "cpu"
    beta = torch.tensor(0.85, dtype=torch.float64, requires_grad=True)
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    grads = (grad_spikes.to(device), grad_membrane.to(device))
    found = run(x.to(device), grads, beta, theta, reset=reset, surrogate=surrogate, engine=engine)
    spikes, membrane, grad_x = (value.cpu() for value in found)
    want_spikes, want_membrane = leaky_forward(x.numpy(), 0.85, 0.7, reset)
    want_x, want_beta, want_theta = leaky_backward(
        want_membrane, grad_spikes.numpy(), grad_membrane.numpy(), 0.85, 0.7, reset, surrogate, parameter
    )
    assert want_spikes.sum() > 10
    np.testing.assert_array_equal(spikes, want_spikes)
    np.testing.assert_allclose(membrane, want_membrane, rtol=0, atol=1e-13)
    np.testing.assert_allclose(grad_x, want_x, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose([float(beta.grad), float(theta.grad)], [want_beta, want_theta], rtol=1e-10)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 4), st.integers(1, 40)),
    reset=st.sampled_from(RESETS),
    surrogate=st.sampled_from(SURROGATES),
    parameter=st.floats(0.25, 30),
    beta=st.floats(0, 1),
    theta=st.floats(0.1, 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    with_membrane=st.booleans(),
    engine=st.sampled_from(["torch", "numba"]),
    seed=st.integers(0, 1000),
)
def test_equals_snntorch_to_the_last_bit(
    shape, reset, surrogate, parameter, beta, theta, dtype, with_membrane, engine, seed
):
    x, grad_spikes, grad_membrane = draw(shape, dtype, seed)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    want_spikes, want_membrane, neuron = snntorch_leaky(theirs, beta, theta, reset, surrogate, parameter)
    spikes, membrane = leaky(
        ours, neuron.beta, neuron.threshold, reset=reset, surrogate=surrogate, slope=parameter, engine=engine
    )
    if with_membrane:
        torch.autograd.backward([want_spikes, want_membrane], [grad_spikes, grad_membrane])
        torch.autograd.backward([spikes, membrane], [grad_spikes, grad_membrane])
    else:
        want_spikes.backward(grad_spikes)
        spikes.backward(grad_spikes)
    assert spikes.dtype == membrane.dtype == dtype
    np.testing.assert_array_equal(spikes.detach(), want_spikes.detach())
    np.testing.assert_array_equal(membrane.detach(), want_membrane.detach())
    np.testing.assert_array_equal(ours.grad, theirs.grad)


@settings(max_examples=12)
@given(
    shape=st.tuples(st.integers(1, 2), st.sampled_from([1, 5, 8, 11, 16]), st.integers(1, 9)),  # 8 steps are read ahead
    reset=st.sampled_from(RESETS),
    surrogate=st.sampled_from(SURROGATES),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_cuda_kernel_equals_the_reference_to_the_last_bit(shape, reset, surrogate, dtype, seed):
    x, *grads = draw(shape, dtype, seed)
    options = {"reset": reset, "surrogate": surrogate, "time_dim": 1}
    want = run(x, grads, 0.9, 0.8, engine="torch", **options)
    if torch.cuda.is_available():
        x, grads = x.cuda(), [grad.cuda() for grad in grads]
    for got, wanted in zip(run(x, grads, 0.9, 0.8, engine="numba-cuda", **options), want, strict=True):
        np.testing.assert_array_equal(got.cpu(), wanted)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_learned_beta_and_threshold_of_each_neuron(reset, surrogate):
    x, grad_spikes, _ = draw((20, 4, 6), torch.float32)
    start_beta, start_theta = torch.linspace(0.5, 0.99, 6), torch.linspace(0.5, 1.5, 6)
    spikes, _, neuron = snntorch_leaky(
        x, start_beta.clone(), start_theta.clone(), reset, surrogate, 2.0, learn_beta=True, learn_threshold=True
    )
    spikes.backward(grad_spikes)
    beta, theta = start_beta.clone().requires_grad_(), start_theta.clone().requires_grad_()
    ours, _ = leaky(x, beta, theta, reset=reset, surrogate=surrogate, slope=2.0)
    ours.backward(grad_spikes)
    np.testing.assert_array_equal(ours.detach(), spikes.detach())
    np.testing.assert_allclose(beta.grad, neuron.beta.grad, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(theta.grad, neuron.threshold.grad, rtol=2e-5, atol=1e-5)


def test_gradient_of_beta_outside_its_range_is_zero():
    beta = torch.tensor(1.2, requires_grad=True)
    spikes, membrane = leaky(torch.full((5, 3), 0.4), beta, 1.0)
    (spikes.sum() + membrane.sum()).backward()
    assert beta.grad == 0
    assert torch.equal(membrane, leaky(torch.full((5, 3), 0.4), 1.0, 1.0)[1])


def test_threads_change_nothing():
    x, *grads = draw((130, 64, 257), torch.float32)  # large enough that threads are started
    want = run(x, grads, 0.95, 1.0, engine="torch")
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for got, wanted in zip(run(x, grads, 0.95, 1.0, engine="numba"), want, strict=True):
                np.testing.assert_array_equal(got, wanted)
    finally:
        torch.set_num_threads(before)


def test_several_python_threads_at_once():
    x, *grads = draw((40, 64, 257), torch.float32)
    want = run(x, grads, 0.95, 1.0)[0]
    seen = []
    workers = [threading.Thread(target=lambda: seen.append(leaky(x, 0.95, 1.0)[0])) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(seen) == 4
    assert all(torch.equal(spikes, want) for spikes in seen)


def test_input_in_any_memory_order_and_time_anywhere():
    x, grad_spikes, grad_membrane = draw((6, 10, 7), torch.float32)
    want = run(x, (grad_spikes, grad_membrane), 0.9, 1.0)
    moved = [tensor.permute(1, 2, 0) for tensor in (x, grad_spikes, grad_membrane)]
    with pytest.raises(HpmlError, match="no time step"):
        leaky(x, 0.9, 1.0, time_dim=3)
    # time last: nothing after it, so every neuron is a "chip"
    got = run(moved[0], moved[1:], 0.9, 1.0, time_dim=2)
    for value, wanted in zip(got, want, strict=True):
        np.testing.assert_array_equal(value.permute(2, 0, 1), wanted)


def test_no_neurons_and_no_samples():
    for shape in ((4, 0, 3), (4, 2, 0)):
        spikes, membrane = leaky(torch.zeros(shape), 0.9, 1.0)
        assert spikes.shape == membrane.shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_stay_short(dtype):
    x, *_ = draw((5, 2, 3), dtype)
    x.requires_grad_()
    spikes, membrane = leaky(x, 0.9, 1.0)
    (spikes + membrane).sum().backward()
    assert spikes.dtype == membrane.dtype == x.grad.dtype == dtype


def test_a_membrane_at_the_threshold_does_not_fire():
    spikes, _ = leaky(torch.tensor([[1.0], [1.0]]), 0.0, 1.0)
    assert spikes.sum() == 0
    spikes, _ = leaky(torch.tensor([[np.nextafter(np.float32(1), np.float32(2))]]), 0.0, 1.0)
    assert spikes.sum() == 1


def test_infinity_and_nan_go_where_snntorchs_go():
    x = torch.tensor([[np.inf, np.nan, -np.inf, 2.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    for reset in RESETS:
        want_spikes, want_membrane, _ = snntorch_leaky(x, 0.9, 1.0, reset, "atan", 2.0)
        spikes, membrane = leaky(x, 0.9, 1.0, reset=reset)
        np.testing.assert_array_equal(spikes, want_spikes)
        np.testing.assert_array_equal(membrane, want_membrane)


def test_bad_input_is_named():
    x = torch.zeros(3, 2)
    with pytest.raises(UnknownNameError, match=r"unknown reset 'substract'. Did you mean 'subtract'"):
        leaky(x, 0.9, 1.0, reset="substract")
    with pytest.raises(UnknownNameError, match="unknown surrogate"):
        leaky(x, 0.9, 1.0, surrogate="tan")
    with pytest.raises(UnknownNameError, match="unknown engine"):
        leaky(x, 0.9, 1.0, engine="cuda!")
    with pytest.raises(HpmlError, match=r"int64; it must be floating point"):
        leaky(x.long(), 0.9, 1.0)
    with pytest.raises(HpmlError, match="no time step"):
        leaky(torch.zeros(0, 2), 0.9, 1.0)
    with pytest.raises(HpmlError, match=r"does not take torch.bfloat16"):
        leaky(x.bfloat16(), 0.9, 1.0, engine="numba")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reset", RESETS)
def test_a_constant_current_is_that_of_every_step(engine, reset):
    """Spikes, membranes, and the sum of the gradients, to the last bit what snnTorch's loop gives."""
    steps, (x, _, _) = 7, draw((1, 2, 5), torch.float32)
    _, *grads = draw((steps, 2, 5), torch.float32)
    mine, other = x.clone().requires_grad_(), x[0].clone().requires_grad_()
    neuron = snn.Leaky(0.9, threshold=0.3, reset_mechanism=reset)
    membrane, spikes, membranes = torch.zeros(2, 5), [], []
    for _ in range(steps):
        spike, membrane = neuron(other, membrane)
        spikes.append(spike)
        membranes.append(membrane)
    torch.autograd.backward([torch.stack(spikes), torch.stack(membranes)], grads)
    device = "cuda" if engine == "numba-cuda" and torch.cuda.is_available() else "cpu"
    ours = leaky(mine.to(device), 0.9, neuron.threshold, reset=reset, steps=steps, engine=engine)
    torch.autograd.backward(ours, [grad.to(device) for grad in grads])
    assert 0 < ours[0].sum() < ours[0].numel()
    for value, want in zip(
        (*ours, mine.grad[0]), (torch.stack(spikes), torch.stack(membranes), other.grad), strict=True
    ):
        np.testing.assert_array_equal(value.detach().cpu(), want.detach())


def test_a_constant_current_with_learned_parameters_a_start_or_an_immediate_reset():
    x, start, _ = (part[0] for part in draw((1, 3, 4), torch.float64))
    for options in ({"start": start}, {"reset_delay": False}, {}):
        results = []
        for constant in (True, False):
            current = x.clone().requires_grad_()
            beta = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
            given, steps = (current[None], 6) if constant else (current.expand(6, 3, 4), None)
            spikes, membrane = leaky(given, beta, 0.4, steps=steps, **options)
            (spikes.sum() + membrane.pow(2).sum()).backward()
            results.append((spikes.detach(), membrane.detach(), current.grad, beta.grad))
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def test_steps_must_fit():
    with pytest.raises(HpmlError, match=r"steps=4, but x of shape \(3, 2\) has 3 steps"):
        leaky(torch.zeros(3, 2), 0.9, 1.0, steps=4)
    with pytest.raises(HpmlError, match=r"steps=0, .* steps must be >= 1"):
        leaky(torch.zeros(1, 2), 0.9, 1.0, steps=0)
    assert leaky(torch.zeros(3, 2), 0.9, 1.0, steps=3)[0].shape == (3, 2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("shape", [(1, 1, 4, 5), (1, 3, 4, 5), (6, 1, 1, 5), (1, 1, 1, 1)])
def test_an_expanded_gradient_is_that_of_its_copy(engine, surrogate, shape):
    """As of a sum over steps, samples or all; learned parameters and membrane potentials included."""
    found = []
    _, small, _ = draw(shape, torch.float64, 3)
    for grad in (small.expand(6, 3, 4, 5), small.expand(6, 3, 4, 5).contiguous()):
        x = draw((6, 3, 4, 5), torch.float64)[0].requires_grad_()
        beta = torch.full((4, 5), 0.9, dtype=torch.float64, requires_grad=True)
        outputs = leaky(x, beta, 1.0, surrogate=surrogate, engine=engine)
        torch.autograd.backward(outputs, (grad, 0.5 * grad if grad.is_contiguous() else (0.5 * small).expand_as(grad)))
        found.append((x.grad, beta.grad))
    for ours, want in zip(*found, strict=True):
        assert torch.equal(ours, want)
