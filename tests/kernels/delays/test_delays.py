"""Delays of every engine against loops in float64, and gradients against differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels.delays import delayed

ENGINES = ["torch", "numba", "numba-cuda"]
DELAYS = [0.0, 1.0, 0.25, 2.75, 5.0, 6.5, 40.0]  # the last ones arrive late or never


def loops(x: np.ndarray, delay: list[float]) -> np.ndarray:
    """Every value put where it arrives, one after the other."""
    out = np.zeros_like(x)
    for row, start, neuron in np.ndindex(*x.shape):
        whole = int(delay[neuron] // 1)
        share = delay[neuron] - whole
        for arrives, part in ((start + whole, 1 - share), (start + whole + 1, share)):
            if arrives < x.shape[1]:
                out[row, arrives, neuron] += part * x[row, start, neuron]
    return out


def drawn(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("engine", ENGINES)
def test_values_and_gradients_are_those_of_the_definition(engine):
    device = "cuda" if engine == "numba-cuda" and torch.cuda.is_available() else "cpu"
    x, grad = drawn((2, 6, 7)).to(device).requires_grad_(), drawn((2, 6, 7), 1).to(device)
    delay = torch.tensor(DELAYS, dtype=torch.float64, device=device, requires_grad=True)
    out = delayed(x, delay, time_dim=1, engine=engine)
    out.backward(grad)
    given, weight = x.detach().cpu().numpy(), grad.cpu().numpy()
    np.testing.assert_allclose(out.detach().cpu(), loops(given, DELAYS), rtol=0, atol=1e-14)
    unit = np.eye(given.size).reshape(-1, *given.shape)
    # the way back is the transposed matrix
    want = np.array([(weight * loops(one, DELAYS)).sum() for one in unit]).reshape(given.shape)
    np.testing.assert_allclose(x.grad.cpu(), want, rtol=0, atol=1e-13)
    for neuron, d in enumerate(DELAYS):  # linear between two whole numbers, so a difference to the right is exact
        more = [*DELAYS[:neuron], d + 0.25, *DELAYS[neuron + 1 :]]
        slope = (weight * (loops(given, more) - loops(given, DELAYS))).sum() / 0.25
        assert float(delay.grad[neuron]) == pytest.approx(slope, abs=1e-12)


@pytest.mark.parametrize("engine", ["torch", "numba"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2100), (2, 9, 33)])
def test_engines_agree_in_single_precision(engine, shape):
    x = drawn(shape).float()
    delay = 4 * torch.rand(shape[2], generator=torch.Generator().manual_seed(2))
    want = loops(x.double().numpy(), delay.double().tolist())
    np.testing.assert_allclose(delayed(x, delay, time_dim=1, engine=engine), want, rtol=0, atol=2e-6)


def test_time_may_come_first_and_delays_broadcast():
    x = drawn((8, 3, 4, 2, 2))  # steps, batch, channels, height, width
    delay = torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1)
    out = delayed(x, delay)
    for channel in range(4):
        assert torch.equal(out[channel:, :, channel], x[: 8 - channel, :, channel])
        assert not out[:channel, :, channel].any()


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_delays_beyond_all_numbers_never_arrive_and_nan_stays_nan(engine):
    x = drawn((1, 5, 3)).requires_grad_()
    out = delayed(x, torch.tensor([1e30, float("nan"), 0.0], dtype=torch.float64), time_dim=1, engine=engine)
    out.sum().backward()
    assert not out[..., 0].any()
    assert torch.isnan(out[..., 1]).all()
    assert torch.equal(out[..., 2], x[..., 2])
    assert not x.grad[..., 0].any()


def test_under_vmap_as_one_by_one():
    x, delay = drawn((3, 5, 4)), torch.tensor([0.0, 1.5, 2.0, 0.25], dtype=torch.float64)
    with torch.no_grad():
        together = torch.vmap(lambda one: delayed(one[None], delay, time_dim=1)[0])(x)
    assert torch.equal(together, delayed(x, delay, time_dim=1))


@pytest.mark.parametrize(
    ("call", "message", "kind"),
    [
        (lambda: delayed(torch.ones(3, 2).long(), torch.ones(2)), "it must be floating point", HpmlError),
        (lambda: delayed(torch.ones(0, 2), torch.ones(2)), "has no time step", HpmlError),
        (lambda: delayed(torch.ones(3, 2), torch.ones(2), engine="nunba"), "nunba", UnknownNameError),
    ],
)
def test_bad_input_is_one_line(call, message, kind):
    with pytest.raises(kind, match=message):
        call()
