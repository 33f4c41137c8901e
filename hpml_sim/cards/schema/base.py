"""What cards of every kind hold."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from hpml_sim.cards.schema.curves import Curves
from hpml_sim.cards.schema.input_ranges import InputRanges
from hpml_sim.cards.schema.noise import Noise
from hpml_sim.units.display import html_table, plain_lines
from hpml_sim.units.quantities import CardModel, Length, Quantity, Scope, Source

Host = Literal["own", "edge", "desktop", "server"]
Bounds = Literal["percentiles", "limits"]
"""What surrounds a machine at system scope. own: the host is part of the card's figures."""
WEAK = frozenset({"projection", "scaled", "assumption", "unverified"})
"""Statuses of numbers that a reader should not overlook."""


class SourcedCard(CardModel):
    """What every file of figures holds: a name, sources, and numbers that each name one of them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    summary: str
    version: int = Field(ge=1, description="raised whenever a number changes")
    node: Length | None = None
    sources: dict[str, Source]
    bounds: Bounds = Field(
        default="percentiles",
        description="what low and high of its figures are: the 5th and 95th percentile of a lognormal, or limits "
        "between which, by the logarithm, any value is as likely as another",
    )
    limits: list[str] = Field(default_factory=list, description="what the figures leave out, one sentence each")

    @model_validator(mode="after")
    def _sources_known(self) -> Self:
        named = _walk("", self, (Quantity, Noise, InputRanges, Curves))
        unknown: list[str] = []
        for path, item in named:
            keys = {"source": item.source}
            if isinstance(item, Quantity) and item.band_source:
                keys["band_source"] = item.band_source
            for field, key in keys.items():
                if key not in self.sources:
                    near = difflib.get_close_matches(key, self.sources, n=1)
                    guess = f"did you mean {near[0]!r}? " if near else ""
                    known = ", ".join(self.sources)
                    unknown.append(f"{path}.{field}: unknown source key {key!r}; {guess}[sources] has {known}")
        if unknown:
            raise ValueError("; ".join(unknown))
        return self

    def quantities(self) -> Iterator[tuple[str, Quantity]]:
        """Every number of the card with its dotted path, in the order of the model."""
        yield from _walk("", self, (Quantity,))


class BaseCard(SourcedCard):
    """What cards of every kind of machine hold."""

    scope: Scope
    year: int = Field(description="year of the publication or of the product")
    silicon: bool = Field(description="false for a machine that was simulated or projected, never built")
    host: Host | None = Field(
        default=None, description="what a whole system has around it; absent: by the kind and the size of the machine"
    )

    def __repr__(self) -> str:
        return plain_lines(self._heading(), self._lines())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        return html_table(self._heading(), self._lines(), note=self.summary)

    def _heading(self) -> str:
        return f"Card {self.name}: {self.title}"

    def _lines(self) -> list[tuple[str, str]]:
        built = "" if self.silicon else ", never built"
        figures = [quantity for _, quantity in self.quantities()]
        weak = sum(quantity.status in WEAK for quantity in figures)
        return [
            ("scope", f"{self.scope}, {self.year}{built}"),
            *self._highlights(),
            ("figures", f"{len(figures)} with sources, {weak} weak: `hpml-sim cards show {self.name}`"),
        ]

    def _highlights(self) -> list[tuple[str, str]]:
        """What a reader asks first of a card of this kind."""
        return []


def _walk(path: str, value: Any, wanted: tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, wanted):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(f"{path}.{name}" if path else name, getattr(value, name), wanted)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(f"{path}.{name}", item, wanted)
