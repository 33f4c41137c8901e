"""Collectives: how long GPUs take to exchange data.

Source: the cost of a ring, R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations
in MPICH", IJHPCA 19:49 (2005), section 4; its constants are fitted to records (docs/gpu_validation.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hpml_sim.cards.schema.serving import Link

Collective = Literal["all-reduce", "all-gather", "all-to-all", "send"]


@dataclass(frozen=True)
class Collectives:
    """Collectives among GPUs of one machine.

    Attributes:
        link: how they are connected.
        graph_start_s: seconds that one takes beside its bytes inside a recorded graph, where the engine's own kernels
            exchange; None: the library starts it from the host.

    Example:
        >>> from hpml_sim.cards import load_card
        >>> link = load_card("h100").links["dgx"]
        >>> print(f"{1e6 * Collectives(link).time_s('all-reduce', 64e6, 8):.0f} us")
        352 us
    """

    link: Link
    graph_start_s: float | None = None

    def time_s(self, what: Collective, size: float, gpus: int) -> float:
        """Seconds of one collective.

        Args:
            what: "all-reduce" (each GPU ends with the sum), "all-gather" (with all parts), "all-to-all" (each has a
                part for each other), "send" (one to the next).
            size: bytes of the whole result on one GPU, >= 0.
            gpus: that take part, at least 1; one alone has nothing to send.
        """
        if gpus < 2:
            return 0.0
        rate = self.link.rate_of(gpus).si
        share = (gpus - 1) / gpus
        sent = {"all-reduce": 2 * share, "all-gather": share, "all-to-all": share, "send": 1.0}[what] * size
        if self.graph_start_s is not None:
            return self.graph_start_s + sent / rate
        return max(self.link.floor.si, self.link.start.si + sent / rate)
