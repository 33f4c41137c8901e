"""Weights on crossbars: `Analog` is programmed after training, `InMemory` is trained in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, fields
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from hpml_sim.cards import CrossbarCard
from hpml_sim.errors import HpmlError
from hpml_sim.targets.cards import CardName, card_named, card_of_kind
from hpml_sim.targets.checking import Real, Whole, config_class, one_of
from hpml_sim.targets.input_ranges import InputRange, Learned, Percentile, Sigma, as_input_range
from hpml_sim.targets.nonlinear_adc import check_adc

PulsedDevice = Literal[
    "reram-es",
    "reram-sb",
    "capacitor",
    "ecram",
    "ecram-mo",
    "idealized",
    "gokmen-vlasov",
    "pcm",
    "reram-array-om",
    "reram-array-hfo2",
]
"""Devices that are trained in place by voltage pulses: aihwkit's presets."""
TrainingRule = Literal["sgd", "mixed-precision", "tiki-taka", "tiki-taka-v2", "chopped-tiki-taka-v2", "agad"]
"""How the gradient becomes pulses on such devices."""

_Crossbar = Annotated[CardName, BeforeValidator(card_of_kind(CrossbarCard))]
_Bits = Annotated[Whole, Field(ge=2, le=16)]
_Share = Annotated[Real, Field(ge=0, le=1)]


@config_class
class Analog:
    """Weights on crossbars: DAC, noisy matrix-vector product, ADC; everything else stays digital.

    Attributes:
        card: name of a crossbar card, or the path of one.
        engine: what runs programmed chips. "fused" is ours, all chips at once. "aihwkit" runs aihwkit's own layers,
            chip by chip, as a second opinion (`nn.Linear` and plain `nn.Conv2d` only). Training is the same.
        dac_bits: resolution of the DAC, 2 to 16, or "ideal": it neither rounds nor clips; None takes the card's.
        adc_bits: resolution of the ADC, 2 to 16, or "ideal"; None takes the card's.
        compensation: drift compensation: "none", one factor for each tile ("global"), or one for each column.
        output_noise: sigma of the noise at the ADC's input, in units of one full-scale input times one full-scale
            weight (aihwkit's `out_noise`), 0 to 1.
        training_noise: sigma of the Gaussian weight noise injected in hardware-aware training, relative to the largest
            weight of the column, 0 to 1; or "programming": that which the card's noise model gives each weight by its
            size right after programming.
        drop_connect: share of the weights that each training step takes as zero, 0 to below 1.
        weight_clip: in training, weights are clipped at this many standard deviations of their layer, at least 1; None
            never clips. Weights that do not learn are not clipped anew.
        weight_clip_by: whose standard deviation that is: of the whole "layer", or of each output "channel".
        input_range: how the full scale of a layer's DAC is found. "dynamic": each input vector by its own largest
            magnitude, of a convolution each sample's feature map. One range for all inputs of the layer: "percentile"
            (covers a share of them), "sigma" (a multiple of their standard deviation), "mse" (the least squared error
            of the outputs) and "learned" ("sigma" first, then trained by the gradient). A table gives it options of
            its own, such as `{"name": "percentile", "share": 0.999}`. None takes, of those that the card's hardware
            can do, what loses least on the data of `calibrate` or `fit`, layer by layer: the report says which. A range
            for all inputs clips what the data did not show, so it must lose clearly less (1 dB) than the dynamic one.
            Until a layer has seen data, each vector is scaled by its own largest magnitude.
        input_range_by: "layer": one range for all input channels of a layer. "channel": each channel is first divided
            by a scale, in digital, and its weights are multiplied by it (SmoothQuant), which the first data of
            `calibrate` or `fit` set. The full scale of a row's DAC alone would be lost in the sum of its columns, so
            there is no other range by channel. The recurrent weights of RNN, LSTM and GRU keep one range.
        adc_bound: range of the ADC, above 0, in the units of `output_noise` (aihwkit's `out_bound`), for converters
            whose range is fixed. None: the range is set for each layer, to what loses least. A full-scale weight is
            that of each column, so in the units of the layer's outputs every column has a range of its own.
        adc_polynomial: an ADC that is not linear: c_1, c_2, ... of the polynomial c_1 v + c_2 v^2 + ... that stands in
            front of it, v in units of its range; (1,) is linear. Ranges are chosen, and drift is read, as if it were.
        adc_thresholds: where the ADC steps from each code to the next, in units of its range, increasing, as measured:
            2 (2^(bits-1) - 1) of them, from -2^(bits-1) + 1 up. In place of `adc_polynomial`.
        read_noise: sigma of the noise of one full-scale device in one product, in units of its conductance, 0 to 1. The
            noise of a column grows as the square root of its current (aihwkit's `w_noise` of type PCM_READ; 0.0175 in
            its presets). It comes on top of the card's noise model, whose read noise is drawn once for each time.
        ir_drop: strength of the voltage drop along the columns, 0 to 10: 1 is that of wires of 0.35 ohm from cell to
            cell at the card's largest conductance, 0 none.
        levels: how many conductances a device can be programmed to, 2 to 65536, equally spaced from its smallest to its
            largest; None: any. Training rounds to them, with a straight-through gradient.
        slices: cells that hold one weight as digits to the base `levels`, most significant first, 1 to 16. Each has a
            column and an ADC reading of its own; their readings are shifted and added in digital. More than 1 needs
            `levels`.
        stuck_at_g_min: share of the devices that stay at their smallest conductance whatever is programmed and however
            long one waits, 0 to 1. Which ones is drawn for each chip; a larger share adds to a smaller one.
        stuck_at_g_max: share of the devices that stay at their largest conductance, 0 to 1; together with
            `stuck_at_g_min` at most 1.

    Raises:
        UnknownNameError: no card has this name.
        HpmlError: a card of another kind, a value out of range, or options that exclude each other.

    Example:
        >>> import hpml_sim as hs
        >>> hs.Analog("pcm-hermes", adc_bits=6).adc_bits
        6
        >>> hs.Analog("pcm-hermes", adcbits=6)
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: Analog: adcbits: unknown option; did you mean 'adc_bits'?
    """

    _ELSEWHERE: ClassVar[Mapping[str, str]] = {
        option: f"only devices trained in place have it: hs.InMemory(card, device='ecram'{more})"
        for option, more in {"device": "", "rule": ", rule='tiki-taka'", "device_seed": ", device_seed=1"}.items()
    } | {
        option: f"the range has it: input_range={{'name': {kind.__name__.lower()!r}, {option!r}: ...}}"
        for kind in (Learned, Sigma, Percentile)
        for option in (f.name for f in fields(kind))
        if option != "name"
    }

    card: _Crossbar = "pcm-hermes"
    _: KW_ONLY
    engine: Literal["fused", "aihwkit"] = "fused"
    dac_bits: _Bits | Literal["ideal"] | None = None
    adc_bits: _Bits | Literal["ideal"] | None = None
    compensation: Literal["none", "global", "column"] = "global"
    output_noise: _Share = 0.04
    training_noise: _Share | Literal["programming"] = 0.1
    drop_connect: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    weight_clip: Annotated[Real, Field(ge=1)] | None = 2.5
    weight_clip_by: Literal["layer", "channel"] = "layer"
    input_range: Annotated[InputRange | None, BeforeValidator(as_input_range)] = None
    input_range_by: Literal["layer", "channel"] = "layer"
    adc_bound: Annotated[Real, Field(gt=0)] | None = None
    adc_polynomial: tuple[Real, ...] | None = None
    adc_thresholds: tuple[Real, ...] | None = None
    read_noise: _Share = 0.0
    ir_drop: Annotated[Real, Field(ge=0, le=10)] = 0.0
    levels: Annotated[Whole, Field(ge=2, le=65536)] | None = None
    slices: Annotated[Whole, Field(ge=1, le=16)] = 1
    stuck_at_g_min: _Share = 0.0
    stuck_at_g_max: _Share = 0.0

    @model_validator(mode="after")
    def _possible(self) -> Analog:
        if self.slices > 1 and self.levels is None:
            raise HpmlError(f"slices={self.slices}: digits need a base; give levels= as well, such as levels=16")
        if self.levels is not None and self.levels**self.slices > 2**31:
            raise HpmlError(f"levels={self.levels} to the power of slices={self.slices}: must be at most 2^31")
        if self.stuck_at_g_min + self.stuck_at_g_max > 1:
            raise HpmlError(
                f"stuck_at_g_min={self.stuck_at_g_min} and stuck_at_g_max={self.stuck_at_g_max}: must be at most 1 "
                "together"
            )
        card = card_named(self.card, CrossbarCard)
        if self.input_range_by == "channel":
            self._check_by_channel(card)
        bits = int(card.io.adc_bits) if self.adc_bits is None else self.adc_bits
        check_adc(bits, self.engine, polynomial=self.adc_polynomial, thresholds=self.adc_thresholds)
        if self.input_range is not None and not card.io.can_range(self.input_range.name):
            known = card.io.input_ranges
            kinds = "" if known is None else " and ".join(kind for kind in known.kinds if kind != "channel")
            raise HpmlError(
                f"input_range={self.input_range.name!r}: card {self.card!r} has {kinds} ranges only; take None, which "
                "chooses among them, or change io.input_ranges of a card of your own"
            )
        return self

    def _check_by_channel(self, card: CrossbarCard) -> None:
        if self.engine == "aihwkit":
            raise HpmlError(
                "input_range_by='channel': aihwkit's layers have one input range for all channels; take engine='fused'"
            )
        if not card.io.scales_channels:
            raise HpmlError(
                f"input_range_by='channel': card {self.card!r} has nothing in front of its converters that scales each "
                "input channel; take 'layer', or change io.input_ranges of a card of your own"
            )

    @property
    def linear_adc(self) -> bool:
        """Whether all steps of the ADC are equally wide."""
        return self.adc_polynomial is None and self.adc_thresholds is None


@config_class
class InMemory:
    """Weights on crossbars whose devices are trained in place by voltage pulses; everything else stays digital.

    `fit` sends the pulses through aihwkit's models of the devices, and there is no chip to program afterwards. The card
    gives the array, the converters and what a pulse costs; its noise model is for programmed chips and is not used.

    Attributes:
        card: name of a crossbar card, or the path of one.
        device: kind of the devices; it decides how a pulse moves a weight.
        rule: how the gradient becomes pulses: "sgd" (stochastic pulse trains), "mixed-precision" (the gradient is
            summed in digital), "tiki-taka", "tiki-taka-v2", "chopped-tiki-taka-v2", "agad" (a fast array for the
            gradient, a slow one for the weights). A step of 64 samples through 784-256-128-10 takes 0.03 s with "sgd",
            up to 0.5 s with "agad" and 1.5 s with "chopped-tiki-taka-v2".
        device_seed: of the differences between those devices, >= 0. Pulses themselves cannot be seeded in aihwkit, so
            no two trainings are alike.
        dac_bits: resolution of the DAC, 2 to 16; None takes the card's.
        adc_bits: resolution of the ADC, 2 to 16; None takes the card's.
        output_noise: sigma of the noise at the ADC's input, in units of one full-scale input times one full-scale
            weight (aihwkit's `out_noise`), 0 to 1.
        adc_bound: range of the ADC, above 0, in the units of `output_noise` (aihwkit's `out_bound`).

    Raises:
        UnknownNameError: no card, device or rule has this name.
        HpmlError: a card of another kind, a value out of range, or a rule that the device cannot follow.

    Example:
        >>> import hpml_sim as hs
        >>> hs.InMemory("pcm", device="ecram", rule="tiki-taka").device
        'ecram'
        >>> hs.InMemory("pcm", device="pcm", rule="agad")
        Traceback (most recent call last):
        hpml_sim.errors.HpmlError: rule='agad': a pcm device only goes up; take rule='sgd' or 'mixed-precision'
    """

    _ELSEWHERE: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (field.name for field in fields(Analog)),
        "devices that are trained in place do not have it; hs.Analog(...), programmed after training, has",
    )

    card: _Crossbar = "pcm-hermes"
    _: KW_ONLY
    device: Annotated[PulsedDevice, BeforeValidator(one_of(get_args(PulsedDevice), "device"))]
    rule: Annotated[TrainingRule, BeforeValidator(one_of(get_args(TrainingRule), "rule"))] = "sgd"
    device_seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    dac_bits: _Bits | None = None
    adc_bits: _Bits | None = None
    output_noise: _Share = 0.04
    adc_bound: Annotated[Real, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _possible(self) -> InMemory:
        if self.device == "pcm" and self.rule not in ("sgd", "mixed-precision"):
            raise HpmlError(f"rule={self.rule!r}: a pcm device only goes up; take rule='sgd' or 'mixed-precision'")
        return self


@config_class
class PerLayer:
    """Crossbars of different kinds in one network; `convert` makes it of a dict.

    Attributes:
        layers: a target for each name of a layer. A name covers what lies below it, the longest one counts, and what no
            name covers stays digital. All are `Analog`, or all are `InMemory`: they cannot be trained together.
    """

    layers: dict[str, Analog | InMemory]

    @model_validator(mode="after")
    def _one_kind(self) -> PerLayer:
        if len({type(target) for target in self.layers.values()}) > 1:
            raise HpmlError(
                "target={...}: layers that are trained in memory (InMemory) and layers that are programmed afterwards "
                "(Analog) cannot be trained together; take one of the two for all of them"
            )
        return self

    def __getitem__(self, name: str) -> Analog | InMemory | None:
        """The target of a layer.

        Args:
            name: dotted name of the layer.

        Returns:
            The target of the longest name that covers the layer; None: it stays digital.
        """
        covers = [key for key in self.layers if key in ("", name) or name.startswith(key + ".")]
        return self.layers[max(covers, key=len)] if covers else None
