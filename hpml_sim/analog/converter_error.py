"""What conversion loses before any noise: converters of one layer; converters and weights of a whole network."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConverterError:
    """What the converters of one layer lose, without any noise of devices.

    Attributes:
        signal_to_error_db: power of the layer's exact outputs over that of the error, in decibels: of all outputs
            together, or the mean over the input vectors, whichever is worse.
        loses_all: whether as good as nothing is left of any vector.
    """

    signal_to_error_db: float
    loses_all: bool = False


@dataclass
class ConversionCost:
    """What conversion costs a network without any noise of devices; one object for all of its layers.

    Attributes:
        lost: what its converters cost: power of the error of the outputs over the power of their spread around their
            mean.
        lost_by_weights: the same of weights that are rounded to the levels of their cells; 0 where none are.
        layers: of those weights, power of a layer's products over that of their error, decibels, by name.
        warned: whether a warning has said so.
    """

    lost: float
    lost_by_weights: float = 0.0
    layers: dict[str, float] = field(default_factory=dict)
    warned: bool = False
