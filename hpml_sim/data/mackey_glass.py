"""The Mackey-Glass series, a chaotic one, as NeuroBench's forecasting task samples and splits it."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import TensorDataset

from hpml_sim.data.splits import Splits
from hpml_sim.errors import check_real, check_whole

_PER_TIME = 75
"""Points of a Lyapunov time, and integration steps of a unit of time: a point is then a whole number of steps."""
_TRAINING, _TEST = 750, 750
"""Points: 10 Lyapunov times each."""
_PRODUCTION, _DECAY, _PAST = 0.2, 0.1, 0.7206597


def mackey_glass_series(points: int, *, tau: int = 17, lyapunov_time: int = 197) -> np.ndarray:
    """Samples of dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t), 75 of a Lyapunov time, from t = tau on.

    Runge-Kutta of fourth order with steps of 1/75; the delayed value in the middle of a step is that of the cubic
    through values and slopes. Halving the step moves point 750 by 1e-9 and point 1,500 by 3e-5; beyond some 30 Lyapunov
    times any double-precision solution is one of many. Only sums, products and quotients are used, so that every
    machine gives the same bits.

    Source: J. Yik et al., Nature Communications 16:1545 (2025), and neurobench 2.3.0, datasets/mackey_glass.py: the
    parameters, the constant past of 0.7206597 and the sampling. NeuroBench's own file was made by another solver, and
    differs from this series after some Lyapunov times, as it does between machines.

    Args:
        points: samples, >= 1.
        tau: the delay, >= 1; NeuroBench has 17 to 30.
        lyapunov_time: in units of time, >= 1; 197 is that of tau = 17.

    Returns:
        (points,) float64.

    Raises:
        HpmlError: a number out of range.

    Example:
        >>> from hpml_sim.data.mackey_glass import mackey_glass_series
        >>> [round(float(value), 4) for value in mackey_glass_series(3)]
        [1.2668, 1.3034, 1.2823]
    """
    points = check_whole("mackey_glass_series: points", points, low=1)
    tau = check_whole("mackey_glass_series: tau", tau, low=1)
    every = check_whole("mackey_glass_series: lyapunov_time", lyapunov_time, low=1)
    h, delay = 1 / _PER_TIME, tau * _PER_TIME
    values = [_PAST] * (delay + 1)  # values[delay] is at t = 0
    slopes = [0.0] * (delay + 1)
    gain, x = _produced(_PAST), _PAST
    for step in range(delay + (points - 1) * every):
        # at t = 0 the slope jumps; the cubic of the step before it has the slope of the constant past
        middle = (values[step] + values[step + 1]) / 2 + h / 8 * (slopes[step] - slopes[step + 1])
        if step == delay - 1:
            slopes[delay] = _produced(_PAST) - _DECAY * _PAST
        halfway, after = _produced(middle), _produced(values[step + 1])
        first = gain - _DECAY * x
        second = halfway - _DECAY * (x + h / 2 * first)
        third = halfway - _DECAY * (x + h / 2 * second)
        fourth = after - _DECAY * (x + h * third)
        x, gain = x + h / 6 * (first + 2 * (second + third) + fourth), after
        values.append(x)
        slopes.append(gain - _DECAY * x)
    return np.array(values[2 * delay :: every])


def _produced(x: float) -> float:
    square = x * x
    fourth = square * square
    return _PRODUCTION * x / (1 + fourth * fourth * square)


def mackey_glass(*, window: int = 50, offset: float = 0.0, tau: int = 17, lyapunov_time: int = 197) -> Splits:
    """The last values of the series -> the next one: 750 points (10 Lyapunov times) to train, the next 750 for test.

    Windows that begin before the series are filled up with zeros, as NeuroBench fills them. Its score is the sMAPE of
    all 750 values of the test, when from the first one on the network is given its own answers instead of the series.

    Args:
        window: values of an input, >= 1; NeuroBench's LSTM takes 50.
        offset: points of the series left out before the training, >= 0, cut to whole ones; NeuroBench's 30
            repetitions leave out 0, 37.5, 75, ...
        tau: the delay, >= 1.
        lyapunov_time: in units of time, >= 1; 197 is that of tau = 17.

    Raises:
        HpmlError: a number out of range.
    """
    window = check_whole("mackey-glass: window", window, low=1)
    begin = int(check_real("mackey-glass: offset", offset, low=0))
    series = mackey_glass_series(begin + _TRAINING + _TEST + 1, tau=tau, lyapunov_time=lyapunov_time)[begin:]
    padded = np.concatenate([np.zeros(window - 1), series]).astype(np.float32)
    values = torch.from_numpy(padded)
    inputs = values[:-1].unfold(0, window, 1)[..., None].contiguous()
    labels = values[window:, None]
    train, test = (TensorDataset(inputs[part], labels[part]) for part in (slice(_TRAINING), slice(_TRAINING, None)))
    return Splits(train, test, (window, 1), None, "regression")
