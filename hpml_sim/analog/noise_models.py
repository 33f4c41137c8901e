"""The noise models that a card can name: programming noise, drift and read noise of one kind of device.

aihwkit gives the formulas and their coefficients; a card chooses one model and its options. Published corrections stand
beside the two lines in which aihwkit's own ReRAM model departs from its paper.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from hpml_sim.analog.foundation_model_noise import G_MAX_US, FoundationModelNoise
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
    "analog-foundation-models": {"prog_noise_scale"},
    "none": {"g_max_us"},
}
_WAN_TIMES_S = (1.0, 86400.0, 172800.0)


class ConductancePhysics(Protocol):
    """The three methods of aihwkit's `BaseNoiseModel` that work on conductances (microsiemens)."""

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        """Conductances right after programming.

        Args:
            g_target: target conductances, microsiemens.
        """
        ...

    def generate_drift_coefficients(self, g_target: Tensor) -> Tensor:
        """One drift exponent for each device.

        Args:
            g_target: target conductances, microsiemens.
        """
        ...

    def apply_drift_noise_to_conductance(self, g_prog: Tensor, drift: Tensor, t_inference: float, /) -> Tensor:
        """Conductances as they are read at a time.

        Args:
            g_prog: conductances right after programming.
            drift: what `generate_drift_coefficients` gave.
            t_inference: seconds since the end of programming.
        """
        ...


class _Ideal:
    """Devices without noise and drift."""

    def apply_programming_noise_to_conductance(self, g_target: Tensor) -> Tensor:
        return g_target.clone()

    def generate_drift_coefficients(self, g_target: Tensor) -> Tensor:
        return g_target

    def apply_drift_noise_to_conductance(self, g_prog: Tensor, drift: Tensor, t_inference: float) -> Tensor:
        return g_prog.clone()


class NoiseModel:
    """The noise model of one card.

    Args:
        noise: the card's entry: name of the model, its options and its source.

    Attributes:
        name: of the model: "pcm", "hermes", "custom", "reram-wan", "reram-cmo", "analog-foundation-models" or "none".
        source: where its numbers are from.
        physics: aihwkit's model, or one of the same methods.
        g_min_us: smallest conductance of a device, microsiemens.
        g_max_us: largest conductance of a device, microsiemens.
        times_s: the only times with data, seconds since programming, in order; empty where any time can be computed.

    Raises:
        CardError: an option that the model does not have, or a value that it refuses.
        ImportError: aihwkit is needed, and it is missing or broken.
    """

    def __init__(self, noise: Noise):
        self.name = noise.model
        self.source = noise.source
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
        self._built = type(self.physics)
        times = set(noise.times_s)
        if noise.model == "reram-wan":
            times = times & set(_WAN_TIMES_S) if times else set(_WAN_TIMES_S)
        self.times_s = tuple(sorted(times))

    @property
    def is_known(self) -> bool:
        """Whether `physics` is what the card names; another one put in its place is functions of torch alone."""
        return type(self.physics) is self._built

    def check_time(self, time_s: float) -> None:
        """Refuse times before programming and times without data.

        Args:
            time_s: seconds since the end of programming.

        Raises:
            HpmlError: time_s < 0.
            UnsupportedTimeError: the model has no data for this time; it is never extrapolated.
        """
        if not time_s >= 0:
            raise HpmlError(f"time {time_s!r} s: before programming; must be >= 0")
        if self.times_s and time_s not in self.times_s:
            raise UnsupportedTimeError(
                f"time {format_time(time_s)}: the noise model {self.name!r} ({self.source}) has data at "
                f"{', '.join(map(format_time, self.times_s))} only, and is not extrapolated"
            )
        if self.name == "reram-cmo" and 0 < time_s < 1:
            # its sums of logarithms have no meaning (and end as NaN) below the first measured second
            raise UnsupportedTimeError(f"time {time_s:g} s: the model 'reram-cmo' has data at 0 and from 1 s on")


def _build(noise: Noise) -> tuple[ConductancePhysics, float, float]:
    """aihwkit's noise model with the card's options; its range of conductance in microsiemens."""
    options: dict[str, Any] = dict(noise.options)
    if noise.model == "none":
        return _Ideal(), 0.0, options.get("g_max_us", 1.0)
    if noise.model == "analog-foundation-models":
        try:
            return FoundationModelNoise(options.get("prog_noise_scale", 1.0)), 0.0, G_MAX_US
        except ValueError as error:
            raise CardError(f"noise.options: refused by the model {noise.model!r}: {error}") from None
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
