"""From any estimate to system scope: host, input and output, conversion of power and cooling, from components."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard
from hpml_sim.cost.breakdown import CostBreakdown
from hpml_sim.cost.system.hosts import (
    CHIPS_A_BOARD,
    boards,
    cache_memory,
    host_of,
    server_part,
    shares,
    units_of,
)
from hpml_sim.cost.system.lent import Lent
from hpml_sim.cost.system.work import cached_bytes, memory_bits, operations_of
from hpml_sim.units.bands import ZERO, Band, product

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

    E_system = ((E + e_io bits) x regulator + P_host t) x fans x supply x data center, each factor where it applies.

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
    part = server_part(card, chips)
    rails = idle  # what regulators feed; a host has its own, and is charged with them
    if isinstance(card, CrossbarCard) and workload is not None and any(memory_bits(y) for y in workload.layers):
        name = cache_memory(card, chips)
        kept = cached_bytes(workload.layers)
        rails = rails + lent.use(name, "power_idle") * units_of(name, chips, kept)
    _charge_io(lent, host, part, workload)
    if card.scope in ("core", "chip"):
        ratio = lent.use("regulator", "ratio")
        lent.add("", "regulator", product(book.total(), _lost(ratio)), "regulator")
        rails = rails * ratio
    idle = rails + _charge_host(lent, card, host, part, chips, seconds)
    for stage in _conversions(host, part):
        ratio, names = _mixed_ratio(lent, stage), tuple(name for name, _ in stage)
        lent.add("", _PARTS[names[0]], product(book.total(), _lost(ratio)), *names)
        idle = idle * ratio
    around = _WORDS[host]
    if 0 < part < 1:
        around = f"{part:.1%} of the way from {_WORDS['edge']}, to {_WORDS['server']}"
    book.assume(f"around the machine: {around}")
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


def _lost(ratio: Band) -> Band:
    """What a converter takes for each joule that it delivers."""
    return Band(ratio.low - 1, ratio.nominal - 1, ratio.high - 1)


def _conversions(host: Host, part: float) -> list[tuple[tuple[str, float], ...]]:
    """Converters one after another, each with its weight; between a small host and a server, two share a place."""
    if part in (0.0, 1.0):
        return [((name, 1.0),) for name in _CONVERSIONS[host]]
    small, large = _CONVERSIONS["edge"], _CONVERSIONS["server"]
    places = {name: [(name, part)] for name in large}
    for name in small:
        places["power-supply"].append((name, 1 - part))
    return [tuple(place) for place in places.values()]


def _mixed_ratio(lent: Lent, stage: tuple[tuple[str, float], ...]) -> Band:
    """Power drawn over power delivered where converters share a place by their weights; the rest loses nothing."""
    found = Band.exact(1.0)
    for name, weight in stage:
        found = found + _lost(lent.use(name, "ratio")) * weight
    return found


def _charge_host(lent: Lent, card: Card, host: Host, part: float, chips: float, seconds: Band) -> Band:
    """Charge the host for the time of an inference; returns its watts while the machine waits."""
    if host == "own":
        return ZERO
    if isinstance(card, DigitalCard) and card.device in ("cpu", "mps"):  # the processor is the host
        modules = float(min(math.ceil(card.memory.si / GB_A_MODULE), MOST_MODULES))
        power = lent.use("ddr", "power_idle") * modules
        lent.add("", "memory-idle", product(power, seconds), "ddr")
        lent.breakdown.exclude("mainboard, storage and network cards of the computer")
        return power
    hosts = _hosts(lent, card, host, part, chips)
    energy, idle = ZERO, ZERO
    for name, count in hosts.items():
        energy = energy + product(lent.use(name, "power_active"), count, seconds)
        idle = idle + lent.use(name, "power_idle") * count
    if hosts:
        lent.add("", "host", energy, *sorted(hosts, key=lambda name: -hosts[name].nominal))
    return idle


def _hosts(lent: Lent, card: Card, host: Host, part: float, chips: float) -> dict[str, Band]:
    """How many of which hosts: their components and counts."""
    if isinstance(card, DigitalCard):
        each = 1.0 if card.host_share is None else lent.breakdown.use(card.host_share).nominal
        return {f"host-{host}": Band.exact(chips * each if host == "server" else 1.0)}
    found: dict[str, Band] = {}
    own = isinstance(card, NeuromorphicCard) and card.power_host is not None
    if part < 1 and not own:  # a card's own management processors are the small host
        found["host-edge" if card.host is None else f"host-{host}"] = Band.exact(1 - part)
    if part > 0:
        count = shares(chips)
        if card.host is not None:  # a whole server at least
            count = count.maximum(Band.exact(1.0))
        found["host-server"] = count
        lent.breakdown.assume(
            f"{chips:,.0f} chips on {boards(chips):,} boards of {CHIPS_A_BOARD}, which take {count.nominal:,.3g} "
            f"eighths of a server ({count.low:,.3g} to {count.high:,.3g})"
        )
    return found


def _charge_io(lent: Lent, host: Host, part: float, workload: Workload | None) -> None:
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
    near = "pcie" if host == "desktop" else "chip-link"
    names = {near: 1 - part, "pcie": part} if 0 < part < 1 else {"pcie" if part == 1 else near: 1.0}
    energy = sum((lent.use(name, "transfer") * (weight * bits) for name, weight in names.items()), ZERO)
    lent.add("", "input-output", energy, *names)
