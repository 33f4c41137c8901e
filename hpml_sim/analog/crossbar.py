"""A weight matrix on crossbar tiles: how it is cut up, what training sees of it, and how one product is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hpml_sim.analog.converters import clip, fits, levels, noisy_tiles, product, quantize
from hpml_sim.analog.devices import DeviceModel, significance
from hpml_sim.cards import CrossbarCard, load_card
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog, as_target

_SAMPLE = 4096
"""Values that one calibration step looks at."""
_WIRE_OHM = 0.35
"""Resistance of the wire from cell to cell, as aihwkit assumes it."""
_WARM_UP, _MOMENTUM, _EVERY = 50, 0.05, 10
"""Calibration in training: mean of the first batches, then a moving average over every tenth."""


@dataclass(frozen=True)
class Tiling:
    """How `groups` matrices of `rows` x `cols` weights lie on tiles of `tile_rows` x `tile_cols` weights.

    Rows are cut evenly into `row_tiles` pieces of at most `height`, columns into pieces of at most `tile_cols`.
    """

    groups: int
    rows: int
    cols: int
    tile_rows: int
    tile_cols: int

    @property
    def row_tiles(self) -> int:
        """Pieces that the rows of one matrix are cut into; their products are added in digital."""
        return math.ceil(self.rows / self.tile_rows)

    @property
    def col_tiles(self) -> int:
        """Pieces that the columns of one matrix are cut into."""
        return math.ceil(self.cols / self.tile_cols)

    @property
    def height(self) -> int:
        """Rows of one piece (the last may have fewer)."""
        return math.ceil(self.rows / self.row_tiles)

    @property
    def tiles(self) -> int:
        """Tiles of the whole layer."""
        return self.groups * self.row_tiles * self.col_tiles

    @property
    def utilization(self) -> float:
        """Share of the cells in use, in (0, 1]."""
        return self.groups * self.rows * self.cols / (self.tiles * self.tile_rows * self.tile_cols)


@dataclass
class ProgrammedTiles:
    """What a crossbar needs to run as programmed chips at one time.

    Where a weight is cut into slices, `cols` here is slices x cols, the columns of each slice together.

    Attributes:
        weight: in units of the column's full scale, shape (chips, groups, row tiles, cols, height).
        scale: digital factor of each column: drift compensation and what its slice counts included, shape
            (chips, groups, row tiles, 1, cols).
        seeds: one a chip, for the output noise: on the CPU of `fill_normal`, elsewhere of torch's generator.
        batch: samples a chip in the call that is running; what a layer sees is a multiple of it.
    """

    weight: Tensor
    scale: Tensor
    seeds: list[int]
    batch: int = 1
    drawn: dict[int, int] = field(default_factory=dict)
    generators: dict[int, torch.Generator] = field(default_factory=dict)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape of `like` (chips, ...), drawn chip by chip."""
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for chip in range(len(self.seeds)):
            self.fill(chip, noise[chip])
        return noise

    def fill(self, chip: int, noise: Tensor) -> None:
        """Fill a tensor with the next standard normal numbers of one chip."""
        if fits(noise) and noise.is_contiguous():
            from hpml_sim.kernels.normal import fill_normal

            self.drawn[chip] = fill_normal(noise, self.seeds[chip], self.drawn.get(chip, 0))
            return
        if chip not in self.generators:
            self.generators[chip] = torch.Generator(noise.device).manual_seed(self.seeds[chip])
        noise.normal_(generator=self.generators[chip])


@dataclass(frozen=True)
class EffectiveWeights:
    """A matrix as the tiles hold it in one forward pass.

    Attributes:
        matrix: shape (chips or 1, groups, row tiles, cols, height).
        unit: full scale of its columns where `matrix` is in units of the weights, (1, groups, row tiles, 1, cols); None
            where it is in units of the full scale.
        scale: digital factor of each column, (chips or 1, groups, row tiles, 1, cols).
    """

    matrix: Tensor
    unit: Tensor | None
    scale: Tensor


@dataclass
class CalibrationStep:
    """What one pass of the network has shown of a crossbar so far.

    Attributes:
        learns: whether this pass calibrates; None until the first product. counted: it is among the observations.
        ranges: by name, each range as it was before the pass, and the largest that the pass asked for.
    """

    learns: bool | None = None
    counted: bool = False
    ranges: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@contextmanager
def one_pass(crossbars: Iterable[Crossbar]) -> Iterator[None]:
    """All products inside are one observation to the calibration: of several uses of a layer, the widest range counts.

    Without it each use is one, and the ranges of a layer that is used at every step of a sequence would be those of
    some mean step, or of whichever step the schedule of observations meets.
    """
    opened = [crossbar for crossbar in crossbars if crossbar.current is None]
    for crossbar in opened:
        crossbar.current = CalibrationStep()
    try:
        yield
    finally:
        for crossbar in opened:
            crossbar.current = None


def _recomputing() -> bool:
    """Whether gradient checkpointing runs a forward pass again, on the way back: it must do what the first one did."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class Crossbar(nn.Module):
    """The analog part of a layer: tiles, converters and calibration. The layer keeps the weights.

    State (all saved in the state dict):
        input_range: a full-scale input, in units of the layer's input; 0 until calibrated. Until then each input vector
            is scaled by its own largest value, and the ADC's range by powers of two so that nothing saturates.
        output_range: the input range from which on the ADC does not saturate (same unit). The DAC uses the larger one.
        range_shift: where the range is learned, the logarithm to the base 2 of what multiplies the calibrated one, a
            parameter; else None.
        observations: batches that calibrated it.
        weight_limit: largest weight; infinite until training starts.

    Args:
        rows: inputs of one group. cols: outputs of one group. groups: independent matrices.
        target: the configuration; its card gives the array, the converters and the devices.
    """

    input_range: Tensor
    output_range: Tensor
    observations: Tensor
    weight_limit: Tensor
    range_shift: nn.Parameter | None

    def __init__(
        self,
        rows: int,
        cols: int,
        groups: int,
        target: Analog,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        card = crossbar_card(target)
        array = card.array
        self.target = target
        cells = max(1, int(array.cells_per_weight)) * target.slices
        if target.slices > 1 and cells > int(array.cols):
            raise HpmlError(
                f"slices={target.slices}: one weight takes {cells} columns, a tile of card {target.card!r} has "
                f"{int(array.cols)}; take fewer slices with more levels"
            )
        self.shape = Tiling(groups, rows, cols, int(array.rows), max(1, int(array.cols) // cells))
        self.dac_qmax = levels(int(card.io.dac_bits) if target.dac_bits is None else target.dac_bits)
        self.adc_qmax = levels(int(card.io.adc_bits) if target.adc_bits is None else target.adc_bits)
        self.noise = card.noise
        self.programmed: ProgrammedTiles | None = None
        self.observing = False
        self.current: CalibrationStep | None = None
        for name, value in (("input_range", 0.0), ("output_range", 0.0), ("weight_limit", math.inf)):
            self.register_buffer(name, torch.tensor(value, device=device, dtype=dtype))
        self.register_buffer("observations", torch.tensor(0, device=device))
        shift = nn.Parameter(torch.zeros((), device=device, dtype=dtype)) if target.learn_input_range else None
        self.register_parameter("range_shift", shift)
        self.wire_drop = _WIRE_OHM * 1e-6 * self.devices().g_max_us if target.ir_drop > 0 else 0.0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Crossbar:
        """What `.to(...)` and its like do; what is programmed goes along."""
        super()._apply(fn, recurse)
        if (chips := self.programmed) is not None:
            self.programmed = replace(chips, weight=fn(chips.weight), scale=fn(chips.scale), generators={})
        return self

    @property
    def chips(self) -> int:
        """How many chips lie in the batch; 1 where nothing is programmed."""
        return 1 if self.programmed is None else len(self.programmed.weight)

    @property
    def calibrated(self) -> bool:
        """Whether the input range is known; if not, each input vector is scaled by itself."""
        return int(self.observations) > 0

    def full_range(self) -> Tensor:
        """A full-scale input, in units of the layer's input; 0 until calibrated."""
        full = torch.maximum(self.input_range, self.output_range)
        return full if self.range_shift is None else full * torch.exp2(self._shift())

    def _shift(self) -> Tensor:
        """`range_shift`; without a gradient as long as the range is calibrated."""
        assert self.range_shift is not None
        return self.range_shift if self.training and not self._learns() else self.range_shift.detach()

    @property
    def _disturbed(self) -> bool:
        """Whether the array adds more than its weights: such products run operator by operator."""
        return self.target.ir_drop > 0 or self.target.read_noise > 0

    def devices(self) -> DeviceModel:
        """The device physics of the card."""
        return DeviceModel(self.noise)

    # ------------------------------------------------------------------------------------------------------- weights

    def effective(self, weight: Tensor) -> Tensor:
        """The weights that are mapped: clipped as in training. weight: (groups * cols, rows)."""
        if self.training and self.target.weight_clip is not None:
            with torch.no_grad():
                flat = weight.detach().flatten()
                variance = flat.dot(flat) / len(flat) - flat.mean().square()  # several times quicker than torch.std
                self.weight_limit.copy_(self.target.weight_clip * variance.clamp(min=0).sqrt())
        return clip(weight, self.weight_limit)

    def blocks(self, weight: Tensor) -> Tensor:
        """Cut a matrix (groups * cols, rows) into its row tiles, (groups, row tiles, cols, height), zero-padded."""
        s = self.shape
        pad = s.row_tiles * s.height - s.rows
        if pad:
            weight = nn.functional.pad(weight, (0, pad))
        return weight.reshape(s.groups, s.cols, s.row_tiles, s.height).transpose(1, 2)

    def full_scale(self, blocks: Tensor) -> Tensor:
        """The largest weight of each column of each tile, (groups, row tiles, cols); 1 where all are zero."""
        largest = blocks.detach().abs().amax(-1)
        return torch.where(largest > 0, largest, torch.ones_like(largest))

    def cells(self, weight: Tensor) -> Tensor:
        """What the cells are told to hold: rounded to the levels, cut into slices.

        Args:
            weight: in units of the column's full scale, (..., cols, height).

        Returns:
            shape (..., slices * cols, height), the columns of each slice together, most significant first.
        """
        target = self.target
        if target.levels is None:
            return weight
        return torch.cat(self.devices().bit_slices(weight, target.levels, target.slices), -2)

    def cell_scale(self, scale: Tensor) -> Tensor:
        """Digital factors of the columns of all slices: (..., cols) -> (..., slices * cols)."""
        if self.target.levels is None:
            return scale
        return torch.cat([scale * share for share in significance(self.target.levels, self.target.slices)], -1)

    # ------------------------------------------------------------------------------------------------------- product

    def effective_weights(self, weight: Tensor) -> EffectiveWeights:
        """The matrix as the tiles hold it: of the programmed chips, or of `weight`, in training with noise.

        Args:
            weight: the layer's weights, shape (groups * cols, rows); not used where chips are programmed.
        """
        if self.programmed is not None:
            return EffectiveWeights(self.programmed.weight, None, self.programmed.scale)
        target, s = self.target, self.shape
        if self.training and fits(weight):
            if target.weight_clip is not None:
                from hpml_sim.kernels.mvm import spread

                self.weight_limit.fill_(target.weight_clip * spread(weight))
            shape = (s.groups, s.row_tiles, s.cols, s.height)
            matrix, scale = noisy_tiles(weight, float(self.weight_limit), target.training_noise, shape)
            scale = scale.unsqueeze(0).unsqueeze(-2)
            return EffectiveWeights(self._dropped(matrix.unsqueeze(0)), scale, scale)
        matrix = self.blocks(self.effective(weight)).unsqueeze(0)
        scale = self.full_scale(matrix).unsqueeze(-2)  # (1, groups, row tiles, 1, cols)
        if self.training and target.training_noise > 0:
            sigma = target.training_noise * scale.transpose(-1, -2)
            # not randn_like: it would keep the strides of a transposed matrix, and draw five times slower
            normal = torch.randn(matrix.shape, dtype=matrix.dtype, device=matrix.device)
            matrix = torch.addcmul(matrix, sigma, normal)
        return EffectiveWeights(self._dropped(matrix), scale, scale)

    def _dropped(self, matrix: Tensor) -> Tensor:
        """The matrix with some weights taken as zero, in training."""
        share = self.target.drop_connect
        if not self.training or share == 0:
            return matrix
        return matrix * (torch.rand(matrix.shape, dtype=matrix.dtype, device=matrix.device) >= share)

    def forward(self, x: Tensor, weight: Tensor, effective_weights: EffectiveWeights | None = None) -> Tensor:
        """Multiply vectors with the matrix.

        Args:
            x: shape (chips, groups, vectors, rows).
            weight: the layer's weights, shape (groups * cols, rows); not used where chips are programmed.
            mapped: what `effective_weights(weight)` gave, for several products with the same devices.

        Returns:
            shape (chips, groups, vectors, cols), without bias.
        """
        s = self.shape
        if s.row_tiles * s.height != s.rows:
            x = nn.functional.pad(x, (0, s.row_tiles * s.height - s.rows))
        x = x.unflatten(-1, (s.row_tiles, s.height))
        if self._fuses(x):
            return self._fused(x)
        if effective_weights is None:
            effective_weights = self.effective_weights(weight)
        if self._trains_in_one_pass(x):
            learns = self._learns()
            if learns:
                self._observe_input(x.transpose(2, 3))
            if self.calibrated:
                return self._trained(x, effective_weights, learns)
        x = x.transpose(2, 3)  # (chips, groups, row tiles, vectors, height)
        if self.observing:
            y = x @ effective_weights.matrix.mT
            self._observe_input(x)
            self._observe_output(self._sliced(x, effective_weights, y / effective_weights.scale))
            return y.sum(2)
        return self._convert(x, effective_weights)

    def _fuses(self, x: Tensor) -> bool:
        """Whether programmed chips run chip by chip through the kernel; on other devices than the CPU all at once."""
        return (
            self.programmed is not None
            and not self.observing
            and self.calibrated
            and self.dac_qmax is not None
            and self.adc_qmax is not None
            and not self._disturbed
            and fits(x)
            and not (torch.is_grad_enabled() and x.requires_grad)
        )

    def _fused(self, x: Tensor) -> Tensor:
        """`_convert` of programmed chips in one pass. x: (chips, groups, vectors, row tiles, height)."""
        from hpml_sim.kernels.mvm import mvm

        programmed, dac_qmax, adc_qmax = self.programmed, self.dac_qmax, self.adc_qmax
        assert programmed is not None
        assert dac_qmax is not None
        assert adc_qmax is not None
        full = self.full_range().detach()
        lsb = self.target.adc_bound / adc_qmax
        return mvm(
            x,
            programmed.weight,
            (programmed.scale * (full * lsb)).squeeze(-2),
            dac_gain=float(dac_qmax / full),
            dac_qmax=dac_qmax,
            adc_gain=1 / (dac_qmax * lsb),
            adc_qmax=adc_qmax,
            sigma=self.target.output_noise / lsb,
            normal=programmed.fill,
            slices=self.target.slices,
        )

    def _trains_in_one_pass(self, x: Tensor) -> bool:
        """Whether this is a step of training that the compiled passes take."""
        return (
            self.training
            and self.programmed is None
            and not self.observing
            and self.dac_qmax is not None
            and self.adc_qmax is not None
            and not self._disturbed
            and fits(x)
        )

    def _trained(self, x: Tensor, effective_weights: EffectiveWeights, learns: bool) -> Tensor:
        """`_convert` of one step of training. x: (1, groups, vectors, row tiles, height)."""
        dac_qmax, adc_qmax = self.dac_qmax, self.adc_qmax
        assert dac_qmax is not None
        assert adc_qmax is not None
        full = float(self.full_range().detach())

        def watch(y: Tensor) -> None:
            unit = effective_weights.scale * (dac_qmax / full)
            self._observe_output(self._sliced(x.transpose(2, 3), effective_weights, y.unsqueeze(0) / unit))

        if not learns:
            self._count()
        return product(
            x.squeeze(0),  # not x[0]: its gradient would first be filled with zeros
            effective_weights.matrix.squeeze(0),
            effective_weights.scale.squeeze(-2).squeeze(0),
            full=full,
            watch=watch if learns else None,
            tops=(dac_qmax, adc_qmax),
            bound=self.target.adc_bound,
            sigma=self.target.output_noise,
            log2_range=None if learns else self.range_shift,
        ).unsqueeze(0)

    def _learns(self) -> bool:
        """Whether this step of training calibrates."""
        if self.current is not None and self.current.learns is not None:
            return self.current.learns
        seen = int(self.observations) - _recomputing()
        learns = seen < _WARM_UP or (self.range_shift is None and seen % _EVERY == 0)
        if self.current is not None:
            self.current.learns = learns
        return learns

    def _sliced(self, x: Tensor, effective_weights: EffectiveWeights, y: Tensor) -> Tensor:
        """What the ADCs will see of a product `y`, in units of a full-scale weight: of each slice its own."""
        if self.target.slices == 1:
            return y
        with torch.no_grad():
            return x @ self.cells(effective_weights.matrix / effective_weights.scale.mT).mT

    def _convert(self, x: Tensor, effective_weights: EffectiveWeights) -> Tensor:
        """DAC, product, noise, ADC, and the digital sum over slices and row tiles. All shapes as in `forward`."""
        target, matrix, unit, scale = (
            self.target,
            effective_weights.matrix,
            effective_weights.unit,
            effective_weights.scale,
        )
        learning = self.training and self.programmed is None
        learns = learning and self._learns()
        if learns:
            self._observe_input(x)
        elif learning:
            self._count()

        calibrated = self.calibrated
        if calibrated:
            full = self.full_range()
        else:
            full = x.detach().abs().amax((2, 4), keepdim=True)  # one for each vector, over all its row tiles
            full = torch.where(full > 0, full, torch.ones_like(full))
        dac_qmax, adc_qmax, bound = self.dac_qmax, self.adc_qmax, target.adc_bound
        codes = quantize(x, (dac_qmax or 1) / full, dac_qmax)
        y = codes @ matrix.mT  # (chips, groups, row tiles, vectors, cols)

        lsb = bound / (adc_qmax or bound)
        gain = torch.as_tensor(1 / ((dac_qmax or 1) * lsb), dtype=y.dtype, device=y.device)
        if unit is not None:
            gain = gain / unit
        if learns:
            self._observe_output(self._sliced(x, effective_weights, y.detach() * (gain * lsb * full)))
        extra: Tensor | float = 1.0
        if not calibrated and adc_qmax is not None:
            # as aihwkit's bound management: halve the input until the output fits
            over = (y.detach() * gain).abs().amax(-1, keepdim=True) / adc_qmax
            extra = torch.exp2(torch.log2(over.clamp(min=1)).ceil())
            gain, full = gain / extra, full * extra
        sigma: Tensor | float = target.output_noise
        if self._disturbed:
            drive = codes / (extra * (dac_qmax or 1))  # in full-scale inputs
            y = y - self._ir_drop(codes, drive, matrix, unit)
            sigma = self._noise(drive, matrix, unit)
        noise = None
        if (self._disturbed or target.output_noise > 0) and (self.training or self.programmed is not None):
            noise = self._normal(y).mul_(sigma / lsb)
        read = quantize(y, gain, adc_qmax, noise)
        read = read * (scale * (full * lsb)) if calibrated else read * (full * lsb) * scale
        if self.programmed is not None and target.slices > 1:
            read = read.unflatten(-1, (target.slices, -1)).sum(-2)
        return read.sum(2) if self.shape.row_tiles > 1 else read.squeeze(2)

    def _ir_drop(self, codes: Tensor, drive: Tensor, matrix: Tensor, unit: Tensor | None) -> Tensor:
        """What the voltage drop along the columns takes from `codes @ matrix.mT`; the equations stand in `mvm.py`."""
        s = self.shape
        used = [s.height] * (s.row_tiles - 1) + [s.rows - (s.row_tiles - 1) * s.height]
        rows = torch.tensor(used, dtype=codes.dtype, device=codes.device).view(-1, 1, 1)
        place = torch.arange(s.height, dtype=codes.dtype, device=codes.device)
        reached = (1 - (1 - place / rows).square()).clamp(min=0)
        current = drive.abs() @ matrix.abs().mT
        a = (rows * self.wire_drop) * (current if unit is None else current / unit)
        share = a * (a * (0.05 * a - 0.2) + 0.5)
        return self.target.ir_drop * share * ((codes * reached) @ matrix.mT)

    @torch.no_grad()
    def _noise(self, drive: Tensor, matrix: Tensor, unit: Tensor | None) -> Tensor:
        """Sigma of the noise before the ADC, of the array and of the output together, in full-scale products."""
        squares = drive.square() @ matrix.abs().mT
        read = self.target.read_noise**2 * (squares if unit is None else squares / unit)
        return (self.target.output_noise**2 + read).sqrt()

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn_like(like) if self.programmed is None else self.programmed.normal(like)

    def readout(self, weight: Tensor, seed: int) -> Tensor:
        """Mean magnitude that the ADCs read in each column when each row in turn gets a full-scale input.

        Args:
            weight: of one chip, in units of the column's full scale, (groups, row tiles, cols, height), float32.
            seed: of the noise.

        Returns:
            shape (groups, row tiles, cols), in units of a full-scale weight.
        """
        from hpml_sim.kernels.mvm import readout

        s = self.shape
        used = [s.height] * (s.row_tiles - 1) + [s.rows - (s.row_tiles - 1) * s.height]
        lsb = self.target.adc_bound / (self.adc_qmax or self.target.adc_bound)
        codes = readout(weight, seed, sigma=self.target.output_noise, gain=1 / lsb, top=self.adc_qmax or 0, used=used)
        return codes * (lsb / torch.tensor(used).unsqueeze(-1))

    # --------------------------------------------------------------------------------------------------- calibration

    def reset_calibration(self) -> None:
        """Forget what was observed."""
        for value in (self.input_range, self.output_range, self.observations, self.range_shift):
            if value is not None:
                value.detach().zero_()

    @torch.no_grad()
    def set_input_range(self, full: float) -> None:
        """Take a full-scale input, > 0, as the outcome of a calibration; further training adapts it slowly."""
        self.reset_calibration()
        self.input_range.fill_(full)
        self.observations.fill_(_WARM_UP)

    @torch.no_grad()
    def _observe_input(self, x: Tensor) -> None:
        """Learn the input range from one batch: the percentile of the inputs that are not zero."""
        share = _percentile(x, self.target.input_percentile)
        if share is not None:
            self._count()
            self._learn("input_range", share)

    @torch.no_grad()
    def _observe_output(self, y: Tensor) -> None:
        """Learn the input range that keeps the ADC inside its own. y: products in units of input times full scale."""
        share = _percentile(y, self.target.input_percentile)
        if share is not None and self.calibrated:
            self._learn("output_range", share / self.target.adc_bound)

    def _count(self) -> None:
        """One more observation, once a pass."""
        if _recomputing() or (self.current is not None and self.current.counted):
            return
        self.observations += 1
        if self.current is not None:
            self.current.counted = True

    def _learn(self, name: str, share: Tensor) -> None:
        """Move a range towards what was observed: the mean of the first passes, later a moving average."""
        if _recomputing():
            return
        value: Tensor = getattr(self, name)
        if self.current is not None:
            before, largest = self.current.ranges.get(name, (value.clone(), share))
            share = torch.maximum(largest, share)
            self.current.ranges[name] = (before, share)
            value.copy_(before)
        value.lerp_(share.to(value), max(1 / int(self.observations), _MOMENTUM))

    def extra_repr(self) -> str:
        """For `print(model)`."""
        s = self.shape
        return f"{s.groups} x {s.rows} x {s.cols} on {s.tiles} tiles, card={self.target.card!r}"


def _percentile(x: Tensor, share: float) -> Tensor | None:
    """The percentile of |x| over values that are not zero (spikes and ReLU are mostly zero); None if all are.

    Of many values a sample is looked at, of all where none may be cut off (share = 1).
    """
    flat = x.detach().reshape(-1)
    if share == 1 and len(flat):
        largest = flat.abs().amax()
        return largest if largest > 0 else None
    stride = max(1, len(flat) // _SAMPLE)
    while stride > 1 and math.gcd(stride, x.shape[-1]) > 1:  # else every sample is of the same few inputs
        stride += 1
    sample = flat[::stride].abs()
    sample = sample[sample > 0]
    if not len(sample):
        largest = flat.abs().amax() if len(flat) else flat.new_zeros(())
        return largest if largest > 0 else None
    return sample.kthvalue(math.ceil(share * len(sample))).values


def crossbar_card(target: Analog) -> CrossbarCard:
    """The card of an analog target.

    Raises:
        UnknownNameError, CardError, HpmlError: no such card, a broken one, or one of another kind.
    """
    target = as_target(target)  # type: ignore[assignment]
    if not isinstance(target, Analog):
        raise HpmlError(f"target {target!r}: must be an hs.Analog(...) configuration")
    card = load_card(target.card)
    if not isinstance(card, CrossbarCard):
        raise HpmlError(f"card {target.card!r}: is of kind {card.kind!r}, an analog layer needs a crossbar card")
    return card
