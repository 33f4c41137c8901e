"""`Point`: one published figure and ours; and what the machines' files share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hpml_sim.cards import Card, CrossbarCard, DigitalCard, NeuromorphicCard, Quantity, load_card
from hpml_sim.cost import Estimate
from hpml_sim.counting import LayerCount, Workload

Basis = Literal["prediction", "held out", "identity", "calibrated", "lower bound"]
"""What a point proves.

prediction: no figure of the card comes from this measurement. held out: the card was fitted to other points of the
same measurement. identity: the card's figure is this measurement, regrouped; a regression test. calibrated: the card's
figure was set at this very point. lower bound: the estimate names what it leaves out, so it must not lie above.
"""


@dataclass(frozen=True)
class Point:
    """One published figure and ours.

    Attributes:
        name: machine and quantity.
        published: what was reported.
        model: what the equations give.
        unit: of both.
        low: lower bound on model / published.
        high: upper bound on model / published.
        basis: what the point proves.
        source: where the published figure stands.
        note: what to know about it.
    """

    name: str
    published: float
    model: float
    unit: str
    low: float
    high: float
    basis: Basis
    source: str
    note: str = ""

    @property
    def error(self) -> float:
        """Model over published, minus one."""
        return self.model / self.published - 1

    @property
    def ok(self) -> bool:
        """Whether the model lies within the tolerance."""
        return self.low * (1 - 1e-9) <= self.model / self.published <= self.high * (1 + 1e-9)

    @property
    def tolerance(self) -> str:
        """The tolerance in words."""
        if self.low == self.high == 1:
            return "exact"
        if self.high == 1:
            return f"at most {1 / self.low:g}x below"
        if abs(self.low * self.high - 1) < 1e-9:
            return f"x or / {self.high:g}"
        return f"+-{self.high - 1:.0%}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "published": self.published,
            "model": self.model,
            "unit": self.unit,
            "error": self.error,
            "tolerance": self.tolerance,
            "allowed": [self.low, self.high],
            "ok": self.ok,
            "basis": self.basis,
            "source": self.source,
            "note": self.note,
        }


def within(fraction: float) -> tuple[float, float]:
    """Allowed model / published: plus or minus a share.

    Args:
        fraction: the share, from 0 to 1.
    """
    return 1 - fraction, 1 + fraction


def factor(factor: float) -> tuple[float, float]:
    """Allowed model / published: divided or multiplied by a factor.

    Args:
        factor: at least 1.
    """
    return 1 / factor, factor


EXACT = (1.0, 1.0)
BELOW = (0.25, 1.0)


def cite(card: Card, key: str, where: str) -> str:
    """A source of the card, and the place in it.

    Args:
        card: the card.
        key: key of the source.
        where: page, table or figure.
    """
    return f"{card.sources[key].cite}: {where}"


def matrix_count(name: str, rows: int, cols: int, vectors: float = 1, **more: Any) -> LayerCount:
    """The count of one matrix product.

    Args:
        name: of the layer.
        rows: inputs of an output.
        cols: outputs.
        vectors: input vectors in one inference.
        more: other fields of `LayerCount`.
    """
    return LayerCount(
        name,
        "linear",
        rows=rows,
        cols=cols,
        vectors=vectors,
        macs=rows * cols * vectors,
        weight_count=rows * cols,
        input_elements=rows * vectors,
        output_elements=cols * vectors,
        **more,
    )


def crossbar_card(name: str) -> CrossbarCard:
    """A shipped crossbar card."""
    card = load_card(name)
    assert isinstance(card, CrossbarCard)
    return card


def digital_card(name: str) -> DigitalCard:
    """A shipped digital card."""
    card = load_card(name)
    assert isinstance(card, DigitalCard)
    return card


def neuromorphic_card(name: str) -> NeuromorphicCard:
    """A shipped neuromorphic card."""
    card = load_card(name)
    assert isinstance(card, NeuromorphicCard)
    return card


def full_chip(card: CrossbarCard, tiles: int | None = None) -> Workload:
    """One matrix that fills tiles to the last cell, multiplied once.

    Args:
        card: the machine.
        tiles: how many it fills; None: those of a whole chip.
    """
    array = card.array
    weights = int(array.cols) // int(array.cells_per_weight)
    return Workload((matrix_count("full", int(array.rows), weights * (tiles or int(array.tiles_per_chip))),))


def operations(workload: Workload) -> float:
    """Two for each MAC."""
    return 2 * sum(layer.macs for layer in workload.layers)


def tera_ops(workload: Workload, result: Estimate) -> float:
    """Tera-operations a second, nominal."""
    return operations(workload) * result.throughput_hz.nominal / 1e12


def tera_ops_per_watt(workload: Workload, result: Estimate) -> float:
    """Tera-operations a joule, nominal."""
    return operations(workload) / result.energy_j.nominal / 1e12


def like(quantity: Quantity | None, seconds: float) -> Quantity:
    """A time given by the workload, with the source of the card's own.

    Args:
        quantity: a time of the card.
        seconds: what takes its place.
    """
    assert quantity is not None
    changed = quantity.model_copy(update={"value": seconds / quantity.si * quantity.value, "low": None, "high": None})
    return changed
