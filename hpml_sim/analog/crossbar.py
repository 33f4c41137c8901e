"""One weight matrix on crossbar tiles, and its product with vectors through DAC, array and ADC.

The product runs in one of three ways that compute the same (up to a code where a value lies between two):

- programmed chips on a CPU: one compiled pass, chip by chip (`_fused`);
- a step of training on a CPU: compiled passes with gradients (`_trained`);
- everything else, such as GPUs, `torch.compile`, evaluation and disturbed arrays: operator by operator (`_convert`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from hpml_sim.analog.array_physics import WIRE_OHM, ir_drop, noise_sigma
from hpml_sim.analog.bit_slicing import bit_slices, significance
from hpml_sim.analog.chip_pass import product_on_chips
from hpml_sim.analog.converters import largest_code, quantize
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.analog.effective_weights import EffectiveWeights, clip_weights, full_scale
from hpml_sim.analog.input_ranges import InputRange
from hpml_sim.analog.programmed_tiles import ProgrammedTiles
from hpml_sim.analog.training_passes import noisy_tiles, product, takes_compiled_pass
from hpml_sim.analog.weight_limits import WeightLimit
from hpml_sim.cards import CrossbarCard
from hpml_sim.conversion.idle_layers import Multiplier, Work
from hpml_sim.conversion.mapping import cells_per_weight, tiling_on
from hpml_sim.errors import HpmlError
from hpml_sim.kernels.common.noise_keys import NoiseKeys
from hpml_sim.targets import Analog
from hpml_sim.targets.cards import card_named


class Crossbar(InputRange, WeightLimit, Multiplier):
    """The analog part of a layer: tiles, converters and calibration. The layer keeps the weights.

    Args:
        rows: inputs of one group.
        cols: outputs of one group.
        groups: independent matrices.
        target: the configuration; its card gives the array, the converters and the devices.
        device: of the state.
        dtype: of the state.

    Attributes:
        target: the configuration.
        tiling: how the matrix lies on tiles.
        noise: the card's noise model.
        dac_qmax: largest code of the DAC; None: an ideal one.
        adc_qmax: largest code of the ADC; None: an ideal one.
        programmed: the tiles of programmed chips; None: the layer's own weights count.
        weight_limit: largest weight, a buffer; infinite until training starts.

    Raises:
        HpmlError: more slices than a tile has columns.
        CardError: a broken card.
    """

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
        super().__init__(
            target.input_percentile, target.adc_bound, trainable=target.learn_input_range, device=device, dtype=dtype
        )
        card = card_named(target.card, CrossbarCard)
        array = card.array
        self.work = Work()
        self.target = target
        cells = cells_per_weight(card, target.slices)
        if target.slices > 1 and cells > int(array.cols):
            raise HpmlError(
                f"slices={target.slices}: one weight takes {cells} columns, a tile of card {target.card!r} has "
                f"{int(array.cols)}; take fewer slices with more levels"
            )
        self.tiling = tiling_on(card, rows, cols, groups, target.slices)
        self.dac_qmax = largest_code(int(card.io.dac_bits) if target.dac_bits is None else target.dac_bits)
        self.adc_qmax = largest_code(int(card.io.adc_bits) if target.adc_bits is None else target.adc_bits)
        self.noise = card.noise
        self.programmed: ProgrammedTiles | None = None
        self._add_limit(device, dtype)
        self._wire_drop = WIRE_OHM * 1e-6 * self.device_model().g_max_us if target.ir_drop > 0 else 0.0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Crossbar:
        """What `.to(...)` and its like do; what is programmed goes along."""
        super()._apply(fn, recurse)
        if (tiles := self.programmed) is not None:
            # a new object: the tiles may be shared with a copy of the network, which is not moved
            self.programmed = tiles.moved(fn)
        return self

    @property
    def n_chips(self) -> int:
        """How many chips are programmed; 1 where none is, and the layer's own weights count."""
        return 1 if self.programmed is None else self.programmed.n_chips

    def device_model(self) -> DeviceModel:
        """The devices of the card."""
        return DeviceModel(self.noise)

    @property
    def array_disturbs(self) -> bool:
        """Whether the array adds more than its weights: such products run operator by operator."""
        return self.target.ir_drop > 0 or self.target.read_noise > 0

    # ------------------------------------------------------------------------------------------------------- weights

    def clipped(self, weight: Tensor) -> Tensor:
        """The weights that are mapped: clipped as in training.

        Args:
            weight: the layer's weights, shape (groups * cols, rows).
        """
        if self.training and self.target.weight_clip is not None:
            with torch.no_grad():
                flat = weight.detach().flatten()
                variance = flat.dot(flat) / len(flat) - flat.mean().square()  # several times quicker than torch.std
                self.weight_limit.copy_(self.target.weight_clip * variance.clamp(min=0).sqrt())
            self._limit_is_of(weight)
        elif not self.training:
            self._check_limit(weight)
        return clip_weights(weight, self.weight_limit)

    def cells(self, weight: Tensor) -> Tensor:
        """What the cells are told to hold: rounded to the levels, cut into slices.

        Args:
            weight: in units of the column's full scale, shape (..., cols, height).

        Returns:
            shape (..., slices * cols, height), the columns of each slice together, most significant first.
        """
        target = self.target
        if target.levels is None:
            return weight
        return torch.cat(bit_slices(weight, target.levels, target.slices, signed=self.device_model().signed), -2)

    def cell_scale(self, scale: Tensor) -> Tensor:
        """Digital factors of the columns of all slices.

        Args:
            scale: full scale of each column, shape (..., cols).

        Returns:
            shape (..., slices * cols).
        """
        if self.target.levels is None:
            return scale
        return torch.cat([scale * share for share in significance(self.target.levels, self.target.slices)], -1)

    def effective_weights(self, weight: Tensor) -> EffectiveWeights:
        """The matrix as the tiles hold it: of the programmed chips, or of the layer's weights, in training with noise.

        Args:
            weight: the layer's weights, shape (groups * cols, rows); not used where chips are programmed.
        """
        if self.programmed is not None:
            return EffectiveWeights(self.programmed.weight, None, self.programmed.scale)
        target, tiling = self.target, self.tiling
        if self.training and takes_compiled_pass(weight):
            if target.weight_clip is not None:
                from hpml_sim.kernels.crossbar_product.training import spread

                self.weight_limit.fill_(target.weight_clip * spread(weight))
                self._limit_is_of(weight)
            shape = (tiling.groups, tiling.row_tiles, tiling.cols, tiling.height)
            matrix, scale = noisy_tiles(weight, float(self.weight_limit), target.training_noise, shape)
            scale = scale.unsqueeze(0).unsqueeze(-2)
            return EffectiveWeights(self._drop_connected(matrix.unsqueeze(0)), scale, scale)
        matrix = tiling.cut_weights(self.clipped(weight)).unsqueeze(0)
        scale = full_scale(matrix).unsqueeze(-2)  # (1, groups, row tiles, 1, cols)
        if self.training and target.training_noise > 0:
            # noise in units of the column's full scale: that is what the devices of a column share
            sigma = target.training_noise * scale.transpose(-1, -2)
            # not randn_like: it would keep the strides of a transposed matrix, and draw five times slower
            normal = torch.randn(matrix.shape, dtype=matrix.dtype, device=matrix.device)
            matrix = torch.addcmul(matrix, sigma, normal)
        return EffectiveWeights(self._drop_connected(matrix), scale, scale)

    def _drop_connected(self, matrix: Tensor) -> Tensor:
        """The matrix with some weights taken as zero, in training."""
        share = self.target.drop_connect
        if not self.training or share == 0:
            return matrix
        return matrix * (torch.rand(matrix.shape, dtype=matrix.dtype, device=matrix.device) >= share)

    # ------------------------------------------------------------------------------------------------------- product

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        effective_weights: EffectiveWeights | None = None,
        *,
        row: int = 0,
        rows: int | None = None,
    ) -> Tensor:
        """Multiply vectors with the matrix.

        Args:
            x: shape (groups, vectors, rows).
            weight: the layer's weights, shape (groups * cols, rows); not used where chips are programmed.
            effective_weights: what the method of this name gave, for several products with the same devices; None: the
                devices of this product alone. Not used where chips are programmed.
            row: number of the first vector, where the vectors of a product come in pieces.
            rows: vectors of all pieces; None: these are all.

        Returns:
            shape (groups, vectors, cols), without bias.

        Raises:
            HpmlError: several chips are programmed, and the layer was called by itself.
        """
        self.work.multiplied = True
        if x.is_meta:  # shapes alone, as a workload follows them: no value to convert
            return x.new_empty(*x.shape[:-1], self.tiling.cols)
        if self.programmed is not None:
            return product_on_chips(x, partial(self._on_chips, row=row, rows=rows), self.programmed.n_chips)
        x = self.tiling.cut_inputs(x.unsqueeze(0))  # (1, groups, vectors, row tiles, height)
        if effective_weights is None:
            effective_weights = self.effective_weights(weight)
        if self.trains_in_one_pass(x):
            learns = self.learns()
            if learns:
                self.observe_input(x.transpose(2, 3))
            if self.calibrated:
                return self._trained(x, effective_weights, learns)
        x = x.transpose(2, 3)  # (1, groups, row tiles, vectors, height)
        if self.calibrating:
            # ideal converters: a range that is not known yet must not clip what it is found from
            y = x @ effective_weights.matrix.mT
            self.observe_input(x)
            self.observe_output(self._seen_by_adc(x, effective_weights, y / effective_weights.scale))
            return y.sum(2).squeeze(0)
        return self._convert(x, effective_weights).squeeze(0)

    def _on_chips(self, x: Tensor, chips: Sequence[int], row: int = 0, rows: int | None = None) -> Tensor:
        """Products of programmed chips.

        Args:
            x: shape (chips or 1, groups, vectors, rows); 1: the same for all chips.
            chips: their numbers, one after another.
            row: number of the first vector.
            rows: vectors of all pieces; None: these are all.

        Returns:
            shape (chips, groups, vectors, cols).
        """
        programmed = self.programmed
        assert programmed is not None
        vectors = x[0]

        def noise(chip: int) -> NoiseKeys:
            return programmed.noise_keys(chip, vectors, row, rows)

        x = self.tiling.cut_inputs(x)  # (chips or 1, groups, vectors, row tiles, height)
        effective_weights = programmed.effective_weights(chips)
        if self.fuses(x):
            return self._fused(x, effective_weights, chips, noise)
        return self._convert(x.transpose(2, 3), effective_weights, chips, noise)

    def fuses(self, x: Tensor) -> bool:
        """Whether programmed chips run chip by chip through the kernel; on other devices than the CPU all at once."""
        return (
            self.calibrated
            and self.dac_qmax is not None
            and self.adc_qmax is not None
            and not self.array_disturbs
            and takes_compiled_pass(x)
            and not (torch.is_grad_enabled() and x.requires_grad)
        )

    def _fused(
        self, x: Tensor, effective_weights: EffectiveWeights, chips: Sequence[int], noise: Callable[[int], NoiseKeys]
    ) -> Tensor:
        """`_convert` of programmed chips in one pass. x: (chips or 1, groups, vectors, row tiles, height)."""
        from hpml_sim.kernels.crossbar_product import crossbar_product

        programmed, dac_qmax, adc_qmax = self.programmed, self.dac_qmax, self.adc_qmax
        assert programmed is not None
        assert dac_qmax is not None
        assert adc_qmax is not None
        dac_range = self.dac_range().detach()
        lsb = self.target.adc_bound / adc_qmax
        return crossbar_product(
            x,
            effective_weights.matrix,
            (effective_weights.scale * (dac_range * lsb)).squeeze(-2),
            dac_gain=float(dac_qmax / dac_range),
            dac_qmax=dac_qmax,
            adc_gain=1 / (dac_qmax * lsb),
            adc_qmax=adc_qmax,
            sigma=self.target.output_noise / lsb,
            normal=lambda chip, buffer: programmed.fill(buffer, noise(chips[chip])),
            slices=self.target.slices,
        )

    def trains_in_one_pass(self, x: Tensor) -> bool:
        """Whether this is a step of training that the compiled passes take."""
        return (
            self.training
            and not self.calibrating
            and self.dac_qmax is not None
            and self.adc_qmax is not None
            and not self.array_disturbs
            and takes_compiled_pass(x)
        )

    def _trained(self, x: Tensor, effective_weights: EffectiveWeights, learns: bool) -> Tensor:
        """`_convert` of one step of training. x: (1, groups, vectors, row tiles, height)."""
        dac_qmax, adc_qmax = self.dac_qmax, self.adc_qmax
        assert dac_qmax is not None
        assert adc_qmax is not None
        dac_range = float(self.dac_range().detach())

        def watch(y: Tensor) -> None:
            unit = effective_weights.scale * (dac_qmax / dac_range)
            self.observe_output(self._seen_by_adc(x.transpose(2, 3), effective_weights, y.unsqueeze(0) / unit))

        if not learns:
            self.count()
        return product(
            x.squeeze(0),  # not x[0]: its gradient would first be filled with zeros
            effective_weights.matrix.squeeze(0),
            effective_weights.scale.squeeze(-2).squeeze(0),
            dac_range=dac_range,
            dac_qmax=dac_qmax,
            adc_qmax=adc_qmax,
            adc_bound=self.target.adc_bound,
            output_noise=self.target.output_noise,
            watch=watch if learns else None,
            log2_range=None if learns else self.range_shift,
        )

    def _seen_by_adc(self, x: Tensor, effective_weights: EffectiveWeights, y: Tensor) -> Tensor:
        """What the ADCs will see of a product `y`, in units of a full-scale weight: of each slice its own."""
        if self.target.slices == 1:
            return y
        # training multiplies with whole weights, chips with slices of them, whose products can be larger
        with torch.no_grad():
            return x @ self.cells(effective_weights.matrix / effective_weights.scale.mT).mT

    def _convert(
        self,
        x: Tensor,
        effective_weights: EffectiveWeights,
        chips: Sequence[int] | None = None,
        keys: Callable[[int], NoiseKeys] | None = None,
    ) -> Tensor:
        """DAC, product, noise, ADC, and the digital sum over slices and row tiles; the equations: `converters.py`.

        Args:
            x: shape (chips or 1, groups, row tiles, vectors, height).
            effective_weights: of this pass.
            chips: numbers of the programmed chips; None: the layer's own weights.
            keys: of their noise, by chip.

        Returns:
            shape (chips, groups, vectors, cols); chips is 1 where none are programmed.
        """
        target, programmed = self.target, chips is not None
        matrix, unit, scale = effective_weights.matrix, effective_weights.unit, effective_weights.scale
        learning = self.training and not programmed
        learns = learning and self.learns()
        if learns:
            self.observe_input(x)
        elif learning:
            self.count()

        calibrated = self.calibrated
        if calibrated:
            dac_range = self.dac_range()
        else:
            dac_range = x.detach().abs().amax((2, 4), keepdim=True)  # one for each vector, over all its row tiles
            dac_range = torch.where(dac_range > 0, dac_range, torch.ones_like(dac_range))
        dac_qmax, adc_qmax, bound = self.dac_qmax, self.adc_qmax, target.adc_bound
        codes = quantize(x, (dac_qmax or 1) / dac_range, dac_qmax)
        y = codes @ matrix.mT  # (chips, groups, row tiles, vectors, cols)

        # from codes times weights to codes of the ADC. In training the matrix is in units of the weights, and the gain
        # divides by the column's full scale; dividing the weights instead would cost a pass over them and its gradient
        lsb = bound / (adc_qmax or bound)
        gain = torch.as_tensor(1 / ((dac_qmax or 1) * lsb), dtype=y.dtype, device=y.device)
        if unit is not None:
            gain = gain / unit
        if learns:
            self.observe_output(self._seen_by_adc(x, effective_weights, y.detach() * (gain * lsb * dac_range)))
        halvings: Tensor | float = 1.0
        if not calibrated and adc_qmax is not None:
            # as aihwkit's bound management: halve the input until the output fits
            over = (y.detach() * gain).abs().amax(-1, keepdim=True) / adc_qmax
            halvings = torch.exp2(torch.log2(over.clamp(min=1)).ceil())
            gain, dac_range = gain / halvings, dac_range * halvings
        sigma: Tensor | float = target.output_noise
        if self.array_disturbs:
            drive = codes / (halvings * (dac_qmax or 1))  # in full-scale inputs
            y = y - ir_drop(
                codes,
                drive,
                matrix,
                unit,
                used_rows=self.tiling.used_rows,
                wire_drop=self._wire_drop,
                strength=target.ir_drop,
            )
            sigma = noise_sigma(drive, matrix, unit, read_noise=target.read_noise, output_noise=target.output_noise)
        noise = None
        # evaluation without chips stands for the mean chip: its converters round, but nothing is drawn
        if (self.array_disturbs or target.output_noise > 0) and (self.training or programmed):
            noise = self._normal(y, chips, keys).mul_(sigma / lsb)
        read = quantize(y, gain, adc_qmax, noise)
        read = read * (scale * (dac_range * lsb)) if calibrated else read * (dac_range * lsb) * scale
        if programmed and target.slices > 1:
            read = read.unflatten(-1, (target.slices, -1)).sum(-2)  # `scale` holds what each slice counts
        return read.sum(2) if self.tiling.row_tiles > 1 else read.squeeze(2)

    def _normal(self, like: Tensor, chips: Sequence[int] | None, keys: Callable[[int], NoiseKeys] | None) -> Tensor:
        # training draws from the global generator, as dropout does; chips each from a seed of their own
        if chips is None or keys is None or self.programmed is None:
            return torch.randn_like(like)
        return self.programmed.normal(like, chips, keys)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        t = self.tiling
        return f"{t.groups} x {t.rows} x {t.cols} on {t.tiles} tiles, card={self.target.card!r}"
