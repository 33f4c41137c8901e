"""What surrounds the tiles: digital operations, buffers, links, static power, area, and writing the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hpml_sim.cost.breakdown import OTHER_WORKLOAD, SAME_CLASS, CostBreakdown
from hpml_sim.cost.crossbar.delays import Delays
from hpml_sim.cost.crossbar.dynamic_ranges import charge_input_ranges
from hpml_sim.cost.crossbar.lent_surroundings import LentSurroundings
from hpml_sim.cost.crossbar.traffic import Crossing, crossings
from hpml_sim.cost.system.hosts import cache_memory, units_of
from hpml_sim.cost.system.lent import Lent
from hpml_sim.cost.system.work import bits_of, cached_bytes
from hpml_sim.units.bands import Band, product

if TYPE_CHECKING:
    from hpml_sim.cards import CrossbarCard, Quantity
    from hpml_sim.cost.crossbar.converter_bits import Mode
    from hpml_sim.cost.crossbar.mapping import Placement
    from hpml_sim.counting import LayerCount

OPS_PER_ELEMENT = {"norm": 5, "softmax": 5, "embedding": 0, "neuron": 0, "copy": 0, "kv_cache": 0}
"""Digital operations for an output value of a layer without weights; 1 where not listed (pooling: for an input)."""
CELL_UM2 = 9.7
"""Area of a chip for each cell, where its card has none: HERMES, 0.634 mm2 for 256 x 256 (KA22)."""
OPS_PER_UPDATE = 4
"""Leak, add, compare, reset: one update of a leaky integrate-and-fire neuron in digital logic."""


def digital_operations(layer: LayerCount, row_blocks: int = 0) -> float:
    """Operations outside the array for one inference.

    A matrix on tiles: the sums over its row blocks and one bias for each output. A layer without weights: two for a
    MAC (attention), else by kind for an output value.

    Args:
        layer: its counts.
        row_blocks: tiles whose outputs are added up for one output; 0 for a layer that lies on no tile.

    Source: docs/equations.md, section 2 (digital operations); the counts for an element are ours.
    """
    if row_blocks:
        # of a transposed convolution the columns give more than there are outputs: what overlaps is added up
        return max(layer.output_elements, layer.vectors * layer.cols * layer.groups) * row_blocks
    if layer.macs:
        return 2 * layer.macs
    if layer.op == "pool":
        return layer.input_elements
    return OPS_PER_ELEMENT.get(layer.op, 1) * layer.output_elements + OPS_PER_UPDATE * layer.updates


class Periphery:
    """Charges what the powered chips spend outside their tiles, and names what the card has no figure for."""

    def __init__(
        self,
        breakdown: CostBreakdown,
        card: CrossbarCard,
        mode: Mode,
        chips: int,
        per_chip: int,
        *,
        system: bool = False,
    ):
        """Take down what is powered.

        Args:
            breakdown: where the costs are noted.
            card: the machine.
            mode: "preset" or "component".
            chips: chips that are powered.
            per_chip: tiles of one chip.
            system: whether components stand in for what the card has no figure for.
        """
        self._breakdown, self._card, self._chips, self._per_chip = breakdown, card, chips, per_chip
        # of a card with both kinds of figures, the parts belong to the component mode alone
        self._component = card.component if mode == "component" else None
        self._preset = card.preset if mode == "preset" else None
        self._system = system
        # where a source gives the power of whole blocks, buffers and links are among them: nothing is charged twice
        self._parts = () if self._component is None else tuple(self._component.parts)
        self._included = frozenset(("digital", "buffers", "links", "static") if self._parts else card.includes)
        self._tiers = 1 if card.array.tiers is None else int(card.array.tiers)
        self._chip_mm2 = self._area_of_chip()
        # what components would take in a scope that leaves them out is of interest for the bounds of time alone
        noted = breakdown if system else CostBreakdown(card)
        self._lent = LentSurroundings(Lent.of(noted), self._included, per_chip, chips, self._chip_mm2, charging=system)
        self._memory, self._kept_bytes = False, 0.0

    def surroundings(self, placements: Sequence[Placement], digital: Sequence[LayerCount]) -> tuple[Delays, Delays]:
        """Charge digital operations, buffers, links and memory.

        Args:
            placements: layers on tiles, in order of execution.
            digital: the other layers.

        Returns:
            Seconds of them as the card, or at system scope components, tell; and what nothing at this scope tells.
        """
        own = int(self._card.io.dac_bits)
        bits = [p.input_bits or own for p in placements]
        each = list(zip(placements, bits, strict=True))
        moved = {p.layer.name: p.layer.input_elements * (1 if p.layer.binary_input else b) for p, b in each}
        for p, b in each:
            moved[p.layer.name] += p.layer.output_elements * b
        sent = {p.layer.name: p.layer.output_elements * b * p.row_blocks for p, b in each}
        crossing = crossings(placements, self._per_chip, bits)
        operations = self._digital(placements, digital)
        self._buffers(moved, placements, digital)
        self._links(sent, placements, digital)
        self._off_chip(crossing)
        if self._system:
            self._memory, self._kept_bytes = self._lent.memory(digital), cached_bytes(digital)
        else:
            self._breakdown.exclude("getting the input to the chip and the result out of it")
            caches = [y for y in digital if y.op == "kv_cache"]
            if caches:
                read = sum(y.state_elements for y in caches)
                self._breakdown.exclude(
                    f"reading {read:,.0f} keys and values of the cache for a token: the card has no memory for them"
                )
        return self._delays(placements, digital, moved, sum(c.total for c in crossing), operations)

    def _digital(self, placements: Sequence[Placement], digital: Sequence[LayerCount]) -> float:
        """Charge digital operations; returns how many there are."""
        breakdown, around = self._breakdown, self._card.digital
        work = [(p.layer, digital_operations(p.layer, p.row_blocks)) for p in placements]
        work += [(layer, digital_operations(layer)) for layer in digital]
        operations = sum(n for _, n in work)
        operations += sum(charge_input_ranges(breakdown, self._card, p) for p in placements)
        if self._parts:
            breakdown.assume(
                f"buffers, links and digital units are the parts of the card ({', '.join(self._parts)}), as its source "
                "has it"
            )
        if around.energy_per_op is not None:
            self._charge("digital", work, around.energy_per_op)
        elif self._system:
            self._lent.digital([(p.layer, p.row_blocks) for p in placements] + [(y, 0) for y in digital])
        else:
            if operations and "digital" not in self._included:
                breakdown.exclude(
                    f"{operations:,.0f} digital operations an inference (bias, partial sums, activations, attention): "
                    "the card has no energy for them"
                )
            dynamic, every = sum(y.macs for y in digital), sum(y.macs for y, _ in work)
            if dynamic:
                names = ", ".join(y.name for y in digital if y.macs)
                breakdown.exclude(
                    f"{dynamic / every:.1%} of the MACs, of layers that lie on no crossbar (attention, digital "
                    f"layers): {names}"
                )
        return operations

    def _buffers(self, moved: dict[str, float], placements: Sequence[Placement], digital: Sequence[LayerCount]) -> None:
        around = self._card.digital
        if around.energy_per_byte_buffer is not None:
            self._charge("buffer", _in_bytes(placements, moved), around.energy_per_byte_buffer)
        elif self._system:
            others = {
                y.name: (y.input_elements + y.output_elements) * bits_of(y) for y in digital if y.op != "kv_cache"
            }
            self._lent.buffers(others if "buffers" in self._included else moved | others, placements)
        elif "buffers" not in self._included:
            self._breakdown.exclude(
                f"buffers for {sum(moved.values()) / 8:.3g} bytes an inference: the card has no energy for them"
            )

    def _links(self, sent: dict[str, float], placements: Sequence[Placement], digital: Sequence[LayerCount]) -> None:
        around = self._card.digital
        if around.energy_per_bit_link is not None:
            self._charge("link", [(p.layer, sent[p.layer.name]) for p in placements], around.energy_per_bit_link)
        elif self._system:
            others = {y.name: y.output_elements * bits_of(y) for y in self._apart(digital, "links")}
            self._lent.links(others if "links" in self._included else sent | others)
        elif sent and "links" not in self._included:
            self._breakdown.exclude(
                f"{sum(sent.values()) / 8:.3g} bytes an inference from tile to tile: the card has no energy"
            )

    def _apart(self, digital: Sequence[LayerCount], what: str) -> list[LayerCount]:
        """Digital layers that the card's own figures do not hold: all but the cache, or attention alone."""
        return [y for y in digital if y.op != "kv_cache" and (y.macs or what not in self._included)]

    def _off_chip(self, crossing: Sequence[Crossing]) -> None:
        breakdown, around = self._breakdown, self._card.digital
        total = sum(crossing, Crossing())
        if not total.total:
            return
        if around.energy_per_bit_off_chip is not None:
            energy = breakdown.use(around.energy_per_bit_off_chip, OTHER_WORKLOAD) * total.total
            breakdown.add("", "off-chip", energy, around.energy_per_bit_off_chip)
        elif self._system:
            self._lent.off_chip(total.total)
        else:
            breakdown.exclude(
                f"{total.total / 8:.3g} bytes an inference from chip to chip (outputs {total.outputs / 8:.3g}, "
                f"broadcasts {total.broadcasts / 8:.3g}, partial sums {total.partial_sums / 8:.3g}): the card has no "
                "energy for them"
            )

    def _delays(
        self,
        placements: Sequence[Placement],
        digital: Sequence[LayerCount],
        moved: dict[str, float],
        crossing: float,
        operations: float,
    ) -> tuple[Delays, Delays]:
        rate = self._card.digital.ops_rate
        if rate is not None:
            seconds = operations / rate.si
            self._breakdown.use(rate)
            band = Band(seconds / OTHER_WORKLOAD, seconds, seconds * OTHER_WORKLOAD)
            return Delays((), band, band), Delays()
        found = self._lent.delays(placements, digital, moved, crossing)
        if self._system:
            return found, Delays()
        if found.total.high:
            self._breakdown.exclude(
                "time of digital operations, links and memory: the card has no rates; the upper bounds of time hold "
                f"what components would take, {found.total.nominal:.2g} s ({found.total.low:.2g} to "
                f"{found.total.high:.2g})"
            )
        return Delays(), found

    def static(self, seconds: Band, busy: float = 1.0) -> None:
        """Charge the power that flows whether or not a tile works.

        Args:
            seconds: the share of one inference in the time of its batch.
            busy: share of tiles and time in which tiles do products, whose figures may hold their leakage.
        """
        breakdown, power_static = self._breakdown, self._card.digital.power_static
        constant = False
        if self._component is not None:
            for name, part in self._component.parts.items():
                if part.scales == "constant":
                    power = breakdown.use(part.power, SAME_CLASS) * (self._chips * self._per_chip / part.tiles.si)
                    breakdown.add("", name, seconds * power, part.power)
                    constant = True
        if power_static is not None:
            power = breakdown.use(power_static, SAME_CLASS)
            breakdown.add("", "static", seconds * power * float(self._chips), power_static)
        elif self._system:
            self._lent.leakage(seconds, 1.0 - min(busy, 1.0) if "static" in self._included else 1.0)
            if self._memory:
                name = cache_memory(self._card, self._chips)
                lent = Lent.of(breakdown)
                power = lent.use(name, "power_idle") * units_of(name, self._chips, self._kept_bytes)
                lent.add("", "memory-idle", product(power, seconds), name)
        elif not constant:
            breakdown.exclude("static power of the chip outside its working tiles: the card has no figure")

    def idle(self) -> Band:
        """Watts of all powered chips that wait. Weights that stay without power let a chip be switched off: 0 at least.

        Returns:
            The card's static power, or the leakage of its area.
        """
        power_static = self._card.digital.power_static
        found = self._lent.leakage_w() if power_static is None else power_static.band() * float(self._chips)
        return Band(0.0, found.nominal, found.high)

    def _area_of_chip(self) -> float:
        """Square millimeters of one chip, nominal."""
        card, component, per_chip = self._card, self._component, self._per_chip
        if card.area is not None:
            return card.area.si * 1e6
        if component is not None and component.area_per_tile is not None:
            return component.area_per_tile.si * 1e6 * per_chip / self._tiers
        if component is not None:
            known = sum(p.area.si * 1e6 * per_chip / p.tiles.si for p in component.parts.values() if p.area is not None)
            if known:
                return known
        if card.preset is not None:
            return card.preset.area_per_tile.si * 1e6 * per_chip / self._tiers
        if self._system:
            self._breakdown.assume(
                f"a chip of {CELL_UM2:g} um2 for each cell with all around it, as HERMES has it: the card has no area"
            )
        return CELL_UM2 * 1e-6 * card.array.rows.si * card.array.cols.si * per_chip / self._tiers

    def area(self, tiles: int) -> Band | None:
        """Square millimeters of the tiles in use or, where only whole chips can be had, of the chips that hold them.

        Args:
            tiles: tiles in use, copies among them.

        Returns:
            None where the card has no area.
        """
        breakdown, card, component = self._breakdown, self._card, self._component
        if card.area is not None:
            return breakdown.use(card.area) * (self._chips * 1e6)
        # a chip cannot be bought by the tile
        count = (tiles if card.scope == "core" else self._chips * self._per_chip) / self._tiers  # share one periphery
        if component is not None:
            if component.area_per_tile is not None:
                return breakdown.use(component.area_per_tile) * (count * 1e6)
            known = [(part, part.area) for part in component.parts.values() if part.area is not None]
            if known:
                per_part = 1e6 * self._chips * self._per_chip
                return sum(
                    (breakdown.use(area) * (per_part / part.tiles.si) for part, area in known), Band(0.0, 0.0, 0.0)
                )
        if self._preset is not None:
            return breakdown.use(self._preset.area_per_tile) * (count * 1e6)
        return None

    def programming(self, placements: Sequence[Placement]) -> Band | None:
        """Joules of writing all weights once.

        Args:
            placements: the layers on tiles, with their copies.

        Returns:
            None where the card has no figures for it.
        """
        write = self._card.programming
        cells = sum(p.layer.rows * p.layer.cols * p.layer.groups * p.copies * p.cells_per_weight for p in placements)
        if write.iterations is None or write.energy_per_pulse is None:
            self._breakdown.exclude(
                "programming the weights: the card lacks the energy of a pulse or the number of iterations"
            )
            return None
        pulses = self._breakdown.use(write.iterations) * float(cells)
        return pulses * self._breakdown.use(write.energy_per_pulse, OTHER_WORKLOAD)

    def _charge(self, component: str, amounts: list[tuple[LayerCount, float]], quantity: Quantity) -> None:
        for layer, amount in amounts:
            energy = self._breakdown.use(quantity, OTHER_WORKLOAD) * amount
            self._breakdown.add(layer.name, component, energy, quantity)


def _in_bytes(placements: Sequence[Placement], moved: Mapping[str, float]) -> list[tuple[LayerCount, float]]:
    return [(p.layer, moved[p.layer.name] / 8) for p in placements]
