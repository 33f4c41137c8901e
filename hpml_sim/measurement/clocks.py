"""Timing a model on the machine at hand, with its power meter running where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.conversion.modes import eval_mode
from hpml_sim.conversion.modules import check_network
from hpml_sim.conversion.network_call import Inputs, as_arguments, copied_tensors, samples_in, tensors_in
from hpml_sim.errors import HpmlError, check_real, check_whole, shown
from hpml_sim.measurement.machine import cpu_name
from hpml_sim.measurement.power import Meter, meter_for
from hpml_sim.measurement.result import Measurement, Window

POWER_WINDOW_S, CLOCK_WINDOW_S = 2.0, 0.7
"""Least length of a window: with a power meter, which refreshes about ten times a second, and with the clock alone.

Source: Z. Yang, K. Adamek, W. Armour, SC'24, arXiv:2312.02741, on NVML's sampling."""
_LONGEST_TICK_S = 0.5
"""A counter that has not moved for so long is not waited for."""


def check_call(caller: str, model: object, example: object) -> None:
    """Refuse a call that cannot be timed.

    Args:
        caller: name of the public function, which begins the message.
        model: must be an `nn.Module`.
        example: must be a tensor with at least one sample, or several such.

    Raises:
        HpmlError: one of them is not.
    """
    check_network(f"{caller}: model", model)
    tensors = list(tensors_in(example))
    if not tensors or any(tensor.dim() < 1 or len(tensor) < 1 for tensor in tensors):
        given = f"a tensor of shape {tuple(example.shape)}" if isinstance(example, Tensor) else shown(example)
        raise HpmlError(
            f"{caller}: example={given}: must be a tensor (batch, ...) with at least one sample, on the device to be "
            "measured; such as torch.rand(1, 1, 28, 28)"
        )


def check_windows(caller: str, min_window_s: object, windows: object, warmup_s: object = 0.0) -> None:
    """Refuse windows that cannot be timed.

    Args:
        caller: name of the public function, which begins the message.
        min_window_s: must be a number > 0, or None.
        windows: must be a whole number >= 1.
        warmup_s: must be a number >= 0.

    Raises:
        HpmlError: one of them is not.
    """
    check_whole(f"{caller}: windows", windows, low=1)
    check_real(f"{caller}: warmup_s", warmup_s, low=0)
    if min_window_s is not None:
        check_real(f"{caller}: min_window_s", min_window_s, above=0)


def time_model(
    model: nn.Module,
    example: Inputs,
    *,
    min_window_s: float | None = None,
    windows: int = 3,
    warmup_s: float = 0.2,
    meter: Meter | None = None,
) -> Measurement:
    """Time forward passes in this process; `measure` describes what happens.

    Args:
        model: (batch, ...) -> anything; it runs in evaluation mode and from rest, and is left as it was found.
        example: one batch, a tensor or several, on the device to be measured.
        min_window_s: least length of a window, > 0; None takes 2 s where a power meter is read, else 0.7 s.
        windows: how many, >= 1.
        warmup_s: calls for at least this long come first and are not counted.
        meter: a power meter; None takes the one that belongs to the device.

    Raises:
        HpmlError: no network, an empty batch, or a number out of range.
    """
    check_call("measure", model, example)
    check_windows("measure", min_window_s, windows, warmup_s)
    device = next(tensors_in(example)).device
    meter = meter or meter_for(device)
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

    batch = samples_in(example)
    p10, p50, p90 = np.percentile(call.samples_s, (10, 50, 90)).tolist()
    joules = [w.joules / (batch * w.calls) for w in measured if w.joules is not None]
    above = [
        (w.joules - idle_w * w.seconds) / (batch * w.calls)
        for w in measured
        if w.joules is not None and idle_w is not None
    ]
    return Measurement(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
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

    def __init__(self, model: nn.Module, example: Inputs):
        # a network may write into its inputs
        self._model, (self._args, self._kwargs) = model, copied_tensors(as_arguments(example))
        on_gpu = next(tensors_in(example)).device.type == "cuda"
        self._wait = torch.cuda.synchronize if on_gpu else (lambda: None)
        self.samples_s: list[float] = []

    def repeat(self, done: Callable[[], bool], least: int = 3) -> int:
        """Call until `done`, at least so often; returns how often."""
        before = len(self.samples_s)
        while len(self.samples_s) - before < least or not done():
            self._wait()
            start = time.perf_counter()
            self._model(*self._args, **self._kwargs)
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
