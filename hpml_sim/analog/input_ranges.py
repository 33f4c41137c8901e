"""The ranges of one crossbar's converters, and how they follow what passes through.

The input range is one number for a layer ("static"), or the largest magnitude of each input vector times one number
("dynamic"). Training moves both ranges batch by batch; `hs.calibrate` and the end of `hs.fit` choose them by trial
(`range_choice.py`). Until a layer has seen data, each vector is scaled by its own largest magnitude.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hpml_sim.analog.converter_error import ConversionCost, ConverterError
from hpml_sim.analog.range_samples import VectorSamples
from hpml_sim.analog.training_passes import takes_compiled_pass
from hpml_sim.targets import input_ranges as rules

Amount = TypeVar("Amount", float, Tensor)
_SAMPLE = 4096
"""Values that one calibration step looks at."""
_WARM_UP, _MOMENTUM, _EVERY = 50, 0.05, 10
"""Calibration in training: mean of the first batches, then a moving average over every tenth."""
_ADC_SHARE = 0.999
"""Share of the products that a fixed ADC must not clip."""
_NOISE_MARGIN = 3.0
"""The ADC's range leaves room for so many sigma of the output noise beside the largest product."""
_LADDER = 0.5 ** (torch.arange(0, 40) / 2)
"""Ranges that "mse" tries in training, as shares of the largest input."""


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
    """The ranges of one crossbar; `Crossbar` adds the tiles.

    Args:
        rule: how the input range is found; None: dynamic where the hardware can, else "mse", until a choice is made.
        adc_bound: range of the ADC, in full-scale products; None: found like the input range.
        can_be_dynamic: whether the hardware can scale each vector by its own largest value.
        output_noise: sigma at the ADC's input, in full-scale products.
        device: of the state.
        dtype: of the state.

    Attributes:
        rule: how the input range is found; None: by choice.
        input_range: a full-scale input, in units of the layer's input, or where `dynamic` in units of the largest
            magnitude of each vector; 0 until calibrated.
        output_range: of an ADC of fixed range, the input range from which on it does not saturate, same unit. The
            larger of the two counts.
        output_bound: of an ADC whose range is found, that range in full-scale products; 0 until known.
        dynamic: whether each vector is scaled by its own largest magnitude; a buffer, bool.
        observations: batches that calibrated it.
        channel_scale: what each input channel is divided by before all this, a buffer, shape (channels,); its weights
            are multiplied by it. None: nothing.
        range_shift: logarithm to the base 2 of what multiplies the calibrated range, a parameter; None unless the rule
            is "learned".
        calibrating: what the layer multiplies is collected, with ideal converters; None at all other times.
        calibration_step: the pass that is running, where several products are one observation.
        error: what the converters lose, as the last choice of ranges saw it; None before.
        cost: what the converters of all layers cost the network; None before it was seen.
    """

    input_range: Tensor
    output_range: Tensor
    output_bound: Tensor
    dynamic: Tensor
    observations: Tensor
    channel_scale: Tensor | None
    range_shift: nn.Parameter | None

    def __init__(
        self,
        rule: rules.InputRange | None,
        adc_bound: float | None,
        *,
        can_be_dynamic: bool,
        output_noise: float,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.rule, self._adc_bound = rule, adc_bound
        self._can_be_dynamic, self._margin = can_be_dynamic, _NOISE_MARGIN * output_noise
        self.calibrating: VectorSamples | None = None
        self.calibration_step: CalibrationStep | None = None
        self.error: ConverterError | None = None
        self.cost: ConversionCost | None = None
        for name in ("input_range", "output_range", "output_bound"):
            self.register_buffer(name, torch.tensor(0.0, device=device, dtype=dtype))
        self.register_buffer("dynamic", torch.tensor(self._begins_dynamic, device=device))
        self.register_buffer("observations", torch.tensor(0, device=device))
        self.register_buffer("channel_scale", None)
        learned = isinstance(rule, rules.Learned)
        shift = nn.Parameter(torch.zeros((), device=device, dtype=dtype)) if learned else None
        self.register_parameter("range_shift", shift)

    @property
    def _begins_dynamic(self) -> bool:
        return isinstance(self.rule, rules.Dynamic) or (self.rule is None and self._can_be_dynamic)

    @property
    def may_be_dynamic(self) -> bool:
        """Whether a choice of the range may fall on the dynamic one."""
        return self._begins_dynamic

    @property
    def calibrated(self) -> bool:
        """Whether the input range is known; if not, each input vector is scaled by its own largest value."""
        return not self.observations.is_meta and int(self.observations) > 0

    @property
    def scales_vectors(self) -> bool:
        """Whether each vector is scaled by its own largest value."""
        return bool(self.dynamic) or not self.calibrated

    def range_name(self) -> str:
        """How the input range is found, as the report has it; "" until it is known."""
        if not self.calibrated:
            return ""
        name = "dynamic" if bool(self.dynamic) else "mse" if self.rule is None else self.rule.name
        return name if self.channel_scale is None else f"{name} by channel"

    def adc_bound(self) -> float:
        """Range of the ADC in full-scale products; 0 while it is not known."""
        return float(self.output_bound) if self._adc_bound is None else self._adc_bound

    @property
    def fixed_adc(self) -> bool:
        """Whether the range of the ADC is given, and not found from products."""
        return self._adc_bound is not None

    def adc_range_for(self, largest: Amount) -> Amount:
        """The range that an ADC needs for products up to `largest`, in full-scale products.

        Args:
            largest: magnitude, a number or a tensor of any shape.
        """
        # a little beyond: the gradient of the largest product must not fall to a rounding of its code
        return 1.01 * largest + self._margin

    def peaks(self, x: Tensor, places: int = 1) -> Tensor:
        """The largest magnitude of each input vector, or of all vectors of a sample.

        Args:
            x: input vectors, shape (..., vectors, rows), those of a sample one after another.
            places: vectors of a sample that share a range.

        Returns:
            shape (..., vectors, 1), without gradient; 1 where all inputs are zero.
        """
        x = x.detach()
        if x.numel() and takes_compiled_pass(x):
            from hpml_sim.kernels.crossbar_product.cpu import largest_magnitudes

            largest = largest_magnitudes(x).unsqueeze(-1)
        else:
            largest = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))
            largest = torch.where(largest > 0, largest, torch.ones_like(largest))
        if places > 1:
            by_sample = largest.unflatten(-2, (-1, places))
            largest = by_sample.amax(-2, keepdim=True).expand_as(by_sample).flatten(-3, -2)
        return largest

    def dac_range(self) -> Tensor:
        """A full-scale input of the DAC, a scalar: in units of the layer's input, or of the largest of each vector."""
        if self.scales_vectors:
            return self.output_range.clamp(min=1)
        calibrated = torch.maximum(self.input_range, self.output_range)
        if self.range_shift is None:
            return calibrated
        # while the range is still calibrated it moves by itself: a gradient would chase a moving target
        trains = self.training and not self.learns()
        return calibrated * torch.exp2(self.range_shift if trains else self.range_shift.detach())

    def dac_range_now(self) -> float:
        """`dac_range` as a number."""
        if self.range_shift is not None:
            return float(self.dac_range().detach())
        least = 1.0 if self.scales_vectors else float(self.input_range)
        return max(least, float(self.output_range))

    def decaying_shift(self, x: Tensor) -> Tensor | None:
        """`range_shift` for one step of training: its gradient is that of the loss and of the decay.

        Args:
            x: inputs of the step, any shape.
        """
        if self.range_shift is None or not isinstance(self.rule, rules.Learned) or self.rule.decay == 0:
            return self.range_shift
        sample = _sampled(x)
        inside = (sample.abs() <= self.dac_range().detach()).to(sample.dtype).mean() if len(sample) else 1.0
        # in the logarithm: the pull is the same whatever the unit of the inputs
        pull = self.rule.decay * math.log(2) * torch.as_tensor(inside > _MIN_INSIDE).to(self.range_shift.dtype)
        shift: Tensor = _Decay.apply(self.range_shift, pull)  # type: ignore[assignment]
        return shift

    def learns(self) -> bool:
        """Whether this step of training calibrates."""
        if self.calibration_step is not None and self.calibration_step.learns is not None:
            return self.calibration_step.learns
        # gradient checkpointing runs this forward a second time, after it was counted: look at the count before it
        seen = int(self.observations) - recomputing()
        if isinstance(self.rule, rules.Learned):
            learns = seen < self.rule.batches
        else:
            learns = seen < _WARM_UP or seen % _EVERY == 0
        if self.calibration_step is not None:
            # later products of the pass must not decide anew: the first one has counted the pass meanwhile
            self.calibration_step.learns = learns
        return learns

    def reset_calibration(self) -> None:
        """Forget what was observed."""
        for value in (self.input_range, self.output_range, self.output_bound, self.observations, self.range_shift):
            if value is not None:
                value.detach().zero_()
        self.dynamic.fill_(self._begins_dynamic)
        if self.channel_scale is not None:
            self.channel_scale.fill_(1.0)
        self.error = None

    def ranges_now(self) -> dict[str, Tensor]:
        """A copy of what was observed, for `put_back`."""
        names = (
            "input_range",
            "output_range",
            "output_bound",
            "observations",
            "channel_scale",
            "range_shift",
            "dynamic",
        )
        return {name: value.detach().clone() for name in names if (value := getattr(self, name)) is not None}

    @torch.no_grad()
    def put_back(self, ranges: dict[str, Tensor]) -> None:
        """Take back what was observed.

        Args:
            ranges: what `ranges_now` gave.
        """
        for name, value in ranges.items():
            getattr(self, name).copy_(value)

    @torch.no_grad()
    def set_ranges(self, input_range: float, *, dynamic: bool = False, output_bound: float | None = None) -> None:
        """Take ranges as the outcome of a calibration; further training adapts them slowly.

        Args:
            input_range: a full-scale input, > 0, in units of the layer's input, or where `dynamic` of the largest
                magnitude of each vector.
            dynamic: whether each vector is scaled by its own largest magnitude.
            output_bound: range of the ADC in full-scale products, > 0; None: not known yet.
        """
        if self.range_shift is not None:
            self.range_shift.zero_()
        self.dynamic.fill_(dynamic)
        self.input_range.fill_(input_range)
        self.output_range.fill_(input_range if dynamic else 0.0)
        self.output_bound.fill_(output_bound or 0.0)
        self.observations.fill_(self.rule.batches if isinstance(self.rule, rules.Learned) else _WARM_UP)

    @torch.no_grad()
    def observe_input(self, x: Tensor) -> None:
        """Learn the input range from one batch.

        Args:
            x: inputs, any shape, a vector in the last dimension.
        """
        if bool(self.dynamic):
            seen = torch.ones((), device=x.device) if bool((x != 0).any()) else None
        else:
            seen = self._static_range(x)
        if seen is not None:
            self.count()
            self._learn("input_range", seen)

    def _static_range(self, x: Tensor) -> Tensor | None:
        """The range that the rule finds for one batch; None where all inputs are zero."""
        if isinstance(self.rule, rules.Percentile):
            return _percentile(x, self.rule.share)
        if isinstance(self.rule, (rules.Sigma, rules.Learned)):
            largest = x.detach().abs().amax() if x.numel() else x.new_zeros(())
            spread = self.rule.sigmas * x.detach().float().std(correction=0) if largest > 0 else largest
            return (spread if spread > 0 else largest) if largest > 0 else None
        return _least_squares(x, getattr(self, "dac_qmax", None))

    @torch.no_grad()
    def observe_output(self, y: Tensor) -> None:
        """Learn from products the range of the ADC, or of a fixed one the input range that keeps it from clipping.

        Args:
            y: products before the ADC, any shape, in units of an input (where `dynamic`, of the largest of its vector)
                times a full-scale weight.
        """
        if not self.calibrated or not y.numel():
            return
        if self._adc_bound is None:
            largest = y.detach().abs().amax() / self.dac_range().detach()
            largest = torch.where(largest > 0, largest, torch.ones_like(largest))  # weights that are all zero
            self._learn("output_bound", self.adc_range_for(largest))
            return
        share = self.rule.share if isinstance(self.rule, rules.Percentile) else _ADC_SHARE
        seen = _percentile(y, share)
        if seen is not None:
            self._learn("output_range", seen / self._adc_bound)

    def count(self) -> None:
        """One more observation, once a pass."""
        if recomputing() or (self.calibration_step is not None and self.calibration_step.counted):
            return
        self.observations.add_(1)  # not +=, which assigns the attribute anew
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
        first = float(value) == 0  # of a range that nothing was known of, the first observation is all there is
        value.lerp_(seen.to(value), 1.0 if first else max(1 / int(self.observations), _MOMENTUM))


_MIN_INSIDE = 0.95
"""A learned range decays only while more than this share of its inputs are not clipped (aihwkit's default)."""


class _Decay(torch.autograd.Function):
    """The identity, whose gradient gets a pull."""

    @staticmethod
    def forward(ctx: Any, shift: Tensor, pull: Tensor) -> Tensor:
        ctx.save_for_backward(pull)
        return shift.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (pull,) = ctx.saved_tensors
        return grads[0] + pull, None


def recomputing() -> bool:
    """Whether gradient checkpointing runs a forward pass again, inside the backward pass.

    The second run must do what the first one did: were the range moved in it, the recomputed activations would not be
    those that the loss came from, and each batch would be observed twice.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _sampled(x: Tensor) -> Tensor:
    """Some of the values of a tensor. x: any shape, a vector in the last dimension."""
    flat = x.detach().reshape(-1)
    stride = max(1, len(flat) // _SAMPLE)
    while stride > 1 and math.gcd(stride, x.shape[-1]) > 1:  # else every sample is of the same few inputs
        stride += 1
    return flat[::stride]


def _percentile(x: Tensor, share: float) -> Tensor | None:
    """The percentile of |x| over values that are not zero (spikes and ReLU are mostly zero); None if all are.

    Of many values a sample is looked at, of all where none may be cut off (share = 1).
    """
    flat = x.detach().reshape(-1)
    if share == 1 and len(flat):
        largest = flat.abs().amax()
        return largest if largest > 0 else None
    sample = _sampled(x).abs()
    sample = sample[sample > 0]
    if not len(sample):
        largest = flat.abs().amax() if len(flat) else flat.new_zeros(())
        return largest if largest > 0 else None
    return sample.kthvalue(math.ceil(share * len(sample))).values


def _least_squares(x: Tensor, qmax: int | None) -> Tensor | None:
    """The range at which a converter of `qmax` codes on either side loses least of some of the inputs, squared."""
    largest = x.detach().abs().amax() if x.numel() else x.new_zeros(())
    if not largest > 0 or qmax is None:
        return largest if largest > 0 else None
    sample = _sampled(x).double()
    ranges = (largest.double() * _LADDER.to(sample)).unsqueeze(-1)
    kept = (sample * (qmax / ranges)).round().clamp(-qmax, qmax) * (ranges / qmax)
    return ranges[(kept - sample).square().sum(-1).argmin(), 0].to(x.dtype)
