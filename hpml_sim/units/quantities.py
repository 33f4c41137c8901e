"""One number of a card: value, unit, source, status and bounds; and what each kind of number may be."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from hpml_sim.units.bands import Band
from hpml_sim.units.unit_parsing import si_factor

Scope = Literal["core", "chip", "board", "system"]
Status = Literal["measured", "model", "projection", "scaled", "datasheet", "derived", "assumption", "unverified"]
"""How a number came about.

measured: silicon, by its authors. model: a published model or simulation. projection: a published forecast.
scaled: another machine's figure, scaled. datasheet: the vendor's word. derived: arithmetic on other figures of the
card (the note shows it). assumption: ours, no source exists (the note says why). unverified: from memory or a
secondary text that was not checked against the primary one.
"""


class CardModel(BaseModel):
    """Part of a card: frozen, and without room for fields it does not know."""

    # built when the first card is read, not when the library is imported
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Source(CardModel):
    """Where a number can be read.

    Attributes:
        cite: authors, title, venue, year.
        doi: digital object identifier, if there is one.
        url: address, if there is no doi.
        opened: what was really opened to read the number (the paper, its abstract, a secondary text that quotes it).
    """

    cite: str = Field(min_length=1)
    doi: str = ""
    url: str = ""
    opened: str = ""

    @property
    def reference(self) -> str:
        """The citation with its DOI, or else its address."""
        place = f"doi:{self.doi}" if self.doi else self.url
        return f"{self.cite}, {place}" if place and place.removeprefix("doi:") not in self.cite else self.cite


Figure = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
"""What a card may hold: a number, not text; finite and not negative."""


def require_place(where: str, note: str) -> None:
    """Refuse a number of which nobody can say where it stands in its source."""
    if not (where.strip() or note.strip()):
        raise ValueError(
            "needs `where` (page, table or figure of the source) or, if there is none, a `note` saying why"
        )


class Quantity(CardModel):
    """One number of a card: value, unit, source key, where in the source, status and, where known, its bounds.

    Attributes:
        value: the number, finite and not negative.
        unit: as in `hpml_sim.units.unit_parsing`.
        source: key in the card's `[sources]`.
        where: page, table or figure in it.
        status: how the number came about.
        low: lower bound in the same unit; None where there is none.
        high: upper bound in the same unit; None where there is none.
        band_source: key of the source of the bounds, if it is not that of the value.
        note: the arithmetic of a derived number, the reason of an assumption, conditions.
    """

    value: Figure
    unit: str
    source: str
    where: str = ""
    status: Status
    low: Figure | None = None
    high: Figure | None = None
    band_source: str = ""
    note: str = ""
    _factor: float = PrivateAttr(default=1.0)

    @model_validator(mode="after")
    def _ordered(self) -> Quantity:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"must satisfy low <= value <= high, got {low!r}, {self.value!r}, {high!r}")
        return self

    @model_validator(mode="after")
    def _findable(self) -> Quantity:
        require_place(self.where, self.note)
        return self

    def checked(self, si_unit: str, examples: str) -> Quantity:
        """Check the unit's dimension and remember the factor to SI.

        Args:
            si_unit: the unit that `si` is in, with its full names ("joule/bit").
            examples: what is allowed here, for the message.

        Raises:
            ValueError: the unit is unknown or has another dimension, or the number is not finite in SI.
        """
        self._factor = si_factor(self.unit, si_unit, examples)
        largest = self.value if self.high is None else self.high
        if not math.isfinite(largest * self._factor):
            raise ValueError(f"is too large to compute with, got {self}")
        return self

    @property
    def si(self) -> float:
        """The value in SI units."""
        return self.value * self._factor

    def band(self, default_fraction: float = 0.0) -> Band:
        """Low, nominal and high in SI.

        Args:
            default_fraction: where the card gives no bounds, plus or minus this share of the value, 0 to 1.
        """
        low = self.value * (1 - default_fraction) if self.low is None else self.low
        high = self.value * (1 + default_fraction) if self.high is None else self.high
        return Band(low, self.value, high) * self._factor

    def __int__(self) -> int:
        return round(self.si)

    def __float__(self) -> float:
        return self.si

    def __str__(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{self.value:g}{unit}"


def _unit(si_unit: str, examples: str) -> Any:
    return AfterValidator(lambda quantity: quantity.checked(si_unit, examples))


def _whole(quantity: Quantity) -> Quantity:
    if quantity.si < 1 or quantity.si != round(quantity.si):
        raise ValueError(f"must be a whole number >= 1, got {quantity}")
    return quantity


def _share(quantity: Quantity) -> Quantity:
    if not quantity.band().high <= 1:
        raise ValueError(
            f"is a share: value, low and high must lie between 0 and 1 (0 and 100 percent), got {quantity}"
        )
    return quantity


def _positive(quantity: Quantity) -> Quantity:
    if not quantity.band().low > 0:
        raise ValueError(f"value and low must be greater than 0, got {quantity}")
    return quantity


# What a field measures; `Quantity.si` is in the unit named first.
Count = Annotated[Quantity, _unit("dimensionless", "1, percent")]
Whole = Annotated[Count, AfterValidator(_whole)]
Ratio = Annotated[Count, AfterValidator(_positive)]
Share = Annotated[Count, AfterValidator(_share)]
PositiveShare = Annotated[Share, AfterValidator(_positive)]
Bits = Annotated[Quantity, _unit("bit", "bit"), AfterValidator(_whole)]
EffectiveBits = Annotated[Quantity, _unit("bit", "bit"), AfterValidator(_positive)]
Bytes = Annotated[Quantity, _unit("byte", "B, kB, KiB, MB, MiB, GB, GiB, TB"), AfterValidator(_positive)]
Energy = Annotated[Quantity, _unit("joule", "J, uJ, nJ, pJ, fJ")]
PositiveEnergy = Annotated[Energy, AfterValidator(_positive)]
EnergyPerByte = Annotated[Quantity, _unit("joule/byte", "pJ/B, pJ/bit")]
EnergyPerBit = Annotated[Quantity, _unit("joule/bit", "pJ/bit, fJ/bit")]
EnergyPerOp = Annotated[Quantity, _unit("joule/op", "pJ/OP, pJ/FLOP, pJ/MAC (1 MAC = 2 OP)")]
Power = Annotated[Quantity, _unit("watt", "W, mW, uW")]
Time = Annotated[Quantity, _unit("second", "s, ms, us, ns, h, day")]
Period = Annotated[Time, AfterValidator(_positive)]
"""A time that one event takes or that passes between two: never 0, for its inverse is a rate."""
Rate = Annotated[Quantity, _unit("1/second", "Hz, kHz, MHz, GHz, 1/s"), AfterValidator(_positive)]
OpRate = Annotated[Quantity, _unit("op/second", "OP/s, GOP/s, TOP/s, TFLOP/s"), AfterValidator(_positive)]
ByteRate = Annotated[Quantity, _unit("byte/second", "B/s, GB/s, TB/s"), AfterValidator(_positive)]
Length = Annotated[Quantity, _unit("meter", "m, um, nm"), AfterValidator(_positive)]
Area = Annotated[Quantity, _unit("meter**2", "mm^2, um^2"), AfterValidator(_positive)]
Voltage = Annotated[Quantity, _unit("volt", "V, mV")]
Conductance = Annotated[Quantity, _unit("siemens", "S, uS")]
