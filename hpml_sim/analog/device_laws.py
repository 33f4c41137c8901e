"""The known noise models as numbers that the compiled passes read; a model that is not known stays functions of torch.

aihwkit gives functions that draw; the passes need means and standard deviations. Each function is called twice on a
table of conductances, with the random number 0 and with 1. The relaxation of filamentary devices draws twice in one
function, so its coefficients are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hpml_sim.analog.noise_models import NoiseModel
from hpml_sim.kernels.device_noise import STEPS, Aging, DeviceLaw

_POWER_LAW = ("pcm", "hermes", "custom")
_DRAWS = 1024
"""Of each conductance, where a standard deviation is known from draws alone: it is off by 2 %."""


def law_of(noise_model: NoiseModel, devices: int) -> DeviceLaw | None:
    """How devices of a noise model are programmed and drift; None where its functions alone can say.

    Args:
        noise_model: of the card.
        devices: devices that hold a weight, 2 or 1.
    """
    if not noise_model.is_known or noise_model.name == "analog-foundation-models":
        return None  # the latter takes small targets as zero: its mean is not the target
    physics, g_max = noise_model.physics, noise_model.g_max_us
    low = _lowest(noise_model)
    grid = g_max / STEPS * torch.arange(STEPS + 1, dtype=torch.float64)
    zeros = torch.zeros_like(grid)
    sigma, mean, spread = zeros, zeros, zeros
    if noise_model.name != "none":
        _, sigma = _mean_and_sigma(physics.apply_programming_noise_to_conductance, grid)
    if noise_model.name in _POWER_LAW:
        mean, spread = _mean_and_sigma(physics.generate_drift_coefficients, grid)
    return DeviceLaw(
        devices, noise_model.g_min_us, g_max, g_max / STEPS, _table(sigma), _table(mean), _table(spread), low
    )


def programming_sigma(noise_model: NoiseModel, g_us: Tensor) -> Tensor:
    """Standard deviation of what programming makes of target conductances, microsiemens, of the same shape.

    Args:
        noise_model: of the card.
        g_us: targets, microsiemens.
    """
    g_us = g_us.double()
    function = noise_model.physics.apply_programming_noise_to_conductance
    if noise_model.is_known:
        mean, sigma = _mean_and_sigma(function, g_us)
        return _cut_below(mean, sigma, _lowest(noise_model))
    # of functions that are not known nothing can be read but what they draw
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return function(g_us.expand(_DRAWS, *g_us.shape).clone()).std(0)


def _lowest(noise_model: NoiseModel) -> float:
    """A programmed conductance of a known model is not smaller, microsiemens."""
    return -math.inf if noise_model.name in ("none", "reram-cmo", "analog-foundation-models") else 0.0


def _cut_below(mean: Tensor, sigma: Tensor, low: float) -> Tensor:
    """Standard deviation of normal numbers of which those below `low` are taken as `low`."""
    if low == -math.inf:
        return sigma
    normal, mean = torch.distributions.Normal(0.0, 1.0), mean - low
    at = -mean / sigma.clamp(min=1e-30)
    above, density = 1 - normal.cdf(at), normal.log_prob(at).exp()
    first = mean * above + sigma * density
    second = (mean.square() + sigma.square()) * above + sigma * mean * density
    return (second - first.square()).clamp(min=0).sqrt()


def without_noise(noise_model: NoiseModel, devices: int) -> DeviceLaw:
    """The law of devices with the range of a noise model that are exactly what they are told to be.

    Args:
        noise_model: gives the range of conductance.
        devices: devices that hold a weight, 2 or 1.
    """
    zeros, g_max = np.zeros(2, np.float32), noise_model.g_max_us
    return DeviceLaw(devices, noise_model.g_min_us, g_max, g_max, zeros, zeros, zeros, -math.inf)


def aging_of(noise_model: NoiseModel, time_s: float) -> Aging:
    """What a time does to the devices of a known noise model.

    Args:
        noise_model: of the card; `law_of` gives its law.
        time_s: seconds since the end of programming, one that the model has data for.
    """
    physics: Any = noise_model.physics
    # twice as far as the targets: programming errors reach beyond the largest one
    grid = noise_model.g_max_us / STEPS * torch.arange(2 * STEPS + 1, dtype=torch.float64)
    nothing = np.zeros(2, np.float32)
    if noise_model.name == "none":
        return Aging(0.0, nothing, low_us=-math.inf)
    if noise_model.name == "reram-wan":
        targets = grid[: STEPS + 1]
        _, sigma = _mean_and_sigma(
            lambda g: physics.apply_drift_noise_to_conductance(g.clone(), g.clone(), time_s), targets
        )
        return Aging(0.0, nothing, redrawn_us=_table(sigma))
    if noise_model.name == "reram-cmo":
        return _relaxed(physics, grid, time_s)
    one = torch.ones(1, dtype=torch.float64)
    with _Fixed(0.0):
        log_time = -float(physics.apply_drift_noise_to_conductance(one, one, time_s).log())
    # tabulated with an exponent of 0: the pass looks the sigma up at the conductance that was programmed
    _, read = _mean_and_sigma(lambda g: physics.apply_drift_noise_to_conductance(g, torch.zeros_like(g), time_s), grid)
    return Aging(log_time, _table(read))


def _relaxed(physics: Any, grid: Tensor, time_s: float) -> Aging:
    """Filamentary devices (CMO/HfOx): all move by the same, each by its own, and read noise comes on top.

    Source: aihwkit `ReRamCMONoiseModel.apply_drift_noise_to_conductance`.
    """
    if time_s == 0:
        return Aging(0.0, np.zeros(2, np.float32), low_us=-math.inf)
    log_time, t_read = math.log(time_s), physics.read_dict["t_read"]
    # the logarithm has no meaning at 0; devices stay above their smallest conductance
    rho = physics.read_dict["K"] * grid.clamp(min=physics.g_min).log10()
    rho = rho * math.sqrt(math.log((time_s + t_read) / (2 * t_read))) * physics.read_noise_scale
    slope, offset = physics.decay_dict["std"]
    return Aging(
        0.0,
        _table(rho),
        shift_us=physics.decay_dict["mean"][0] * log_time * physics.drift_scale,
        relax_us=abs((slope * log_time + offset) * physics.drift_scale),
        low_us=physics.g_min,
        high_us=physics.g_max,
    )


def _table(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.float().numpy())


class _Fixed(TorchFunctionMode):
    """Each standard normal number that aihwkit's functions draw is this one: 0 gives a mean, 1 a sigma more."""

    def __init__(self, value: float):
        super().__init__()
        self._value = value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.randn_like:
            return torch.full_like(args[0], self._value)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[1], list):
            args = (args[0], tuple(args[1]), *args[2:])  # g[[mask]] of the Hermes model: torch is about to read it anew
        return func(*args, **(kwargs or {}))


def _mean_and_sigma(function: Callable[[Tensor], Tensor], g_us: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what one of aihwkit's functions draws, float64; it must draw once."""
    with _Fixed(0.0):
        mean = function(g_us.clone())
    with _Fixed(1.0):
        return mean, function(g_us.clone()) - mean
