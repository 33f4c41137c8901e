"""The noise and drift model that goes with a crossbar's figures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpml_sim.units.quantities import CardModel, Figure, Status, require_place

Option = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Noise(CardModel):
    """The conductance-level noise and drift model: which one, its settings, and when its paper has data.

    Attributes:
        model: name of the noise model (aihwkit's physics); "custom" is that of phase-change memory with figures of the
            card's own for programming noise and drift.
        options: settings handed to the model (`g_max_us` in microsiemens, ...).
        curves: of the model "custom": `programming_us`, the polynomial of the programming noise in g / g_max
            (microsiemens, lowest power first), and conductances `drift_at_us` (microsiemens) with the mean and sigma of
            the drift exponent there, `drift_mean` and `drift_sigma`.
        times_s: the only times (seconds) at which the paper gives data; empty means any time >= 0.
        source: key of the source.
        where: figure, table or equation in it.
        status: how the settings came about.
        note: why this mode and these settings.
    """

    model: Literal["pcm", "hermes", "custom", "reram-wan", "reram-cmo", "analog-foundation-models", "none"]
    options: dict[str, Option] = Field(default_factory=dict)
    curves: dict[str, list[Option]] = Field(default_factory=dict)
    times_s: list[Figure] = Field(default_factory=list)
    source: str
    where: str = ""
    status: Status
    note: str = ""

    @model_validator(mode="after")
    def _findable(self) -> Noise:
        require_place(self.where, self.note)
        return self
