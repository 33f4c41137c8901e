"""Energy and time of one matrix-vector product (MVM) of one crossbar tile.

Two modes, never mixed in one estimate: "preset" takes a published total for one MVM of one tile, "component" adds up
converters, array and control. Source: docs/equations.md, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpml_sim.cost.adc import adc_energy_j, adc_ratio
from hpml_sim.cost.breakdown import COMPONENT, OTHER_WORKLOAD, SAME_CLASS, UNMATCHED_ADC, CostBreakdown, si, spread
from hpml_sim.cost.crossbar.mapping import Block
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import Band

if TYPE_CHECKING:
    from hpml_sim.cards import Component, CrossbarCard, Preset, Quantity
    from hpml_sim.cost.crossbar.converter_bits import Mode
    from hpml_sim.counting import LayerCount

STATIC_FRACTION = 0.3
"""Share of a preset MVM's energy that an almost empty tile still takes: an assumption, with 0 and 1 as its bounds."""
_ADC_LAWS = "by the ADC regression (bounds: a converter that counts, 2^bits, and a SAR scaled to its bits)"


@dataclass(frozen=True)
class PartCost:
    """What one component spends on one MVM of one tile.

    Attributes:
        component: its name in the estimate ("adc", "array", ...).
        energy: joules.
        quantities: the card's figures that it rests on.
    """

    component: str
    energy: Band
    quantities: tuple[Quantity, ...]


@dataclass(frozen=True)
class Events:
    """How often things happen in one MVM.

    Attributes:
        cycles: reads of the array.
        planes: bit planes of the input, each of which switches the rows once.
        conversions: of one column.
        steps: of the converter, for one column.
    """

    cycles: int
    planes: int
    conversions: int
    steps: int


def mvm_events(part: Component, input_bits: int, output_bits: int, repeats: int) -> Events:
    """Events of one MVM, by the encoding of its inputs.

    Args:
        part: the component figures of a card.
        input_bits: of an input, its sign included.
        output_bits: of a conversion.
        repeats: how often the whole MVM is read (both polarities, several read phases).

    Source: bit-serial: ISAAC (ISCA 2016); pulse-count: NeuRRAM (Nature 608:504) as CiMLoop models it.
    """
    # rows that carry the sign themselves (a negative pulse) spend no bit plane on it
    planes = max(1, input_bits - (1 if part.signed_rows else 0))
    match part.encoding:
        case "bit-serial":
            cycles = math.ceil(planes / int(si(part.bits_per_cycle, 1)))
            conversions, steps = cycles, cycles * output_bits
        case "pwm":
            cycles, conversions, steps = 1, 1, output_bits
        case "pulse-count":
            # p bits are 2^p - 1 pulses, so a wide input is cut into phases of about equal width; what an earlier,
            # more significant phase has settled need not be converted again, so that later phases take fewer steps
            largest = int(si(part.bits_per_phase, planes))
            slices = math.ceil(planes / largest)
            size, more = divmod(planes, slices)
            phases = [size + 1] * more + [size] * (slices - more)
            cycles, conversions = sum(2**bits - 1 for bits in phases), len(phases)
            steps = sum(max(output_bits - sum(phases[:k]), 0) for k in range(len(phases)))
    return Events(repeats * cycles, repeats * planes, repeats * conversions, repeats * steps)


class PresetTile:
    """A tile whose MVM is one published figure; with other output bits, its converters' share of it is scaled."""

    def __init__(self, breakdown: CostBreakdown, card: CrossbarCard, preset: Preset, output_bits: int | None):
        """Take the figures of a card.

        Args:
            breakdown: where sources and assumptions are noted.
            card: the machine.
            preset: its published total.
            output_bits: resolution of a conversion; None takes the card's.
        """
        self._breakdown, self._preset, self._cols = breakdown, preset, int(card.array.cols)
        self._own_bits = int(card.io.adc_bits)
        self._bits = output_bits or self._own_bits
        self._static = STATIC_FRACTION if preset.static_fraction is None else preset.static_fraction.si
        self._assumed = preset.static_fraction is None

    def mvm(self, block: Block, layer: LayerCount) -> list[PartCost]:
        """The published energy, less what columns without weights save.

        Args:
            block: tiles of the layer, and their rows and columns in use.
            layer: its counts; spikes cost less or more than values, by the kind of tile.
        """
        preset = self._preset
        used = block.cols / self._cols
        energy = self._breakdown.use(preset.energy_per_mvm, OTHER_WORKLOAD if layer.binary_input else SAME_CLASS)
        # E_MVM max(f_static, c / Nc): a share by columns, whose converters take most, but never below the static one
        nominal = max(self._static, used)
        if preset.static_fraction is not None:
            self._breakdown.use(preset.static_fraction)
        low, high = (used, 1.0) if self._assumed else (nominal, nominal)
        if self._assumed and used < 1:
            self._breakdown.assume(
                f"a tile with few columns in use still takes {STATIC_FRACTION:.0%} of a full MVM's energy "
                "(no source; the bounds take 0 and 100 %)"
            )
        if layer.binary_input:
            self._breakdown.assume("spikes are charged as full MVMs of the preset, whose inputs have more than one bit")
        scaled = Band(energy.low * low, energy.nominal * nominal, energy.high * high) * self._of_own()
        return [PartCost("mvm", scaled, (preset.energy_per_mvm,))]

    def time(self, layer: LayerCount) -> Band:
        """Seconds of one MVM."""
        preset = self._preset
        published = self._breakdown.use(preset.time_per_mvm, OTHER_WORKLOAD if layer.binary_input else SAME_CLASS)
        if not layer.binary_input and preset.time_per_mvm.status != "scaled":  # a clock sets it: no part is faster
            published = Band(preset.time_per_mvm.band().low, published.nominal, published.high)
        if self._bits == self._own_bits or preset.adc_step_time is None:
            return published
        # a converter that counts works while the input is applied, and prolongs the MVM only once it takes longer
        step = self._breakdown.use(preset.adc_step_time, SAME_CLASS)
        return published.maximum(step * (si(preset.conversions, 1) * 2**self._bits))

    def conversions(self, layer: LayerCount) -> int:
        """Of one column in one MVM: 0, since a published total does not tell."""
        return 0

    def _of_own(self) -> Band:
        """Energy of an MVM with the requested output bits over that with the card's: 1 - share + share x ratio."""
        share = self._preset.adc_share
        if self._bits == self._own_bits or share is None:
            return Band(1.0, 1.0, 1.0)
        part, ratio = self._breakdown.use(share), adc_ratio(self._bits, self._own_bits)
        self._breakdown.assume(
            f"{self._bits}-bit outputs: the converters' share of an MVM, {part.nominal:.0%} ({part.low:.0%} to "
            f"{part.high:.0%}), takes {ratio.nominal:.2f} times ({ratio.low:.2f} to {ratio.high:.2f}) the energy of "
            f"the card's {self._own_bits} bits, {_ADC_LAWS}; area is kept"
        )
        # the factor rises or falls with the share, by whether the ratio is above 1: the bounds may be at any corner
        corners = [1 - s + s * r for s in (part.low, part.high) for r in (ratio.low, ratio.high)]
        return Band(min(corners), 1 - part.nominal + part.nominal * ratio.nominal, max(corners))


class ComponentTile:
    """A tile as the sum of its components."""

    def __init__(
        self,
        breakdown: CostBreakdown,
        card: CrossbarCard,
        part: Component,
        input_bits: int | None,
        output_bits: int | None,
    ):
        """Take the figures of a card.

        Args:
            breakdown: where sources and assumptions are noted.
            card: the machine.
            part: its components.
            input_bits: resolution of the inputs; None takes the card's.
            output_bits: resolution of a conversion; None takes the card's.
        """
        self._breakdown, self._card, self._part = breakdown, card, part
        self._own_bits = int(part.input_bits), int(part.output_bits)
        self._bits = input_bits or self._own_bits[0], output_bits or self._own_bits[1]
        self._rows, self._cols = int(card.array.rows), int(card.array.cols)

    def mvm(self, block: Block, layer: LayerCount) -> list[PartCost]:
        """Joules of each component: its events in this block, times the card's energy for one of them.

        Args:
            block: tiles of the layer, and their rows and columns in use.
            layer: its counts; spikes cost less or more than values, by the kind of tile.
        """
        part, n, rows, cols = self._part, self._events(layer), block.rows, block.cols
        active = 1.0
        if layer.binary_input:  # full-scale inputs in the active rows, nothing in the others
            active = layer.active_fraction / si(part.mean_input, 1.0)
        array = rows * cols * n.cycles * active * self._stretch(layer)
        costs = [
            self._cost("dac", part.row_energy, rows * n.cycles * (layer.active_fraction if layer.binary_input else 1)),
            self._cost("array", part.cell_energy, array),
            self._cost("column", part.column_energy, cols * n.cycles),
            self._cost("wordline", part.wordline_energy, cols * n.planes),
            self._cost("sample", part.sample_energy, cols * n.planes),
            self._conversion(cols * n.conversions),
            self._cost("adc", part.step_energy, cols * n.steps),
            self._cost("shift-add", part.merge_energy, cols * n.conversions),
            self._cost("control", part.tile_energy, n.cycles),
        ]
        if part.adc is not None:
            costs.append(self._regression_adc(cols * n.conversions))
        # blocks known by their power alone spend it for as long as the MVM takes, in the share that is at work
        share = {"tiles": 1.0, "rows": rows / self._rows, "cols": cols / self._cols}
        share["cells"] = share["rows"] * share["cols"]
        seconds = self._seconds(layer)
        for name, block_part in part.parts.items():
            if block_part.scales != "constant":
                fraction = share[block_part.scales] * seconds / block_part.tiles.si
                costs.append(self._cost(name, block_part.power, fraction))
        return [cost for cost in costs if cost is not None]

    def time(self, layer: LayerCount) -> Band:
        """Seconds of one MVM."""
        part = self._part
        for quantity in (part.cycle_time, part.conversion_time, part.step_time, part.phase_time, part.columns_per_adc):
            if quantity is not None:
                self._breakdown.use(quantity)
        seconds = self._seconds(layer)
        return Band(seconds / OTHER_WORKLOAD, seconds, seconds * OTHER_WORKLOAD)

    def conversions(self, layer: LayerCount) -> int:
        """Of one column in one MVM."""
        return self._events(layer).conversions

    def _events(self, layer: LayerCount) -> Events:
        """Events of one MVM; a spike is one bit without sign, read once."""
        bits, repeats = (1, 1) if layer.binary_input else (self._bits[0], int(si(self._part.repeats, 1)))
        return mvm_events(self._part, bits, self._bits[1], repeats)

    def _cost(self, component: str, quantity: Quantity | None, times: float) -> PartCost | None:
        if quantity is None:
            return None
        return PartCost(component, self._breakdown.use(quantity, COMPONENT) * times, (quantity,))

    def _stretch(self, layer: LayerCount) -> float:
        """Length of a pulse-width input over that of the card's bits; a spike is a pulse of the card's length."""
        if self._part.encoding != "pwm" or layer.binary_input:
            return 1.0
        return 2.0 ** (self._bits[0] - self._own_bits[0])

    def _conversion(self, conversions: int) -> PartCost | None:
        """Published energy of a conversion; to other bits than the card's, by the laws of `adc_ratio`."""
        cost = self._cost("adc", self._part.conversion_energy, conversions)
        bits, own = self._bits[1], self._own_bits[1]
        if cost is None or bits == own:
            return cost
        ratio = adc_ratio(bits, own)
        self._breakdown.assume(
            f"{bits}-bit conversions take {ratio.nominal:.2f} times ({ratio.low:.2f} to {ratio.high:.2f}) the energy "
            f"of the card's {own} bits, {_ADC_LAWS}; their time and area are kept"
        )
        return PartCost(cost.component, cost.energy * ratio, cost.quantities)

    def _regression_adc(self, conversions: int) -> PartCost:
        adc, node = self._part.adc, self._card.node
        assert adc is not None
        if node is None:
            raise HpmlError(f"card {self._card.name!r}: component.adc needs the card's `node`")
        for quantity in (adc.bits, adc.rate, node):
            self._breakdown.use(quantity)
        # the card's effective bits lie below its nominal ones; the same distance holds for the requested bits
        bits = adc.bits.si + self._bits[1] - self._own_bits[1]
        energy = adc_energy_j(bits, node.si, adc.rate.si) * conversions
        if adc.scale is not None:
            return PartCost("adc", self._breakdown.use(adc.scale, COMPONENT) * energy, (adc.bits, adc.scale))
        self._breakdown.assume(
            "the ADC's energy is the best published for its resolution, a LOWER BOUND; "
            f"a real converter with its support took {UNMATCHED_ADC:.0f} times as much (HERMES)"
        )
        return PartCost("adc", Band(energy, energy, energy * UNMATCHED_ADC), (adc.bits,))

    def _seconds(self, layer: LayerCount) -> float:
        part, n = self._part, self._events(layer)
        shared = si(part.columns_per_adc, 1)
        read, convert = (
            n.cycles * part.cycle_time.si * self._stretch(layer),
            n.conversions * si(part.conversion_time, 0) * shared,
        )
        convert += n.steps * si(part.step_time, 0) * shared + n.conversions * si(part.phase_time, 0)
        # sample and hold lets the next read run while the last one is converted: the slower of the two sets the pace
        return max(read, convert) if part.pipelined else read + convert


class ScaledTile:
    """A preset for other bits than its own: what was published, times what the card's components say of the change."""

    def __init__(self, breakdown: CostBreakdown, preset: PresetTile, own: ComponentTile, requested: ComponentTile):
        """Take a tile at its own bits, and how its components change.

        Args:
            breakdown: where the assumption is noted.
            preset: the published total, at the card's bits.
            own: the components at the card's bits.
            requested: the components at the bits asked for.
        """
        self._preset, self._own, self._requested = preset, own, requested
        breakdown.assume(
            "the published MVM is for the card's own bits; for other bits it is multiplied by the ratio of the sums of "
            f"its components, taken as good to {SAME_CLASS - 1:.0%}; area is kept"
        )

    def mvm(self, block: Block, layer: LayerCount) -> list[PartCost]:
        """The published energy times the ratio of the sums of components.

        Args:
            block: tiles of the layer, and their rows and columns in use.
            layer: its counts; spikes cost less or more than values, by the kind of tile.
        """
        own, requested = (
            sum(cost.energy.nominal for cost in t.mvm(block, layer)) for t in (self._own, self._requested)
        )
        ratio = spread(requested / own, SAME_CLASS)
        return [PartCost(c.component, c.energy * ratio, c.quantities) for c in self._preset.mvm(block, layer)]

    def time(self, layer: LayerCount) -> Band:
        """Seconds of one MVM: the published time times the ratio of those of the components."""
        ratio = self._requested.time(layer).nominal / self._own.time(layer).nominal
        return self._preset.time(layer) * spread(ratio, SAME_CLASS)

    def conversions(self, layer: LayerCount) -> int:
        """Of one column in one MVM: 0, since a published total does not tell."""
        return 0


Tile = PresetTile | ComponentTile | ScaledTile


def build_tile(
    breakdown: CostBreakdown, card: CrossbarCard, mode: Mode, input_bits: int | None, output_bits: int | None
) -> Tile:
    """The tile of a card in one mode.

    Args:
        breakdown: where sources and assumptions are noted.
        card: the machine; it has the figures of the mode.
        mode: "preset" or "component".
        input_bits: resolution of the inputs; None takes the card's.
        output_bits: resolution of a conversion; None takes the card's.
    """
    part = card.component
    if mode == "component":
        assert part is not None
        return ComponentTile(breakdown, card, part, input_bits, output_bits)
    assert card.preset is not None
    if part is not None and (input_bits or output_bits):
        own = ComponentTile(breakdown, card, part, None, None)
        requested = ComponentTile(breakdown, card, part, input_bits, output_bits)
        return ScaledTile(breakdown, PresetTile(breakdown, card, card.preset, None), own, requested)
    return PresetTile(breakdown, card, card.preset, output_bits)
