"""Figures of components as they enter a cost breakdown: with their bands, their sources and what is weak about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_sim.cards import load_component
from hpml_sim.cost.breakdown import CostBreakdown
from hpml_sim.cost.system.scaling import at_node, figures_at
from hpml_sim.units.bands import Band, product

if TYPE_CHECKING:
    from hpml_sim.cards import ComponentCard, Quantity

OLDEST_NM, YOUNGEST_NM = 180.0, 1.0
"""Nodes that the scaling law is used for; a card without a node is taken as of 28 nm."""
USUAL_NM = 28.0
FINS_NM, PLANAR_NM = 14.0, 28.0
"""Up to the one, leakage is that of transistors with fins; from the other on, of planar low-power ones."""
_SIZES = (("kb8", 8 * 2**10), ("kb32", 32 * 2**10), ("mb1", 2**20))


@dataclass(frozen=True)
class Lent:
    """Components that stand in for what a card has no figure for.

    Attributes:
        breakdown: where terms, sources and assumptions are noted.
        node_nm: node of the machine's digital parts.
    """

    breakdown: CostBreakdown
    node_nm: float

    @classmethod
    def of(cls, breakdown: CostBreakdown) -> Lent:
        """For the machine of a breakdown.

        Args:
            breakdown: of one estimate.
        """
        node = breakdown.card.node
        nm = USUAL_NM if node is None else min(max(node.si * 1e9, YOUNGEST_NM), OLDEST_NM)
        return cls(breakdown, nm)

    def use(self, component: str, field: str) -> Band:
        """A figure of a component in SI; notes its source and whether it is weak.

        Args:
            component: name of the component.
            field: name of the figure.
        """
        card = load_component(component)
        figure = card.figure(field)
        self._note(card, figure, field)
        return figure.band()

    def operation(self, name: str) -> Band:
        """Joules of one digital operation at the machine's node, with the registers and control around it.

        Args:
            name: such as "mac_fp16".
        """
        return product(self._at_node("logic", f"operations.{name}"), self.use("datapath", "ratio"))

    def multiply_add(self) -> Band:
        """Joules of a multiplication and an addition in a digital layer, with the registers and control around it.

        Returns:
            From 8-bit integers (low) to 16-bit floating point (high), in between the geometric mean: what attention
            and digital layers of such chips compute in is rarely told.
        """
        small, large = self.operation("mac_int8"), self.operation("mac_fp16")
        return Band(small.low, math.sqrt(small.nominal * large.nominal), large.high)

    def sram(self, size_bytes: float) -> Band:
        """Joules of reading or writing one bit of a memory on the chip.

        Args:
            size_bytes: of the memory; the next larger one of the tables stands for it, and the largest for all above.
        """
        name = next((name for name, size in _SIZES if size_bytes <= size), _SIZES[-1][0])
        return self._at_node("sram", f"memories.{name}.energy")

    def leakage(self) -> Band:
        """Watts of one square millimeter that is powered and does nothing, at the machine's node.

        Returns:
            Of young nodes up to 14 nm, of planar ones from 28 nm on; in between their geometric mean, by the logarithm
            of the node, as for arithmetic.
        """
        planar = min(1.0, max(0.0, math.log(self.node_nm / FINS_NM) / math.log(PLANAR_NM / FINS_NM)))
        bands = [
            (self.use(name, "power_per_mm2"), weight)
            for name, weight in (("leakage", 1 - planar), ("leakage-28nm", planar))
            if weight > 0
        ]
        low, nominal, high = (
            math.prod(getattr(band, side) ** weight for band, weight in bands) for side in ("low", "nominal", "high")
        )
        return Band(low, nominal, high)

    def add(self, layer: str, part: str, energy: Band, *components: str) -> None:
        """Add one term.

        Args:
            layer: name of the layer, or "".
            part: what spends it ("digital", "buffer", ...).
            energy: joules an inference.
            components: those that it rests on; the first decides with which terms of other machines it varies.
        """
        self.breakdown.lend(layer, part, energy, components)

    def _at_node(self, table: str, field: str) -> Band:
        old, young = load_component(f"{table}-45nm"), load_component(f"{table}-7nm")
        for card, figure in figures_at(old, young, field):
            self._note(card, figure, field)
        scaling = load_component("node-scaling")
        self.breakdown.cite_component(scaling.name, "SB17", scaling.sources["SB17"].reference)
        return at_node(old, young, field, self.node_nm)

    def _note(self, card: ComponentCard, figure: Quantity, field: str) -> None:
        for key in (figure.source, figure.band_source):
            if key:
                self.breakdown.cite_component(card.name, key, card.sources[key].reference)
        self.breakdown.flag(f"component {card.name}: {field}", figure)
