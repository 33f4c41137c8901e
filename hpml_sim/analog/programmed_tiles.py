"""What a crossbar runs with while it is programmed: the weights of all chips at one time, and their output noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.analog.training_passes import takes_compiled_pass


@dataclass
class ProgrammedTiles:
    """The tiles of one layer as programmed chips hold them at one time.

    Where a weight is cut into slices, `cols` here is slices x cols, the columns of each slice together.

    Attributes:
        weight: in units of the column's full scale, shape (chips, groups, row tiles, cols, height).
        scale: digital factor of each column: drift compensation and what its slice counts included, shape
            (chips, groups, row tiles, 1, cols).
        seeds: one for each chip, of the output noise: on the CPU of `fill_normal`, elsewhere of torch's generator.
        drawn: by chip, where `fill_normal` goes on.
        generators: by chip, torch's generator of its output noise.
    """

    weight: Tensor
    scale: Tensor
    seeds: list[int]
    drawn: dict[int, int] = field(default_factory=dict)
    generators: dict[int, torch.Generator] = field(default_factory=dict)

    @property
    def n_chips(self) -> int:
        """How many chips are programmed."""
        return len(self.weight)

    def effective_weights(self, chips: Sequence[int]) -> EffectiveWeights:
        """What some chips multiply with, as views.

        Args:
            chips: numbers of chips, one after another.
        """
        part = slice(chips[0], chips[-1] + 1)
        return EffectiveWeights(self.weight[part], None, self.scale[part])

    def noise_positions(self) -> tuple[dict[int, int], dict[int, Tensor]]:
        """Where the noise of all chips goes on, for `rewind_noise`."""
        return dict(self.drawn), {chip: generator.get_state() for chip, generator in self.generators.items()}

    def rewind_noise(self, positions: tuple[dict[int, int], dict[int, Tensor]]) -> None:
        """Let the noise of all chips go on where it did when `noise_positions` was called.

        Args:
            positions: what it gave.
        """
        drawn, states = positions
        self.drawn.clear()
        self.drawn.update(drawn)
        for chip in list(self.generators):
            if chip in states:
                self.generators[chip].set_state(states[chip])
            else:
                del self.generators[chip]

    def normal(self, like: Tensor, chips: Sequence[int]) -> Tensor:
        """Standard normal numbers, drawn chip by chip.

        Args:
            like: gives shape (chips, ...), type and device.
            chips: numbers of the chips.
        """
        # each chip from its own seed: a chip gets the same noise whatever other chips run beside it
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for chip, buffer in zip(chips, noise, strict=True):
            self.fill(chip, buffer)
        return noise

    def fill(self, chip: int, noise: Tensor) -> None:
        """Fill a tensor with the next standard normal numbers of one chip.

        Args:
            chip: its number, from 0.
            noise: is overwritten.
        """
        if takes_compiled_pass(noise) and noise.is_contiguous():
            from hpml_sim.kernels.random import fill_normal

            # numbers are addressed by position, so the k-th call goes on where the last one ended
            self.drawn[chip] = fill_normal(noise, self.seeds[chip], self.drawn.get(chip, 0))
            return
        if chip not in self.generators:
            self.generators[chip] = torch.Generator(noise.device).manual_seed(self.seeds[chip])
        noise.normal_(generator=self.generators[chip])
