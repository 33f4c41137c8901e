"""The ceilings of a CPU or GPU: rates, powers, and what starting an operator takes, at each corner of its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hpml_sim.cost.digital.products import TILES

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision, Quantity
    from hpml_sim.targets import EstimatedEngine as Engine

GRAPH_COPIES = 2
"""Operators that an eager framework still starts for a recorded graph: its input's copy and its output's."""
RECORDED = ("cuda-graph", "fused")
"""Engines that replay what was recorded once: the host starts the whole network, not each kernel."""
LARGEST_TILE = max(rows * cols / (rows + cols) for rows, cols in TILES)
"""Size of the largest tile of a matrix product."""
Corner = Literal["low", "nominal", "high"]
CORNERS: dict[Corner, Corner] = {"low": "high", "nominal": "nominal", "high": "low"}
"""Each corner of the bounds, and the side of a rate that leads there: the fastest machine gives the lowest time."""


@dataclass(frozen=True)
class Roofline:
    """The ceilings of a card in SI units at one corner of its bounds, and what a layer does to them.

    `operation_j` spreads the dynamic power at the best matrix rate over its operations, operand traffic on the chip
    included; `byte_j` prices traffic to DRAM. A layer pays the larger of the two (its bound resource), not the sum.

    Source: (TDP - idle - clocks) / best matrix rate, docs/equations.md, section 1.

    Attributes:
        rate: operations a second that matrix products reach.
        bandwidth: bytes a second that DRAM delivers.
        power_idle: watts without work.
        power_active: watts of running clocks, above idle.
        headroom: watts between idle and clocks and the board's limit.
        operation_j: joules of one operation.
        byte_j: joules of one byte to or from DRAM.
        start_s: seconds that starting one operator takes.
        call_s: seconds that a forward call takes besides its operators.
        kernel_s: the shortest kernel, in seconds.
        ahead: whether the host starts operators while the GPU works on earlier ones.
        serial: whether the machine starts an operator itself, and works on it afterwards: a CPU.
        slowdown: how many times as long an operation of a convolution takes as one of a matrix product.
        cache_bandwidth: bytes a second of whatever a layer touches, from DRAM or not.
    """

    rate: float
    bandwidth: float
    power_idle: float
    power_active: float
    headroom: float
    operation_j: float
    byte_j: float
    start_s: float
    call_s: float
    kernel_s: float = 0.0
    ahead: bool = False
    serial: bool = False
    slowdown: float = 1.0
    cache_bandwidth: float = math.inf

    @classmethod
    def of(
        cls, card: DigitalCard, precision: Precision, corner: Corner = "nominal", engine: Engine = "torch"
    ) -> Roofline:
        """The ceilings of a card.

        Args:
            card: the machine.
            precision: of weights, activations and arithmetic; the card has a peak for it.
            corner: of its bounds; "low" is the fast and frugal one, since it leads to the low bounds of an estimate.
            engine: what runs the network.
        """
        fast = CORNERS[corner]

        def at(quantity: Quantity | None, side: Corner) -> float:
            return 0.0 if quantity is None else getattr(quantity.band(), side)

        headroom = max(card.power_max.si - card.power_idle.si - at(card.power_active, "nominal"), 0.0)
        dispatch_s = at(card.dispatch_time or card.launch_time, corner)
        copies = GRAPH_COPIES if engine in RECORDED else 0
        reached = at(card.compute_efficiency, fast)
        if card.kernels is not None:  # what its largest tile reaches
            reached = card.kernels.tile_efficiency.si * LARGEST_TILE / (LARGEST_TILE + card.kernels.tile_half.si)
        rate = at(card.peak[precision], fast) * reached
        return cls(
            rate=rate,
            bandwidth=at(card.memory_bandwidth, fast) * at(card.memory_efficiency, fast),
            power_idle=at(card.power_idle, corner),
            power_active=at(card.power_active, corner),
            headroom=headroom,
            operation_j=headroom / rate,
            byte_j=at(card.energy_per_byte, corner),
            start_s=at(started(card, engine), corner),
            kernel_s=at(card.replay_time, corner),
            ahead=card.dispatch_time is not None and not copies,
            serial=card.device == "cpu",
            call_s=at(card.call_time, corner) + copies * dispatch_s,
            cache_bandwidth=math.inf if card.cache_bandwidth is None else at(card.cache_bandwidth, fast),
            slowdown=at(card.compute_efficiency, fast)
            / at(card.convolution_efficiency or card.compute_efficiency, fast),
        )

    def paced(self, operations: np.ndarray, convolves: np.ndarray) -> np.ndarray:
        """Operations of matrix products that take as long and draw as much: more of them for a convolution.

        Args:
            operations: of each layer.
            convolves: whether it is a convolution.
        """
        return operations * np.where(convolves, self.slowdown, 1.0)

    def dynamic_j(self, operations: np.ndarray, traffic: np.ndarray) -> np.ndarray:
        """Joules above idle and clocks.

        Args:
            operations: of each layer.
            traffic: its bytes to and from DRAM.
        """
        return np.maximum(self.operation_j * operations, self.byte_j * traffic)

    def limits_s(self, operations: np.ndarray, traffic: np.ndarray, touched: np.ndarray) -> dict[str, np.ndarray]:
        """Seconds that each limit of the device alone would take: compute, memory and, where there is one, power.

        Args:
            operations: of each layer.
            traffic: its bytes to and from DRAM.
            touched: bytes that it reads and writes, wherever they are.
        """
        limits = {
            "compute": operations / self.rate,
            "memory": np.maximum(traffic / self.bandwidth, touched / self.cache_bandwidth),
        }
        if self.headroom > 0:
            limits["power"] = self.dynamic_j(operations, traffic) / self.headroom
        return limits

    def work_s(self, operations: np.ndarray, traffic: np.ndarray, touched: np.ndarray) -> np.ndarray:
        """Seconds of each layer's work on the device: of the limit that takes longest.

        Args:
            operations: of each layer.
            traffic: its bytes to and from DRAM.
            touched: bytes that it reads and writes, wherever they are.
        """
        return np.maximum.reduce(list(self.limits_s(operations, traffic, touched).values()))

    def time_s(self, work_s: np.ndarray, launches: np.ndarray) -> np.ndarray:
        """Seconds from the end of the layer before to its own end.

        Started one after the other: the longer of the start and the work; on a CPU, which starts its own threads and
        waits for all of them, both. With the host ahead, layer k ends at
        f_k = max(h_k, f_(k-1)) + g_k, where h_k is when the host has started it and g_k its work on the device;
        unrolled, f_k = G_k + max over j <= k of (h_j - G_(j-1)) with G the running sum of g.

        Args:
            work_s: seconds of each layer's work on the device.
            launches: operators that it starts.
        """
        starts = self.start_s * launches
        if self.serial:
            return work_s + starts
        if not self.ahead:
            return np.maximum(work_s, starts)
        work = np.maximum(work_s, self.kernel_s * launches)
        worked = np.cumsum(work)
        ends = worked + np.maximum.accumulate(np.cumsum(starts) - (worked - work))
        return np.diff(ends, prepend=0.0)


def started(card: DigitalCard, engine: Engine) -> Quantity:
    """The card's figure for starting one operator.

    Args:
        card: the machine.
        engine: what runs the network: recorded kernels are replayed, compiled ones launched, others dispatched.
    """
    if engine in RECORDED:
        return card.replay_time or card.launch_time
    if engine == "torch-compile":
        return card.launch_time
    return card.dispatch_time or card.launch_time
