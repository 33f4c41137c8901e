"""The best batch of a model on the machine at hand, found by measuring."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpml_sim.cost.digital import SATURATED
from hpml_sim.errors import HpmlError, check_real, shown
from hpml_sim.measurement.clocks import check_call, check_windows
from hpml_sim.measurement.measuring import measure
from hpml_sim.measurement.result import Measurement

BATCHES = tuple(4**k for k in range(9))
"""1 to 65,536."""


@dataclass(frozen=True)
class BatchSweep:
    """Measurements at growing batches.

    Attributes:
        measurements: in the order of the batches, batch 1 first.
        stopped: why no larger batch was tried.
    """

    measurements: tuple[Measurement, ...]
    stopped: str

    @property
    def one(self) -> Measurement:
        """At batch 1."""
        return self.measurements[0]

    @property
    def best(self) -> Measurement:
        """At the smallest batch that reaches 95 % of the best throughput (the estimate's "best" means the same)."""
        enough = SATURATED * max(m.throughput_hz for m in self.measurements)
        return next(m for m in self.measurements if m.throughput_hz >= enough)


def measure_batches(
    model: nn.Module,
    sample: Tensor,
    *,
    batches: Sequence[int] = BATCHES,
    min_window_s: float = 0.2,
    windows: int = 3,
    max_call_s: float = 2.0,
) -> BatchSweep:
    """Measure a model at growing batches, until a larger one would bring nothing more.

    Args:
        model: (batch, *shape) -> anything.
        sample: (*shape), one input, on the device to be measured; a batch is that many noisy copies of it (equal ones
            could hit caches that real data would miss).
        batches: in growing order, the first one 1.
        min_window_s: least length of a window of each measurement, seconds.
        windows: how many windows each measurement has.
        max_call_s: no larger batch is tried once a call takes this many seconds.

    Returns:
        The measurements, and why no larger batch was tried.

    Raises:
        HpmlError: no network, batches that do not begin with 1 or do not grow, or a number out of range.
    """
    check_call("measure_batches", model, sample.unsqueeze(0) if isinstance(sample, Tensor) else sample)
    check_windows("measure_batches", min_window_s, windows)
    check_real("measure_batches: max_call_s", max_call_s, above=0)
    whole = isinstance(batches, (list, tuple)) and all(type(batch) is int for batch in batches)
    if not whole or not batches or batches[0] != 1 or any(b <= a for a, b in itertools.pairwise(batches)):
        raise HpmlError(f"measure_batches: batches={shown(batches)} must begin with 1 and grow; for example (1, 4, 16)")
    generator = torch.Generator(sample.device).manual_seed(0)
    measured: list[Measurement] = []
    for batch in batches:
        try:
            noise = torch.rand(batch, *sample.shape, generator=generator, device=sample.device)
            measured.append(measure(model, sample + 1e-3 * noise, min_window_s=min_window_s, windows=windows))
        except torch.OutOfMemoryError:
            return BatchSweep(tuple(measured), f"batch {batch} does not fit the memory of {sample.device}")
        if measured[-1].latency_s > max_call_s:
            return BatchSweep(tuple(measured), f"a call of batch {batch} took more than {max_call_s:g} s")
        best = max(m.throughput_hz for m in measured)
        if len(measured) > 3 and all(m.throughput_hz < SATURATED * best for m in measured[-2:]):
            return BatchSweep(tuple(measured), f"throughput had fallen at two batches in a row, the last {batch}")
    return BatchSweep(tuple(measured), "the largest batch of the list")
