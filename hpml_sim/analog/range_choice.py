"""Which ranges a layer may take: tried on input vectors that calibration collected.

The loss of a choice is that of the layer's outputs against the exact ones, the larger of two: of all outputs together,
sum |e|^2 / sum |y|^2, and the mean over the vectors of min(1, |e|^2 / |y|^2). The first one sees a vector that is
clipped, however rare it is; the second one sees all others lose their resolution to it. No noise is in it: it is what
conversion alone costs.

What is best for each layer may be bad for the network: a language model hangs on a few large products, and neither
mean sees what it loses with them. So there is a second choice, ranges that hold all that was seen, and the network's
own outputs decide between the two (`calibration.py`). SmolLM2-135M through converters of 8 bits, calibrated on another
text than it is tried on: perplexity 19.4 where all is held, 29.3 with the best of each layer, 18.7 without converters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hpml_sim.analog.bit_slicing import to_levels
from hpml_sim.analog.converter_error import ConverterError
from hpml_sim.analog.converters import quantize
from hpml_sim.analog.effective_weights import full_scale
from hpml_sim.targets import input_ranges as rules

if TYPE_CHECKING:
    from hpml_sim.analog.crossbar import Crossbar
    from hpml_sim.analog.range_samples import VectorSamples

_COLUMNS, _MEASURED_COLUMNS = 512, 4096
"""So many columns of a layer stand for all: to try ranges, and to measure what they lose."""
_OCTAVES = 16
"""Static ranges are tried down to the largest input over 2 to this power."""
_BOUNDS = (1.0, 0.71, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09)
"""Ranges of the ADC that are tried, as shares of the largest product."""
_CLEARLY = 1.25
"""A static range must lose less than a dynamic one by this factor: it will clip what is larger than the data that it
was found on, which a dynamic one never does."""
_ALL = 0.98
"""Of the power of a product that is clipped to a hundredth of itself, so much is lost."""
_FLOOR = 1e-15
"""The least loss that is told from none: 150 dB."""


@dataclass(frozen=True)
class Ranges:
    """One choice.

    Attributes:
        dynamic: whether each vector is scaled by its own largest magnitude.
        input_range: a full-scale input, in the layer's unit or in that of the largest magnitude.
        bound: range of the ADC, in full-scale products.
    """

    dynamic: bool
    input_range: float
    bound: float


@dataclass(frozen=True)
class Loss:
    """What one choice loses.

    Attributes:
        total: of all outputs together.
        by_vector: mean over the vectors.
    """

    total: float
    by_vector: float

    @property
    def larger(self) -> float:
        """The larger of the two."""
        return max(self.total, self.by_vector, _FLOOR)


class Trial:
    """The layer's products on the collected vectors, with any ranges.

    Args:
        crossbar: of the layer.
        weight: the layer's weights, shape (groups * cols, rows).
        samples: what was collected.
        few: some of the vectors and columns are enough.
    """

    def __init__(self, crossbar: Crossbar, weight: Tensor, samples: VectorSamples, *, few: bool):
        self._crossbar = crossbar
        x, self._peaks, self._weights = samples.chosen(few=few)
        most, weight = _COLUMNS if few else _MEASURED_COLUMNS, weight.detach()
        tiling = crossbar.tiling
        columns = crossbar.clipped(weight).view(tiling.groups, tiling.cols, tiling.rows)
        columns = columns[:, :: -(-tiling.cols // most)].float()
        tiles = tiling.cut_inputs(columns).transpose(1, 2)  # (groups, row tiles, columns, height)
        scale = full_scale(tiles)
        if (levels := crossbar.target.levels) is not None:
            signed = crossbar.device_model().signed
            tiles = to_levels(tiles, scale.unsqueeze(-1), levels, crossbar.target.slices, signed=signed)
        self._x = tiling.cut_inputs(x).transpose(1, 2)  # (groups, row tiles, n, height)
        self._exact = (self._x @ tiles.mT).sum(1)
        self._matrix = crossbar.cells(tiles / scale.unsqueeze(-1))
        self._scale = crossbar.cell_scale(scale).unsqueeze(-2)
        self._power = self._exact.square().sum((0, 2))  # of each vector
        self._codes: dict[tuple[bool, float], tuple[Tensor, Tensor]] = {}

    def _added(self, values: Tensor) -> Tensor:
        """The sum over slices and row tiles."""
        slices = self._crossbar.target.slices
        if slices > 1:
            values = values.unflatten(-1, (slices, -1)).sum(-2)
        return values.sum(1)

    def _products(self, dynamic: bool, input_range: float) -> tuple[Tensor, Tensor]:
        """What the ADC sees, in full-scale products, and a full-scale input."""
        key = dynamic, input_range
        if key not in self._codes:
            dac = self._crossbar.dac_qmax
            unit = self._peaks.unsqueeze(1) * input_range if dynamic else self._x.new_tensor(input_range)
            codes = quantize(self._x, (dac or 1) / unit, dac)
            self._codes = {key: (codes @ self._matrix.mT / (dac or 1), unit)}  # the last one alone: they are large
        return self._codes[key]

    def largest_product(self, input_range: float) -> float:
        """The largest of all products with a static range, in full-scale ones; 1 where all are zero.

        Args:
            input_range: a full-scale input, in the layer's unit.
        """
        return float(self._products(False, input_range)[0].abs().amax()) or 1.0

    def loss(self, ranges: Ranges) -> Loss:
        """What a choice loses.

        Args:
            ranges: the choice.
        """
        crossbar, adc = self._crossbar, self._crossbar.adc_qmax
        products, unit = self._products(ranges.dynamic, ranges.input_range)
        lsb = ranges.bound / (adc or ranges.bound)
        read = crossbar.read(products, products.new_tensor(1 / lsb), None) * (self._scale * lsb * unit)
        error = (self._added(read) - self._exact).square().sum((0, 2))
        weights, power = self._weights, self._power
        seen = power > 0
        all_power = float((weights * power).sum())
        if not all_power > 0:
            return Loss(0.0, 0.0)
        shares = (error[seen] / power[seen]).clamp(max=1)
        by_vector = float((weights[seen] * shares).sum() / weights[seen].sum())
        return Loss(float((weights * error).sum()) / all_power, by_vector)


class RangeChoice:
    """What a layer may take: ranges that hold all that was seen, or those that lose least on its own outputs.

    Args:
        crossbar: of the layer; its input range is that which its rule found.
        weight: the layer's weights, shape (groups * cols, rows).
        samples: what calibration collected.
    """

    @torch.no_grad()
    def __init__(self, crossbar: Crossbar, weight: Tensor, samples: VectorSamples):
        self._crossbar = crossbar
        self._seen = samples.largest_input > 0 and samples.largest_product > 0
        if not self._seen:
            return
        trial, measured = (Trial(crossbar, weight, samples, few=few) for few in (True, False))
        self._least = _least(trial, measured, crossbar, samples)
        by_squares = isinstance(crossbar.rule, rules.LeastSquares)
        # who asks for the least squares has chosen
        found = float(crossbar.dac_range().detach())
        self._holding = self._least if by_squares else _holding(measured, crossbar, samples, found)
        self._losses = {ranges: measured.loss(ranges) for ranges in (self._least, self._holding)}

    @property
    def is_one(self) -> bool:
        """Whether both are the same."""
        return not self._seen or self._least == self._holding

    def take(self, *, least: bool) -> None:
        """Set the layer's ranges, and note what they lose.

        Args:
            least: those that lose least on the layer's outputs, else those that hold all that was seen.
        """
        if not self._seen:
            return
        crossbar, ranges = self._crossbar, self._least if least else self._holding
        bound = ranges.bound if crossbar.target.adc_bound is None else 0.0
        if ranges.dynamic or crossbar.rule is None or isinstance(crossbar.rule, rules.LeastSquares):
            crossbar.set_ranges(ranges.input_range, dynamic=ranges.dynamic, output_bound=bound)
        else:
            crossbar.output_bound.fill_(bound)  # the input range is that which the rule found
        loss = self._losses[ranges]
        crossbar.error = ConverterError(-10 * math.log10(loss.larger), min(loss.total, loss.by_vector) > _ALL)


def _holding(measured: Trial, crossbar: Crossbar, samples: VectorSamples, found: float) -> Ranges:
    """Ranges that hold all that was seen, of inputs what the rule lets through. found: input range of the rule."""
    fixed, dynamic, chosen = crossbar.target.adc_bound, crossbar.may_be_dynamic, crossbar.rule is None
    widest = 1.0 if dynamic else samples.largest_input if chosen else found
    largest = samples.largest_scaled_product if dynamic else samples.largest_product
    if fixed is not None:
        return Ranges(dynamic, max(widest, largest / fixed) if chosen or dynamic else widest, fixed)
    # products of clipped inputs are smaller than those that calibration saw
    clips = not dynamic and widest < samples.largest_input
    largest = measured.largest_product(widest) if clips else largest / widest
    return Ranges(dynamic, widest, crossbar.adc_range_for(largest))


def _least(trial: Trial, measured: Trial, crossbar: Crossbar, samples: VectorSamples) -> Ranges:
    """Ranges that lose least on some vectors, of those that the layer's rule allows."""
    by_squares = isinstance(crossbar.rule, rules.LeastSquares)
    best: tuple[float, Ranges] | None = None
    if crossbar.may_be_dynamic:
        best = _best(trial, _dynamic(crossbar, samples), by_squares)
    if not isinstance(crossbar.rule, rules.Dynamic):
        static = _best_static(trial, crossbar, samples, by_squares)
        if best is None or (_CLEARLY * static[0] < best[0] and _holds(measured, static[1], best[1])):
            best = static
    assert best is not None
    return best[1]


def _holds(measured: Trial, static: Ranges, dynamic: Ranges) -> bool:
    """Whether a static range is clearly the better one on more vectors than those that it was found on."""
    return _CLEARLY * measured.loss(static).larger < measured.loss(dynamic).larger


def _best(trial: Trial, choices: Iterator[Ranges] | Sequence[Ranges], by_squares: bool) -> tuple[float, Ranges]:
    found = []
    for ranges in choices:
        loss = trial.loss(ranges)
        found.append((loss.total if by_squares else loss.larger, ranges))
    return min(found, key=lambda each: each[0])


def _bounds(crossbar: Crossbar, largest: float) -> list[float]:
    """Ranges of the ADC to try. largest: product, in units of full-scale ones."""
    if crossbar.target.adc_bound is not None:
        return [crossbar.target.adc_bound]
    # beside the products there is the noise: a range that clips it would lose more than it seems
    least = 4 * crossbar.target.output_noise
    largest = crossbar.adc_range_for(largest)
    return list(dict.fromkeys(max(largest * share, least) for share in _BOUNDS))


def _dynamic(crossbar: Crossbar, samples: VectorSamples) -> Iterator[Ranges]:
    largest = samples.largest_scaled_product
    fixed = crossbar.target.adc_bound
    doublings = 0 if fixed is None else max(0, math.ceil(math.log2(largest / fixed)))
    for k in range(doublings + 1):
        for bound in _bounds(crossbar, largest):
            yield Ranges(True, 2.0**k, bound)


def _best_static(trial: Trial, crossbar: Crossbar, samples: VectorSamples, by_squares: bool) -> tuple[float, Ranges]:
    def at(input_range: float) -> tuple[float, Ranges]:
        bounds = _bounds(crossbar, samples.largest_product / input_range)
        return _best(trial, [Ranges(False, input_range, bound) for bound in bounds], by_squares)

    if crossbar.rule is not None and not by_squares:
        return at(float(crossbar.dac_range().detach()))
    widest = samples.largest_input
    if crossbar.target.adc_bound is not None:
        widest = max(widest, samples.largest_product / crossbar.target.adc_bound)
    best = at(widest)
    for octave in range(1, _OCTAVES):
        now = at(widest * 0.5**octave)
        if now[0] > 4 * best[0]:
            break  # ever more is clipped
        best = min(best, now, key=lambda each: each[0])
    middle = best[1].input_range
    return min([best, *(at(middle * 2**step) for step in (-0.5, -0.25, 0.25, 0.5))], key=lambda each: each[0])
