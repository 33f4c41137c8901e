"""One weight matrix on crossbar tiles, and its product with vectors through DAC, array and ADC.

The product runs in one of three ways that compute the same (up to a code where a value lies between two):

- programmed chips on a CPU: one compiled pass, chip by chip (`converted_product.py`);
- a step of training on a CPU: compiled passes with gradients (`crossbar_training.py`);
- everything else, such as GPUs, `torch.compile`, evaluation and disturbed arrays: operator by operator (`_convert`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from hpml_sim.analog.array_physics import WIRE_OHM, ir_drop, noise_sigma
from hpml_sim.analog.bit_slicing import bit_slices, significance, to_levels
from hpml_sim.analog.chip_pass import product_on_chips
from hpml_sim.analog.converted_product import converted_product
from hpml_sim.analog.converters import Converters, largest_code, managed_range, quantize, resolution
from hpml_sim.analog.crossbar_training import (
    drop_connected,
    noise_in_training,
    product_in_training,
    sigma_of_weights,
    tiles_in_training,
)
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.analog.effective_weights import EffectiveWeights, clip_weights, full_scale
from hpml_sim.analog.input_ranges import InputRange
from hpml_sim.analog.nonlinear_adc import codes_of_adc
from hpml_sim.analog.programmed_tiles import Piece, ProgrammedTiles
from hpml_sim.analog.range_samples import VectorSamples
from hpml_sim.analog.training_passes import takes_compiled_pass
from hpml_sim.analog.weight_limits import WeightLimit, is_frozen
from hpml_sim.cards import CrossbarCard
from hpml_sim.conversion.idle_layers import ConverterState, Multiplier, Work
from hpml_sim.conversion.mapping import cells_per_weight, tiling_on
from hpml_sim.errors import HpmlError
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
        training_noise: sigma of the weights' noise in training, as `noise_in_training` gives it.
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
        card = card_named(target.card, CrossbarCard)
        super().__init__(
            target.input_range,
            target.adc_bound,
            can_be_dynamic=card.io.can_range("dynamic"),
            output_noise=target.output_noise,
            device=device,
            dtype=dtype,
        )
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
        self.dac_qmax = largest_code(resolution(target.dac_bits, card.io.dac_bits))
        self.adc_qmax = largest_code(resolution(target.adc_bits, card.io.adc_bits))
        self._plain = None not in (self.dac_qmax, self.adc_qmax) and not self.array_disturbs and target.linear_adc
        self.noise = card.noise
        self.training_noise = noise_in_training(target, self.device_model)
        self.programmed: ProgrammedTiles | None = None
        self._add_limit(groups * cols if target.weight_clip_by == "channel" else None, device, dtype)
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

    def converter_state(self) -> ConverterState:
        """How the converters are set."""
        db = None if self.error is None else self.error.signal_to_error_db
        return ConverterState(self.range_name(), db)

    def device_model(self) -> DeviceModel:
        """The devices of the card."""
        return DeviceModel(self.noise)

    @property
    def array_disturbs(self) -> bool:
        """Whether the array adds more than its weights: such products run operator by operator."""
        return self.target.ir_drop > 0 or self.target.read_noise > 0

    def clipped(self, weight: Tensor) -> Tensor:
        """The weights that are mapped: clipped as in training.

        Args:
            weight: the layer's weights, shape (groups * cols, rows).
        """
        self._follow(weight, self.target.weight_clip, compiled=False)
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
        if self.has_noisy_tiles(weight):
            matrix, scale = tiles_in_training(self, weight)
            scale = scale.unsqueeze(0).unsqueeze(-2)
            return EffectiveWeights(matrix.unsqueeze(0), scale, scale)
        matrix = tiling.cut_weights(self.clipped(weight)).unsqueeze(0)
        scale = full_scale(matrix).unsqueeze(-2)  # (1, groups, row tiles, 1, cols)
        if target.levels is not None:
            matrix = to_levels(matrix, scale.mT, target.levels, target.slices, signed=self.device_model().signed)
            self.trained_at_levels |= self.training and not is_frozen(weight)
        if self.training and self.training_noise is not None:
            # not randn_like: it would keep the strides of a transposed matrix, and draw five times slower
            normal = torch.randn(matrix.shape, dtype=matrix.dtype, device=matrix.device)
            # in units of the column's full scale: that is what the devices of a column share
            sigma = sigma_of_weights(self.training_noise, matrix / scale.mT)
            matrix = torch.addcmul(matrix, sigma * scale.mT, normal)
        return EffectiveWeights(drop_connected(self, matrix), scale, scale)

    def has_noisy_tiles(self, weight: Tensor) -> bool:
        """Whether this is a step of training that the compiled pass over the weights takes.

        Args:
            weight: the layer's weights.
        """
        return self.training and self.target.levels is None and takes_compiled_pass(weight, trains=True)

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        effective_weights: EffectiveWeights | None = None,
        places: int = 1,
        piece: Piece = None,
    ) -> Tensor:
        """Multiply vectors with the matrix.

        Args:
            x: shape (groups, vectors, rows).
            weight: the layer's weights, shape (groups * cols, rows); not used where chips are programmed.
            effective_weights: what the method of this name gave, for several products with the same devices; None: the
                devices of this product alone. Not used where chips are programmed.
            places: vectors of one sample, one after another, that share a dynamic range: of a convolution all.
            piece: where vectors come in pieces, the number of the first one here and that of all; None: all are here.

        Returns:
            shape (groups, vectors, cols), without bias.

        Raises:
            HpmlError: several chips are programmed, and the layer was called by itself.
        """
        self.work.multiplied = True
        if x.is_meta:  # shapes alone, as a workload follows them: no value to convert
            return x.new_empty(*x.shape[:-1], self.tiling.cols)
        if self.programmed is not None:
            return product_on_chips(x, partial(self.on_chips, places=places, piece=piece), self.programmed.n_chips)
        if self.weight_probe is not None:
            return self.weight_probe.product(self, x, weight)
        if self.calibrating is not None:
            return self._collected(x, effective_weights or self.effective_weights(weight), self.calibrating, places)
        learns, shift = self.observed(x)
        if self.trains_in_one_pass(x):
            return product_in_training(self, x, weight, effective_weights, places, learns=learns, shift=shift)
        if effective_weights is None:
            effective_weights = self.effective_weights(weight)
        unit = self.vector_units(x, places)
        cut = self.tiling.cut_inputs((x if unit is None else x / unit).unsqueeze(0))
        y = self._convert(cut.transpose(2, 3), effective_weights, learns=learns, shift=shift).squeeze(0)
        return y if unit is None else y * unit

    def observed(self, x: Tensor) -> tuple[bool, Tensor | None]:
        """Count a step of training, and learn the input range from it where the step does so.

        Args:
            x: inputs of the step, any shape.

        Returns:
            Whether the step learns ranges, and what trains the input range, where it is trained.
        """
        if not self.training:
            return False, None
        if self.learns():
            self.observe_input(x)
            return True, None
        self.count()
        return False, self.decaying_shift(x)

    def vector_units(self, x: Tensor, places: int) -> Tensor | None:
        """What each vector is divided by before the DAC and multiplied with after the ADC, (..., vectors, 1).

        Args:
            x: shape (..., vectors, rows).
            places: vectors of one sample, one after another, that share a dynamic range.
        """
        return self.peaks(x, places) if self.scales_vectors else None

    def _collected(self, x: Tensor, effective_weights: EffectiveWeights, samples: VectorSamples, places: int) -> Tensor:
        """The exact product, while calibration collects what the layer multiplies. x: (groups, vectors, rows)."""
        # ideal converters: a range that is not known yet must not clip what it is found from
        tiles = self.tiling.cut_inputs(x.unsqueeze(0)).transpose(2, 3)  # (1, groups, row tiles, vectors, height)
        y = tiles @ effective_weights.matrix.mT
        self.observe_input(x)
        seen = self.seen_by_adc(tiles, effective_weights, y / effective_weights.scale)
        if not bool(self.dynamic):
            self.observe_output(seen)
        samples.add(x, self.peaks(x, places), seen.squeeze(0))
        return y.sum(2).squeeze(0)

    def on_chips(self, x: Tensor, chips: Sequence[int], places: int = 1, piece: Piece = None) -> Tensor:
        """Products of programmed chips, shape (chips, groups, vectors, cols).

        Args:
            x: shape (chips or 1, groups, vectors, rows); 1: the same for all chips.
            chips: their numbers, one after another.
            places: vectors of one sample that share a dynamic range.
            piece: as in `forward`.
        """
        programmed = self.programmed
        assert programmed is not None
        keys = partial(programmed.noise_keys, x=x[0], piece=piece)
        unit, effective_weights = self.vector_units(x, places), programmed.effective_weights(chips)
        if self.fuses(x):  # (chips or 1, groups, vectors, row tiles, height)
            return converted_product(
                self, self.tiling.cut_inputs(x), unit, effective_weights, lambda number: keys(chips[number])
            )
        cut = self.tiling.cut_inputs(x if unit is None else x / unit).transpose(2, 3)
        y = self._convert(cut, effective_weights, partial(programmed.normal, chips=chips, keys=keys))
        return y if unit is None else y * unit

    @property
    def plain_converters(self) -> bool:
        """Whether both converters are such, and their ranges known, that the compiled passes take them."""
        return self._plain and self.calibrated and self.adc_bound() > 0

    def fuses(self, x: Tensor) -> bool:
        """Whether programmed chips run chip by chip through the kernel; on other devices than the CPU all at once."""
        return self.plain_converters and takes_compiled_pass(x) and not (torch.is_grad_enabled() and x.requires_grad)

    def converters(self) -> Converters:
        """Both converters as the compiled passes take them, which takes `plain_converters`."""
        assert self.dac_qmax is not None
        assert self.adc_qmax is not None
        return Converters(
            self.dac_range_now(), self.dac_qmax, self.adc_qmax, self.adc_bound(), self.target.output_noise
        )

    def trains_in_one_pass(self, x: Tensor) -> bool:
        """Whether this is a step of training that the compiled passes take."""
        # not the first one, in which ranges become known: gradient checkpointing must run it again in the same way
        if not (self.training and self.plain_converters):
            return False
        return takes_compiled_pass(x, trains=True) and int(self.observations) > 1

    def seen_by_adc(self, x: Tensor, effective_weights: EffectiveWeights, y: Tensor) -> Tensor:
        """What the ADCs will see of a product, in units of a full-scale weight: of each slice its own.

        Args:
            x: inputs, in the unit of the DAC's range, shape (1, groups, row tiles, vectors, height).
            effective_weights: of this pass.
            y: the product, which the ADCs see where weights are not sliced.
        """
        if self.target.slices == 1:
            return y
        # training multiplies with whole weights, chips with slices of them, whose products can be larger
        with torch.no_grad():
            return x @ self.cells(effective_weights.matrix / effective_weights.scale.mT).mT

    def _convert(
        self,
        x: Tensor,
        effective_weights: EffectiveWeights,
        normal: Callable[[Tensor], Tensor] | None = None,
        *,
        learns: bool = False,
        shift: Tensor | None = None,
    ) -> Tensor:
        """DAC, product, noise, ADC, and the digital sum over slices and row tiles; the equations: `converters.py`.

        Args:
            x: in the unit of the DAC's range, shape (chips or 1, groups, row tiles, vectors, height).
            effective_weights: of this pass.
            normal: draws the noise of programmed chips; None: the layer's own weights.
            learns: whether the range of the ADC is observed.
            shift: what trains the input range, where it is trained.

        Returns:
            shape (chips, groups, vectors, cols); chips is 1 where none are programmed.
        """
        target, programmed = self.target, normal is not None
        matrix, unit, scale = effective_weights.matrix, effective_weights.unit, effective_weights.scale
        dac_range = self.dac_range()
        if shift is not None and self.range_shift is not None:
            dac_range = dac_range.detach() * torch.exp2(shift - self.range_shift.detach())
        dac_qmax, adc_qmax = self.dac_qmax, self.adc_qmax
        codes = quantize(x, (dac_qmax or 1) / dac_range, dac_qmax)
        y = codes @ matrix.mT  # (chips, groups, row tiles, vectors, cols)
        # from codes times weights to full-scale products. In training the matrix is in units of the weights, and the
        # gain divides by the column's full scale; dividing the weights instead would cost a pass over them
        to_products = torch.as_tensor(1 / (dac_qmax or 1), dtype=y.dtype, device=y.device)
        to_products = to_products if unit is None else to_products / unit
        # as in the compiled passes: once known, what this product shows counts from the next one on
        settled = self.adc_bound() if int(self.observations) > 1 else 0.0
        if learns:
            exact = y.detach() * (to_products * dac_range.detach())
            self.observe_output(self.seen_by_adc(x, effective_weights, exact))
        bound: float | Tensor = settled or self.adc_bound()
        halvings: float | Tensor = 1.0
        if adc_qmax is None:
            bound = bound or 1.0
        elif not (self.calibrated and bound > 0):
            bound, halvings = managed_range(y.detach() * to_products, bound)
        # a fixed range is kept by driving the rows less; one that can be set follows the products
        lsb = bound / (adc_qmax or bound)
        gain = to_products / (halvings * lsb)
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
            # training draws from the global generator, as dropout does; chips each from a seed of their own
            noise = (normal or torch.randn_like)(y).mul_(sigma / lsb)
        read = self.read(y, gain, noise) * (scale * (dac_range * halvings * lsb))
        if programmed and target.slices > 1:
            read = read.unflatten(-1, (target.slices, -1)).sum(-2)  # `scale` holds what each slice counts
        return read.sum(2) if self.tiling.row_tiles > 1 else read.squeeze(2)

    def read(self, y: Tensor, gain: Tensor, noise: Tensor | None) -> Tensor:
        """Codes that the ADC gives.

        Args:
            y: products.
            gain: codes in one unit of y; broadcasts against y.
            noise: in codes, of y's shape; None: no noise.
        """
        return codes_of_adc(y, gain, self.adc_qmax, noise, self.target)

    def extra_repr(self) -> str:
        """For `print(model)`."""
        t = self.tiling
        return f"{t.groups} x {t.rows} x {t.cols} on {t.tiles} tiles, card={self.target.card!r}"
