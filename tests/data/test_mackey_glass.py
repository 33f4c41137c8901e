"""The Mackey-Glass series against a solver of another kind, and its windows by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import hpml_sim as hs
from hpml_sim.data.mackey_glass import mackey_glass_series
from hpml_sim.errors import HpmlError

FIRST, LAST = 1.2667777302365564, 1.0017447705415512


def solved(points: int, tau: float, lyapunov_time: float) -> np.ndarray:
    """The equation solved one delay after the other, each with the dense solution of the one before."""
    before: Callable[[Any], Any] = lambda t: np.full_like(np.asarray(t, float), 0.7206597)  # noqa: E731
    wanted = tau + np.arange(points) * lyapunov_time / 75
    found, start, x = np.empty(points), 0.0, 0.7206597
    while start <= wanted[-1]:

        def slope(t: float, x: np.ndarray, before: Callable[[Any], Any] = before) -> Any:
            past = before(t - tau)
            return 0.2 * past / (1 + past**10) - 0.1 * x

        piece: Any = solve_ivp(slope, (start, start + tau), [x], "DOP853", rtol=1e-12, atol=1e-14, dense_output=True)
        inside = (wanted >= start) & (wanted <= start + tau)
        found[inside] = piece.sol(wanted[inside])[0]
        before = lambda t, piece=piece: piece.sol(t)[0]  # noqa: E731
        start, x = start + tau, piece.y[0, -1]
    return found


@pytest.mark.parametrize(("tau", "lyapunov_time"), [(17, 197), (30, 150)])
def test_series_is_that_of_another_solver(tau, lyapunov_time):
    mine = mackey_glass_series(300, tau=tau, lyapunov_time=lyapunov_time)
    assert mine.dtype == np.float64
    np.testing.assert_allclose(mine, solved(300, tau, lyapunov_time), rtol=0, atol=1e-7)


def test_series_is_the_same_everywhere():
    """Printed once: chaos would show any other order of operations in the last value."""
    series = mackey_glass_series(1501)
    assert float(series[0]) == FIRST
    assert float(series[-1]) == LAST


def test_windows_and_next_values():
    series = mackey_glass_series(1501).astype(np.float32)
    data = hs.load_data("mackey-glass", window=3)
    assert (data.input_shape, data.classes, data.task) == ((3, 1), None, "regression")
    x, y = data.train[0]
    assert x[:, 0].tolist() == [0, 0, series[0]]
    assert y.tolist() == [series[1]]
    x, y = data.test[0]
    assert x[:, 0].tolist() == series[748:751].tolist()
    assert y.tolist() == [series[751]]
    assert data.test[749][1].tolist() == [series[1500]]
    assert (len(data.train), len(data.test)) == (750, 750)


def test_an_offset_leaves_points_out():
    shifted, first = hs.load_data("mackey-glass", window=1, offset=37.5), hs.load_data("mackey-glass", window=1)
    assert torch.equal(shifted.train[:][0][:700], first.train[:][0][37:737])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "mackey-glass: window=0: must be a whole number >= 1"),
        ({"offset": -1}, "mackey-glass: offset=-1"),
        ({"offset": float("nan")}, "mackey-glass: offset=nan"),
        ({"tau": 17.5}, "tau=17.5: must be a whole number"),
        ({"lyapunov_time": 0}, "lyapunov_time=0: must be a whole number"),
        ({"lag": 3}, "'mackey-glass' has no option 'lag'"),
    ],
)
def test_bad_input_is_one_line(options, message):
    with pytest.raises(HpmlError) as caught:
        hs.load_data("mackey-glass", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
