"""Range calibration: the input range of a crossbar, and how it is learned from what passes through.

Ranges are learned in training, batch by batch, and by `hs.calibrate` (`calibration.py`) without training. Until a
range is known, each input vector is scaled by its own largest value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

_SAMPLE = 4096
"""Values that one calibration step looks at."""
_WARM_UP, _MOMENTUM, _EVERY = 50, 0.05, 10
"""Calibration in training: mean of the first batches, then a moving average over every tenth."""


@dataclass
class CalibrationStep:
    """What one pass of the network has shown of a crossbar so far.

    Attributes:
        learns: whether this pass calibrates; None until the first product.
        counted: whether this pass is among the observations already.
        ranges: by name, each range as it was before the pass, and the largest that a product in the pass needed.
    """

    learns: bool | None = None
    counted: bool = False
    ranges: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


@contextmanager
def one_calibration_step(crossbars: Iterable[InputRange]) -> Iterator[None]:
    """Let all products inside be one observation to the calibration: of several uses of a layer, the widest counts.

    Without it each use is an observation of its own, and the ranges of a layer that is used at every step of a sequence
    would be those of some mean step, or of whichever step the schedule of observations meets.

    Args:
        crossbars: those that are used inside. One that is in a step already stays in it.
    """
    opened = [crossbar for crossbar in crossbars if crossbar.calibration_step is None]
    for crossbar in opened:
        crossbar.calibration_step = CalibrationStep()
    try:
        yield
    finally:
        for crossbar in opened:
            crossbar.calibration_step = None


class InputRange(nn.Module):
    """The input range of one crossbar; `Crossbar` adds the tiles.

    Args:
        percentile: share of the inputs that the range covers, above 0.5 up to 1.
        adc_bound: range of the ADC, in full-scale products.
        trainable: whether, once calibrated, the range is trained by the gradient of the loss.
        device: of the state.
        dtype: of the state.

    Attributes:
        input_range: a full-scale input as calibrated, in units of the layer's input; 0 until calibrated.
        output_range: the input range from which on the ADC does not saturate, same unit. The larger of the two counts.
        observations: batches that calibrated it.
        range_shift: logarithm to the base 2 of what multiplies the calibrated range, a parameter; None unless
            `trainable`.
        calibrating: `hs.calibrate` is running: ideal converters, and all products are observed.
        calibration_step: the pass that is running, where several products are one observation.
    """

    input_range: Tensor
    output_range: Tensor
    observations: Tensor
    range_shift: nn.Parameter | None

    def __init__(
        self,
        percentile: float,
        adc_bound: float,
        *,
        trainable: bool,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self._percentile, self._adc_bound = percentile, adc_bound
        self.calibrating = False
        self.calibration_step: CalibrationStep | None = None
        for name in ("input_range", "output_range"):
            self.register_buffer(name, torch.tensor(0.0, device=device, dtype=dtype))
        self.register_buffer("observations", torch.tensor(0, device=device))
        shift = nn.Parameter(torch.zeros((), device=device, dtype=dtype)) if trainable else None
        self.register_parameter("range_shift", shift)

    @property
    def calibrated(self) -> bool:
        """Whether the input range is known; if not, each input vector is scaled by its own largest value."""
        return int(self.observations) > 0

    def dac_range(self) -> Tensor:
        """A full-scale input of the DAC, in units of the layer's input, a scalar; 0 until calibrated."""
        calibrated = torch.maximum(self.input_range, self.output_range)
        if self.range_shift is None:
            return calibrated
        # while the range is still calibrated it moves by itself: a gradient would chase a moving target
        trains = self.training and not self.learns()
        return calibrated * torch.exp2(self.range_shift if trains else self.range_shift.detach())

    def learns(self) -> bool:
        """Whether this step of training calibrates."""
        if self.calibration_step is not None and self.calibration_step.learns is not None:
            return self.calibration_step.learns
        # gradient checkpointing runs this forward a second time, after it was counted: look at the count before it
        seen = int(self.observations) - recomputing()
        learns = seen < _WARM_UP or (self.range_shift is None and seen % _EVERY == 0)
        if self.calibration_step is not None:
            # later products of the pass must not decide anew: the first one has counted the pass meanwhile
            self.calibration_step.learns = learns
        return learns

    def reset_calibration(self) -> None:
        """Forget what was observed."""
        for value in (self.input_range, self.output_range, self.observations, self.range_shift):
            if value is not None:
                value.detach().zero_()

    @torch.no_grad()
    def set_input_range(self, input_range: float) -> None:
        """Take a range as the outcome of a calibration; further training adapts it slowly.

        Args:
            input_range: a full-scale input, > 0, in units of the layer's input.
        """
        self.reset_calibration()
        self.input_range.fill_(input_range)
        self.observations.fill_(_WARM_UP)

    @torch.no_grad()
    def observe_input(self, x: Tensor) -> None:
        """Learn the input range from one batch: the percentile of the inputs that are not zero.

        Args:
            x: inputs, any shape, a vector in the last dimension.
        """
        seen = _percentile(x, self._percentile)
        if seen is not None:
            self.count()
            self._learn("input_range", seen)

    @torch.no_grad()
    def observe_output(self, y: Tensor) -> None:
        """Learn the input range that keeps the ADC inside its own.

        Args:
            y: products before the ADC, any shape, in units of an input times a full-scale weight.
        """
        seen = _percentile(y, self._percentile)
        if seen is not None and self.calibrated:
            self._learn("output_range", seen / self._adc_bound)

    def count(self) -> None:
        """One more observation, once a pass."""
        if recomputing() or (self.calibration_step is not None and self.calibration_step.counted):
            return
        self.observations += 1
        if self.calibration_step is not None:
            self.calibration_step.counted = True

    def _learn(self, name: str, seen: Tensor) -> None:
        """Move a range towards what was observed: the mean of the first passes, later a moving average."""
        if recomputing():
            return
        value: Tensor = getattr(self, name)
        if self.calibration_step is not None:
            # of several products in a pass the widest counts, once: start again from the range before the pass
            before, largest = self.calibration_step.ranges.get(name, (value.clone(), seen))
            seen = torch.maximum(largest, seen)
            self.calibration_step.ranges[name] = (before, seen)
            value.copy_(before)
        value.lerp_(seen.to(value), max(1 / int(self.observations), _MOMENTUM))


def recomputing() -> bool:
    """Whether gradient checkpointing runs a forward pass again, inside the backward pass.

    The second run must do what the first one did: were the range moved in it, the recomputed activations would not be
    those that the loss came from, and each batch would be observed twice.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


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
