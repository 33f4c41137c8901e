"""The ceilings of the machine at hand, measured: how fast it copies, multiplies and starts operators; its power."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.cards import Precision
from hpml_sim.errors import HpmlError
from hpml_sim.measurement.machine import cpu_name
from hpml_sim.measurement.measuring import measure
from hpml_sim.measurement.power import Meter, meter_for
from hpml_sim.units.bands import Band
from hpml_sim.units.display import html_table, plain_lines
from hpml_sim.units.formatting import si, si_band

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Size:
    """How large the measured copy and product are, and how long each is repeated.

    Attributes:
        copy_bytes: of one of the two tensors of the copy; several times the last cache.
        side: of the square matrices.
        window_s: repeats of one figure last at least so long, seconds.
    """

    copy_bytes: int
    side: int
    window_s: float = 0.5


CPU_SIZE, GPU_SIZE = Size(1 << 25, 384), Size(1 << 31, 8192)
"""The calls on a CPU take some milliseconds: where other programs use the cores, few of the calls are interrupted."""


@dataclass(frozen=True, repr=False)
class Ceilings:
    """What a processor reaches at most, as measured; `measure_ceilings` gives it.

    Of bandwidth and rates the nominal value is that of the fastest tenth of the repeats, the low one their median, so
    that other programs on the machine do not lower the roof. Of launches and calls the band is the 10th percentile, the
    median and the 90th.

    Attributes:
        device: "cpu" or "cuda".
        name: of the processor or GPU.
        cores: threads that torch uses on a CPU; None on a GPU.
        bandwidth: bytes a second of a large copy into new memory, read and written.
        rates: operations a second of a large square product, by precision (a MAC is two).
        convolution: share of the fp32 product's rate that a 3 x 3 convolution reaches: on a GPU of 64 channels, as in a
            ResNet; on a CPU, which runs small networks, of 16.
        launch_s: seconds that one more operator takes in an eager network.
        call_s: seconds that a forward call takes besides its operators.
        memory_bytes: of the device.
        cache_bytes: of its last-level cache; None where it is unknown.
        cache_bandwidth: bytes a second of a sum over an eighth of that cache; None on a GPU, where launches hide it.
        idle_w: watts while nothing runs; None without a power meter.
        active_w: watts above that while operators too small to count keep coming; None without a power meter.
        max_w: the board's limit, or what a large product draws, in watts; None without a power meter.
        byte_j: joules that a byte of the copy took above idle and active; None without a power meter.
        power_provenance: "measured:<meter>", or why there is no power.
    """

    device: str
    name: str
    cores: int | None
    bandwidth: Band
    rates: dict[Precision, Band]
    convolution: Band
    launch_s: Band
    call_s: Band
    memory_bytes: int
    cache_bytes: int | None
    cache_bandwidth: Band | None
    idle_w: float | None
    active_w: float | None
    max_w: float | None
    byte_j: float | None
    power_provenance: str

    def __repr__(self) -> str:
        return plain_lines(self._title(), self._lines())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return html_table(self._title(), self._lines())

    def _title(self) -> str:
        return f"Ceilings of {self.name}" + ("" if self.cores is None else f", {self.cores} threads")

    def _lines(self) -> list[tuple[str, str]]:
        rates = [(f"product, {precision}", si_band(rate, "op/s")) for precision, rate in self.rates.items()]
        power = self.power_provenance if self.idle_w is None else f"{self.idle_w:.3g} W idle ({self.power_provenance})"
        return [
            ("memory", f"{si_band(self.bandwidth, 'B/s')}, {si(self.memory_bytes, 'B')}"),
            *rates,
            ("convolution", f"{si_band(self.convolution, '')} of the fp32 product"),
            ("launch", f"{si_band(self.launch_s, 's')} an operator, {si_band(self.call_s, 's')} a call"),
            ("power", power),
        ]


def measure_ceilings(
    device: str | torch.device = "cpu", *, size: Size | None = None, meter: Meter | None = None
) -> Ceilings:
    """Measure the ceilings of a device: a few seconds on a GPU, about ten on a CPU.

    Run it while nothing else runs: what other programs take of a memory bus or a power budget is missing here.

    Args:
        device: "cpu" or "cuda".
        size: of the measured copy and product; None takes what suits the device.
        meter: a power meter; by default the one that belongs to the device.

    Raises:
        HpmlError: torch has no such device here.
    """
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError):  # torch knows no such device
        where = torch.device("meta")
    if where.type not in ("cpu", "cuda") or (where.type == "cuda" and not torch.cuda.is_available()):
        raise HpmlError(
            f"measure_ceilings: device={str(device)!r} cannot be measured here; take 'cpu', or 'cuda' on a machine "
            "with an NVIDIA GPU (`hpml-sim doctor` says what torch finds)"
        )
    gpu = where.type == "cuda"
    size = size or (GPU_SIZE if gpu else CPU_SIZE)
    meter = meter or meter_for(where)
    reason = meter.available().reason
    idle_w = None if reason else _watts(meter, lambda: time.sleep(0.01), 2 * size.window_s)
    bandwidth = _bandwidth(where, size)
    rates: dict[Precision, Band] = {
        name: rate for name in _precisions(where) if (rate := _rate(where, name, size)) is not None
    }
    launch_s, call_s = _launches(where, size.window_s)
    active_w = max_w = byte_j = None
    if idle_w is not None:
        small, wait = torch.zeros(16, device=where), _wait(where)
        active_w = max(0.0, _watts(meter, lambda: (small.add_(1), wait()), 2 * size.window_s) - idle_w)
        max_w = _max_w(where, meter, size)
        byte_j = _byte_j(where, meter, size, idle_w + active_w)
    return Ceilings(
        device=where.type,
        name=torch.cuda.get_device_name(where) if gpu else cpu_name(),
        cores=None if gpu else torch.get_num_threads(),
        bandwidth=bandwidth,
        rates=rates,
        convolution=_convolution(where, size, rates["fp32"].nominal),
        launch_s=launch_s,
        call_s=call_s,
        memory_bytes=torch.cuda.get_device_properties(where).total_memory if gpu else _memory_bytes(),
        cache_bytes=int(torch.cuda.get_device_properties(where).L2_cache_size) if gpu else _cache_bytes(),
        cache_bandwidth=None if gpu else _cache_bandwidth(where, size),
        idle_w=idle_w,
        active_w=active_w,
        max_w=max_w,
        byte_j=byte_j,
        power_provenance=reason or f"measured:{meter.name}",
    )


def _wait(device: torch.device) -> Callable[[], None]:
    return torch.cuda.synchronize if device.type == "cuda" else (lambda: None)


def _seconds(call: Callable[[], object], device: torch.device, window_s: float) -> np.ndarray:
    """Seconds of each call: the fastest, 10th percentile, median."""
    wait, samples = _wait(device), []
    for _ in range(2):
        call()
    end = time.perf_counter() + window_s
    while len(samples) < 5 or time.perf_counter() < end:
        wait()
        start = time.perf_counter()
        call()
        wait()
        samples.append(time.perf_counter() - start)
    return np.percentile(samples, (0, 10, 50))


def _per_second(amount: float, seconds: np.ndarray) -> Band:
    fastest, fast, middle = seconds.tolist()
    return Band(amount / middle, amount / fast, amount / fastest)


def _bandwidth(device: torch.device, size: Size) -> Band:
    """A copy into memory of its own, as operators make their results: a CPU's system has to find the pages, too."""
    source = torch.rand(size.copy_bytes // 4, device=device)
    return _per_second(2 * size.copy_bytes, _seconds(source.clone, device, size.window_s))


def _cache_bandwidth(device: torch.device, size: Size) -> Band:
    elements = min(size.copy_bytes, (_cache_bytes() or size.copy_bytes) // 8) // 4
    there = torch.rand(elements, device=device)
    return _per_second(4 * elements, _seconds(lambda: there.sum(), device, size.window_s))


def _precisions(device: torch.device) -> tuple[Precision, ...]:
    """Those that the device has arithmetic for; a CPU without bf16 instructions would convert and be slower for it."""
    if device.type == "cuda":
        return ("fp32", "tf32", "bf16", "fp16", "int8")
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return ("fp32", "bf16") if "avx512_bf16" in flags or "amx_bf16" in flags else ("fp32",)


def _rate(device: torch.device, precision: Precision, size: Size) -> Band | None:
    """Operations a second of a product of random matrices; None where the device refuses it."""
    n, generator = size.side, torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(n, n, device=device, generator=generator) for _ in range(2))
    multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul
    if precision == "int8":
        a, b = (x.mul(30).clamp(-127, 127).to(torch.int8) for x in (a, b))
        b, multiply = b.t(), torch._int_mm  # pyright: ignore[reportPrivateImportUsage]
    elif precision != "tf32":
        a, b = a.to(_DTYPES[precision]), b.to(_DTYPES[precision])
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision  # pyright: ignore[reportAttributeAccessIssue]
    try:
        matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"  # pyright: ignore[reportAttributeAccessIssue]
        return _per_second(2.0 * n**3, _seconds(lambda: multiply(a, b), device, size.window_s))
    except RuntimeError:  # a GPU without such units
        return None
    finally:
        matmul.fp32_precision = before  # pyright: ignore[reportAttributeAccessIssue]


def _convolution(device: torch.device, size: Size, product: float) -> Band:
    """Rate of a convolution over that of a product, both fp32."""
    images, side, channels = (64, 56, 64) if device.type == "cuda" else (4, 28, 16)
    x = torch.rand(images, channels, side, side, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    places = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # pyright: ignore[reportAttributeAccessIssue]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        seconds = _seconds(lambda: torch.conv2d(x, weight, padding=1), device, size.window_s)
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value
    rate = _per_second(2.0 * images * side * side * channels * channels * 9, seconds)
    return Band(*(min(1.0, value / product) for value in (rate.low, rate.nominal, rate.high)))


def _launches(device: torch.device, window_s: float) -> tuple[Band, Band]:
    """Seconds an operator, and a call besides its operators: the slope and the rest of two chains of small layers.

    The layers are those that small networks are made of: linear, convolution, activation, half of each kind.
    """
    short, long = 4, 44

    def seconds(layers: int) -> np.ndarray:
        group = (nn.Linear(8, 8), nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())
        chain = nn.Sequential(*(layer for _ in range(layers // 4) for layer in group)).to(device).eval()
        x = torch.rand(1, 2, 8, 8, device=device)
        samples = measure(chain, x, min_window_s=window_s / 3, windows=3).samples_s
        return np.percentile(samples, (10, 50, 90))

    few, many = seconds(short), seconds(long)
    launch = np.maximum.accumulate(np.maximum((many - few) / (long - short), 1e-8))
    call = np.maximum.accumulate(np.maximum(few - short * launch, 1e-7))
    return Band(*launch.tolist()), Band(*call.tolist())


# ---------------------------------------------------------------------------------------------------------------- power


def _watts(meter: Meter, work: Callable[[], object], seconds: float) -> float:
    """Mean power while `work` is repeated."""
    start, before = time.perf_counter(), meter.energy_j()
    while time.perf_counter() - start < seconds:
        work()
    return (meter.energy_j() - before) / (time.perf_counter() - start)


def _max_w(device: torch.device, meter: Meter, size: Size) -> float:
    if device.type == "cuda":
        import pynvml

        handle = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
        return pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) * 1e-3
    a = torch.rand(size.side, size.side)
    return _watts(meter, lambda: a @ a, 4 * size.window_s)


def _byte_j(device: torch.device, meter: Meter, size: Size, without_w: float) -> float:
    source = torch.rand(size.copy_bytes // 4, device=device)
    target, wait = torch.zeros_like(source), _wait(device)
    moved, start, before = 0, time.perf_counter(), meter.energy_j()
    while time.perf_counter() - start < 4 * size.window_s:
        target.copy_(source)
        wait()
        moved += 2 * size.copy_bytes
    return max(0.0, (meter.energy_j() - before - without_w * (time.perf_counter() - start)) / moved)


# --------------------------------------------------------------------------------------------------------------- memory


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """The last-level cache that this machine's first core sees."""
    sizes = [(p / "size").read_text().strip() for p in folder.glob("index*") if (p / "size").exists()]
    factors = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    found = [int(text[:-1]) * factors[text[-1]] for text in sizes if text[:-1].isdigit() and text[-1] in factors]
    return max(found, default=None)
