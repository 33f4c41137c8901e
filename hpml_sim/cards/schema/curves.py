"""Coefficients that a card takes from a table: a polynomial for each entry, with the table's source."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from hpml_sim.units.quantities import CardModel, require_place

Coefficient = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Curves(CardModel):
    """Energy of digital logic by node: a V^2 + b V + c, in arbitrary units that cancel in a ratio of two nodes.

    Attributes:
        energy: node in nanometers -> (a, b, c).
        source: key of the source.
        where: table or equation in it.
        note: conditions.
        error: the factor within which the ratio of two nodes is trusted.
    """

    energy: dict[str, tuple[Coefficient, Coefficient, Coefficient]] = Field(min_length=2)
    source: str
    where: str = ""
    note: str = ""
    error: Annotated[float, Field(strict=True, ge=1, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _findable(self) -> Curves:
        require_place(self.where, self.note)
        for node in self.energy:
            if not node.isdecimal() or int(node) < 1:
                raise ValueError(f"energy.{node}: name a node in whole nanometers, such as '45'")
        return self
