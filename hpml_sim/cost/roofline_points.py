"""What lies under the roofs: layers of a network, kernels, crossbar tiles and neuromorphic cores, on the same axes.

Across: operations for each byte that crosses the edge of the memory where the weights are (a multiply-accumulate is two
operations). Of a CPU or GPU that edge is DRAM's. Of a crossbar tile the weights never leave it, and what crosses are
the inputs and outputs of its converters; that is why a tile sits far to the right. Of a neuromorphic core each synaptic
operation reads its weight from the core's own memory, so a core sits far to the left, however fast it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hpml_sim.cards import CrossbarCard, DigitalCard, NeuromorphicCard
from hpml_sim.cost import Estimate, estimate
from hpml_sim.counting import Workload, workload
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import Band

Kind = Literal["layer", "measured", "kernel", "tile", "core"]
_SYNAPSE_BITS = 8  # as the estimates take it where a card does not say


@dataclass(frozen=True)
class Point:
    """One thing under a roof.

    Attributes:
        name: what it is.
        kind: "layer" (estimated), "measured" (a layer on this machine), "kernel", "tile" or "core".
        intensity: operations a byte.
        rate: operations a second.
        limit: what holds it there: "compute", "memory", "launch", "power", or "".
        machine: the card, or the device it was measured on.
    """

    name: str
    kind: Kind
    intensity: float
    rate: float
    limit: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Roof:
    """Ceilings of a processor.

    Attributes:
        name: of the processor, and of the precision.
        rate: operations a second.
        bandwidth: bytes a second to and from DRAM.
        measured: on this machine, not taken from a card.
    """

    name: str
    rate: Band
    bandwidth: Band
    measured: bool = False

    @property
    def ridge(self) -> float:
        """Operations a byte from which on arithmetic is the limit."""
        return self.rate.nominal / self.bandwidth.nominal

    def at(self, intensity: float) -> float:
        """Operations a second that the roof allows.

        Args:
            intensity: operations a byte.
        """
        return min(self.rate.nominal, self.bandwidth.nominal * intensity)


def roof_of(card: DigitalCard, precision: str = "fp32") -> Roof:
    """The roof of a card in one precision: peaks times the shares that tuned kernels reach.

    Args:
        card: the machine.
        precision: of the arithmetic.

    Raises:
        HpmlError: the card has no peak for it.
    """
    if precision not in card.peak:
        raise HpmlError(f"precision={precision!r}: card {card.name!r} has a peak for {', '.join(card.peak)} only")
    return Roof(
        f"{card.name} {precision}",
        card.peak[precision].band() * card.compute_efficiency.band(),
        card.memory_bandwidth.band() * card.memory_efficiency.band(),
    )


def layer_points(found: Estimate) -> list[Point]:
    """The layers of an estimate for a CPU or GPU that have arithmetic and traffic; none where weights stay in place.

    Args:
        found: the estimate.
    """
    layers = () if found.roof is None else found.roof.layers
    return [
        Point(y.layer, "layer", y.operations / y.traffic_bytes, y.operations / y.time_s, y.limit, found.card)
        for y in layers
        if y.operations > 0 and y.traffic_bytes > 0 and y.time_s > 0
    ]


def measured_points(found: Estimate, seconds: Mapping[str, float], machine: str) -> list[Point]:
    """The same layers where the clock puts them.

    Args:
        found: an estimate of the same network at the same batch: it counts operations and bytes.
        seconds: of one call of each layer, by name.
        machine: where they were measured.
    """
    layers = () if found.roof is None else found.roof.layers
    return [
        Point(y.layer, "measured", y.operations / y.traffic_bytes, y.operations / seconds[y.layer], y.limit, machine)
        for y in layers
        if y.operations > 0 and y.traffic_bytes > 0 and seconds.get(y.layer, 0.0) > 0
    ]


def tile_point(card: CrossbarCard) -> Point:
    """One full tile of a crossbar: rows x columns multiply-accumulates in the time of one product.

    Args:
        card: the machine.
    """
    rows, cols = int(card.array.rows), int(card.array.cols) // int(card.array.cells_per_weight)
    one = estimate(_full(rows, cols), card)
    crossing = (rows * card.io.dac_bits.si + cols * card.io.adc_bits.si) / 8
    operations = 2.0 * rows * cols
    return Point(f"{card.name} tile", "tile", operations / crossing, operations / one.latency_s.nominal, "", card.name)


def _full(rows: int, cols: int) -> Workload:
    return workload(nn.Linear(rows, cols, bias=False), input_shape=(rows,))


def core_point(card: NeuromorphicCard) -> Point | None:
    """One core at work: a weight read and added for each synaptic operation.

    Args:
        card: the machine.

    Returns:
        None where the card has no time for a synaptic operation.
    """
    if card.events.sop_time is None or card.events.sop_time.si <= 0:
        return None
    bits = _SYNAPSE_BITS if card.core.synapse_bits is None else card.core.synapse_bits.si
    return Point(f"{card.name} core", "core", 2.0 / (bits / 8), 2.0 / card.events.sop_time.si, "", card.name)
