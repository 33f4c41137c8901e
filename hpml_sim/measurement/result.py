"""`Measurement`: time and energy of one model on this machine, from a clock and a power meter."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from hpml_sim.errors import HpmlError
from hpml_sim.units.display import html_table, plain_lines
from hpml_sim.units.formatting import DASH, digits, si


@dataclass(frozen=True)
class Window:
    """One stretch of calls in a row.

    Attributes:
        seconds: how long it took.
        calls: how many calls it held.
        joules: what the power meter counted meanwhile; None without one.
    """

    seconds: float
    calls: int
    joules: float | None


@dataclass(frozen=True, repr=False)
class Measurement:
    """Time and energy of one model on this machine, from a clock and a power meter; `measure` returns it.

    Attributes:
        device: name of the processor or GPU that ran.
        batch: samples a call.
        latency_s: median seconds a call.
        latency_p10_s: 10th percentile of the seconds a call.
        latency_p90_s: 90th percentile of the seconds a call.
        throughput_hz: samples a second at the median latency (a mean would follow whatever else the machine does).
        calls: how many calls were timed.
        energy_j: joules a sample, idle power included, median of the windows; None where there is no meter.
        energy_provenance: "measured:<meter>"; None where there is no meter.
        energy_reason: why there is no energy; empty where there is one.
        window_s: length of all windows together, seconds.
        samples_s: seconds of every timed call, in order. Not written into rows of results, and not compared.
        idle_power_w: watts while this process did nothing, measured just before; None without a meter.
        energy_without_idle_j: joules a sample above the idle power; None without a meter.
        windows: the windows in order.
        provenance: "measured:clock", the mark that is shown beside each figure.

    Raises:
        HpmlError: a figure that is NaN or infinite, or a latency or throughput that is not positive.

    Example:
        >>> import torch, hpml_sim as hs
        >>> found = hs.measure(hs.models.mlp(64, 16, 10), torch.rand(8, 1, 8, 8), min_window_s=0.01, warmup_s=0.0)
        >>> isinstance(found, hs.Measurement), found.batch, found.provenance
        (True, 8, 'measured:clock')
    """

    device: str
    batch: int
    latency_s: float
    latency_p10_s: float
    latency_p90_s: float
    throughput_hz: float
    calls: int
    energy_j: float | None
    energy_provenance: str | None
    energy_reason: str
    window_s: float
    # some ten thousand numbers: a row keeps their percentiles
    samples_s: Annotated[tuple[float, ...], Field(exclude=True)] = field(default=(), compare=False)
    idle_power_w: float | None = None
    energy_without_idle_j: float | None = None
    windows: tuple[Window, ...] = ()
    provenance: str = "measured:clock"

    def __post_init__(self) -> None:
        positive = (self.latency_s, self.latency_p10_s, self.latency_p90_s, self.throughput_hz)
        if not all(math.isfinite(figure) and figure > 0 for figure in positive):
            raise HpmlError(
                f"measurement: latency_s={self.latency_s!r} ({self.latency_p10_s!r} to {self.latency_p90_s!r}) and "
                f"throughput_hz={self.throughput_hz!r} must be finite and > 0; measure again"
            )
        for name in ("energy_j", "idle_power_w", "energy_without_idle_j"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise HpmlError(f"measurement: {name}={value!r} must be finite, or None without a meter; measure again")

    def __repr__(self) -> str:
        return plain_lines(self._title(), self._lines())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self._title(), self._lines())

    def _title(self) -> str:
        return f"Measurement on {self.device}, batch {self.batch:,}"

    def _lines(self) -> list[tuple[str, str]]:
        spread = DASH.join(si(value, "s") for value in (self.latency_p10_s, self.latency_p90_s))
        lines = [
            ("latency", f"{si(self.latency_s, 's')} a call (10th to 90th percentile {spread}, {self.calls:,} calls)"),
            ("throughput", f"{digits(self.throughput_hz)} samples/s"),
        ]
        if self.energy_j is None:
            return [*lines, ("energy", f"not measured: {self.energy_reason}")]
        lines.append(("energy", f"{si(self.energy_j, 'J')} a sample, idle power included ({self.energy_provenance})"))
        if self.idle_power_w is not None and self.energy_without_idle_j is not None:
            above = si(self.energy_without_idle_j, "J")
            lines.append(("idle power", f"{si(self.idle_power_w, 'W')}; above it {above} a sample"))
        return lines
