"""Programming noise, drift and read noise of every single device of some chips.

A chip is its target conductances and a seed: its devices are drawn again whenever they are needed, always the same. So
no chip has to be stored, and 25 chips cost the memory of one.

Every device of a differential pair keeps its own programming error and its own drift exponent, and every time is
computed from the programmed state. (aihwkit's own pipeline starts each drift from the net weights that it read last: it
re-splits them into pairs with a new scale, so drift compounds, and for `ReRamWan2022NoiseModel` this costs a gain error
of 7 to 14 %.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hpml_sim.analog.device_laws import aging_of, without_noise
from hpml_sim.analog.noise_models import NoiseModel
from hpml_sim.errors import HpmlError
from hpml_sim.kernels.device_noise import NO_FAULTS, DeviceLaw, Faults


@dataclass(frozen=True)
class ProgrammedDevices:
    """The devices of some chips, all programmed to the same targets; immutable.

    Attributes:
        noise_model: what programming and time do to a conductance.
        law: the same in numbers; None: the noise model's functions alone can say.
        target_us: target conductances, microsiemens, shape (devices, ...).
        seeds: one for each chip.
    """

    noise_model: NoiseModel
    law: DeviceLaw | None
    target_us: Tensor
    seeds: tuple[int, ...]

    def programmed(self, chip: int, faults: Faults = NO_FAULTS) -> Tensor:
        """Conductances of one chip right after programming: targets with programming noise.

        Args:
            chip: its number, from 0.
            faults: stuck devices of this chip.

        Returns:
            Conductances, microsiemens, shape (devices, ...).
        """
        if self.law is None:
            return _stuck(self, programmed_by_functions(self.noise_model, self.target_us, self.seeds[chip]), faults)
        from hpml_sim.kernels.device_noise.cpu import conductances

        out = torch.empty_like(self.target_us)
        conductances(self.law, self.target_us, out, seed=self.seeds[chip], faults=faults)
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
        if self.law is None or not self.law.mean.any():
            raise HpmlError(
                f"the model {self.noise_model.name!r} has no drift exponents; 'pcm', 'hermes' and 'custom' have"
            )
        from hpml_sim.kernels.device_noise.cpu import drift_exponents

        out = torch.empty_like(self.target_us)
        drift_exponents(self.law, self.target_us, out, seed=self.seeds[chip])
        return out

    def at(self, time_s: float, seed: Callable[[int], int], faults: Faults = NO_FAULTS) -> Iterator[Tensor]:
        """Conductances as they are read at a time, of one chip after the other.

        Always computed from the programmed state, so times can come in any order.

        Args:
            time_s: seconds since the end of programming.
            seed: gives the seed of the read noise of a chip.
            faults: stuck devices, the same on each chip.

        Yields:
            Conductances, microsiemens, shape (devices, ...); the next chip may overwrite the memory of the last.

        Raises:
            HpmlError: time_s < 0.
            UnsupportedTimeError: the model has no data for this time.
        """
        self.noise_model.check_time(time_s)
        if self.law is None:
            for chip, own in enumerate(self.seeds):
                aged = aged_by_functions(self.noise_model, self.target_us, own, seed(chip), time_s)
                yield _stuck(self, aged, faults)
            return
        from hpml_sim.kernels.device_noise.cpu import conductances

        aging, out = aging_of(self.noise_model, time_s), torch.empty_like(self.target_us)
        for chip, own in enumerate(self.seeds):
            conductances(self.law, self.target_us, out, seed=own, aging=aging, read_seed=seed(chip), faults=faults)
            yield out


def programmed_by_functions(noise_model: NoiseModel, target_us: Tensor, seed: int) -> Tensor:
    """Programmed conductances of a noise model that is functions of torch.

    Args:
        noise_model: of the devices.
        target_us: targets, microsiemens, shape (devices, ...).
        seed: of what programming draws.

    Returns:
        Microsiemens, shape (devices, ...).
    """
    with _seeded(seed):
        return noise_model.physics.apply_programming_noise_to_conductance(target_us.clone())


def aged_by_functions(noise_model: NoiseModel, target_us: Tensor, seed: int, read_seed: int, time_s: float) -> Tensor:
    """Conductances at a time of a noise model that is functions of torch.

    Args:
        noise_model: of the devices.
        target_us: targets, microsiemens, shape (devices, ...).
        seed: of what programming draws.
        read_seed: of what the time draws.
        time_s: seconds since the end of programming.

    Returns:
        Microsiemens, shape (devices, ...).
    """
    # the programmed state is drawn again from its own seed, and never from what was read at another time
    with _seeded(seed):
        programmed = noise_model.physics.apply_programming_noise_to_conductance(target_us.clone())
        exponents = noise_model.physics.generate_drift_coefficients(target_us.clone())
    with _seeded(read_seed):
        return noise_model.physics.apply_drift_noise_to_conductance(programmed, exponents, time_s)


def _stuck(devices: ProgrammedDevices, g_us: Tensor, faults: Faults) -> Tensor:
    """Conductances with the stuck devices at the ends of their range."""
    if faults.at_g_min == faults.at_g_max == 0:
        return g_us
    from hpml_sim.kernels.device_noise.cpu import conductances

    g_us, out = g_us.float().contiguous(), torch.empty_like(g_us, dtype=torch.float32)
    conductances(without_noise(devices.noise_model, len(g_us)), g_us, out, seed=0, faults=faults)
    return out


class _seeded:  # noqa: N801 - reads as a verb where it is used
    """The functions draw from torch's global generator: lend it a seed, then put the caller's state back."""

    def __init__(self, seed: int):
        self._seed = seed

    def __enter__(self) -> None:
        # the CPU's generator only: everything drawn here lies on the CPU
        self._before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self._seed)

    def __exit__(self, *problem: object) -> None:
        torch.default_generator.set_state(self._before)
