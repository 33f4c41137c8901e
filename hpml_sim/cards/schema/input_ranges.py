"""Which input ranges a crossbar's hardware can do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hpml_sim.units.quantities import CardModel, Status, require_place


class InputRanges(CardModel):
    """Which input ranges the hardware can do, and how that is known.

    Attributes:
        kinds: "static": one full-scale input a layer, set before. "dynamic": a full-scale input for each vector, which
            takes digital logic in front of the input converters. "channel", beside one of them: a factor for each
            input, in the same place, which the weights of its row take back.
        source: key of the source.
        where: figure, table or section in it.
        status: how it is known.
        note: what a reader should know beside.
    """

    kinds: list[Literal["static", "dynamic", "channel"]] = Field(min_length=1)
    source: str
    where: str = ""
    status: Status
    note: str = ""

    @model_validator(mode="after")
    def _findable(self) -> InputRanges:
        require_place(self.where, self.note)
        if not {"static", "dynamic"} & set(self.kinds):
            raise ValueError("kinds must hold 'static' or 'dynamic': a factor for each channel is no range by itself")
        return self
