"""The devices of a card: how a weight becomes conductances, and how conductances are read as a weight again.

One scale holds for both ways, from programming to the last read-out: what noise and drift did to the conductances
arrives in the weights unchanged. Were weights scaled anew at each reading, the loss that drift brings would vanish.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hpml_sim.analog.device_laws import law_of, programming_sigma
from hpml_sim.analog.noise_models import NoiseModel
from hpml_sim.analog.programming_noise import ProgrammedDevices
from hpml_sim.cards import Noise
from hpml_sim.kernels.device_noise import DeviceLaw

SIGMA_STEPS = 1024
"""Steps of a table over weights, from 0 to the largest one."""


class DeviceModel:
    """The devices of one card.

    A weight in [-1, 1] (in units of the largest weight of its column) is held by a differential pair, G+ and G-, of
    which one is at its smallest conductance; or ("reram-cmo") by one device read against the middle of its range.

    Args:
        noise: the card's noise model and its options.

    Attributes:
        noise_model: what programming and time do to a conductance.
        g_min_us: smallest conductance of a device, microsiemens.
        g_max_us: largest conductance of a device, microsiemens.
        devices: devices that hold a weight, 2 or 1.

    Raises:
        CardError: an option that the model does not have, or a value that it refuses.
        ImportError: aihwkit is needed, and it is missing or broken.
    """

    def __init__(self, noise: Noise):
        self.noise_model = NoiseModel(noise)
        self.g_min_us, self.g_max_us = self.noise_model.g_min_us, self.noise_model.g_max_us
        self.devices = 1 if noise.model == "reram-cmo" else 2

    @cached_property
    def law(self) -> DeviceLaw | None:
        """The noise model in numbers; None where its functions alone can say."""
        return law_of(self.noise_model, self.devices)

    @property
    def signed(self) -> bool:
        """Whether a weight is held by a differential pair."""
        return self.devices == 2

    def conductances(self, weight: Tensor) -> Tensor:
        """Target conductances of weights.

        Source: aihwkit `SinglePairConductanceConverter`, `SingleDeviceConductanceConverter`.

        Args:
            weight: values in [-1, 1], any shape (...).

        Returns:
            Conductances, microsiemens, shape (devices, ...).
        """
        span = self.g_max_us - self.g_min_us
        if not self.signed:
            return (self.g_min_us + 0.5 * span * (weight.clamp(-1, 1) + 1)).unsqueeze(0)
        return torch.stack([weight.clamp(0, 1), (-weight).clamp(0, 1)]) * span + self.g_min_us

    def weights(self, g_us: Tensor, out: Tensor | None = None) -> Tensor:
        """Weights that conductances amount to, with the scale that programming used.

        Args:
            g_us: conductances, microsiemens, shape (devices, ...).
            out: where the result goes, shape (...); None: a new tensor.

        Returns:
            shape (...); noise may lead beyond [-1, 1].
        """
        # the nominal range, not the largest conductance found: see the top of this file
        span = self.g_max_us - self.g_min_us
        if not self.signed:
            return torch.sub(g_us[0], self.g_min_us, out=out).mul_(2 / span).sub_(1)
        return torch.sub(g_us[0], g_us[1], out=out).div_(span)

    def programming_sigma(self) -> np.ndarray:
        """Standard deviation of a weight right after programming, as a table over its target.

        Returns:
            In units of the largest weight, at `2 * SIGMA_STEPS + 1` equally distant targets from -1 to 1, float32.
        """
        target = torch.linspace(-1, 1, 2 * SIGMA_STEPS + 1, dtype=torch.float64)
        sigma_us = programming_sigma(self.noise_model, self.conductances(target))
        per_weight = (1 if self.signed else 2) / (self.g_max_us - self.g_min_us)
        return np.ascontiguousarray((sigma_us.square().sum(0).sqrt() * per_weight).float().numpy())

    def program(self, g_target_us: Tensor, seeds: list[int]) -> ProgrammedDevices:
        """Program one set of targets into many chips.

        Args:
            g_target_us: target conductances, microsiemens, shape (devices, ...).
            seeds: one for each chip.

        Returns:
            The devices of `len(seeds)` chips, each with its own programming error and its own drift.
        """
        return ProgrammedDevices(self.noise_model, self.law, g_target_us.float().contiguous(), tuple(seeds))
