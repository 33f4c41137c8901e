"""The cost breakdown of one estimate while it is written: its terms with bands and sources, and what is excluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpml_sim.cost.result import Estimate, Roof, Term
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import Card, Quantity

# Default bands, where a card gives no (or narrower) bounds. Source: docs/equations.md, "Bands".
SAME_CLASS = 1.25
"""A published total used for what it was measured on (plus or minus 25 %)."""
OTHER_WORKLOAD = 2.0
"""A published figure used for something else than it was measured on."""
COMPONENT = 4.0
"""A sum of component energies, with an ADC matched to the circuit."""
SCALED = 3.0
"""A figure scaled from another machine or process node."""
PROCESSOR = 1.35
"""CPU and GPU: GPU power models are off by 11 to 32 % even after calibration."""
UNMATCHED_ADC = 80.0
"""How far a real converter with its support may lie above the survey's best (HERMES against the regression)."""

_FLAGGED = {
    "assumption": "no source",
    "unverified": "not verified against its primary source",
    "projection": "a projection, not a measurement",
    "scaled": "scaled from another machine",
}


def spread(value: float, factor: float) -> Band:
    """`value` with the band of a factor.

    Args:
        value: the nominal value, not negative.
        factor: at least 1. Below 2 it reads as plus or minus (factor - 1), from 2 on as divided and multiplied by it.
    """
    if factor < 2:
        return Band(value * (2 - factor), value, value * factor)
    return Band(value / factor, value, value * factor)


def at_least(band: Band, factor: float) -> Band:
    """A band, widened where it is narrower than its nominal value with the band of a factor.

    Args:
        band: what is known.
        factor: as in `spread`.
    """
    wide = spread(band.nominal, factor)
    return Band(min(band.low, wide.low), band.nominal, max(band.high, wide.high))


def si(quantity: Quantity | None, default: float) -> float:
    """The quantity's value in SI units.

    Args:
        quantity: a figure of a card, or None where the card has none.
        default: what stands in for it then.
    """
    return default if quantity is None else quantity.si


@dataclass
class CostBreakdown:
    """Collects the parts of one estimate on one card.

    Attributes:
        card: the machine.
        terms: the parts of the energy so far.
        excluded: what the figures leave out, one sentence each.
        assumptions: what was taken for granted, one sentence each.
        used: source key -> citation, for every source used so far.
    """

    card: Card
    terms: list[Term] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    used: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._paths = {id(quantity): path for path, quantity in self.card.quantities()}

    def use(self, quantity: Quantity, factor: float = 1.0) -> Band:
        """The quantity in SI; notes its source and, where the figure is weak, says so among the assumptions.

        Args:
            quantity: a figure of the card.
            factor: the band is at least that of this factor, as in `spread`.
        """
        for key in (quantity.source, quantity.band_source):
            if key:
                self.used[key] = self.card.sources[key].reference
        self.flag(self._paths.get(id(quantity), "a figure of the card"), quantity)
        if quantity.status == "scaled":
            factor = max(factor, SCALED)
        return at_least(quantity.band(), factor)

    def add(self, layer: str, component: str, energy: Band, *quantities: Quantity) -> None:
        """Add one term; one of exactly zero is left out.

        Args:
            layer: name of the layer, or "" for what belongs to the whole machine.
            component: what spends it.
            energy: joules an inference.
            quantities: figures of the card that it rests on.
        """
        if energy.high > 0:
            keys = tuple(dict.fromkeys(quantity.source for quantity in quantities))
            self.terms.append(Term(layer, component, energy, keys))

    def lend(self, layer: str, component: str, energy: Band, lenders: Sequence[str]) -> None:
        """Add one term that rests on components (`devices/components/`) instead of the card; exactly zero is left out.

        Args:
            layer: name of the layer, or "" for what belongs to the whole machine.
            component: what spends it.
            energy: joules an inference.
            lenders: names of the components; their sources were noted when their figures were used.
        """
        if energy.high > 0:
            keys = tuple(key for key in self.used if key.partition(":")[0] in lenders)
            self.terms.append(Term(layer, component, energy, keys, origin=lenders[0]))

    def cite_component(self, component: str, key: str, reference: str) -> None:
        """Note a source of a component.

        Args:
            component: its name.
            key: of the source in its file.
            reference: the citation.
        """
        self.used[f"{component}:{key}"] = reference

    def flag(self, path: str, quantity: Quantity) -> None:
        """Say a weak figure among the assumptions.

        Args:
            path: what it is called.
            quantity: the figure.
        """
        if quantity.status in _FLAGGED:
            self.assume(f"{path} = {quantity} ({_FLAGGED[quantity.status]})")

    def assume(self, sentence: str) -> None:
        """Note something taken for granted that a reader may doubt.

        Args:
            sentence: what it is.
        """
        if sentence not in self.assumptions:
            self.assumptions.append(sentence)

    def exclude(self, sentence: str) -> None:
        """Note something that the figures leave out.

        Args:
            sentence: what it is.
        """
        if sentence not in self.excluded:
            self.excluded.append(sentence)

    def total(self) -> Band:
        """Sum of the terms so far."""
        return sum((term.energy_j for term in self.terms), ZERO)

    def close(
        self,
        *,
        batch: int,
        latency_s: Band,
        throughput_hz: Band,
        area_mm2: Band | None,
        mapping: dict[str, float],
        reported_separately: dict[str, Band] | None = None,
        roof: Roof | None = None,
    ) -> Estimate:
        """The finished estimate; the limits that the card states are added to what is excluded.

        Args:
            batch: samples processed together.
            latency_s: seconds from the input of one batch to its output.
            throughput_hz: inferences a second.
            area_mm2: square millimeters of all chips used; None where the card has none.
            mapping: how the network lies on the machine, numbers by name.
            reported_separately: figures beside the total, by name with the unit in the name.
            roof: ceilings and layers of a processor.
        """
        return Estimate(
            card=self.card.name,
            scope=self.card.scope,
            bounds=self.card.bounds,
            batch=batch,
            energy_j=self.total(),
            latency_s=latency_s,
            throughput_hz=throughput_hz,
            area_mm2=area_mm2,
            terms=tuple(self.terms),
            mapping=mapping,
            excluded=tuple(dict.fromkeys([*self.excluded, *self.card.limits])),
            sources=dict(sorted(self.used.items())),
            assumptions=tuple(self.assumptions),
            reported_separately=reported_separately or {},
            roof=roof,
        )
