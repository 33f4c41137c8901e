"""What a crossbar runs with while it is programmed: the weights of all chips at one time, and their output noise."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

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
        batch: samples of each chip in the call that is running; the batch that a layer sees is a multiple of it.
        drawn: by chip, where `fill_normal` goes on.
        generators: by chip, torch's generator of its output noise.
    """

    weight: Tensor
    scale: Tensor
    seeds: list[int]
    batch: int = 1
    drawn: dict[int, int] = field(default_factory=dict)
    generators: dict[int, torch.Generator] = field(default_factory=dict)

    @property
    def n_chips(self) -> int:
        """How many chips lie side by side."""
        return len(self.weight)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers, drawn chip by chip.

        Args:
            like: gives shape (chips, ...), type and device.
        """
        # each chip from its own seed: a chip gets the same noise whatever other chips run beside it
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for chip in range(len(self.seeds)):
            self.fill(chip, noise[chip])
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
