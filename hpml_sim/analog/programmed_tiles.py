"""What a crossbar runs with while it is programmed: the weights of chips at one time, and their output noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from hpml_sim.analog.effective_weights import EffectiveWeights
from hpml_sim.analog.programmed_weights import ProgrammedWeights
from hpml_sim.analog.sample_noise import current_samples, some_values
from hpml_sim.kernels.common.noise_keys import NoiseKeys

KeysOf = Callable[[int], NoiseKeys]
"""What numbers the noise of a product, by chip."""


Piece = tuple[int, int] | None
"""Where the rows of a product come in pieces, the number of the first one here and that of all; None: all are here."""


class TileSource(Protocol):
    """What gives the tiles of one layer at one time, chip by chip, whenever they are asked for."""

    @property
    def number(self) -> int:
        """Of the layer among all that were programmed, whatever the chip and the time."""
        ...

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
        seeds: one for each chip, of the output noise.
        weight: of the chips in memory, in units of the column's full scale, shape (chips, groups, row tiles, cols,
            height).
        scale: digital factor of each column: drift compensation and what its slice counts included, shape
            (chips, groups, row tiles, 1, cols).
        held: which chip lies in memory, counted from 0; -1: none yet; None: all do.
        weights: which weights of the layer they hold.
        call: number of the run of the network, of which the noise is.
        used: by chip, how many products of this run were computed.
    """

    source: TileSource
    chips: tuple[int, ...]
    seeds: list[int]
    weight: Tensor
    scale: Tensor
    held: int | None
    weights: ProgrammedWeights
    call: int = 0
    used: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: TileSource,
        chips: Sequence[int],
        seeds: list[int],
        like: Tensor,
        weights: ProgrammedWeights,
        *,
        together: bool,
    ) -> ProgrammedTiles:
        """The tiles of some chips.

        Args:
            source: draws them.
            chips: their numbers, as programmed.
            seeds: one for each chip, of the output noise.
            like: a tensor of the type and device of the network.
            weights: which weights of the layer they hold.
            together: whether all chips are drawn now and kept; else each is drawn when the layer runs for it.
        """
        weight, scale = source.empty(len(chips) if together else 1)
        for row, chip in enumerate(chips if together else ()):
            source.draw(chip, weight[row], scale[row])
        return cls(source, tuple(chips), seeds, weight.to(like), scale.to(like), None if together else -1, weights)

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
        # as vectors: a memory format, such as channels_last, is one of images
        weight, scale = (function(one.flatten()).view(one.shape) for one in (self.weight, self.scale))
        held = self.held
        if held is not None:  # memory of its own, where a chip will be drawn
            weight, scale, held = torch.empty_like(weight), torch.empty_like(scale), -1
        return replace(self, weight=weight, scale=scale, held=held, used=dict(self.used))

    def begin(self, call: int) -> None:
        """Before the network runs: which run it is.

        Args:
            call: its number; the same number draws the same noise.
        """
        self.call = call
        self.used.clear()

    def noise_positions(self) -> dict[int, int]:
        """Where the noise of all chips goes on, for `rewind_noise`."""
        return dict(self.used)

    def rewind_noise(self, positions: dict[int, int]) -> None:
        """Let the noise of all chips go on where it did when `noise_positions` was called.

        Args:
            positions: what it gave.
        """
        self.used.clear()
        self.used.update(positions)

    def noise_keys(self, chip: int, x: Tensor, piece: Piece = None) -> NoiseKeys:
        """What the noise of one chip's next product is numbered by: seed, run, use of the layer, and its samples.

        Args:
            chip: its number, from 0.
            x: inputs of the product, shape (groups, rows, values), where a row has noise of its own.
            piece: where rows come in pieces, the number of the first one here and that of all; None: all are here.
        """
        from hpml_sim.kernels.random.splitmix import GOLDEN, mix_exactly

        row, rows = piece or (0, x.shape[1])
        use = self.used.get(chip, 0) - (row > 0)
        self.used[chip] = use + 1
        base = mix_exactly((mix_exactly((self.seeds[chip] + self.call * GOLDEN) % 2**64) + use * GOLDEN) % 2**64)
        samples, keys = current_samples(), NoiseKeys(base, row=row)
        if samples is None:
            return keys
        product = (self.source.number, use)
        if samples.recorded is not None and chip == 0 and row == 0:
            samples.recorded[product] = some_values(x)
        return samples.keys(product, rows, keys)

    @staticmethod
    def normal(like: Tensor, chips: Sequence[int], keys: KeysOf) -> Tensor:
        """Standard normal numbers, each chip's own.

        Args:
            like: gives shape (chips, groups, row tiles, rows, columns), type and device.
            chips: numbers of the chips.
            keys: of the product, by chip.
        """
        # each chip from its own seed: a chip gets the same noise whatever other chips run beside it
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for chip, buffer in zip(chips, noise, strict=True):
            ProgrammedTiles.fill(buffer, keys(chip))
        return noise

    @staticmethod
    def fill(noise: Tensor, keys: NoiseKeys) -> None:
        """Fill a tensor with standard normal numbers.

        Args:
            noise: is overwritten; shape (groups, row tiles, rows, columns).
            keys: of the product.
        """
        if keys.quiet:
            noise.zero_()
        elif noise.device.type == "cpu":
            from hpml_sim.kernels.crossbar_product.noise import fill_noise

            drawn = noise if noise.dtype in (torch.float32, torch.float64) else torch.empty(noise.shape)
            fill_noise(drawn, keys)
            if drawn is not noise:
                noise.copy_(drawn)
        else:
            from hpml_sim.kernels.random.splitmix import mix_exactly

            # on other devices by call
            seed = mix_exactly((keys.base + keys.first) % 2**64) >> 1
            noise.normal_(generator=torch.Generator(noise.device).manual_seed(seed))
