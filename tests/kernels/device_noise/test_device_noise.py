"""The compiled passes over devices against the definition in float64 numpy, and against plain facts."""

import numpy as np
import pytest
import torch

from hpml_sim.kernels.common import threads
from hpml_sim.kernels.device_noise import NO_FAULTS, Aging, DeviceLaw, Faults, reference
from hpml_sim.kernels.device_noise.cpu import conductances, drift_exponents
from hpml_sim.kernels.device_noise.weights import Cells, chip_weights
from hpml_sim.kernels.random import fill_normal

STEP = 25.0 / 64


def law(devices=2, g_min=0.0, low=0.0):
    grid = np.linspace(0, 1, 65)
    tables = ((0.3 + 2 * grid), 0.1 - 0.05 * grid, 0.03 - 0.02 * grid**2)
    return DeviceLaw(devices, g_min, 25.0, STEP, *(t.astype(np.float32) for t in tables), low)


def drift(log_time=8.0):
    return Aging(log_time, np.sqrt(np.linspace(0, 2, 129)).astype(np.float32))


AGINGS = {
    "programmed": None,
    "read at once": drift(0.0),
    "drifted": drift(8.0),
    "long gone": drift(1e4),
    "relaxed": Aging(0.0, drift().rho_us, shift_us=-0.5, relax_us=0.4, low_us=2.0, high_us=24.0),
    "drawn anew": Aging(0.0, np.zeros(2, np.float32), redrawn_us=np.linspace(1, 2, 65, dtype=np.float32)),
}


def targets(n, devices=2, seed=0):
    return 25 * torch.rand(devices, n, generator=torch.Generator().manual_seed(seed))


def expected(the_law, aging, target, faults=NO_FAULTS):
    if aging is None:
        g = reference.program_devices(the_law, target, 7)
    else:
        g = reference.age_devices(the_law, aging, target, 7, 9)
    return reference.stick_devices(the_law, faults, g)


@pytest.mark.parametrize("n", [1, 511, 1025, 3000])
@pytest.mark.parametrize("name", AGINGS)
def test_devices_are_those_of_the_definition(n, name):
    """Which draws its own normal numbers, in Python's whole numbers and float64."""
    target, faults = targets(n), Faults(0.05, 0.1, 4)
    found = torch.empty_like(target)
    conductances(law(), target, found, seed=7, aging=AGINGS[name], read_seed=9, faults=faults)
    want = expected(law(), AGINGS[name], target.double().numpy(), faults)
    np.testing.assert_allclose(found, want, rtol=2e-4 if name == "long gone" else 5e-5, atol=5e-5)
    exponents = torch.empty_like(target)
    drift_exponents(law(), target, exponents, seed=7)
    np.testing.assert_allclose(
        exponents, reference.drift_exponents(law(), target.double().numpy(), 7), rtol=1e-5, atol=1e-6
    )


def test_numbers_are_addressed_by_what_they_are_for():
    """The normal numbers that `fill_normal` draws from the two seeds, in the equations as the paper has them."""
    n, pairs = 1500, 1 << 40
    target = targets(n).double().numpy()

    def normal(seed, stream):
        found = torch.empty(2, n)
        for device, row in enumerate(found):
            fill_normal(row, seed, (stream + device) * pairs)
        return found.double().numpy()

    grid = STEP * np.arange(65)
    g = np.maximum(0, target + np.interp(target, grid, law().sigma_us) * normal(7, 0))
    nu = np.abs(np.interp(target, grid, law().mean) + np.interp(target, grid, law().spread) * normal(7, 2))
    rho = np.interp(g, STEP * np.arange(129), drift().rho_us)
    want = np.maximum(0, np.exp(-nu * 8.0) * (g + rho * normal(9, 2)))
    found = torch.empty(2, n)
    conductances(law(), targets(n), found, seed=7, aging=drift(), read_seed=9)
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5)


def layer(groups=2, cols=5, rows=70, height=24, levels=None, slices=1, limit=np.inf):
    """A matrix whose rows are cut into three pieces, the last shorter."""
    matrix = torch.randn(groups * cols, rows, generator=torch.Generator().manual_seed(3))
    pieces = matrix.clamp(-limit, limit).split(height, 1)
    scale = torch.stack([p.abs().amax(1).unflatten(0, (groups, cols)) for p in pieces], 1).contiguous()
    return Cells(matrix, scale, limit, height, levels, slices)


def cells_of(cells, devices):
    """What each cell is told to hold, by plain loops: (groups, row tiles, slices * cols, height), float64."""
    groups, row_tiles, cols = cells.full_scale.shape
    found = np.zeros(cells.shape)
    if cells.levels is not None and devices == 1:
        found[...] = -1.0
    base, digits = cells.levels, cells.slices
    for g, t, s, c, h in np.ndindex(groups, row_tiles, digits, cols, cells.height):
        row = t * cells.height + h
        inside = row < cells.matrix.shape[1]
        w = float(cells.matrix[g * cols + c, row].clamp(-cells.limit, cells.limit)) if inside else 0.0
        w = float(np.float32(np.float32(w) / np.float32(cells.full_scale[g, t, c])))
        if base is not None:
            number = round((abs(w) if devices == 2 else (w + 1) / 2) * (base**digits - 1))
            share = number // base ** (digits - 1 - s) % base / (base - 1)
            w = np.sign(w) * share if devices == 2 else 2 * share - 1
        found[g, t, s * cols + c, h] = w
    return found


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("cut", [{}, {"levels": 4, "slices": 3}, {"levels": 9}, {"limit": 1.5}, {"rows": 48}])
@pytest.mark.parametrize("name", ["programmed", "drifted", "relaxed"])
def test_a_chip_holds_what_its_devices_amount_to(devices, cut, name):
    cells = layer(**cut)
    own = law(devices, g_min=2.0, low=-np.inf)
    found = torch.empty(cells.shape)
    faults = Faults(0.02, 0.03, 11)
    chip_weights(own, cells, found, seed=7, aging=AGINGS[name], read_seed=9, faults=faults)
    target = reference.target_conductances(own, cells_of(cells, devices).reshape(-1))
    want = reference.read_weights(own, expected(own, AGINGS[name], target, faults))
    np.testing.assert_allclose(found.reshape(-1), want, rtol=5e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["programmed", "drifted"])
def test_threads_change_no_bit(name, monkeypatch):
    monkeypatch.setattr(threads, "_WORTH_THREADS", 1)
    cells, found = layer(cols=300), []
    for number in (1, 2, 3, 7):
        monkeypatch.setattr(torch, "get_num_threads", lambda number=number: number)
        found.append(torch.empty(cells.shape))
        chip_weights(law(), cells, found[-1], seed=3, aging=AGINGS[name], read_seed=4)
    assert all(torch.equal(found[0], other) for other in found)


def test_the_parts_of_a_range_are_done_once_each(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    seen = []
    threads.in_threads(lambda first, last: seen.extend(range(first, last)), 11, 10**9)
    assert sorted(seen) == list(range(11))
    seen.clear()
    threads.in_threads(lambda first, last: seen.append((first, last)), 11, 10)
    assert seen == [(0, 11)]


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def fails(first, last):
        raise ZeroDivisionError(f"{first} {last}")

    with pytest.raises(ZeroDivisionError, match="0 2"):
        threads.in_threads(fails, 4, 10**9)


def test_devices_without_noise_stay_at_their_targets():
    zero = np.zeros(65, np.float32)
    quiet = DeviceLaw(2, 0.0, 25.0, STEP, zero, zero, zero, -np.inf)
    target, found = targets(2000), torch.empty(2, 2000)
    conductances(quiet, target, found, seed=0, aging=Aging(0.0, np.zeros(2, np.float32)), read_seed=1)
    assert torch.equal(found, target)


def test_the_share_of_stuck_devices_is_that_asked_for():
    """200,000 devices: five standard errors, a false alarm in 2 million."""
    zero = np.zeros(65, np.float32)
    quiet = DeviceLaw(2, 1.0, 25.0, STEP, zero, zero, zero, -np.inf)
    target = torch.full((2, 100_000), 12.0)
    few, many = torch.empty_like(target), torch.empty_like(target)
    conductances(quiet, target, few, seed=0, faults=Faults(0.02, 0.05, 5))
    conductances(quiet, target, many, seed=1, faults=Faults(0.1, 0.2, 5))
    for end, share in ((1.0, 0.02), (25.0, 0.05)):
        stuck = few == end
        assert abs(float(stuck.double().mean()) - share) < 5 * np.sqrt(share * (1 - share) / 200_000)
        assert (many[stuck] == end).all()  # a larger share adds devices to those of a smaller one
    assert set(few.unique().tolist()) == {1.0, 12.0, 25.0}
