"""What surrounds the tiles: digital operations, buffers, links, static power, area, and writing the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpml_sim.cost.breakdown import OTHER_WORKLOAD, SAME_CLASS, CostBreakdown
from hpml_sim.cost.crossbar.dynamic_ranges import charge_dynamic_range
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import CrossbarCard, Quantity
    from hpml_sim.cost.crossbar.converter_bits import Mode
    from hpml_sim.cost.crossbar.mapping import Placement
    from hpml_sim.counting import LayerCount

OPS_PER_ELEMENT = {"norm": 5, "softmax": 5, "embedding": 0, "neuron": 0, "copy": 0, "kv_cache": 0}
"""Digital operations for an output value of a layer without weights; 1 where not listed (pooling: for an input)."""
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

    def __init__(self, breakdown: CostBreakdown, card: CrossbarCard, mode: Mode, chips: int, per_chip: int):
        """Take down what is powered.

        Args:
            breakdown: where the costs are noted.
            card: the machine.
            mode: "preset" or "component".
            chips: chips that are powered.
            per_chip: tiles of one chip.
        """
        self._breakdown, self._card, self._chips, self._per_chip = breakdown, card, chips, per_chip
        # of a card with both kinds of figures, the parts belong to the component mode alone
        self._component = card.component if mode == "component" else None
        self._preset = card.preset if mode == "preset" else None

    def surroundings(self, placements: Sequence[Placement], digital: Sequence[LayerCount]) -> Band:
        """Charge digital operations, buffers and links.

        Args:
            placements: layers on tiles, in order of execution.
            digital: the other layers.

        Returns:
            Seconds of the digital operations.
        """
        breakdown, around = self._breakdown, self._card.digital
        own = int(self._card.io.dac_bits)
        bits = [p.input_bits or own for p in placements]
        work = [(p.layer, digital_operations(p.layer, p.row_blocks)) for p in placements]
        work += [(layer, digital_operations(layer)) for layer in digital]
        operations = sum(n for _, n in work)
        operations += sum(charge_dynamic_range(breakdown, self._card, p.layer) for p in placements if p.dynamic)
        # where a source gives the power of whole blocks, buffers and links are among them: nothing is charged twice
        parts = () if self._component is None else tuple(self._component.parts)
        if parts:
            breakdown.assume(
                f"buffers, links and digital units are the parts of the card ({', '.join(parts)}), as its source has it"
            )
        if around.energy_per_op is not None:
            self._charge("digital", work, around.energy_per_op)
        elif operations and not parts:
            breakdown.exclude(
                f"{operations:,.0f} digital operations an inference (bias, partial sums, activations, attention): "
                "the card has no energy for them"
            )
        dynamic, every = sum(y.macs for y in digital), sum(y.macs for y, _ in work)
        if dynamic and around.energy_per_op is None:
            names = ", ".join(y.name for y in digital if y.macs)
            breakdown.exclude(
                f"{dynamic / every:.1%} of the MACs, of layers that lie on no crossbar (attention, digital layers): "
                f"{names}"
            )
        each = list(zip(placements, bits, strict=True))
        moved = [(p.layer, p.layer.input_elements * (1 if p.layer.binary_input else b) / 8) for p, b in each]
        moved += [(p.layer, p.layer.output_elements * b / 8) for p, b in each]
        if around.energy_per_byte_buffer is not None:
            self._charge("buffer", moved, around.energy_per_byte_buffer)
        elif not parts:
            breakdown.exclude(
                f"buffers for {sum(n for _, n in moved):.3g} bytes an inference: the card has no energy for them"
            )
        sent = [(p.layer, p.layer.output_elements * b * p.row_blocks) for p, b in each]
        if around.energy_per_bit_link is not None:
            self._charge("link", sent, around.energy_per_bit_link)
        elif sent and not parts:
            breakdown.exclude(
                f"{sum(n for _, n in sent) / 8:.3g} bytes an inference from tile to tile: the card has no energy"
            )
        crossing = _crossing_bits(placements, self._per_chip, bits)
        if crossing and around.energy_per_bit_off_chip is not None:
            energy = breakdown.use(around.energy_per_bit_off_chip, OTHER_WORKLOAD) * crossing
            breakdown.add("", "off-chip", energy, around.energy_per_bit_off_chip)
        elif crossing:
            breakdown.exclude(
                f"{crossing / 8:.3g} bytes an inference from chip to chip: the card has no energy for them"
            )
        breakdown.exclude("getting the input to the chip and the result out of it")
        if around.ops_rate is None:
            if operations:
                breakdown.exclude("time of the digital operations: the card has no rate")
            return ZERO
        seconds = operations / around.ops_rate.si
        breakdown.use(around.ops_rate)
        return Band(seconds / OTHER_WORKLOAD, seconds, seconds * OTHER_WORKLOAD)

    def static(self, seconds: Band) -> None:
        """Charge the power that flows whether or not a tile works.

        Args:
            seconds: the share of one inference in the time of its batch.
        """
        breakdown, power_static = self._breakdown, self._card.digital.power_static
        if power_static is not None:
            power = breakdown.use(power_static, SAME_CLASS)
            breakdown.add("", "static", seconds * power * float(self._chips), power_static)
        else:
            breakdown.exclude("static power of the chip outside its working tiles: the card has no figure")
        if self._component is not None:
            for name, part in self._component.parts.items():
                if part.scales == "constant":
                    power = breakdown.use(part.power, SAME_CLASS) * (self._chips * self._per_chip / part.tiles.si)
                    breakdown.add("", name, seconds * power, part.power)

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
        count = tiles if card.scope == "core" else self._chips * self._per_chip
        if component is not None:
            if component.area_per_tile is not None:
                return breakdown.use(component.area_per_tile) * (count * 1e6)
            known = [(part, part.area) for part in component.parts.values() if part.area is not None]
            if known:
                per_part = 1e6 * self._chips * self._per_chip
                return sum((breakdown.use(area) * (per_part / part.tiles.si) for part, area in known), ZERO)
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


def _crossing_bits(placements: Sequence[Placement], per_chip: int, bits: Sequence[int]) -> float:
    """Output bits of the layers at or across the border of two chips, layers laid one after the other."""
    total, first = 0.0, 0
    for p, following, own in zip(placements, [*placements[1:], None], bits, strict=True):
        last = first + p.tiles  # the first tile of the next layer
        if first // per_chip != (last - (following is None)) // per_chip:
            total += p.layer.output_elements * own
        first = last
    return total
