"""What converters lose: of one layer, and of a whole network."""

from __future__ import annotations

from dataclasses import dataclass


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
    """What the converters of a network cost it; one object for all of its layers.

    Attributes:
        lost: power of the error of the outputs over the power of their spread around their mean.
        warned: whether a warning has said so.
    """

    lost: float
    warned: bool = False
