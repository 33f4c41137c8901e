"""What a crossbar runs with while it is programmed: the weights of chips at one time, and their output noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.analog.training_passes import takes_compiled_pass


class TileSource(Protocol):
    """What gives the tiles of one layer at one time, chip by chip, whenever they are asked for."""

    def empty(self, n_chips: int) -> tuple[Tensor, Tensor]:
        """Memory for weights and scales of chips, float32 on the CPU; see `ProgrammedTiles`.

        Args:
            n_chips: how many chips.
        """
        ...

    def draw(self, chip: int, weight: Tensor, scale: Tensor) -> None:
        """Write what one chip holds.

        Args:
            chip: its number, as programmed.
            weight: result, shape (groups, row tiles, cols, height).
            scale: result, shape (groups, row tiles, 1, cols).
        """
        ...


@dataclass
class ProgrammedTiles:
    """The tiles of one layer as programmed chips hold them at one time.

    Either all chips lie in memory, or one of them at a time, which is drawn when the layer runs for it.
    Where a weight is cut into slices, `cols` here is slices x cols, the columns of each slice together.

    Attributes:
        source: draws them.
        chips: their numbers, as programmed.
        seeds: one for each chip, of the output noise: on the CPU of `fill_normal`, elsewhere of torch's generator.
        weight: of the chips in memory, in units of the column's full scale, shape (chips, groups, row tiles, cols,
            height).
        scale: digital factor of each column: drift compensation and what its slice counts included, shape
            (chips, groups, row tiles, 1, cols).
        held: which chip lies in memory, counted from 0; -1: none yet; None: all do.
        drawn: by chip, where `fill_normal` goes on.
        generators: by chip, torch's generator of its output noise.
    """

    source: TileSource
    chips: tuple[int, ...]
    seeds: list[int]
    weight: Tensor
    scale: Tensor
    held: int | None
    drawn: dict[int, int] = field(default_factory=dict)
    generators: dict[int, torch.Generator] = field(default_factory=dict)

    @classmethod
    def of(
        cls, source: TileSource, chips: Sequence[int], seeds: list[int], like: Tensor, *, together: bool
    ) -> ProgrammedTiles:
        """The tiles of some chips.

        Args:
            source: draws them.
            chips: their numbers, as programmed.
            seeds: one for each chip, of the output noise.
            like: a tensor of the type and device of the network.
            together: whether all chips are drawn now and kept; else each is drawn when the layer runs for it.
        """
        weight, scale = source.empty(len(chips) if together else 1)
        for row, chip in enumerate(chips if together else ()):
            source.draw(chip, weight[row], scale[row])
        return cls(source, tuple(chips), seeds, weight.to(like), scale.to(like), None if together else -1)

    @property
    def n_chips(self) -> int:
        """How many chips are programmed."""
        return len(self.chips)

    def effective_weights(self, chips: Sequence[int]) -> EffectiveWeights:
        """What some chips multiply with, as views; where chips are drawn one by one, until the next is asked for.

        Args:
            chips: numbers of chips, counted from 0, one after another.
        """
        if self.held is None:
            part = slice(chips[0], chips[-1] + 1)
            return EffectiveWeights(self.weight[part], None, self.scale[part])
        (chip,) = chips
        if chip != self.held:
            self._draw(chip)
        return EffectiveWeights(self.weight, None, self.scale)

    def _draw(self, chip: int) -> None:
        self.held = -1  # nothing whole lies there until the end
        weight, scale = self.weight[:1], self.scale[:1]
        ours = weight.dtype == torch.float32 and weight.device.type == "cpu"
        into = (weight, scale) if ours else self.source.empty(1)
        self.source.draw(self.chips[chip], into[0][0], into[1][0])
        if not ours:
            weight.copy_(into[0])
            scale.copy_(into[1])
        self.held = chip

    def moved(self, function: Callable[[Tensor], Tensor]) -> ProgrammedTiles:
        """The same tiles on another device or of another type; these stay as they are, for a copy may share them.

        Args:
            function: what `.to(...)` and its like do to a tensor.
        """
        weight, scale, held = function(self.weight), function(self.scale), self.held
        if held is not None:  # memory of its own, where a chip will be drawn
            weight, scale, held = torch.empty_like(weight), torch.empty_like(scale), -1
        return replace(self, weight=weight, scale=scale, held=held, drawn=dict(self.drawn), generators={})

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
