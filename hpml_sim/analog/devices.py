"""Device physics: aihwkit's noise and drift models, applied to every single conductance.

aihwkit gives the formulas and their coefficients. What is ours is the bookkeeping around them: every device of a pair
keeps its own programmed state and its own drift exponent, drift always starts from the programmed state, and no scale
changes between programming and reading. (aihwkit's own pipeline re-splits the net weight with a new scale at every
drift, and for `ReRamWan2022NoiseModel` this costs a gain error of 7 to 14 %.)

A chip is its targets and a seed: its devices are drawn again whenever they are needed, always the same. For
phase-change memory one compiled pass does it, with means and standard deviations that aihwkit's functions gave.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hpml_sim.cards import Noise
from hpml_sim.errors import CardError, HpmlError, UnsupportedTimeError
from hpml_sim.units.times import format_time

_PCM = {"g_max_us", "t_0_s", "t_read_s", "prog_noise_scale", "read_noise_scale", "drift_scale"}
_CURVES = {"programming_us", "drift_at_us", "drift_mean", "drift_sigma"}
_OPTIONS = {
    "pcm": _PCM,
    "hermes": _PCM | {"num_devices"},
    "custom": _PCM,
    "reram-wan": {"g_max_us", "noise_scale"},
    "reram-cmo": {
        "g_max_us",
        "g_min_us",
        "acceptance_percent",
        "prog_noise_scale",
        "read_noise_scale",
        "drift_scale",
    },
    "none": {"g_max_us"},
}
_WAN_TIMES_S = (1.0, 86400.0, 172800.0)


class _Physics(Protocol):
    """The three methods of aihwkit's `BaseNoiseModel` that work on conductances (microsiemens)."""

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor: ...

    def generate_drift_coefficients(self, g_target: Tensor) -> Tensor: ...

    def apply_drift_noise_to_conductance(self, g_prog: Tensor, drift: Tensor, t_inference: float, /) -> Tensor: ...


class _Ideal:
    """Devices without noise and drift."""

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        return g_target.clone()

    def generate_drift_coefficients(self, g_target: Tensor) -> Tensor:
        return g_target

    def apply_drift_noise_to_conductance(self, g_prog: Tensor, drift: Tensor, t_inference: float) -> Tensor:
        return g_prog.clone()


class _Fixed(TorchFunctionMode):
    """Each standard normal number that aihwkit's functions draw is this one: 0 gives a mean, 1 a sigma more."""

    def __init__(self, value: float):
        super().__init__()
        self._value = value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.randn_like:
            return torch.full_like(args[0], self._value)
        return func(*args, **(kwargs or {}))


def _mean_and_sigma(function: Callable[[Tensor], Tensor], g_us: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what one of aihwkit's functions draws, float64; it must draw once."""
    g_us = g_us.double()
    with _Fixed(0.0):
        mean = function(g_us.clone())
    with _Fixed(1.0):
        return mean, function(g_us.clone()) - mean


@dataclass(frozen=True)
class _PowerLaw:
    """What phase-change devices of one set of targets draw from: programming noise, drift exponents, read noise.

    Attributes:
        sigma_us: of programming, microsiemens. mean, spread: of the drift exponents. All of the shape of the targets.
    """

    physics: _Physics
    g_max_us: float
    sigma_us: Tensor
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, physics: _Physics, g_max_us: float, target_us: Tensor) -> _PowerLaw:
        _, sigma = _mean_and_sigma(physics.apply_programming_noise_to_conductance, target_us)
        mean, spread = _mean_and_sigma(physics.generate_drift_coefficients, target_us)
        return cls(
            physics, g_max_us, sigma.float().contiguous(), mean.float().contiguous(), spread.float().contiguous()
        )

    def at(self, time_s: float) -> tuple[float, Tensor, float]:
        """ln((t + t_0) / t_0), and the sigma of the read noise over equal steps of conductance, and that step."""
        one = torch.ones(1, dtype=torch.float64)
        step = 2 * self.g_max_us / _READ_STEPS  # programming errors reach beyond the largest target
        grid = step * torch.arange(_READ_STEPS + 1, dtype=torch.float64)
        with _Fixed(0.0):
            log_time = -float(self.physics.apply_drift_noise_to_conductance(one, one, time_s).log())
        _, read = _mean_and_sigma(
            lambda g: self.physics.apply_drift_noise_to_conductance(g, torch.zeros_like(g), time_s), grid
        )
        return log_time, read.float(), step


_READ_STEPS = 8192


@dataclass(frozen=True)
class ProgrammedDevices:
    """The devices of some chips, programmed to one set of targets; immutable.

    Attributes:
        target_us: target conductances, microsiemens, shape (devices, ...).
        seeds: one a chip.
    """

    model: DeviceModel
    target_us: Tensor
    seeds: tuple[int, ...]
    law: _PowerLaw | None

    def programmed(self, chip: int) -> Tensor:
        """Conductances of one chip right after programming, microsiemens, shape (devices, ...)."""
        if self.law is None:
            with _seeded(self.seeds[chip]):
                return self.model.physics.apply_programming_noise_to_conductance(self.target_us)
        from hpml_sim.kernels.devices import program_devices

        out = torch.empty_like(self.target_us)
        program_devices(self.target_us, self.law.sigma_us, self.seeds[chip], out)
        return out

    def exponents(self, chip: int) -> Tensor:
        """Drift exponents of one chip, shape (devices, ...).

        Raises:
            HpmlError: devices that do not drift by a power law.
        """
        if self.law is None:
            raise HpmlError(
                f"the model {self.model.noise.model!r} has no drift exponents; 'pcm', 'hermes' and 'custom' have"
            )
        from hpml_sim.kernels.devices import drift_exponents

        out = torch.empty_like(self.target_us)
        drift_exponents(self.law.mean, self.law.spread, self.seeds[chip], out)
        return out

    def at(self, time_s: float, seed: Callable[[int], int]) -> Iterator[Tensor]:
        """Conductances of one chip after the other at a time, microsiemens, (devices, ...), each in the same memory.

        Always computed from the programmed state, so times can be asked in any order.

        Args:
            time_s: seconds since the end of programming.
            seed: chip -> seed of the read noise drawn now.

        Raises:
            HpmlError: time_s < 0. UnsupportedTimeError: the model has no data for this time.
        """
        self.model.check_time(time_s)
        if self.law is None:
            for chip in range(len(self.seeds)):
                yield self._aged_by_aihwkit(time_s, chip, seed(chip))
            return
        from hpml_sim.kernels.devices import age_devices

        log_time, read, step = self.law.at(time_s)
        out = torch.empty_like(self.target_us)
        for chip, own in enumerate(self.seeds):
            age_devices(
                self.target_us,
                self.law.sigma_us,
                self.law.mean,
                self.law.spread,
                seed=own,
                read_seed=seed(chip),
                log_time=log_time,
                read=read,
                read_step=step,
                out=out,
            )
            yield out

    def _aged_by_aihwkit(self, time_s: float, chip: int, seed: int) -> Tensor:
        programmed = self.programmed(chip)
        with _seeded(seed), warnings.catch_warnings():
            if self.model.noise.model == "reram-cmo":  # hands a tensor to numpy.log10, which warns under numpy 2
                warnings.simplefilter("ignore", DeprecationWarning)
            # what ReRAM keeps as its "drift coefficients" are the targets
            return self.model.physics.apply_drift_noise_to_conductance(programmed, self.target_us, time_s)


class DeviceModel:
    """The devices of one card: how a weight becomes conductances, and what happens to them.

    A weight in [-1, 1] (in units of the largest weight of its column) is held by a differential pair, G+ and G-, of
    which one is at zero; or ("reram-cmo") by one device read against the middle of its range.

    Attributes:
        g_min_us, g_max_us: range of a device, microsiemens. devices: devices a weight (2 or 1).

    Raises:
        CardError: an option that the model does not have, or a value that it refuses.
        ImportError: aihwkit is needed and not there, or broken.
    """

    def __init__(self, noise: Noise):
        self.noise = noise
        if unknown := set(noise.options) - _OPTIONS[noise.model]:
            raise CardError(
                f"noise.options: {', '.join(sorted(unknown))} not known to the model {noise.model!r}; "
                f"it has {', '.join(sorted(_OPTIONS[noise.model]))}"
            )
        if set(noise.curves) != (wanted := _CURVES if noise.model == "custom" else set()):
            raise CardError(
                f"noise.curves: the model {noise.model!r} takes {', '.join(sorted(wanted)) or 'none'}, the card has "
                f"{', '.join(sorted(noise.curves)) or 'none'}"
            )
        self.physics, self.g_min_us, self.g_max_us = _build(noise)
        self.devices = 1 if noise.model == "reram-cmo" else 2
        times = set(noise.times_s)
        if noise.model == "reram-wan":
            times = times & set(_WAN_TIMES_S) if times else set(_WAN_TIMES_S)
        self.times_s = tuple(sorted(times))

    def check_time(self, time_s: float) -> None:
        """Refuse times before programming and times without data.

        Raises:
            HpmlError: time_s < 0. UnsupportedTimeError: the model has no data for this time; never extrapolated.
        """
        if not time_s >= 0:
            raise HpmlError(f"time {time_s!r} s: before programming; must be >= 0")
        if self.times_s and time_s not in self.times_s:
            raise UnsupportedTimeError(
                f"time {format_time(time_s)}: the noise model {self.noise.model!r} ({self.noise.source}) has data at "
                f"{', '.join(map(format_time, self.times_s))} only, and is not extrapolated"
            )
        if self.noise.model == "reram-cmo" and 0 < time_s < 1:
            # its sums of logarithms have no meaning (and end as NaN) below the first measured second
            raise UnsupportedTimeError(f"time {time_s:g} s: the model 'reram-cmo' has data at 0 and from 1 s on")

    def conductances(self, weight: Tensor) -> Tensor:
        """Target conductances, microsiemens: weights in [-1, 1] of any shape (...) -> (devices, ...).

        Source: aihwkit `SinglePairConductanceConverter`, `SingleDeviceConductanceConverter`.
        """
        span = self.g_max_us - self.g_min_us
        if self.devices == 1:
            return (self.g_min_us + 0.5 * span * (weight.clamp(-1, 1) + 1)).unsqueeze(0)
        return torch.stack([weight.clamp(0, 1), (-weight).clamp(0, 1)]) * span + self.g_min_us

    def weights(self, g_us: Tensor, out: Tensor | None = None) -> Tensor:
        """Back from conductances (devices, ...) to weights (...), with the scale that programming used."""
        span = self.g_max_us - self.g_min_us
        if self.devices == 1:
            return torch.sub(g_us[0], self.g_min_us, out=out).mul_(2 / span).sub_(1)
        return torch.sub(g_us[0], g_us[1], out=out).div_(span)

    def apply_stuck_faults(self, g_us: Tensor, low: float, high: float, seed: int) -> None:
        """Put some devices of one chip to the ends of their range, in place.

        Args:
            g_us: conductances, microsiemens, any shape.
            low, high: share of the devices that stay at `g_min_us`, and at `g_max_us`; each device for itself.
            seed: of the choice.
        """
        if low > 0 or high > 0:
            draw = torch.rand(g_us.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            g_us[draw < low] = self.g_min_us
            g_us[draw >= 1 - high] = self.g_max_us

    def bit_slices(self, weight: Tensor, levels: int, slices: int) -> list[Tensor]:
        """Weights as digits to the base `levels`, most significant first, each again a weight in [-1, 1].

        A differential pair holds the sign and the digits of |w| (B^k - 1), rounded half to even; a single device, read
        against the middle of its range, those of (w + 1) / 2 (B^k - 1). The sum of `significance` x digit is w again.

        Args:
            weight: in [-1, 1], any shape. levels: B, >= 2. slices: k, >= 1.
        """
        exact = weight.double().clamp(-1, 1)
        signed = self.devices == 2
        number = ((exact.abs() if signed else (exact + 1) / 2) * (levels**slices - 1)).round()
        found = []
        for place in range(slices - 1, -1, -1):
            digit = torch.div(number, levels**place, rounding_mode="floor")
            number = number - digit * levels**place
            share = digit / (levels - 1)
            found.append((share * exact.sign() if signed else 2 * share - 1).to(weight.dtype))
        return found

    def program(self, g_target_us: Tensor, seeds: list[int]) -> ProgrammedDevices:
        """Program one set of targets into many chips.

        Args:
            g_target_us: target conductances, microsiemens, shape (devices, ...).
            seeds: one a chip.

        Returns:
            The devices of `len(seeds)` chips, each with its own programming error and its own drift.
        """
        law = None
        if self.noise.model in ("pcm", "hermes", "custom"):
            g_target_us = g_target_us.float().contiguous()
            law = _PowerLaw.of(self.physics, self.g_max_us, g_target_us)
        return ProgrammedDevices(self, g_target_us, tuple(seeds), law)


def significance(levels: int, slices: int) -> list[float]:
    """What each digit counts, most significant first: (B - 1) B^i / (B^k - 1); together 1."""
    return [(levels - 1) * levels**place / (levels**slices - 1) for place in range(slices - 1, -1, -1)]


class _seeded:  # noqa: N801 - reads as a verb where it is used
    """aihwkit draws from torch's global generator: lend it a seed, then put the caller's state back."""

    def __init__(self, seed: int):
        self._seed = seed

    def __enter__(self) -> None:
        # the CPU's generator only: everything drawn here lies on the CPU
        self._before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *problem: object) -> None:
        torch.default_generator.set_state(self._before)


def _build(noise: Noise) -> tuple[_Physics, float, float]:
    """aihwkit's noise model with the card's options; its range of conductance in microsiemens."""
    options: dict[str, Any] = dict(noise.options)
    if noise.model == "none":
        return _Ideal(), 0.0, options.get("g_max_us", 1.0)
    from hpml_sim.analog.aihwkit_import import require_aihwkit

    require_aihwkit("noise")
    from aihwkit.inference.noise.hermes import HermesNoiseModel
    from aihwkit.inference.noise.pcm import CustomDriftPCMLikeNoiseModel, PCMLikeNoiseModel
    from aihwkit.inference.noise.reram import ReRamCMONoiseModel, ReRamWan2022NoiseModel

    names = {"g_max_us": "g_max", "g_min_us": "g_min", "t_0_s": "t_0", "t_read_s": "t_read"}
    arguments: dict[str, Any] = {names.get(key, key): value for key, value in options.items()}
    physics: Any
    try:
        if noise.model == "pcm":
            physics = PCMLikeNoiseModel(**{"g_max": 25.0, **arguments})
        elif noise.model == "hermes":
            physics = HermesNoiseModel(num_devices=int(arguments.pop("num_devices", 2)), **arguments)
        elif noise.model == "custom":
            at, mean, sigma = (noise.curves[key] for key in ("drift_at_us", "drift_mean", "drift_sigma"))
            if not len(at) == len(mean) == len(sigma) or min(sigma, default=-1.0) < 0 or len(set(at)) < len(at):
                raise ValueError(
                    "drift_at_us, drift_mean and drift_sigma must be equally long, conductances must ascend and no "
                    "sigma be negative"
                )
            if not noise.curves["programming_us"]:
                raise ValueError("programming_us needs at least one number")
            physics = CustomDriftPCMLikeNoiseModel(
                {"g_lst": at, "nu_mean_lst": mean, "nu_std_lst": sigma},
                prog_coeff=noise.curves["programming_us"],
                **{"g_max": 25.0, **arguments},
            )
        elif noise.model == "reram-wan":
            # 40 uS is what its coefficients refer to: aihwkit's default of 25 makes the noise 1.6 times too large
            physics = ReRamWan2022NoiseModel(**{"g_max": 40.0, **arguments})
        else:
            percent = arguments.pop("acceptance_percent", 2.0)
            if percent not in (0.2, 2.0):
                raise ValueError(f"acceptance_percent must be 0.2 or 2, got {percent!r}")
            physics = ReRamCMONoiseModel(acceptance_range=percent, **arguments)
    except (AssertionError, ValueError) as error:
        raise CardError(f"noise.options {noise.options!r}: refused by the model {noise.model!r}: {error}") from None
    if noise.model == "reram-wan" and physics.g_max != 40.0:
        # the line of aihwkit that should set this reference writes another attribute
        physics.coeff_g_max_reference = 40.0
    return physics, float(getattr(physics.g_converter, "g_min", 0.0)), float(physics.g_max)
