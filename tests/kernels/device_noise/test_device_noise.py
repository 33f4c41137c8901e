import numpy as np
import pytest
import torch

from hpml_sim.kernels.device_noise import age_devices, drift_exponents, program_devices, reference
from hpml_sim.kernels.device_noise import cpu as kernel
from hpml_sim.kernels.random import fill_normal

READ = {"log_time": 8.0, "read": torch.linspace(0, 2, 101).sqrt(), "read_step": 0.3}


def model(n, seed=0):
    """Targets, and sigma, mean and spread for each, of n devices."""
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.rand(n, generator=generator) for scale in (25.0, 2.0, 0.1, 0.05)]


def normal(n, seed, skip=0):
    out = torch.empty(n)
    fill_normal(out, seed, skip)
    return out.double().numpy()


@pytest.mark.parametrize("n", [1, 511, 1024, 1025, 5000])
@pytest.mark.parametrize("log_time", [0.0, 0.3, 8.0, 1e4])
def test_devices_are_those_of_the_equations(n, log_time):
    """In float64 numpy, with the numbers that `fill_normal` draws from the two seeds."""
    target, sigma, mean, spread = (t.double().numpy() for t in model(n))
    programming = -(-n // 1024) * 512  # pairs
    g = np.maximum(0, target + sigma * normal(n, 7))
    nu = np.abs(mean + spread * normal(n, 7, programming))
    read = READ["read"].double().numpy()
    rho = np.interp(g, 0.3 * np.arange(101), read)
    want = np.maximum(0, np.exp(-nu * log_time) * (g + rho * normal(n, 9)))
    got, exponents, aged = torch.empty(n), torch.empty(n), torch.empty(n)
    program_devices(*model(n)[:2], 7, got)
    drift_exponents(*model(n)[2:], 7, exponents)
    age_devices(*model(n), seed=7, read_seed=9, out=aged, **{**READ, "log_time": log_time})
    np.testing.assert_allclose(got, g, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(exponents, nu, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(aged, want, rtol=2e-5 * max(1, log_time / 8), atol=2e-5)


def test_the_reference_is_what_the_kernels_approximate():
    """The definition draws its own normal numbers, in Python's whole numbers and float64."""
    n = 1500
    tables = [t.double().numpy() for t in model(n)]
    got, exponents, aged = torch.empty(n), torch.empty(n), torch.empty(n)
    program_devices(*model(n)[:2], 7, got)
    drift_exponents(*model(n)[2:], 7, exponents)
    age_devices(*model(n), seed=7, read_seed=9, out=aged, **READ)
    want = reference.age_devices(*tables, seed=7, read_seed=9, **{**READ, "read": READ["read"].double().numpy()})
    np.testing.assert_allclose(got, reference.program_devices(*tables[:2], 7), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(exponents, reference.drift_exponents(*tables[2:], 7), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aged, want, rtol=5e-5, atol=5e-5)


def test_threads_change_no_bit(monkeypatch):
    n = 100_000
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(kernel, "allow_threads", lambda _elements, threads=threads: threads)
        programmed, aged = torch.empty(n), torch.empty(n)
        program_devices(*model(n)[:2], 3, programmed)
        age_devices(*model(n), seed=3, read_seed=4, out=aged, **READ)
        found.append((programmed, aged))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_conductances_beyond_the_table_take_its_last_value():
    target, zero = torch.tensor([29.9, 30.0, 500.0]), torch.zeros(3)
    aged = torch.empty(3)
    age_devices(target, zero, zero, zero, seed=0, read_seed=1, out=aged, **READ)
    noise = (aged - target).double().numpy() / normal(3, 1)
    assert noise == pytest.approx([np.interp(29.9, [29.7, 30], READ["read"][-2:].numpy())] + 2 * [2**0.5], rel=1e-3)


def test_the_bits_are_pinned():
    """Files of chips hold seeds: a change of these bits is a new format."""
    aged = torch.empty(3)
    age_devices(*model(3), seed=1, read_seed=2, out=aged, **READ)
    assert aged.numpy().view(np.uint32).tolist() == PINNED


PINNED = [1088916279, 1092649703, 1075692200]
