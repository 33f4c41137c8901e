"""Programming noise, drift and read noise of every single device of some chips.

A chip is its target conductances and a seed: its devices are drawn again whenever they are needed, always the same. So
no chip has to be stored, and 25 chips cost the memory of one. For phase-change memory one compiled pass draws them,
with the means and standard deviations that aihwkit's functions give.

Every device of a differential pair keeps its own programming error and its own drift exponent, and every time is
computed from the programmed state. (aihwkit's own pipeline starts each drift from the net weights that it read last: it
re-splits them into pairs with a new scale, so drift compounds, and for `ReRamWan2022NoiseModel` this costs a gain error
of 7 to 14 %.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hpml_sim.analog.noise_models import ConductancePhysics, NoiseModel
from hpml_sim.errors import HpmlError

_READ_STEPS = 8192
"""Equal steps of conductance at which the sigma of the read noise is tabulated."""


@dataclass(frozen=True)
class ProgrammedDevices:
    """The devices of some chips, all programmed to the same targets; immutable.

    Attributes:
        noise_model: what programming and time do to a conductance.
        target_us: target conductances, microsiemens, shape (devices, ...).
        seeds: one for each chip.
        law: means and standard deviations where devices drift by a power law (phase-change memory), else None.
    """

    noise_model: NoiseModel
    target_us: Tensor
    seeds: tuple[int, ...]
    law: _PowerLaw | None

    @classmethod
    def of(cls, noise_model: NoiseModel, target_us: Tensor, seeds: list[int]) -> ProgrammedDevices:
        """Program one set of targets into many chips, each with its own programming error and its own drift.

        Args:
            noise_model: of the card.
            target_us: target conductances, microsiemens, shape (devices, ...).
            seeds: one for each chip.
        """
        law = None
        if noise_model.name in ("pcm", "hermes", "custom"):
            target_us = target_us.float().contiguous()
            law = _PowerLaw.of(noise_model.physics, noise_model.g_max_us, target_us)
        return cls(noise_model, target_us, tuple(seeds), law)

    def programmed(self, chip: int) -> Tensor:
        """Conductances of one chip right after programming: targets with programming noise.

        Args:
            chip: its number, from 0.

        Returns:
            Conductances, microsiemens, shape (devices, ...).
        """
        if self.law is None:
            with _seeded(self.seeds[chip]):
                return self.noise_model.physics.apply_programming_noise_to_conductance(self.target_us)
        from hpml_sim.kernels.device_noise import program_devices

        out = torch.empty_like(self.target_us)
        program_devices(self.target_us, self.law.sigma_us, self.seeds[chip], out)
        return out

    def exponents(self, chip: int) -> Tensor:
        """Drift exponents of one chip.

        Args:
            chip: its number, from 0.

        Returns:
            shape (devices, ...).

        Raises:
            HpmlError: devices that do not drift by a power law.
        """
        if self.law is None:
            raise HpmlError(
                f"the model {self.noise_model.name!r} has no drift exponents; 'pcm', 'hermes' and 'custom' have"
            )
        from hpml_sim.kernels.device_noise import drift_exponents

        out = torch.empty_like(self.target_us)
        drift_exponents(self.law.mean, self.law.spread, self.seeds[chip], out)
        return out

    def at(self, time_s: float, seed: Callable[[int], int]) -> Iterator[Tensor]:
        """Conductances as they are read at a time, of one chip after the other.

        Always computed from the programmed state, so times can come in any order.

        Args:
            time_s: seconds since the end of programming.
            seed: gives the seed of the read noise of a chip.

        Yields:
            Conductances, microsiemens, shape (devices, ...); the next chip may overwrite the memory of the last.

        Raises:
            HpmlError: time_s < 0.
            UnsupportedTimeError: the model has no data for this time.
        """
        self.noise_model.check_time(time_s)
        if self.law is None:
            for chip in range(len(self.seeds)):
                yield self._aged_by_aihwkit(time_s, chip, seed(chip))
            return
        from hpml_sim.kernels.device_noise import age_devices

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
        # the programmed state is drawn again from its own seed, and never from what was read at another time
        programmed = self.programmed(chip)
        with _seeded(seed), warnings.catch_warnings():
            if self.noise_model.name == "reram-cmo":  # hands a tensor to numpy.log10, which warns under numpy 2
                warnings.simplefilter("ignore", DeprecationWarning)
            # what ReRAM keeps as its "drift coefficients" are the targets
            return self.noise_model.physics.apply_drift_noise_to_conductance(programmed, self.target_us, time_s)


@dataclass(frozen=True)
class _PowerLaw:
    """What phase-change devices of one set of targets draw from; all tensors have the shape of the targets.

    aihwkit gives functions that draw, the compiled pass needs means and standard deviations: each function is called
    twice, with the random number 0 and with 1.

    Attributes:
        physics: aihwkit's noise model.
        g_max_us: largest target conductance, microsiemens.
        sigma_us: standard deviation of the programming noise, microsiemens.
        mean: mean of the drift exponents.
        spread: standard deviation of the drift exponents.
    """

    physics: ConductancePhysics
    g_max_us: float
    sigma_us: Tensor
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, physics: ConductancePhysics, g_max_us: float, target_us: Tensor) -> _PowerLaw:
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
        # tabulated with an exponent of 0: the pass looks the sigma up at the conductance that drift has left
        _, read = _mean_and_sigma(
            lambda g: self.physics.apply_drift_noise_to_conductance(g, torch.zeros_like(g), time_s), grid
        )
        return log_time, read.float(), step


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
