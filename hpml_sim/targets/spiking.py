"""`Spiking`: spiking neurons in place of ReLU, and the neurons to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from hpml_sim.cards import NeuromorphicCard
from hpml_sim.errors import HpmlError, UnknownNameError, shown
from hpml_sim.targets.analog import Analog, InMemory
from hpml_sim.targets.cards import CardName, card_of_kind
from hpml_sim.targets.checking import Real, Switch, Whole, checked, config_class

SurrogateName = Literal[
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
]
"""Surrogate gradients, by snnTorch's names."""
_NO_SLOPE = ("straight_through_estimator", "heaviside")

_Decay = Annotated[Real, Field(ge=0, le=1)]
_Positive = Annotated[Real, Field(gt=0)]


def _check_slope(surrogate: str, slope: float | None) -> None:
    if slope is not None and surrogate in _NO_SLOPE:
        raise HpmlError(f"slope={slope}: surrogate={surrogate!r} has no parameter; leave slope out")


@config_class
class Leaky:
    """Leaky integrate-and-fire neurons: snnTorch's `Leaky`.

    Attributes:
        beta: decay of the membrane potential in one step, 0 to 1.
        threshold: firing threshold, above 0.
        reset: what a spike does to the membrane: "subtract" the threshold, or set it to "zero".
        reset_delay: True: the reset acts one step late, as snnTorch's default does. False: it acts in the step of the
            spike, and is differentiated.
        surrogate: gradient of the spike in training, by snnTorch's name of it.
        slope: first parameter of the surrogate; None takes snnTorch's default. Some surrogates have none.
        name: always "leaky"; it tells the neurons apart in files.

    Example:
        >>> import hpml_sim as hs
        >>> hs.Spiking("loihi", neuron=hs.spiking.Leaky(beta=0.9, reset="zero")).neuron.beta
        0.9
    """

    _: KW_ONLY
    beta: _Decay = 0.95
    threshold: _Positive = 1.0
    reset: Literal["subtract", "zero"] = "subtract"
    reset_delay: Switch = True
    surrogate: SurrogateName = "atan"
    slope: Real | None = None
    name: Literal["leaky"] = field(default="leaky", repr=False)

    @model_validator(mode="after")
    def _possible(self) -> Leaky:
        _check_slope(self.surrogate, self.slope)
        return self


@config_class
class Synaptic:
    """Leaky neurons behind a synaptic current that decays: snnTorch's `Synaptic`. The reset acts one step late.

    Attributes:
        beta: decay of the membrane potential in one step, 0 to 1.
        current_decay: decay of the synaptic current in one step, 0 to below 1 (snnTorch's `alpha`).
        threshold: firing threshold, above 0.
        reset: what a spike does to the membrane: "subtract" the threshold, or set it to "zero".
        surrogate: gradient of the spike in training, by snnTorch's name of it.
        slope: first parameter of the surrogate; None takes snnTorch's default. Some surrogates have none.
        name: always "synaptic"; it tells the neurons apart in files.

    Example:
        >>> import hpml_sim as hs
        >>> hs.Spiking("loihi", neuron=hs.spiking.Synaptic(current_decay=0.7)).neuron.current_decay
        0.7
    """

    _: KW_ONLY
    beta: _Decay = 0.95
    current_decay: Annotated[Real, Field(ge=0, lt=1)] = 0.5
    threshold: _Positive = 1.0
    reset: Literal["subtract", "zero"] = "subtract"
    surrogate: SurrogateName = "atan"
    slope: Real | None = None
    name: Literal["synaptic"] = field(default="synaptic", repr=False)

    @model_validator(mode="after")
    def _possible(self) -> Synaptic:
        _check_slope(self.surrogate, self.slope)
        return self


@config_class
class Adaptive:
    """Leaky neurons whose threshold rises with each spike. A spike subtracts the threshold, one step late.

    Attributes:
        beta: decay of the membrane potential in one step, 0 to 1.
        threshold: firing threshold at rest, above 0.
        adaptation: what each spike adds to the threshold, >= 0.
        adaptation_decay: decay of what was added in one step, 0 to 1.
        surrogate: gradient of the spike in training, by snnTorch's name of it.
        slope: first parameter of the surrogate; None takes snnTorch's default. Some surrogates have none.
        name: always "adaptive"; it tells the neurons apart in files.

    Example:
        >>> import hpml_sim as hs
        >>> hs.Spiking("loihi", neuron=hs.spiking.Adaptive(adaptation=0.2)).neuron.adaptation
        0.2
    """

    _: KW_ONLY
    beta: _Decay = 0.95
    threshold: _Positive = 1.0
    adaptation: Annotated[Real, Field(ge=0)] = 0.1
    adaptation_decay: _Decay = 0.95
    surrogate: SurrogateName = "atan"
    slope: Real | None = None
    name: Literal["adaptive"] = field(default="adaptive", repr=False)

    @model_validator(mode="after")
    def _possible(self) -> Adaptive:
        _check_slope(self.surrogate, self.slope)
        return self


NEURONS: Mapping[str, type[Leaky | Synaptic | Adaptive]] = {
    "leaky": Leaky,
    "synaptic": Synaptic,
    "adaptive": Adaptive,
}
"""The neurons of `Spiking` by name."""


def _neuron(given: Any) -> Any:
    """A name as the neuron with its defaults; a table of a file must name its neuron."""
    if isinstance(given, tuple(NEURONS.values())):
        return given
    if isinstance(given, type):
        raise HpmlError(f"neuron: {given.__name__} is a class; call it: neuron={given.__name__}()")
    table = {"name": given} if isinstance(given, str) else given
    if not isinstance(table, Mapping):
        kinds = ", ".join(f"hs.spiking.{kind.__name__}(...)" for kind in NEURONS.values())
        raise HpmlError(f"neuron={shown(given)}: must be one of {', '.join(map(repr, NEURONS))}, or {kinds}")
    if "name" not in table:
        raise HpmlError(f"neuron={shown(given)}: give its name as well, one of {', '.join(map(repr, NEURONS))}")
    name = str(table["name"])
    if name not in NEURONS:
        raise UnknownNameError("neuron", name, NEURONS)
    return checked(NEURONS[name], table, where="neuron")


def _synapses(given: Any) -> Any:
    """A table of a file: only devices that are trained in place have a kind."""
    if isinstance(given, Mapping):
        return checked(InMemory if "device" in given else Analog, given, where="synapses")
    return given


@config_class
class Spiking:
    """ReLU neurons replaced by spiking ones that run for some time steps.

    Attributes:
        card: name of a neuromorphic card, or the path of one.
        neuron: "leaky", "synaptic" or "adaptive", or one of them with options of its own: `hs.spiking.Leaky(...)`,
            `hs.spiking.Synaptic(...)`, `hs.spiking.Adaptive(...)`.
        steps: time steps of one inference, at least 1.
        encoder: "rate" draws Bernoulli spikes with the (normalized) input as probability. "direct" feeds the values
            themselves as a current at every step. "latency" gives one spike, the earlier the larger the value.
            "population" codes a value by 8 neurons, so the network must take 8 times the channels. "frames" takes
            (batch, steps, ...) as it is, "delta" its changes. None takes the card's.
        population: output neurons of a class, side by side, at least 1; a logit is the count of all of them.
        readout: "spikes": the output neurons fire, and a logit is their count. "membrane": they never fire, and a logit
            is their last potential over that of a constant current of 1: without a leak, the mean current.
        synapses: `Analog(...)` or `InMemory(...)` puts the weights on crossbars; None leaves them digital.
        scale_weights: shrink each layer's weights until its largest expected current equals the threshold, so that a
            trained ReLU network does not saturate its neurons; the report says by how much.
        engine: "fused" runs all steps of a neuron in one compiled pass. "snntorch" runs snnTorch's own neuron step by
            step; only leaky neurons have it. Both give the same spikes and gradients, bit for bit.

    Raises:
        UnknownNameError: no card or neuron has this name.
        HpmlError: a card of another kind, a value out of range, or options that exclude each other.

    Example:
        >>> import hpml_sim as hs
        >>> hs.Spiking("loihi", steps=10, neuron="adaptive")
        Spiking('loihi', neuron=Adaptive(), steps=10)
        >>> hs.Spiking("loihi", neuron="leeky")
        Traceback (most recent call last):
        hpml_sim.errors.UnknownNameError: unknown neuron 'leeky'. Did you mean 'leaky'?
    """

    _ELSEWHERE: ClassVar[Mapping[str, str]] = {
        f.name: f"the neuron has it: neuron=hs.spiking.{kind.__name__}({f.name}=...)"
        for kind in (Adaptive, Synaptic, Leaky)
        for f in fields(kind)
        if f.name != "name"
    }

    card: Annotated[CardName, BeforeValidator(card_of_kind(NeuromorphicCard))] = "loihi"
    _: KW_ONLY
    neuron: Annotated[Leaky | Synaptic | Adaptive, BeforeValidator(_neuron)] = Leaky()
    steps: Annotated[Whole, Field(ge=1)] = 25
    encoder: Literal["rate", "direct", "latency", "population", "frames", "delta"] | None = None
    population: Annotated[Whole, Field(ge=1)] = 1
    readout: Literal["spikes", "membrane"] = "spikes"
    synapses: Annotated[Analog | InMemory | None, BeforeValidator(_synapses)] = None
    scale_weights: Switch = True
    engine: Literal["fused", "snntorch"] = "fused"

    @model_validator(mode="after")
    def _possible(self) -> Spiking:
        if self.engine == "snntorch" and not isinstance(self.neuron, Leaky):
            raise HpmlError(
                f"Spiking(neuron={self.neuron.name!r}, engine='snntorch'): only leaky neurons have this engine; leave "
                "engine out"
            )
        return self
