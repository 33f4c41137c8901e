"""What surrounds the tiles, from components, where a card has no figure of its own for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hpml_sim.cards import load_component
from hpml_sim.cost.crossbar.delays import Delays
from hpml_sim.cost.system.hosts import boards, cache_memory, outer_memory
from hpml_sim.cost.system.work import bits_of, memory_bits, operations_of, weighted
from hpml_sim.units.bands import ZERO, Band, product

if TYPE_CHECKING:
    from hpml_sim.cost.crossbar.mapping import Placement
    from hpml_sim.cost.system.lent import Lent
    from hpml_sim.counting import LayerCount


class LentSurroundings:
    """Charges digital work, buffers, links, cache and memory to components, and says how long they take.

    Args:
        lent: the components and where they are noted.
        included: what the card's own figures hold already: "digital", "buffers", "links".
        tiles: of one chip.
        chips: that are powered.
        chip_mm2: area of one chip.
        charging: whether joules are noted; otherwise seconds alone are of interest.
    """

    def __init__(
        self, lent: Lent, included: frozenset[str], tiles: int, chips: int, chip_mm2: float, *, charging: bool
    ):
        self._lent, self._included, self._tiles, self._chips = lent, included, tiles, chips
        self._side_mm, self._charging = chip_mm2**0.5, charging

    def delays(
        self,
        placements: Sequence[Placement],
        digital: Sequence[LayerCount],
        moved: Mapping[str, float],
        crossing: float,
    ) -> Delays:
        """Seconds, from the rates of components.

        Args:
            placements: layers on tiles, in order of execution.
            digital: the other layers.
            moved: bits into and out of the tiles, by layer.
            crossing: bits from chip to chip.
        """
        pace = self._lent.use("datapath", "op_rate").inverse()
        port = self._lent.use("wire", "rate").inverse()
        stages = []
        for p in placements:
            units = float(p.tiles * p.copies)
            seconds = ZERO
            if "digital" not in self._included:
                seconds = pace * (weighted(operations_of(p.layer, p.row_blocks)) / units)
            if "links" not in self._included:
                seconds = seconds + port * (moved.get(p.layer.name, 0.0) / 8 / units)
            stages.append(seconds)
        skipped = "digital" in self._included
        counts = [operations_of(y) for y in digital if y.macs or not skipped]
        # blocks of a transformer lie on chips of their own, whose units and memories work on that block alone
        blocks = max(1, sum(y.op == "kv_cache" for y in digital))
        tiles = max(sum(p.tiles * p.copies for p in placements), 1)
        units = max(float(min(self._tiles, tiles)), tiles / blocks)
        apart = pace * (sum(map(weighted, counts)) / units)
        memory, stacks = ZERO, max(1.0, boards(self._chips) / blocks)
        card = self._lent.breakdown.card
        for find, own in ((cache_memory, True), (outer_memory, False)):
            moved_bits = sum(memory_bits(y) for y in digital if (y.op == "kv_cache") == own)
            if moved_bits:
                rate = self._lent.use(find(card, self._chips), "rate")
                memory = memory + rate.inverse() * (moved_bits / 8 / stacks)
        between = ZERO
        if crossing:
            between = self._lent.use("chip-link", "rate").inverse() * (crossing / 8)
        # other inferences are at work in the other blocks meanwhile
        shared = (apart / min(blocks, max(1.0, tiles / self._tiles))).maximum(memory / min(blocks, boards(self._chips)))
        shared = shared.maximum(between / float(max(self._chips - 1, 1)))
        return Delays(tuple(stages), apart + memory + between, shared)

    def digital(self, work: Sequence[tuple[LayerCount, int]]) -> None:
        """Charge digital operations.

        Args:
            work: layers with their row blocks; 0 for layers on no tile.
        """
        for layer, row_blocks in work:
            energy = ZERO
            if "digital" in self._included and not (layer.macs and not row_blocks):
                continue
            for name, count in operations_of(layer, row_blocks).items():
                each = self._lent.multiply_add() if name == "mac_fp16" else self._lent.operation(name)
                energy = energy + each * count
            part = "attention" if layer.op in ("attention", "matmul") else "digital"
            self._lent.add(layer.name, part, energy, *_LOGIC)

    def buffers(self, moved: Mapping[str, float], placements: Sequence[Placement]) -> None:
        """Charge each activation once written and once read, in a memory on the chip that holds the layer's.

        Args:
            moved: bits in and out, by layer.
            placements: layers on tiles: a convolution's input may be read once for each of its vectors.
        """
        again = {}
        for p in placements:
            if p.layer.input_elements:
                again[p.layer.name] = max(1.0, p.layer.rows * p.layer.groups * p.layer.vectors / p.layer.input_elements)
        for name, bits in moved.items():
            energy = self._lent.sram(bits / 8) * bits
            high = energy.high * again.get(name, 1.0)
            self._lent.add(name, "buffer", Band(energy.low, energy.nominal, high), *_SRAM)

    def links(self, sent: Mapping[str, float]) -> None:
        """Charge what goes over the chip: half its side on average, from one tile to the whole way round.

        Args:
            sent: bits by layer.
        """
        per_mm = self._lent.use("wire", "transfer_per_mm")
        tile = self._side_mm / max(self._tiles, 1) ** 0.5
        distance = Band(min(tile, self._side_mm / 2), self._side_mm / 2, 2 * self._side_mm)
        for name, bits in sent.items():
            self._lent.add(name, "link", product(per_mm, distance) * bits, "wire")

    def off_chip(self, bits: float) -> None:
        """Charge what goes from chip to chip.

        Args:
            bits: of one inference.
        """
        self._lent.add("", "off-chip", self._lent.use("chip-link", "transfer") * bits, "chip-link")

    def memory(self, digital: Sequence[LayerCount]) -> bool:
        """Charge the cache of keys and values, and weights that lie beside the chips.

        Args:
            digital: layers on no tile.

        Returns:
            Whether a memory beside the chips is needed.
        """
        cache, outer = (find(self._lent.breakdown.card, self._chips) for find in (cache_memory, outer_memory))
        needed = False
        for layer in digital:
            bits = memory_bits(layer)
            if layer.op == "kv_cache" and bits:
                added = layer.output_elements * bits_of(layer)
                writes = "write" if load_component(cache).write is not None else "transfer"
                energy = self._lent.use(cache, "transfer") * max(bits - added, 0.0)
                self._lent.add(layer.name, "kv-cache", energy + self._lent.use(cache, writes) * min(added, bits), cache)
            elif bits:
                self._lent.add(layer.name, "weights", self._lent.use(outer, "transfer") * bits, outer)
            needed = needed or bits > 0
        return needed

    def leakage(self, seconds: Band, share: float) -> None:
        """Charge the leakage of all powered chips.

        Args:
            seconds: that one inference bears.
            share: of tiles and time in which the card's own figures do not hold it.
        """
        self._lent.add("", "leakage", product(self.leakage_w(), seconds) * share, *_LEAKAGE)

    def leakage_w(self) -> Band:
        """Watts of all powered chips that do nothing."""
        return self._lent.leakage() * (self._side_mm**2 * self._chips)


_LOGIC = ("logic", "logic-45nm", "logic-7nm", "datapath", "node-scaling")
_LEAKAGE = ("leakage", "leakage-28nm")
_SRAM = ("sram", "sram-45nm", "sram-7nm", "node-scaling")
