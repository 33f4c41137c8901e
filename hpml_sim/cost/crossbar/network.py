"""Analog in-memory machines: tiles, their matrix-vector products (MVMs), and what surrounds them.

Two modes, never mixed in one estimate: "preset" takes a published total for one MVM of one tile, "component" adds up
converters, array and control. Source: docs/equations.md, section 2.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hpml_sim.cost.adc import MAX_BITS, MIN_BITS, adc_energy_j, adc_ratio
from hpml_sim.cost.breakdown import COMPONENT, OTHER_WORKLOAD, SAME_CLASS, UNMATCHED_ADC, CostBreakdown, si, spread
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import Component, CrossbarCard, Preset, Quantity
    from hpml_sim.cost.result import Estimate
    from hpml_sim.counting import LayerCount, Workload

Mode = Literal["preset", "component"]

STATIC_FRACTION = 0.3
"""Share of a preset MVM's energy that an almost empty tile still takes: an assumption, with 0 and 1 as its bounds."""
OPS_PER_ELEMENT = {"norm": 5, "softmax": 5, "embedding": 0, "neuron": 0, "copy": 0, "kv_cache": 0}
"""Digital operations for an output value of a layer without weights; 1 where not listed (pooling: for an input)."""
_ADC_LAWS = "by the ADC regression (bounds: a converter that counts, 2^bits, and a SAR scaled to its bits)"
OPS_PER_UPDATE = 4
"""Leak, add, compare, reset: one update of a leaky integrate-and-fire neuron in digital logic."""


@dataclass(frozen=True)
class Block:
    """Tiles of one layer that are filled alike: `count` of them with `rows` x `cols` physical cells in use."""

    count: int
    rows: int
    cols: int


@dataclass
class Placement:
    """How one matrix lies on the tiles.

    Attributes:
        layer: its counts. blocks: the tiles of one copy. row_blocks: tiles whose outputs are added up for one output.
        copies: how often the whole matrix is stored, to work on several input vectors at once.
    """

    layer: LayerCount
    blocks: tuple[Block, ...]
    row_blocks: int
    copies: int = 1

    @property
    def tiles(self) -> int:
        """Tiles of one copy."""
        return sum(block.count for block in self.blocks)

    @property
    def cells(self) -> int:
        """Cells in use in one copy (zeros between packed groups not among them)."""
        return sum(block.count * block.rows * block.cols for block in self.blocks)

    def rounds(self) -> int:
        """MVMs that one copy does after another in one inference."""
        return math.ceil(self.layer.vectors / self.copies)


def place(layer: LayerCount, rows: int, cols: int, cells_per_weight: int) -> Placement:
    """Cut a layer's matrix into tiles of `rows` x `cols` cells; small groups share a tile block-diagonally.

    tiles = groups ceil(R / rows) ceil(C S / cols), or ceil(groups / g) where g >= 2 whole groups fit on one diagonal.

    Source: docs/equations.md, section 2 (mapping).
    """
    height, width = layer.rows, layer.cols * cells_per_weight
    together = min(rows // height, cols // width) if height <= rows and width <= cols else 1
    if together > 1 and layer.groups > 1:
        full, rest = divmod(layer.groups, together)
        blocks = [Block(full, height * together, width * together), Block(min(rest, 1), height * rest, width * rest)]
        return Placement(layer, tuple(block for block in blocks if block.count), 1)
    down, across = _cuts(height, rows), _cuts(width, cols)
    blocks = [Block(layer.groups * n * m, r, c) for n, r in down for m, c in across]
    return Placement(layer, tuple(blocks), sum(n for n, _ in down))


def _cuts(length: int, tile: int) -> list[tuple[int, int]]:
    full, rest = divmod(length, tile)
    return [(count, size) for count, size in ((full, tile), (min(rest, 1), rest)) if count]


def replicate_greedily(placements: list[Placement], free_tiles: int) -> None:
    """Give free tiles to the slowest stage, again and again, until it cannot be copied once more.

    A stage's time is its rounds (MVMs in a row). Copies beyond the vectors of one time step would wait for it, and
    those of a recurrent layer for its state, so there are none.

    Source: the weight duplication of ISAAC and NeuroSim; docs/equations.md, section 2.
    """
    heap = [(-p.rounds(), index) for index, p in enumerate(placements)]
    heapq.heapify(heap)
    while heap:
        _, index = heap[0]
        slowest = placements[index]
        most = 1 if slowest.layer.op == "recurrent" else max(1, int(slowest.layer.vectors // slowest.layer.steps))
        if slowest.tiles > free_tiles or slowest.copies >= most:
            return
        slowest.copies += 1
        free_tiles -= slowest.tiles
        heapq.heapreplace(heap, (-slowest.rounds(), index))


@dataclass(frozen=True)
class _Cost:
    """One component of one MVM of one tile."""

    component: str
    energy: Band
    quantities: tuple[Quantity, ...]


class _PresetTile:
    """A tile whose MVM is one published figure; with other output bits, its converters' share of it is scaled."""

    def __init__(self, ledger: CostBreakdown, card: CrossbarCard, preset: Preset, output_bits: int | None):
        self._ledger, self._preset, self._cols = ledger, preset, int(card.array.cols)
        self._own_bits = int(card.io.adc_bits)
        self._bits = output_bits or self._own_bits
        self._static = STATIC_FRACTION if preset.static_fraction is None else preset.static_fraction.si
        self._assumed = preset.static_fraction is None

    def mvm(self, block: Block, layer: LayerCount) -> list[_Cost]:
        preset = self._preset
        used = block.cols / self._cols
        energy = self._ledger.use(preset.energy_per_mvm, OTHER_WORKLOAD if layer.binary_input else SAME_CLASS)
        nominal = max(self._static, used)
        if preset.static_fraction is not None:
            self._ledger.use(preset.static_fraction)
        low, high = (used, 1.0) if self._assumed else (nominal, nominal)
        if self._assumed and used < 1:
            self._ledger.assume(
                f"a tile with few columns in use still takes {STATIC_FRACTION:.0%} of a full MVM's energy "
                "(no source; the bounds take 0 and 100 %)"
            )
        if layer.binary_input:
            self._ledger.assume("spikes are charged as full MVMs of the preset, whose inputs have more than one bit")
        scaled = Band(energy.low * low, energy.nominal * nominal, energy.high * high) * self._of_own()
        return [_Cost("mvm", scaled, (preset.energy_per_mvm,))]

    def _of_own(self) -> Band:
        """Energy of an MVM with the asked output bits over that with the card's: 1 - share + share x ratio."""
        share = self._preset.adc_share
        if self._bits == self._own_bits or share is None:
            return Band(1.0, 1.0, 1.0)
        part, ratio = self._ledger.use(share), adc_ratio(self._bits, self._own_bits)
        self._ledger.assume(
            f"{self._bits}-bit outputs: the converters' share of an MVM, {part.nominal:.0%} ({part.low:.0%} to "
            f"{part.high:.0%}), takes {ratio.nominal:.2f} times ({ratio.low:.2f} to {ratio.high:.2f}) the energy of "
            f"the card's {self._own_bits} bits, {_ADC_LAWS}; area is kept"
        )
        corners = [1 - s + s * r for s in (part.low, part.high) for r in (ratio.low, ratio.high)]
        return Band(min(corners), 1 - part.nominal + part.nominal * ratio.nominal, max(corners))

    def time(self, layer: LayerCount) -> Band:
        preset = self._preset
        published = self._ledger.use(preset.time_per_mvm, OTHER_WORKLOAD if layer.binary_input else SAME_CLASS)
        if self._bits == self._own_bits or preset.adc_step_time is None:
            return published
        step = self._ledger.use(preset.adc_step_time, SAME_CLASS)
        return published.maximum(step * (si(preset.conversions, 1) * 2**self._bits))


@dataclass(frozen=True)
class Counts:
    """Events of one MVM: array reads, bit planes (rows switched), and for each column conversions and ADC steps."""

    cycles: int
    planes: int
    conversions: int
    steps: int


def counts(part: Component, input_bits: int, output_bits: int, repeats: int) -> Counts:
    """Events of one MVM by the encoding of its inputs.

    Source: bit-serial: ISAAC (ISCA 2016); pulse-count: NeuRRAM (Nature 608:504) as CiMLoop models it.
    """
    planes = max(1, input_bits - (1 if part.signed_rows else 0))
    match part.encoding:
        case "bit-serial":
            cycles = math.ceil(planes / int(si(part.bits_per_cycle, 1)))
            conversions, steps = cycles, cycles * output_bits
        case "pwm":
            cycles, conversions, steps = 1, 1, output_bits
        case "pulse-count":
            largest = int(si(part.bits_per_phase, planes))
            slices = math.ceil(planes / largest)
            size, more = divmod(planes, slices)
            phases = [size + 1] * more + [size] * (slices - more)
            cycles, conversions = sum(2**bits - 1 for bits in phases), len(phases)
            steps = sum(max(output_bits - sum(phases[:k]), 0) for k in range(len(phases)))
    return Counts(repeats * cycles, repeats * planes, repeats * conversions, repeats * steps)


class _ComponentTile:
    """A tile as the sum of its components."""

    def __init__(
        self,
        ledger: CostBreakdown,
        card: CrossbarCard,
        part: Component,
        input_bits: int | None,
        output_bits: int | None,
    ):
        self._ledger, self._card, self._part = ledger, card, part
        self._own_bits = int(part.input_bits), int(part.output_bits)
        self._bits = input_bits or self._own_bits[0], output_bits or self._own_bits[1]
        self._rows, self._cols = int(card.array.rows), int(card.array.cols)

    def counts(self, layer: LayerCount) -> Counts:
        """Events of one MVM; a spike is one bit without sign, read once."""
        bits, repeats = (1, 1) if layer.binary_input else (self._bits[0], int(si(self._part.repeats, 1)))
        return counts(self._part, bits, self._bits[1], repeats)

    def mvm(self, block: Block, layer: LayerCount) -> list[_Cost]:
        part, n, rows, cols = self._part, self.counts(layer), block.rows, block.cols
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
        share = {"tiles": 1.0, "rows": rows / self._rows, "cols": cols / self._cols}
        share["cells"] = share["rows"] * share["cols"]
        seconds = self._seconds(layer)
        for name, block_part in part.parts.items():
            if block_part.scales != "constant":
                fraction = share[block_part.scales] * seconds / block_part.tiles.si
                costs.append(self._cost(name, block_part.power, fraction))
        return [cost for cost in costs if cost is not None]

    def _cost(self, component: str, quantity: Quantity | None, times: float) -> _Cost | None:
        if quantity is None:
            return None
        return _Cost(component, self._ledger.use(quantity, COMPONENT) * times, (quantity,))

    def _stretch(self, layer: LayerCount) -> float:
        """Length of a pulse-width input over that of the card's bits; a spike is a pulse of the card's length."""
        if self._part.encoding != "pwm" or layer.binary_input:
            return 1.0
        return 2.0 ** (self._bits[0] - self._own_bits[0])

    def _conversion(self, conversions: int) -> _Cost | None:
        """Published energy of a conversion; to other bits than the card's, by the laws of `adc_ratio`."""
        cost = self._cost("adc", self._part.conversion_energy, conversions)
        bits, own = self._bits[1], self._own_bits[1]
        if cost is None or bits == own:
            return cost
        ratio = adc_ratio(bits, own)
        self._ledger.assume(
            f"{bits}-bit conversions take {ratio.nominal:.2f} times ({ratio.low:.2f} to {ratio.high:.2f}) the energy "
            f"of the card's {own} bits, {_ADC_LAWS}; their time and area are kept"
        )
        return _Cost(cost.component, cost.energy * ratio, cost.quantities)

    def _regression_adc(self, conversions: int) -> _Cost:
        adc, node = self._part.adc, self._card.node
        assert adc is not None
        if node is None:
            raise HpmlError(f"card {self._card.name!r}: component.adc needs the card's `node`")
        for quantity in (adc.bits, adc.rate, node):
            self._ledger.use(quantity)
        bits = adc.bits.si + self._bits[1] - self._own_bits[1]
        energy = adc_energy_j(bits, node.si, adc.rate.si) * conversions
        if adc.scale is not None:
            return _Cost("adc", self._ledger.use(adc.scale, COMPONENT) * energy, (adc.bits, adc.scale))
        self._ledger.assume(
            "the ADC's energy is the best published for its resolution, a LOWER BOUND; "
            f"a real converter with its support took {UNMATCHED_ADC:.0f} times as much (HERMES)"
        )
        return _Cost("adc", Band(energy, energy, energy * UNMATCHED_ADC), (adc.bits,))

    def _seconds(self, layer: LayerCount) -> float:
        part, n = self._part, self.counts(layer)
        shared = si(part.columns_per_adc, 1)
        read, convert = (
            n.cycles * part.cycle_time.si * self._stretch(layer),
            n.conversions * si(part.conversion_time, 0) * shared,
        )
        convert += n.steps * si(part.step_time, 0) * shared + n.conversions * si(part.phase_time, 0)
        return max(read, convert) if part.pipelined else read + convert

    def time(self, layer: LayerCount) -> Band:
        part = self._part
        for quantity in (part.cycle_time, part.conversion_time, part.step_time, part.phase_time, part.columns_per_adc):
            if quantity is not None:
                self._ledger.use(quantity)
        seconds = self._seconds(layer)
        return Band(seconds / OTHER_WORKLOAD, seconds, seconds * OTHER_WORKLOAD)


class _ScaledTile:
    """A preset for other bits than its own: what was published, times what the card's components say of the change."""

    def __init__(self, preset: _PresetTile, own: _ComponentTile, asked: _ComponentTile, ledger: CostBreakdown):
        self._preset, self._own, self._asked = preset, own, asked
        ledger.assume(
            "the published MVM is for the card's own bits; for those asked for it is multiplied by the ratio of the "
            f"sums of its components, taken as good to {SAME_CLASS - 1:.0%}; area is kept"
        )

    def mvm(self, block: Block, layer: LayerCount) -> list[_Cost]:
        own, asked = (sum(cost.energy.nominal for cost in t.mvm(block, layer)) for t in (self._own, self._asked))
        ratio = spread(asked / own, SAME_CLASS)
        return [_Cost(c.component, c.energy * ratio, c.quantities) for c in self._preset.mvm(block, layer)]

    def time(self, layer: LayerCount) -> Band:
        ratio = self._asked.time(layer).nominal / self._own.time(layer).nominal
        return self._preset.time(layer) * spread(ratio, SAME_CLASS)


_Tile = _PresetTile | _ComponentTile | _ScaledTile


def _tile(
    ledger: CostBreakdown, card: CrossbarCard, mode: Mode, input_bits: int | None, output_bits: int | None
) -> _Tile:
    part = card.component
    if mode == "component":
        assert part is not None
        return _ComponentTile(ledger, card, part, input_bits, output_bits)
    assert card.preset is not None
    if part is not None and (input_bits or output_bits):
        own, asked = (_ComponentTile(ledger, card, part, *bits) for bits in ((None, None), (input_bits, output_bits)))
        return _ScaledTile(_PresetTile(ledger, card, card.preset, None), own, asked, ledger)
    return _PresetTile(ledger, card, card.preset, output_bits)


def estimate_crossbar(
    workload: Workload,
    card: CrossbarCard,
    *,
    batch: int | Literal["best"] = 1,
    mode: Mode | None = None,
    replicate: bool = True,
    digital_layers: Collection[str] = (),
    input_bits: int | None = None,
    output_bits: int | None = None,
    chips: int | None = None,
) -> Estimate:
    """Energy and time of a network whose matrices lie on analog tiles.

    E = sum over layers of V sum_tiles E_MVM(tile) + digital operations + buffers + links + static power x time.
    A stage takes ceil(V / copies) t_MVM; throughput = 1 / slowest stage (pipelined); latency = sum of the stages, each
    waiting for the whole of the one before (low bound: perfectly overlapped).

    Args:
        workload: what there is to do.
        card: the machine.
        batch: inferences that follow each other through the pipeline; "best": 95 % of the pipelined throughput.
        mode: "preset" or "component"; None takes the preset where the card has one.
        replicate: copy slow layers onto tiles that would stay empty.
        digital_layers: names of layers with weights that stay digital.
        input_bits: resolution of the inputs, in component mode; None takes the card's.
        output_bits: resolution of a conversion; None takes the card's.
        chips: chips that are powered; None takes as few as hold the network.

    Raises:
        HpmlError: the card lacks the mode, bits that its figures cannot follow, or `chips` are too few.

    In preset mode, other bits than the card's scale the published total: by the ratio of the card's components, or else
    by the share of the MVM that its converters take.

    Source: docs/equations.md, section 2.
    """
    mode = _mode(card, mode, input_bits, output_bits)
    ledger = CostBreakdown(card)
    rows, cols = int(card.array.rows), int(card.array.cols)
    per_weight, per_chip = int(card.array.cells_per_weight), int(card.array.tiles_per_chip)
    for quantity in (card.array.rows, card.array.cols, card.array.cells_per_weight, card.array.tiles_per_chip):
        ledger.use(quantity)
    unknown = set(digital_layers) - {layer.name for layer in workload.layers}
    if unknown:
        raise HpmlError(f"digital_layers={sorted(unknown)}: no such layers in the workload")
    analog = [y for y in workload.layers if y.rows > 0 and y.cols > 0 and y.name not in digital_layers]
    digital = [y for y in workload.layers if not (y.rows > 0 and y.cols > 0) or y.name in digital_layers]

    placements = [place(layer, rows, cols, per_weight) for layer in analog]
    needed = sum(p.tiles for p in placements)
    fewest = max(1, math.ceil(needed / per_chip))
    if chips is not None and chips < fewest:
        raise HpmlError(f"chips={chips}: {needed} tiles need {fewest} chips of {per_chip} tiles")
    chips = chips or fewest
    if replicate:
        replicate_greedily(placements, chips * per_chip - needed)
    tile = _tile(ledger, card, mode, input_bits, output_bits)
    stages = []
    conversions = 0.0
    for p in placements:
        for cost in _layer_costs(tile, p):
            ledger.add(p.layer.name, cost.component, cost.energy, *cost.quantities)
        stages.append(tile.time(p.layer) * float(p.rounds()))
        if isinstance(tile, _ComponentTile):
            each = tile.counts(p.layer).conversions * sum(block.count * block.cols for block in p.blocks)
            conversions += p.layer.vectors * each
    component = card.component if mode == "component" else None
    digital_s = _surroundings(ledger, card, placements, digital, component, input_bits, per_chip)

    slowest = _maximum(stages)
    whole = sum(stages, ZERO) + digital_s
    fill = sum((tile.time(p.layer) for p in placements), ZERO) + digital_s
    overlapped = max(slowest.low, fill.low)
    latency = Band(min(overlapped, whole.low), whole.nominal, whole.high)
    bottleneck = slowest.maximum(digital_s)
    if batch == "best":
        batch = _best_batch(latency.nominal, bottleneck.nominal)
    latency = latency + bottleneck * float(batch - 1)
    throughput = bottleneck.inverse() if bottleneck.nominal > 0 else Band(0.0, 0.0, math.inf)
    _static(ledger, card, mode, chips, per_chip, latency / batch)

    tiles = sum(p.tiles * p.copies for p in placements)
    macs = sum(p.layer.macs for p in placements)
    calibrated = _full_mvm(tile, rows, cols) * float(tiles * rows)
    reported_separately = {"recalibration_j": calibrated}
    if card.recalibration_time is not None:
        reported_separately["recalibration_w"] = calibrated / ledger.use(card.recalibration_time).nominal
    else:
        ledger.exclude("how often drift is calibrated: the card has no figure; one calibration is beside the total")
    _programming(ledger, card, placements, per_weight, reported_separately)
    for name in workload.not_counted:
        ledger.exclude(f"{name}: a layer that the workload does not know")
    if not placements:
        ledger.exclude("no layer of this network has weights that could lie on a crossbar")
    mapping = {
        "tiles": float(needed),
        "tiles_with_copies": float(tiles),
        "chips": float(chips),
        "utilization": sum(p.cells * p.copies for p in placements) / max(tiles * rows * cols, 1),
        "chip_utilization": tiles / (chips * per_chip),
        "most_copies": float(max((p.copies for p in placements), default=0)),
        "analog_macs": macs,
        "digital_macs": sum(layer.macs for layer in digital),
    }
    if component is not None:
        mapping["conversions_per_mac"] = conversions / macs if macs else 0.0
    return ledger.close(
        batch=batch,
        latency_s=latency,
        throughput_hz=throughput,
        area_mm2=_area(ledger, card, mode, chips, tiles, per_chip),
        mapping=mapping,
        reported_separately=reported_separately,
    )


def _mode(card: CrossbarCard, mode: Mode | None, input_bits: int | None, output_bits: int | None) -> Mode:
    have: list[Mode] = []
    if card.preset is not None:
        have.append("preset")
    if card.component is not None:
        have.append("component")
    if not have:
        raise HpmlError(
            f"card {card.name!r} describes devices only (neither [preset] nor [component]): there is no energy to "
            "estimate from; take the card of a whole machine, such as 'pcm-hermes'"
        )
    mode = mode or have[0]
    if mode not in have:
        raise HpmlError(f"mode={mode!r}: card {card.name!r} has {' and '.join(have)} only")
    choosable = _choosable_bits(card)
    for name, bits in (("input_bits", input_bits), ("output_bits", output_bits)):
        if bits is None:
            continue
        if name not in choosable:
            raise HpmlError(f"{name}={bits}: card {card.name!r} {_fixed(card, name)}; leave them at the card's")
        fewest, most = choosable[name]
        if not fewest <= bits <= most:
            raise HpmlError(f"{name}={bits}: card {card.name!r} follows {fewest} to {most} bits")
    return mode


def _fixed(card: CrossbarCard, name: str) -> str:
    if card.component is not None:
        return "has no energy of a conversion that would follow them"
    if name == "input_bits":
        return "is a published total for one input resolution"
    return "is a published total, and how much of it the converters take is not known (preset.adc_share)"


def _choosable_bits(card: CrossbarCard) -> dict[str, tuple[int, int]]:
    """Which of `input_bits` and `output_bits` energy and time follow, with the fewest and the most."""
    regression = (MIN_BITS, MAX_BITS)
    part = card.component
    if part is None:
        known = (
            card.preset is not None
            and card.preset.adc_share is not None
            and MIN_BITS <= int(card.io.adc_bits) <= MAX_BITS
        )
        return {"output_bits": regression} if known else {}
    found: dict[str, tuple[int, int]] = {"input_bits": _ANY_BITS}
    own = int(part.output_bits)
    if part.step_energy is not None:
        found["output_bits"] = _ANY_BITS
    elif part.conversion_energy is not None and MIN_BITS <= own <= MAX_BITS:
        found["output_bits"] = regression
    elif part.adc is not None:
        shift = own - part.adc.bits.si
        found["output_bits"] = (math.ceil(MIN_BITS + shift), math.floor(MAX_BITS + shift))
    return found


_ANY_BITS = (1, 16)


def followed_bits(card: CrossbarCard, *, dac_bits: int | None, adc_bits: int | None) -> tuple[int | None, int | None]:
    """Of a target's converter resolutions, those that an estimate on the card follows: its `input_bits`, `output_bits`.

    None stands for the card's own: not asked for, or no figure of the card would follow. A converter whose readings the
    card merges into wider outputs does not follow either: an output bit is then no bit of the converter.

    Args:
        card: the machine.
        dac_bits, adc_bits: as in `hs.Analog`.
    """
    choosable, part = _choosable_bits(card), card.component

    def followed(name: str, bits: int | None, own: Quantity, converter: Quantity) -> int | None:
        if bits is None or bits == int(own) or int(own) != int(converter) or name not in choosable:
            return None
        fewest, most = choosable[name]
        return bits if fewest <= bits <= most else None

    io = card.io
    return (
        followed("input_bits", dac_bits, io.dac_bits, io.dac_bits if part is None else part.input_bits),
        followed("output_bits", adc_bits, io.adc_bits, io.adc_bits if part is None else part.output_bits),
    )


def _layer_costs(tile: _Tile, placement: Placement) -> list[_Cost]:
    sums: dict[str, _Cost] = {}
    for block in placement.blocks:
        for cost in tile.mvm(block, placement.layer):
            energy = cost.energy * (block.count * placement.layer.vectors)
            if before := sums.get(cost.component):
                keys = tuple(dict.fromkeys(map(id, before.quantities + cost.quantities)))
                by_id = {id(q): q for q in before.quantities + cost.quantities}
                cost = _Cost(cost.component, before.energy + energy, tuple(by_id[key] for key in keys))
            else:
                cost = _Cost(cost.component, energy, cost.quantities)
            sums[cost.component] = cost
    return list(sums.values())


def _full_mvm(tile: _Tile, rows: int, cols: int) -> Band:
    from hpml_sim.counting import LayerCount

    any_layer = LayerCount("", "linear", rows=rows, cols=cols)
    return sum((cost.energy for cost in tile.mvm(Block(1, rows, cols), any_layer)), ZERO)


def _maximum(bands: list[Band]) -> Band:
    result = ZERO
    for band in bands:
        result = result.maximum(band)
    return result


def _best_batch(latency: float, bottleneck: float) -> int:
    batch = 1
    while bottleneck > 0 and batch * bottleneck < 0.95 * (latency + (batch - 1) * bottleneck):
        batch *= 2
    return batch


def digital_operations(layer: LayerCount, row_blocks: int = 0) -> float:
    """Operations outside the array for one inference.

    A matrix on tiles: the sums over its row blocks and one bias for each output. A layer without weights: two for a
    MAC (attention), else by kind for an output value.

    Source: docs/equations.md, section 2 (digital operations); the counts for an element are ours.
    """
    if row_blocks:
        return layer.output_elements * row_blocks
    if layer.macs:
        return 2 * layer.macs
    if layer.op == "pool":
        return layer.input_elements
    return OPS_PER_ELEMENT.get(layer.op, 1) * layer.output_elements + OPS_PER_UPDATE * layer.updates


def _surroundings(
    ledger: CostBreakdown,
    card: CrossbarCard,
    placements: list[Placement],
    digital: list[LayerCount],
    component: Component | None,
    input_bits: int | None,
    per_chip: int,
) -> Band:
    """Digital operations, buffers and links; returns the time of the digital operations."""
    around = card.digital
    bits = input_bits or int(card.io.dac_bits)
    work = [(p.layer, digital_operations(p.layer, p.row_blocks)) for p in placements]
    work += [(layer, digital_operations(layer)) for layer in digital]
    operations = sum(n for _, n in work)
    parts = () if component is None else tuple(component.parts)
    if parts:
        ledger.assume(
            f"buffers, links and digital units are the parts of the card ({', '.join(parts)}), as its source has it"
        )
    moved = [(p.layer, p.layer.input_elements * (1 if p.layer.binary_input else bits) / 8) for p in placements]
    moved += [(p.layer, p.layer.output_elements * bits / 8) for p in placements]
    if around.energy_per_op is not None:
        for layer, n in work:
            energy = ledger.use(around.energy_per_op, OTHER_WORKLOAD) * n
            ledger.add(layer.name, "digital", energy, around.energy_per_op)
    elif operations and not parts:
        ledger.exclude(
            f"{operations:,.0f} digital operations an inference (bias, partial sums, activations, attention): "
            "the card has no energy for them"
        )
    dynamic, every = sum(y.macs for y in digital), sum(y.macs for y, _ in work)
    if dynamic and around.energy_per_op is None:
        ledger.exclude(
            f"{dynamic / every:.1%} of the MACs, of layers that lie on no crossbar (attention, digital layers)"
        )
    if around.energy_per_byte_buffer is not None:
        for layer, n in moved:
            energy = ledger.use(around.energy_per_byte_buffer, OTHER_WORKLOAD) * n
            ledger.add(layer.name, "buffer", energy, around.energy_per_byte_buffer)
    elif not parts:
        ledger.exclude(
            f"buffers for {sum(n for _, n in moved):.3g} bytes an inference: the card has no energy for them"
        )
    sent = [(p.layer, p.layer.output_elements * bits * p.row_blocks) for p in placements]
    if around.energy_per_bit_link is not None:
        for layer, n in sent:
            energy = ledger.use(around.energy_per_bit_link, OTHER_WORKLOAD) * n
            ledger.add(layer.name, "link", energy, around.energy_per_bit_link)
    elif sent and not parts:
        ledger.exclude(
            f"{sum(n for _, n in sent) / 8:.3g} bytes an inference from tile to tile: the card has no energy"
        )
    crossing = _crossing_bits(placements, per_chip, bits)
    if crossing and around.energy_per_bit_off_chip is not None:
        energy = ledger.use(around.energy_per_bit_off_chip, OTHER_WORKLOAD) * crossing
        ledger.add("", "off-chip", energy, around.energy_per_bit_off_chip)
    elif crossing:
        ledger.exclude(f"{crossing / 8:.3g} bytes an inference from chip to chip: the card has no energy for them")
    ledger.exclude("getting the input to the chip and the result out of it")
    if around.ops_rate is None:
        if operations:
            ledger.exclude("time of the digital operations: the card has no rate")
        return ZERO
    seconds = operations / around.ops_rate.si
    ledger.use(around.ops_rate)
    return Band(seconds / OTHER_WORKLOAD, seconds, seconds * OTHER_WORKLOAD)


def _crossing_bits(placements: list[Placement], per_chip: int, bits: int) -> float:
    """Output bits of the layers at or across the border of two chips, layers laid one after the other."""
    total, first = 0.0, 0
    for p, following in zip(placements, [*placements[1:], None], strict=True):
        last = first + p.tiles  # the first tile of the next layer
        if first // per_chip != (last - (following is None)) // per_chip:
            total += p.layer.output_elements * bits
        first = last
    return total


def _static(ledger: CostBreakdown, card: CrossbarCard, mode: Mode, chips: int, per_chip: int, seconds: Band) -> None:
    if card.digital.power_static is not None:
        power = ledger.use(card.digital.power_static, SAME_CLASS)
        ledger.add("", "static", seconds * power * float(chips), card.digital.power_static)
    else:
        ledger.exclude("static power of the chip outside its working tiles: the card has no figure")
    if mode == "component" and card.component is not None:
        for name, part in card.component.parts.items():
            if part.scales == "constant":
                power = ledger.use(part.power, SAME_CLASS) * (chips * per_chip / part.tiles.si)
                ledger.add("", name, seconds * power, part.power)


def _area(ledger: CostBreakdown, card: CrossbarCard, mode: Mode, chips: int, tiles: int, per_chip: int) -> Band | None:
    if card.area is not None:
        return ledger.use(card.area) * (chips * 1e6)
    count = tiles if card.scope == "core" else chips * per_chip  # a chip cannot be bought by the tile
    component = card.component
    if mode == "component" and component is not None:
        if component.area_per_tile is not None:
            return ledger.use(component.area_per_tile) * (count * 1e6)
        known = [part for part in component.parts.values() if part.area is not None]
        if known:
            areas = [ledger.use(p.area) * (1e6 * chips * per_chip / p.tiles.si) for p in known if p.area is not None]
            return sum(areas, ZERO)
    if mode == "preset" and card.preset is not None:
        return ledger.use(card.preset.area_per_tile) * (count * 1e6)
    return None


def _programming(
    ledger: CostBreakdown,
    card: CrossbarCard,
    placements: list[Placement],
    per_weight: int,
    reported_separately: dict[str, Band],
) -> None:
    write = card.programming
    cells = sum(p.layer.rows * p.layer.cols * p.layer.groups * p.copies for p in placements) * per_weight
    if write.iterations is None or write.energy_per_pulse is None:
        ledger.exclude("programming the weights: the card lacks the energy of a pulse or the number of iterations")
        return
    pulses = ledger.use(write.iterations) * float(cells)
    reported_separately["programming_j"] = pulses * ledger.use(write.energy_per_pulse, OTHER_WORKLOAD)
