"""Timing a model on the machine at hand, with its power meter running where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.conversion.modes import eval_mode
from hpml_sim.errors import HpmlError
from hpml_sim.measurement.machine import cpu_name
from hpml_sim.measurement.power import Meter, meter_for

POWER_WINDOW_S, CLOCK_WINDOW_S = 2.0, 0.7
"""Least length of a window: with a power meter, which refreshes about ten times a second, and with the clock alone.

Source: Z. Yang, K. Adamek, W. Armour, SC'24, arXiv:2312.02741, on NVML's sampling."""
_LONGEST_TICK_S = 0.5
"""A counter that has not moved for so long is not waited for."""


@dataclass(frozen=True)
class Window:
    """One stretch of calls in a row: seconds, calls, and joules that the meter counted (None without one)."""

    seconds: float
    calls: int
    joules: float | None


@dataclass(frozen=True)
class Measurement:
    """What the clock and the power meter said.

    Attributes:
        device: the processor or GPU that ran. batch: samples a call.
        latency_s: median seconds a call; latency_p10_s, latency_p90_s: its spread.
        throughput_hz: samples a second at the median latency (a mean would follow whatever else the machine does).
        calls: timed calls. samples_s: every one of them, in order.
        energy_j: joules a sample, idle power included, median of the windows; None where there is no meter.
        energy_how: "measured:<meter>", or None. energy_reason: why there is no energy.
        idle_power_w: watts while this process did nothing, measured just before; None without a meter.
        energy_without_idle_j: joules a sample above that; None without a meter.
        windows: what each window gave. window_s: their length together.
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
    samples_s: tuple[float, ...] = field(repr=False)
    idle_power_w: float | None = None
    energy_without_idle_j: float | None = None
    windows: tuple[Window, ...] = field(default=(), repr=False)
    provenance: str = "measured:clock"


def measure(
    model: nn.Module,
    example: Tensor,
    *,
    min_window_s: float | None = None,
    windows: int = 3,
    warmup_s: float = 0.2,
    meter: Meter | None = None,
    own_process: bool = False,
) -> Measurement:
    """Time forward passes of `model` on `example` in several windows, warm-up excluded, idle power measured apart.

    Args:
        model: (batch, ...) -> anything; it runs in evaluation mode and from rest, and is left as it was found.
        example: one batch, on the device to be measured.
        min_window_s: least length of a window, > 0; None takes 2 s where a power meter is read, else 0.7 s.
        windows: how many, >= 1.
        warmup_s: calls for at least this long come first and are not counted.
        meter: a power meter; by default the one that belongs to the device.
        own_process: measure in a fresh process, where nothing is left of what this one did (threads, caches, memory),
            as `compare` does; model, example and meter are sent there. It takes the time of importing torch.

    Raises:
        HpmlError: an empty batch, a window that is not positive, or a model that cannot be sent to another process or
            fails there.
    """
    if example.shape[0] < 1 or windows < 1 or (min_window_s is not None and not min_window_s > 0):
        raise HpmlError(
            f"measure: batch {example.shape[0]}, min_window_s={min_window_s!r} and windows={windows!r} must all be > 0"
        )
    if own_process:
        from hpml_sim.measurement.own_process import measure_in_own_process

        return measure_in_own_process(
            model, [example], min_window_s=min_window_s, windows=windows, warmup_s=warmup_s, meter=meter
        )[0]
    meter = meter or meter_for(example.device)
    available = meter.available()
    read = meter.energy_j if available.ok else None
    length = min_window_s or (POWER_WINDOW_S if available.ok else CLOCK_WINDOW_S)
    call = _Call(model, example)
    with eval_mode(model):
        idle_w = None if read is None else _idle_power_w(read, length)
        warm = time.perf_counter() + warmup_s
        call.repeat(lambda: time.perf_counter() >= warm)
        call.samples_s.clear()
        measured = [_window(call, length, read) for _ in range(windows)]

    batch = int(example.shape[0])
    p10, p50, p90 = np.percentile(call.samples_s, (10, 50, 90)).tolist()
    joules = [w.joules / (batch * w.calls) for w in measured if w.joules is not None]
    above = [
        (w.joules - idle_w * w.seconds) / (batch * w.calls)
        for w in measured
        if w.joules is not None and idle_w is not None
    ]
    return Measurement(
        device=torch.cuda.get_device_name(example.device) if example.device.type == "cuda" else cpu_name(),
        batch=batch,
        latency_s=p50,
        latency_p10_s=p10,
        latency_p90_s=p90,
        throughput_hz=batch / p50,
        calls=len(call.samples_s),
        energy_j=float(np.median(joules)) if joules else None,
        energy_provenance=f"measured:{meter.name}" if available.ok else None,
        energy_reason=available.reason,
        window_s=sum(w.seconds for w in measured),
        samples_s=tuple(call.samples_s),
        idle_power_w=idle_w,
        energy_without_idle_j=float(np.median(above)) if above else None,
        windows=tuple(measured),
    )


class _Call:
    """Forward passes, each synchronized and timed."""

    def __init__(self, model: nn.Module, example: Tensor):
        self._model, self._example = model, example
        self._wait = torch.cuda.synchronize if example.device.type == "cuda" else (lambda: None)
        self.samples_s: list[float] = []

    def repeat(self, done: Callable[[], bool], least: int = 3) -> int:
        """Call until `done`, at least so often; returns how often."""
        before = len(self.samples_s)
        while len(self.samples_s) - before < least or not done():
            self._wait()
            start = time.perf_counter()
            self._model(self._example)
            self._wait()
            self.samples_s.append(time.perf_counter() - start)
        return len(self.samples_s) - before


def _window(call: _Call, length_s: float, read: Callable[[], float] | None) -> Window:
    """Calls for at least `length_s`. With a meter, from one step of its counter to another: its grid must not count."""
    if read is None:
        start = time.perf_counter()
        calls = call.repeat(lambda: time.perf_counter() - start >= length_s)
        return Window(time.perf_counter() - start, calls, None)
    _until_it_moves(call, read)
    before, start = read(), time.perf_counter()
    calls = call.repeat(lambda: time.perf_counter() - start >= length_s)
    calls += _until_it_moves(call, read)
    return Window(time.perf_counter() - start, calls, read() - before)


def _until_it_moves(call: _Call, read: Callable[[], float]) -> int:
    start, value = time.perf_counter(), read()
    return call.repeat(lambda: read() != value or time.perf_counter() - start > _LONGEST_TICK_S, least=1)


def _idle_power_w(read: Callable[[], float], length_s: float) -> float:
    """Watts while this process sleeps, between two steps of the counter at least `length_s` apart."""

    def step() -> tuple[float, float]:
        start, value = time.perf_counter(), read()
        while read() == value and time.perf_counter() - start < _LONGEST_TICK_S:
            time.sleep(0.002)
        return time.perf_counter(), read()

    start, before = step()
    time.sleep(length_s)
    end, after = step()
    return (after - before) / (end - start)
