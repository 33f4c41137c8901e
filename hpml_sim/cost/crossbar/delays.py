"""Seconds that an inference spends beside the products of the tiles: digital units, links, memory, other chips."""

from __future__ import annotations

from dataclasses import dataclass

from hpml_sim.units.bands import ZERO, Band


@dataclass(frozen=True)
class Delays:
    """What surrounds the products of one machine, for one inference.

    Attributes:
        stages: of each layer on tiles, in order: its digital work and moving its data, on the units beside its tiles.
        serial: one after another in every inference: layers that lie on no tile, the cache, from chip to chip.
        shared: the slowest resource that inferences share, which sets the pace of those that follow each other.
    """

    stages: tuple[Band, ...] = ()
    serial: Band = ZERO
    shared: Band = ZERO

    @property
    def total(self) -> Band:
        """Seconds of one inference, nothing at the same time."""
        return sum(self.stages, ZERO) + self.serial

    @property
    def slowest(self) -> Band:
        """Seconds of the slowest resource."""
        found = self.shared
        for stage in self.stages:
            found = found.maximum(stage)
        return found


def pipelined(products: list[Band], first: list[Band], known: Delays, unknown: Delays) -> tuple[Band, Band]:
    """Latency of one inference, and the time of the slowest resource, which sets the pace of those that follow.

    Each stage waits for the whole of the one before; in the best case a stage starts as soon as the first vectors
    arrive, and what remains is one MVM of each stage to fill the pipeline, and the slowest stage's own time. What no
    figure of the card tells widens the upper bounds alone.

    Args:
        products: seconds of the MVMs of each layer on tiles.
        first: seconds of one MVM of each layer that does any.
        known: seconds beside them.
        unknown: seconds that the machine will need and its card says nothing of.

    Source: docs/equations.md, section 2 (time).
    """
    slowest = known.slowest
    for stage in products:
        slowest = slowest.maximum(stage)
    whole = sum(products, ZERO) + known.total
    fill = sum(first, ZERO) + known.serial
    overlapped = max(slowest.low, fill.low)
    latency = Band(min(overlapped, whole.low), whole.nominal, whole.high + unknown.total.high)
    return latency, Band(slowest.low, slowest.nominal, max(slowest.high, unknown.slowest.high))


def dependent_batch(latency: Band, slowest: Band, batch: int) -> Band:
    """Seconds in which each of some sequences is read, or gets its next token: max(latency, batch x slowest).

    A token cannot be started before the one before it is known, and one prompt is one sequence, so that a sequence by
    itself fills no pipeline; `batch` of them follow each other through it.

    Args:
        latency: of one prompt or token alone.
        slowest: of the slowest resource.
        batch: sequences.
    """
    return latency.maximum(slowest * float(batch))
