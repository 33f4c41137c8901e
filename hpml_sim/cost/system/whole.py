"""From any estimate to system scope: host, input and output, conversion of power and cooling, from components."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard
from hpml_sim.cost.breakdown import CostBreakdown
from hpml_sim.cost.system.hosts import CHIPS_A_BOARD, boards, cache_memory, host_of, shares, units_of
from hpml_sim.cost.system.lent import Lent, product
from hpml_sim.cost.system.work import cached_bytes, memory_bits, operations_of
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import Card, Host
    from hpml_sim.cost.result import Estimate
    from hpml_sim.counting import Workload

INPUT_BITS, OUTPUT_BITS = 8, 16
"""Bits of an input and an output value on their way between host and machine; a spike takes an address."""
SPIKE_BITS = 32
"""Bits of a packet that carries a spike to a chip."""
GB_A_MODULE, MOST_MODULES = 32e9, 16
"""Bytes of one module of a CPU's memory, and modules of one processor at most."""
_CONVERSIONS: dict[Host, tuple[str, ...]] = {
    "own": ("battery",),
    "edge": ("battery",),
    "desktop": ("power-supply",),
    "server": ("fans", "power-supply", "facility"),
}
_PARTS = {
    "regulator": "regulator",
    "battery": "supply",
    "power-supply": "supply",
    "fans": "fans",
    "facility": "cooling",
}
_WORDS: dict[Host, str] = {
    "own": "the board's own host, behind a battery or wall adapter",
    "edge": "a small host, behind a battery or wall adapter",
    "desktop": "a desktop",
    "server": "a server in a data center",
}


def as_system(base: Estimate, card: Card, workload: Workload | None) -> Estimate:
    """The same inference at system scope: all terms of the estimate, and what surrounds the machine.

    E_system = (E + P_host t + e_io bits) x regulator x fans x supply x data center, each factor where it applies.

    Args:
        base: the estimate; of crossbars, with components already in place of what the card lacks around its tiles.
        card: of the machine.
        workload: what was counted; None for a language model by its sizes, whose tokens are a few bytes.

    Source: docs/equations.md, section 4 (systems).
    """
    book = CostBreakdown(
        card,
        terms=list(base.terms),
        excluded=[sentence for sentence in base.excluded if sentence not in card.limits],
        assumptions=list(base.assumptions),
        used=dict(base.sources),
    )
    lent = Lent.of(book)
    chips = base.mapping.get("chips", base.mapping.get("devices", 1.0))
    host = host_of(card, chips)
    # a machine that answers many requests at once bears its host for the pace of the answers
    seconds = base.throughput_hz.inverse() if isinstance(card, DigitalCard) else base.latency_s / base.batch
    idle = base.reported_separately.get("idle_w", ZERO)
    if isinstance(card, NeuromorphicCard):
        _simple_layers(lent, workload)
        book.excluded = [s for s in book.excluded if not s.startswith(("the host or", "loading the weights"))]
    idle = idle + _charge_host(lent, card, host, chips, seconds)
    if isinstance(card, CrossbarCard) and workload is not None and any(memory_bits(y) for y in workload.layers):
        name = cache_memory(card, chips)
        kept = cached_bytes(workload.layers)
        idle = idle + lent.use(name, "power_idle") * units_of(name, chips, kept)
    _charge_io(lent, host, workload)
    for name in (*(("regulator",) if card.scope in ("core", "chip") else ()), *_CONVERSIONS[host]):
        ratio = lent.use(name, "ratio")
        lost = Band(ratio.low - 1, ratio.nominal - 1, ratio.high - 1)
        lent.add("", _PARTS[name], product(book.total(), lost), name)
        idle = idle * ratio
    book.assume(f"around the machine: {_WORDS[host]}")
    for sentence in card.limits:
        book.assume(f"of the card's own figures: {sentence}")
    book.exclude("time of getting the input to the machine and the result back; storage and network beyond the host")
    projection = not card.silicon or (isinstance(card, CrossbarCard) and card.scope not in ("board", "system"))
    if projection:
        book.assume("a projection: no such system was built; what is around the chips was added from components")
    return replace(
        base,
        scope="system",
        energy_j=book.total(),
        terms=tuple(book.terms),
        excluded=tuple(dict.fromkeys(book.excluded)),
        assumptions=tuple(book.assumptions),
        sources=dict(sorted(book.used.items())),
        reported_separately={**base.reported_separately, "idle_w": idle},
        projection=projection,
    )


def _simple_layers(lent: Lent, workload: Workload | None) -> None:
    """Charge layers without weights or neurons of a spiking network, which have no event energy on the chip."""
    for layer in () if workload is None else workload.layers:
        if layer.rows or layer.neurons:
            continue
        energy = ZERO
        for name, count in operations_of(layer).items():
            energy = energy + lent.operation(name) * count
        lent.add(layer.name, "digital", energy, "logic", "logic-45nm", "logic-7nm", "datapath", "node-scaling")


def _charge_host(lent: Lent, card: Card, host: Host, chips: float, seconds: Band) -> Band:
    """Charge the host for the time of an inference; returns its watts while the machine waits."""
    if host == "own" or (isinstance(card, NeuromorphicCard) and card.power_host is not None and host == "edge"):
        return ZERO
    if isinstance(card, DigitalCard) and card.device in ("cpu", "mps"):  # the processor is the host
        modules = float(min(math.ceil(card.memory.si / GB_A_MODULE), MOST_MODULES))
        power = lent.use("ddr", "power_idle") * modules
        lent.add("", "memory-idle", product(power, seconds), "ddr")
        lent.breakdown.exclude("mainboard, storage and network cards of the computer")
        return power
    count = Band.exact(1.0)
    if host == "server" and isinstance(card, DigitalCard):
        count = Band.exact(chips)
    elif host == "server":
        count = shares(chips)
        lent.breakdown.assume(
            f"{chips:,.0f} chips on {boards(chips):,} boards of {CHIPS_A_BOARD}, which take {count.nominal:,.3g} "
            f"eighths of a server ({count.low:,.3g} to {count.high:,.3g})"
        )
    lent.add("", "host", product(lent.use(f"host-{host}", "power_active"), count, seconds), f"host-{host}")
    return lent.use(f"host-{host}", "power_idle") * count


def _charge_io(lent: Lent, host: Host, workload: Workload | None) -> None:
    """Charge moving the input to the machine and the output back."""
    if workload is None:
        lent.breakdown.exclude("moving token numbers between host and machine: a few bytes a token")
        return
    bits = workload.output_elements * OUTPUT_BITS
    if workload.kind == "spiking":
        first = next((y for y in workload.layers if y.rows or y.neurons), None)
        spikes = first.input_elements * first.active_fraction if first is not None and first.binary_input else 0.0
        bits += spikes * SPIKE_BITS or workload.input_elements * INPUT_BITS
    else:
        bits += workload.input_elements * INPUT_BITS
    name = "chip-link" if host in ("edge", "own") else "pcie"
    lent.add("", "input-output", lent.use(name, "transfer") * bits, name)
