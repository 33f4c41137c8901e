"""Targets: how a network runs. Frozen configurations, each naming a card and its options."""

from __future__ import annotations

from dataclasses import KW_ONLY, fields
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.dataclasses import dataclass

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard, load_card
from hpml_sim.errors import HpmlError, UnknownNameError

_CONFIG = ConfigDict(extra="forbid", validate_default=True)
Bits = Annotated[int, Field(ge=2, le=16)]
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
Engine = Literal["torch", "torch-compile", "cuda-graph", "numba-cuda"]
"""What runs a digital network."""


@dataclass(frozen=True, config=_CONFIG)
class Digital:
    """The network as it is, in ordinary arithmetic on a CPU or GPU.

    Attributes:
        card: name of a digital card, or the path of one.
        precision: arithmetic of weights and activations; inputs and outputs stay float32. "tf32" rounds the factors of
            matrix products and convolutions to 10 bits and exists on NVIDIA GPUs only; "fp32" switches it off. "bf16"
            and "fp16" cast the weights once and are for inference; so is "int8", torchao's: weights a scale a channel,
            activations a scale a sample, in linear layers only.
        engine: "torch" runs operator by operator, "torch-compile" through `torch.compile` (the first call compiles),
            "cuda-graph" replays the recorded launches (NVIDIA GPUs, inference), "numba-cuda" on the kernels of
            `hpml_sim.baselines` (fp32, on a CUDA device or numba's simulator).
        channels_last: keep images and convolution weights with the channel innermost, as tensor cores and oneDNN like
            them.
    """

    card: str = "cpu"
    _: KW_ONLY
    precision: Literal["fp32", "tf32", "bf16", "fp16", "int8"] = "fp32"
    engine: Engine = "torch"
    channels_last: bool = False


@dataclass(frozen=True, config=_CONFIG)
class Analog:
    """Weights on crossbars: DAC, noisy matrix-vector product, ADC; everything else stays digital.

    Attributes:
        card: name of a crossbar card, or the path of one.
        engine: what runs programmed chips: "fused" is ours, all chips at once; "aihwkit" runs genuine aihwkit layers,
            chip by chip (a second opinion; `nn.Linear` and plain `nn.Conv2d` only). Training is the same.
        dac_bits, adc_bits: resolution of the converters; None takes the card's.
        compensation: drift compensation: none, one factor a tile ("global"), or one a column.
        output_noise: sigma of the noise at the ADC's input, in units of one full-scale input times one full-scale
            weight (aihwkit's `out_noise`).
        training_noise: sigma of the Gaussian weight noise injected in hardware-aware training, relative to the largest
            weight of the column.
        drop_connect: share of the weights that each training step takes as zero.
        weight_clip: in training, weights are clipped at this many standard deviations of their layer; None never clips.
        input_percentile: share of the inputs that the DAC's range covers when it is calibrated.
        learn_input_range: after the first 50 batches, train a factor of each layer's calibrated input range by the
            gradient of the loss (a wider range costs resolution, a narrower one clips, at DAC and ADC).
        adc_bound: range of the ADC, in the units of `output_noise` (aihwkit's `out_bound`).
        read_noise: sigma of the noise of one full-scale device in one product, in units of its conductance; that of a
            column grows as the square root of its current (aihwkit's `w_noise` of type PCM_READ; 0.0175 in its
            presets). It comes on top of the card's noise model, whose read noise is drawn once for each time.
        ir_drop: strength of the voltage drop along the columns: 1 is that of wires of 0.35 ohm from cell to cell at the
            card's largest conductance, 0 none.
        levels: how many conductances a device can be programmed to, equally spaced from its smallest to its largest;
            None: any. Training does not see them.
        slices: cells that hold one weight as digits to the base `levels`, most significant first. Each has a column and
            an ADC reading of its own; their readings are shifted and added in digital. More than 1 needs `levels`.
        stuck_at_g_min, stuck_at_g_max: share of the devices that stay at their smallest or largest conductance whatever
            is programmed and however long one waits. Which ones is drawn for each chip; a larger share adds to a
            smaller one.
        device: train in memory, on devices of this kind (needs engine="aihwkit"): `fit` sends them pulses, and there is
            no chip to program afterwards. The card then gives array, converters and what a pulse costs; its noise
            model and all options that train for or describe programmed chips are not used, and refused if given.
        rule: how the gradient becomes pulses: "sgd" (stochastic pulse trains, the default), "mixed-precision" (the
            gradient is summed in digital), "tiki-taka", "tiki-taka-v2", "chopped-tiki-taka-v2", "agad" (a fast array
            for the gradient, a slow one for the weights). These are slow to simulate: a step of 64 samples through
            784-256-128-10 takes 0.03 s with sgd, up to 0.5 s with agad and 1.5 s with chopped-tiki-taka-v2.
        device_seed: of the differences between those devices, >= 0. Pulses themselves cannot be seeded in aihwkit, so
            no two trainings are alike.
    """

    card: str = "pcm-hermes"
    _: KW_ONLY
    engine: Literal["fused", "aihwkit"] = "fused"
    dac_bits: Bits | None = None
    adc_bits: Bits | None = None
    compensation: Literal["none", "global", "column"] = "global"
    output_noise: Annotated[float, Field(ge=0, le=1)] = 0.04
    training_noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    drop_connect: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_clip: Annotated[float, Field(ge=1)] | None = 2.5
    input_percentile: Annotated[float, Field(gt=0.5, le=1)] = 0.995
    learn_input_range: bool = False
    adc_bound: Annotated[float, Field(gt=0)] = 10.0
    read_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    ir_drop: Annotated[float, Field(ge=0, le=10)] = 0.0
    levels: Annotated[int, Field(ge=2, le=65536)] | None = None
    slices: Annotated[int, Field(ge=1, le=16)] = 1
    stuck_at_g_min: Annotated[float, Field(ge=0, le=1)] = 0.0
    stuck_at_g_max: Annotated[float, Field(ge=0, le=1)] = 0.0
    device: PulsedDevice | None = None
    rule: TrainingRule | None = None
    device_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("device", "rule", mode="before")
    @classmethod
    def _known(cls, value: object, info: ValidationInfo) -> object:
        known = get_args(PulsedDevice if info.field_name == "device" else TrainingRule)
        if isinstance(value, str) and value not in known:
            raise UnknownNameError(str(info.field_name), value, known)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Analog:
        self._check_in_memory()
        if self.slices > 1 and self.levels is None:
            raise ValueError(f"slices={self.slices}: digits need a base; give levels= as well, such as levels=16")
        if self.levels is not None and self.levels**self.slices > 2**31:
            raise ValueError(f"levels={self.levels} to the power of slices={self.slices}: must be at most 2^31")
        if self.stuck_at_g_min + self.stuck_at_g_max > 1:
            raise ValueError(
                f"stuck_at_g_min={self.stuck_at_g_min} and stuck_at_g_max={self.stuck_at_g_max}: at most 1 together"
            )
        return self

    def _check_in_memory(self) -> None:
        if self.device is None:
            if self.rule is not None:
                raise ValueError(f"rule={self.rule!r} needs a device to train in memory; add such as device='ecram'")
            return
        if self.engine != "aihwkit":
            raise ValueError(
                f"device={self.device!r} trains in memory, which engine={self.engine!r} cannot; add engine='aihwkit'"
            )
        if self.device == "pcm" and self.rule not in (None, "sgd", "mixed-precision"):
            raise ValueError(f"rule={self.rule!r}: a pcm device only goes up; take rule='sgd' or 'mixed-precision'")
        given = {f.name: f.default for f in fields(self) if f.name in _PROGRAMMED_ONLY}
        if unused := sorted(name for name, default in given.items() if getattr(self, name) != default):
            raise ValueError(
                f"{', '.join(unused)}: for chips that are programmed after training; device={self.device!r} is trained "
                "in place, so leave it out"
            )


_PROGRAMMED_ONLY = frozenset(
    {
        "compensation",
        "training_noise",
        "drop_connect",
        "weight_clip",
        "input_percentile",
        "learn_input_range",
        "read_noise",
        "ir_drop",
        "levels",
        "slices",
        "stuck_at_g_min",
        "stuck_at_g_max",
    }
)
"""Options of `Analog` that mean nothing where devices are trained in place."""


@dataclass(frozen=True, config=_CONFIG)
class PerLayer:
    """Crossbars of different kinds in one network; `convert` makes it of a dict.

    Attributes:
        layers: a target for each name of a layer. A name covers what lies below it, the longest one counts, and what no
            name covers stays digital.
    """

    layers: dict[str, Analog]

    def __getitem__(self, name: str) -> Analog | None:
        """The target of a layer; None: it stays digital."""
        covers = [key for key in self.layers if key in ("", name) or name.startswith(key + ".")]
        return self.layers[max(covers, key=len)] if covers else None


@dataclass(frozen=True, config=_CONFIG)
class Spiking:
    """ReLU neurons replaced by spiking ones that run for some time steps.

    Attributes:
        card: name of a neuromorphic card, or the path of one.
        steps: time steps of one inference.
        neuron: "leaky" is snnTorch's `Leaky` (leaky integrate-and-fire); "synaptic" its `Synaptic`, behind a current
            that decays by `current_decay`; "adaptive" raises its threshold by `adaptation` with each spike, which falls
            back by `adaptation_decay`.
        beta: decay of the membrane potential in one step. threshold: firing threshold.
        reset: what a spike does to the membrane: subtract the threshold, or set it to zero. Both act one step late, as
            snnTorch's default does.
        reset_delay: False lets the reset of a leaky neuron act in the step of the spike, and be differentiated.
        surrogate, slope: gradient of the spike in training, and its first parameter (None: snnTorch's default).
        encoder: "rate" draws Bernoulli spikes with the (normalized) input as probability; "direct" feeds the values
            themselves as a current at every step; "latency" gives one spike, the earlier the larger the value;
            "population" codes a value by 8 neurons, so the network must take 8 times the channels; "frames" takes
            (batch, steps, ...) as it is, "delta" its changes; None takes the card's.
        population: output neurons of a class, side by side; a logit is the count of all of them.
        synapses: `Analog(...)` puts the weights on crossbars.
        scale_weights: shrink each layer's weights until its largest expected current equals the threshold, so that a
            trained ReLU network does not saturate its neurons; the report says by how much.
        engine: "fused" runs all steps of a neuron in one compiled pass; "snntorch" runs snnTorch's own neuron step by
            step. Both give the same spikes and gradients, bit for bit.
    """

    card: str = "loihi"
    _: KW_ONLY
    steps: Annotated[int, Field(ge=1)] = 25
    neuron: Literal["leaky", "synaptic", "adaptive"] = "leaky"
    beta: Annotated[float, Field(ge=0, le=1)] = 0.95
    threshold: Annotated[float, Field(gt=0)] = 1.0
    reset: Literal["subtract", "zero"] = "subtract"
    encoder: Literal["rate", "direct", "latency", "population", "frames", "delta"] | None = None
    synapses: Analog | None = None
    scale_weights: bool = True
    engine: Literal["fused", "snntorch"] = "fused"
    reset_delay: bool = True
    surrogate: Literal[
        "atan",
        "fast_sigmoid",
        "straight_through_estimator",
        "triangular",
        "heaviside",
        "sigmoid",
        "spike_rate_escape",
        "SSO",
        "LSO",
        "SFS",
    ] = "atan"
    slope: float | None = None
    current_decay: Annotated[float, Field(ge=0, lt=1)] = 0.5
    adaptation: Annotated[float, Field(ge=0)] = 0.1
    adaptation_decay: Annotated[float, Field(ge=0, le=1)] = 0.95
    population: Annotated[int, Field(ge=1)] = 1


Target = Digital | Analog | Spiking


def analog_part(target: Target) -> Analog | None:
    """What holds the weights on crossbars: the target itself, or a spiking target's synapses."""
    return target if isinstance(target, Analog) else target.synapses if isinstance(target, Spiking) else None


def in_memory(target: Target) -> bool:
    """Whether its weights are devices that are trained in place: no chip is programmed, and no time counts from it."""
    analog = analog_part(target)
    return analog is not None and analog.device is not None


def as_target(target: Target | str | Path) -> Target:
    """A target from a target, or from a card's name or path: the card's kind picks the class.

    Raises:
        UnknownNameError: no card has this name. CardError: the card is broken.
        HpmlError: the target names a card of another kind.
    """
    if isinstance(target, (Digital, Analog, Spiking)):
        wanted = {Digital: DigitalCard, Analog: CrossbarCard, Spiking: NeuromorphicCard}[type(target)]
        card = load_card(target.card)
        if not isinstance(card, wanted):
            raise HpmlError(
                f"{type(target).__name__}(card={target.card!r}): this card is of kind {card.kind!r}; "
                f"take a {wanted.model_fields['kind'].annotation.__args__[0]} card (`hpml-sim cards` lists them)"
            )
        if isinstance(target, Spiking) and target.synapses is not None:
            as_target(target.synapses)
        return target
    card = load_card(target)
    kind = {"digital": Digital, "crossbar": Analog, "neuromorphic": Spiking}[card.kind]
    return kind(str(target))
