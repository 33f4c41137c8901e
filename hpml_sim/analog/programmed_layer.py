"""One layer on all chips: its weights and seeds are kept; what a chip holds is drawn whenever it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.analog.drift_compensation import compensated_scale, read_columns
from hpml_sim.analog.faults import faults_of
from hpml_sim.analog.programmed_weights import ProgrammedWeights
from hpml_sim.analog.programming_defaults import cpu_float32
from hpml_sim.analog.programming_noise import ProgrammedDevices
from hpml_sim.analog.seeds import Purpose, derive


@dataclass(frozen=True)
class ProgrammedLayer:
    """One layer on all chips.

    Attributes:
        layer: the layer, of a private network that nobody changes.
        index: number of the layer in the network.
        seed: of the chips.
        device_model: the kind of devices, which reads them as weights.
        full_scale: largest weight of each column of each piece, shape (groups, row tiles, cols). Fixed when the layer
            is programmed, and the same at every time: drift must show in the weights.
        limit: weights beyond it are clipped to it; an infinite one clips nothing beyond the limits of channels.
        baseline: what drift compensation reads right after programming, shape (chips, groups, row tiles, cells).
        weights: which weights were programmed.
    """

    layer: Any
    index: int
    seed: int
    device_model: DeviceModel
    full_scale: Tensor
    limit: float
    baseline: Tensor
    weights: ProgrammedWeights

    @classmethod
    def program(
        cls, layer: Any, index: int, device_model: DeviceModel, n_chips: int, seed: int, name: str
    ) -> ProgrammedLayer:
        """Program one layer onto chips.

        Args:
            layer: an analog layer, private.
            index: its number in the network.
            device_model: of its card.
            n_chips: how many chips.
            seed: what all randomness comes from.
            name: of the layer, for messages.
        """
        with torch.no_grad(), cpu_float32():
            crossbar = layer.crossbar
            matrix, limit = crossbar.mapped(layer.matrix())
            matrix = _on_cpu(matrix)
            full_scale = _full_scale(crossbar, matrix, limit)
            columns = crossbar.cell_scale(full_scale)
            baseline, weights = torch.empty((n_chips, *columns.shape)), ProgrammedWeights(name, layer.weight)
            new = cls(layer, index, seed, device_model, full_scale, limit, baseline, weights)
            weight = new.empty(1)[0]
            for chip in range(n_chips):
                new.draw(chip, weight, matrix)
                new.baseline[chip] = read_columns(crossbar, weight, new._seed(Purpose.BASELINE, chip))
        return new

    @property
    def crossbar(self) -> Crossbar:
        """Of the layer."""
        return self.layer.crossbar  # type: ignore[no-any-return]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of what a chip holds: (groups, row tiles, cells, height)."""
        tiling, target = self.crossbar.tiling, self.crossbar.target
        return tiling.groups, tiling.row_tiles, target.slices * tiling.cols, tiling.height

    @property
    def column_scale(self) -> Tensor:
        """What the columns of all slices count without drift, shape (groups, row tiles, cells)."""
        return self.crossbar.cell_scale(self.full_scale)

    def check_weights(self) -> None:
        """Refuse to draw chips anew from weights that were changed since: the chips hold the old ones.

        Raises:
            WeightsDifferError: the layer's weights are others than those that were programmed.
        """
        self.weights.check_values(self.layer.weight)

    def empty(self, n_chips: int) -> Tensor:
        """Memory for what chips hold, (chips, groups, row tiles, cells, height), float32 on the CPU.

        Args:
            n_chips: how many chips.
        """
        from hpml_sim.kernels.common.memory import BLOCKS

        return BLOCKS.empty((n_chips, *self.shape), torch.empty(0, dtype=torch.float32, device="cpu"))

    @torch.no_grad()
    def draw(self, chip: int, out: Tensor, matrix: Tensor | None = None, time_s: float | None = None) -> None:
        """What one chip multiplies with, right after programming or at a time.

        Args:
            chip: its number.
            out: result, in units of the column's full scale, float32, contiguous, on the CPU, of `shape`.
            matrix: the layer's weights as `_on_cpu` gives them; None: they are taken from the layer.
            time_s: seconds since the end of programming; None: right after programming.
        """
        law, crossbar = self.device_model.law, self.crossbar
        if law is None:
            for g_us in self.conductances([chip], time_s):
                self.device_model.weights(g_us, out=out)
            return
        from hpml_sim.analog.device_laws import aging_of
        from hpml_sim.kernels.device_noise.weights import Cells, chip_weights

        target = crossbar.target
        cells = Cells(
            _on_cpu(crossbar.within_limit(self.layer.matrix())[0]) if matrix is None else matrix,
            self.full_scale,
            self.limit,
            crossbar.tiling.height,
            target.levels,
            target.slices,
        )
        chip_weights(
            law,
            cells,
            out,
            seed=self._seed(Purpose.PROGRAMMING, chip),
            aging=None if time_s is None else aging_of(self.device_model.noise_model, time_s),
            read_seed=0 if time_s is None else self._seed(Purpose.READ, chip, time_s),
            faults=faults_of(target, self.seed, self.index, chip),
        )

    @torch.no_grad()
    def compensated(self, chip: int, weight: Tensor, time_s: float) -> Tensor:
        """Digital factors of the columns of one chip at one time, shape (groups, row tiles, cells).

        Args:
            chip: its number.
            weight: what `draw` gave for this chip and time.
            time_s: seconds since the end of programming.
        """
        seed = self._seed(Purpose.READOUT, chip, time_s)
        return compensated_scale(self.crossbar, self.column_scale, self.baseline[chip], weight, seed)

    def output_seed(self, chip: int, time_s: float) -> int:
        """The seed of the noise at a chip's outputs at one time.

        Args:
            chip: its number.
            time_s: seconds since the end of programming.
        """
        return self._seed(Purpose.OUTPUT, chip, time_s)

    @torch.no_grad()
    def conductances(self, chips: Sequence[int], time_s: float | None) -> Iterator[Tensor]:
        """Every single device, one chip after the other.

        Args:
            chips: their numbers.
            time_s: seconds since the end of programming; None: right after programming.

        Yields:
            Conductances, microsiemens, shape (devices, groups, row tiles, cells, height); the next chip may overwrite
            the memory of the last.
        """
        with cpu_float32():
            crossbar, tiling = self.crossbar, self.crossbar.tiling
            matrix = _on_cpu(crossbar.within_limit(self.layer.matrix())[0]).clamp(-self.limit, self.limit)
            tiles = tiling.cut_weights(matrix) / self.full_scale.unsqueeze(-1)
            target_us = self.device_model.conductances(crossbar.cells(tiles))
            for chip in chips:
                seeds = (self._seed(Purpose.PROGRAMMING, chip),)
                devices = ProgrammedDevices(
                    self.device_model.noise_model, self.device_model.law, target_us.contiguous(), seeds
                )
                faults = faults_of(crossbar.target, self.seed, self.index, chip)
                if time_s is None:
                    yield devices.programmed(0, faults)
                else:
                    read_seed = self._seed(Purpose.READ, chip, time_s)
                    yield from devices.at(time_s, lambda _, seed=read_seed: seed, faults)

    def _seed(self, purpose: Purpose, chip: int, time_s: float = 0.0) -> int:
        return derive(self.seed, purpose, layer=self.index, chip=chip, time_s=time_s)


def weights_of_cells(crossbar: Crossbar, cells: Tensor, scale: Tensor) -> Tensor:
    """The matrix that cells amount to.

    Args:
        crossbar: of the layer.
        cells: shape (groups, row tiles, slices * cols, height).
        scale: what each column counts, shape (groups, row tiles, slices * cols).

    Returns:
        shape (groups * cols, rows).
    """
    tiling = crossbar.tiling
    weights = (cells * scale.unsqueeze(-1)).unflatten(2, (-1, tiling.cols)).sum(2)
    return weights.transpose(1, 2).flatten(2)[..., : tiling.rows].flatten(0, 1).contiguous()


def _on_cpu(matrix: Tensor) -> Tensor:
    """A matrix as the compiled passes take it; the weights themselves where they are so already."""
    return matrix.detach().to("cpu", torch.float32).contiguous()


def _full_scale(crossbar: Crossbar, matrix: Tensor, limit: float) -> Tensor:
    """The largest magnitude of each column of each piece; 1 where all its weights are zero.

    As `effective_weights.full_scale`, without the memory of a second matrix.
    """
    tiling = crossbar.tiling
    found = []
    for part in matrix.split(tiling.height, 1):
        largest = torch.maximum(part.amax(1), -part.amin(1)).clamp(max=limit)
        found.append(torch.where(largest > 0, largest, torch.ones_like(largest)).unflatten(0, (tiling.groups, -1)))
    return torch.stack(found, 1).contiguous()
