"""Timing a model on the machine at hand, with its power meter running where there is one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError
from hpml_sim.machine import cpu_name
from hpml_sim.meters.energy import Meter, meter_for


@dataclass(frozen=True)
class Measurement:
    """What the clock and the power meter said.

    Attributes:
        device: the processor or GPU that ran. batch: samples a call.
        latency_s: median seconds a call; latency_p10_s, latency_p90_s: its spread.
        throughput_hz: samples a second at the median latency (a mean would follow whatever else the machine does).
        calls: timed calls. samples_s: every timed call.
        energy_j: joules a sample, idle power included; None where there is no meter.
        energy_how: "measured:<meter>", or None. energy_reason: why there is no energy.
        window_s: length of the window that the energy was read over.
    """

    device: str
    batch: int
    latency_s: float
    latency_p10_s: float
    latency_p90_s: float
    throughput_hz: float
    calls: int
    energy_j: float | None
    energy_how: str | None
    energy_reason: str
    window_s: float
    samples_s: tuple[float, ...] = field(repr=False)
    how: str = "measured:clock"


def measure(
    model: nn.Module, example: Tensor, *, min_window_s: float = 2.0, warmup_s: float = 0.2, meter: Meter | None = None
) -> Measurement:
    """Time forward passes of `model` on `example`, repeated for at least `min_window_s`, warm-up excluded.

    Args:
        model: (batch, ...) -> anything; it is put into evaluation mode for the call.
        example: one batch, on the device to be measured.
        min_window_s: length of the timed window, > 0; power meters refresh about ten times a second, so windows of at
            least 2 s are advised (Z. Yang, K. Adamek, W. Armour, SC'24, arXiv:2312.02741, on NVML's sampling).
        warmup_s: calls for at least this long come first and are not counted.
        meter: a power meter; by default the one that belongs to the device.

    Raises:
        HpmlError: an empty batch, or a window that is not positive.
    """
    if example.shape[0] < 1 or min_window_s <= 0:
        raise HpmlError(f"measure: batch {example.shape[0]} and min_window_s={min_window_s!r} must both be > 0")
    meter = meter or meter_for(example.device)
    available = meter.available()
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            _run(model, example, warmup_s)
            start_j = meter.energy_j() if available.ok else 0.0
            samples = _run(model, example, min_window_s)
            spent_j = meter.energy_j() - start_j if available.ok else 0.0
    finally:
        model.train(was_training)
    batch, calls = int(example.shape[0]), len(samples)
    p10, p50, p90 = np.percentile(samples, (10, 50, 90)).tolist()
    return Measurement(
        device=torch.cuda.get_device_name(example.device) if example.device.type == "cuda" else cpu_name(),
        batch=batch,
        latency_s=p50,
        latency_p10_s=p10,
        latency_p90_s=p90,
        throughput_hz=batch / p50,
        calls=calls,
        energy_j=spent_j / (batch * calls) if available.ok else None,
        energy_how=f"measured:{meter.name}" if available.ok else None,
        energy_reason=available.reason,
        window_s=sum(samples),
        samples_s=tuple(samples),
    )


def _run(model: nn.Module, example: Tensor, window_s: float) -> list[float]:
    """Seconds of each call, for at least `window_s` and at least three calls."""
    wait = torch.cuda.synchronize if example.device.type == "cuda" else (lambda: None)
    samples: list[float] = []
    end = time.perf_counter() + window_s
    while len(samples) < 3 or time.perf_counter() < end:
        wait()
        start = time.perf_counter()
        model(example)
        wait()
        samples.append(time.perf_counter() - start)
    return samples
