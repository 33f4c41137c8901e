"""`Record`: one measured figure and ours; `Skipped`: a row that could not be estimated, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Quantity = Literal["time", "energy", "power"]


@dataclass(frozen=True)
class Record:
    """One measured figure and ours.

    Attributes:
        gpu: the card.
        name: what was measured.
        measured: in SI units.
        estimate: ours, nominal.
        low: lower bound of ours.
        high: upper bound of ours.
        quantity: what kind of figure it is.
        group: rows that are summed up together.
    """

    gpu: str
    name: str
    measured: float
    estimate: float
    low: float
    high: float
    quantity: Quantity
    group: str = ""

    @property
    def ratio(self) -> float:
        """Estimate over measured."""
        return self.estimate / self.measured

    @property
    def inside(self) -> bool:
        """Whether the measured figure lies within the band."""
        return self.low <= self.measured <= self.high


class Skipped(NamedTuple):
    """A row that could not be estimated.

    Attributes:
        where: file and line.
        gpu: as the file has it.
        why: one line.
    """

    where: str
    gpu: str
    why: str
