"""Targets: how a network runs. Frozen configurations, each naming a card and its options."""

from __future__ import annotations

from dataclasses import KW_ONLY
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard, load_card
from hpml_sim.errors import HpmlError

_CONFIG = ConfigDict(extra="forbid", validate_default=True)
Bits = Annotated[int, Field(ge=2, le=16)]


@dataclass(frozen=True, config=_CONFIG)
class Digital:
    """The network as it is, in ordinary arithmetic on a CPU or GPU.

    Attributes:
        card: name of a digital card, or the path of one.
        precision: arithmetic of weights and activations; inputs and outputs stay float32. "tf32" rounds the factors of
            matrix products and convolutions to 10 bits and exists on NVIDIA GPUs only; "fp32" switches it off. "bf16"
            and "fp16" cast the weights once and are for inference.
        engine: "torch" runs operator by operator, "torch-compile" through `torch.compile` (the first call compiles),
            "numba-cuda" on the kernels of `hpml_sim.baselines` (fp32, on a CUDA device or numba's simulator).
    """

    card: str = "cpu"
    _: KW_ONLY
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    engine: Literal["torch", "torch-compile", "numba-cuda"] = "torch"


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
        weight_clip: in training, weights are clipped at this many standard deviations of their layer; None never clips.
        input_percentile: share of the inputs that the DAC's range covers when it is calibrated.
        adc_bound: range of the ADC, in the units of `output_noise` (aihwkit's `out_bound`).
        levels: how many conductances a device can be programmed to, equally spaced from its smallest to its largest;
            None: any. Training does not see them.
        slices: cells that hold one weight as digits to the base `levels`, most significant first. Each has a column and
            an ADC reading of its own; their readings are shifted and added in digital. More than 1 needs `levels`.
        stuck_at_g_min, stuck_at_g_max: share of the devices that stay at their smallest or largest conductance whatever
            is programmed and however long one waits. Which ones is drawn for each chip; a larger share adds to a
            smaller one.
    """

    card: str = "pcm-hermes"
    _: KW_ONLY
    engine: Literal["fused", "aihwkit"] = "fused"
    dac_bits: Bits | None = None
    adc_bits: Bits | None = None
    compensation: Literal["none", "global", "column"] = "global"
    output_noise: Annotated[float, Field(ge=0, le=1)] = 0.04
    training_noise: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_clip: Annotated[float, Field(ge=1)] | None = 2.5
    input_percentile: Annotated[float, Field(gt=0.5, le=1)] = 0.995
    adc_bound: Annotated[float, Field(gt=0)] = 10.0
    levels: Annotated[int, Field(ge=2, le=65536)] | None = None
    slices: Annotated[int, Field(ge=1, le=16)] = 1
    stuck_at_g_min: Annotated[float, Field(ge=0, le=1)] = 0.0
    stuck_at_g_max: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Analog:
        if self.slices > 1 and self.levels is None:
            raise ValueError(f"slices={self.slices}: digits need a base; give levels= as well, such as levels=16")
        if self.levels is not None and self.levels**self.slices > 2**31:
            raise ValueError(f"levels={self.levels} to the power of slices={self.slices}: must be at most 2^31")
        if self.stuck_at_g_min + self.stuck_at_g_max > 1:
            raise ValueError(
                f"stuck_at_g_min={self.stuck_at_g_min} and stuck_at_g_max={self.stuck_at_g_max}: at most 1 together"
            )
        return self


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
        encoder: "rate" draws Bernoulli spikes with the (normalised) input as probability; "direct" feeds the values
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
