"""CPUs and GPUs: time from a roofline with launch costs, energy from idle power, operations and memory traffic.

Source: the roofline of energy of J. W. Choi et al., IPDPS 2013 (time overlaps, energy does not), with launch and
framework overheads as terms of their own; docs/equations.md, section 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hpml_sim.cost.breakdown import PROCESSOR, CostBreakdown, at_least
from hpml_sim.cost.digital.ceilings import CORNERS, Roofline, started
from hpml_sim.cost.result import LayerWork, Roof
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision
    from hpml_sim.cost.result import Estimate
    from hpml_sim.counting import Workload
    from hpml_sim.targets import Engine

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1}
"""Bytes of a weight or activation in each precision."""
OPS_PER_UPDATE = 4
"""Leak, add, compare, reset: operations of one update of a leaky integrate-and-fire neuron."""
SATURATED = 0.95
"""The best batch is the smallest that reaches this share of the best throughput."""
MEMORY_SHARE = 0.9
"""Share of the memory that weights and activations may take; the rest is the runtime's."""
LARGEST_BATCH = 65536


@dataclass(frozen=True)
class _Work:
    """The workload as arrays, a value a layer; activations and operations are for one sample.

    `stored_bytes` are all weights, `weight_bytes` those that a call touches (of an embedding, the rows looked up).
    """

    operations: np.ndarray
    convolves: np.ndarray
    stored_bytes: float
    weight_bytes: np.ndarray
    moved_bytes: np.ndarray
    launches: np.ndarray
    state_bytes: float

    @classmethod
    def of(cls, workload: Workload, width: int) -> _Work:
        layers = workload.layers
        return cls(
            operations=np.array(
                [2 * y.macs if y.macs else y.output_elements + OPS_PER_UPDATE * y.updates for y in layers], float
            ),
            convolves=np.array([y.op == "conv" for y in layers], bool),
            stored_bytes=float(width * sum(y.weight_count for y in layers)),
            weight_bytes=np.array([y.weights_read * width for y in layers], float),
            moved_bytes=np.array([(y.input_elements + y.output_elements) * width for y in layers], float),
            launches=np.array([y.calls for y in layers], float),
            state_bytes=width * workload.extra.get("kv_cache_elements", 0.0),
        )

    def needed(self, batch: int) -> float:
        """Bytes of memory for all weights, the state kept between calls and the largest activations of a batch."""
        return self.stored_bytes + batch * (self.state_bytes + float(self.moved_bytes.max()))

    def touched(self, batch: int) -> np.ndarray:
        """Bytes that a batch reads and writes, wherever they are."""
        return self.weight_bytes + batch * self.moved_bytes

    def traffic(self, batch: int, cache: float) -> np.ndarray:
        """Bytes to and from DRAM for a batch; weights that stay in the cache between calls cost none."""
        weights = 0.0 if self.needed(batch) <= cache else self.weight_bytes
        return weights + batch * self.moved_bytes


def estimate_digital(
    workload: Workload,
    card: DigitalCard,
    *,
    batch: int | Literal["best"] = 1,
    precision: Precision = "fp32",
    engine: Engine = "torch",
) -> Estimate:
    """Energy and time of a network on a CPU or GPU.

    For a batch b and layer k: g_k = max(operations / (eta_c peak), bytes / (eta_m bandwidth)), T(b) = t_call + the sum
    of g_k and of what starting them adds, E(b) = (P_idle + P_active) T + sum max(e_op operations, e_byte bytes), with
    mean power capped at the board limit (g_k stretches). An inference takes E(b)/b; throughput b/T(b); latency T(b).
    Where the card says what the host takes for an operator (`dispatch_time`), the host runs ahead of the GPU, which
    waits only for what has not been started. In a CUDA graph a kernel takes at least `replay_time`, and t_call has two
    operators more, which copy the input in and the result out.

    Args:
        workload: what there is to do.
        card: the machine.
        batch: samples a call, or "best": the smallest that reaches 95 % of the best throughput within the memory.
        precision: of weights, activations and arithmetic.
        engine: what runs the network. "torch-compile" and "numba-cuda" are estimated as "torch", which is said.

    Raises:
        HpmlError: the card has no peak for `precision`, or an engine that its device does not have.

    Source: docs/equations.md, section 1.
    """
    if precision not in card.peak:
        raise HpmlError(f"precision={precision!r}: card {card.name!r} has a peak for {', '.join(card.peak)} only")
    if engine in ("cuda-graph", "numba-cuda") and card.device != "cuda":
        raise HpmlError(f"engine={engine!r}: card {card.name!r} is a CPU; take 'torch' or 'torch-compile'")
    work = _Work.of(workload, BYTES[precision])
    cache = 0.0 if card.cache is None else card.cache.si
    run = _Run.of(card, work, precision, engine, batch, cache)
    breakdown = CostBreakdown(card)
    _note_sources(breakdown, card, work, precision, engine)
    _charge_time(breakdown, workload, card, run)
    _charge_work(breakdown, workload, card, precision, run)
    without_idle = sum((term.energy_j for term in breakdown.terms if term.component != "idle"), ZERO)

    latency = at_least(run.call + Band(*map(float, run.times.sum(axis=1))), PROCESSOR)
    overheads = run.call.nominal + float((work.launches * run.nominal.start_s).sum())
    _remarks(breakdown, workload, card, work, run.batch, cache, run.devices)
    if card.dispatch_time is not None and engine == "torch" and overheads > 0.5 * latency.nominal:
        breakdown.assume(
            "the host starts operator by operator, and the GPU waits for it; engine='cuda-graph' waits less"
        )
    if engine in ("torch-compile", "numba-cuda"):
        breakdown.assume(f"engine={engine!r} is estimated as operator by operator: what it fuses or adds is not known")
    return breakdown.close(
        batch=run.batch,
        latency_s=latency,
        throughput_hz=latency.inverse() * float(run.batch),
        area_mm2=None if card.area is None else breakdown.use(card.area) * (run.devices * 1e6),
        mapping={
            "devices": float(run.devices),
            "launches": float(work.launches.sum()),
            "weights_bytes": work.stored_bytes,
            "memory_bytes": work.needed(run.batch),
            "weights_cached": float(work.needed(run.batch) <= cache),
            "overhead_share": overheads / latency.nominal,
            "slowest_layer_share": float(run.times[1].max() / latency.nominal),
            "mean_power_w": breakdown.total().nominal * run.batch / latency.nominal,
            "energy_without_idle_j": without_idle.nominal,
        },
        reported_separately={"energy_without_idle_j": without_idle},
        roof=_roof(workload, work, run),
    )


@dataclass(frozen=True)
class _Run:
    """One batch on the machine, at the three corners of its bounds: low, nominal, high.

    Attributes:
        batch: samples.
        devices: as many as hold weights and activations.
        corners: the ceilings.
        paced: operations of each layer, a convolution's multiplied by how much slower it runs; an array a corner.
        traffic: bytes of each layer to and from DRAM.
        times: seconds of each layer, (corner, layer).
        dynamic: joules above idle and clocks of each layer, (corner, layer).
    """

    batch: int
    devices: int
    corners: list[Roofline]
    paced: list[np.ndarray]
    traffic: np.ndarray
    times: np.ndarray
    dynamic: np.ndarray

    @classmethod
    def of(
        cls,
        card: DigitalCard,
        work: _Work,
        precision: Precision,
        engine: Engine,
        batch: int | Literal["best"],
        cache: float,
    ) -> _Run:
        room = MEMORY_SHARE * card.memory.si
        if batch == "best":  # as many devices as one sample needs, filled
            fewest = math.ceil(work.needed(1) / room)
            batch = _best_batch(Roofline.of(card, precision, engine=engine), work, cache, fewest * room)
        operations, traffic, touched = batch * work.operations, work.traffic(batch, cache), work.touched(batch)
        corners = [Roofline.of(card, precision, corner, engine) for corner in CORNERS]
        paced = [roof.paced(operations, work.convolves) for roof in corners]
        pairs = list(zip(corners, paced, strict=True))
        return cls(
            batch=batch,
            devices=math.ceil(work.needed(batch) / room),
            corners=corners,
            paced=paced,
            traffic=traffic,
            times=np.stack([roof.time_s(p, traffic, touched, work.launches) for roof, p in pairs]),
            dynamic=np.stack([roof.dynamic_j(p, traffic) for roof, p in pairs]),
        )

    @property
    def nominal(self) -> Roofline:
        return self.corners[1]

    @property
    def call(self) -> Band:
        """Seconds of a forward call besides its operators."""
        return Band(*(roof.call_s for roof in self.corners))


def _note_sources(
    breakdown: CostBreakdown, card: DigitalCard, work: _Work, precision: Precision, engine: Engine
) -> None:
    for quantity in (card.peak[precision], card.compute_efficiency, card.power_max, started(card, engine)):
        breakdown.use(quantity)
    if card.convolution_efficiency is not None and work.convolves.any():
        breakdown.use(card.convolution_efficiency)
    for quantity in (card.memory_bandwidth, card.memory_efficiency, card.call_time):
        breakdown.use(quantity)


def _charge_time(breakdown: CostBreakdown, workload: Workload, card: DigitalCard, run: _Run) -> None:
    """What the machine draws for as long as it takes: idle power of all devices, and clocks of the one at work."""
    idle = breakdown.use(card.power_idle) * run.devices
    active = ZERO if card.power_active is None else breakdown.use(card.power_active)
    spans = [("", run.call), *((y.name, _ordered(t)) for y, t in zip(workload.layers, run.times.T, strict=True))]
    for name, span in spans:
        breakdown.add(name, "idle", at_least(span * idle, PROCESSOR) / run.batch, card.power_idle)
        if card.power_active is not None:
            breakdown.add(name, "clocks", at_least(span * active, PROCESSOR) / run.batch, card.power_active)


def _charge_work(
    breakdown: CostBreakdown, workload: Workload, card: DigitalCard, precision: Precision, run: _Run
) -> None:
    """What operations or traffic take beyond that: a layer pays for the one that costs more."""
    nominal = run.nominal
    for k, layer in enumerate(workload.layers):
        memory_bound = nominal.byte_j * run.traffic[k] > nominal.operation_j * run.paced[1][k]
        quantities = [card.power_max, card.peak[precision]]
        if memory_bound and card.energy_per_byte is not None:
            breakdown.use(card.energy_per_byte)
            quantities = [card.energy_per_byte]
        energy = at_least(Band(*map(float, run.dynamic[:, k])), PROCESSOR) / run.batch
        breakdown.add(layer.name, "memory" if memory_bound else "compute", energy, *quantities)


def _ordered(corners: np.ndarray) -> Band:
    """The band from the least of three figures to the largest; the middle one is nominal.

    A layer waits less where the one before took longer, so that the corners of one layer need not be in order.
    """
    return Band(float(corners.min()), float(corners[1]), float(corners.max()))


def _roof(workload: Workload, work: _Work, run: _Run) -> Roof:
    """The layers under the ceilings; "launch" limits one that waits for its start for most of its time.

    Where compute and power agree (a card without clocks' power), it is compute.
    """
    fast, nominal, slow = run.corners
    operations, traffic, spans = run.batch * work.operations, run.traffic, run.times[1]
    limits = nominal.limits_s(run.paced[1], traffic, work.touched(run.batch))
    names, seconds = [*limits, "launch"], np.stack(list(limits.values()))
    longest = np.argmax(seconds * (1 - 1e-12 * np.arange(len(limits)))[:, None], axis=0)  # the first of equals
    longest = np.where(seconds.max(axis=0) < spans / 2, len(limits), longest)
    return Roof(
        operations_hz=Band(slow.rate, nominal.rate, fast.rate),
        bandwidth=Band(slow.bandwidth, nominal.bandwidth, fast.bandwidth),
        layers=tuple(
            LayerWork(y.name, float(operations[k]), float(traffic[k]), float(spans[k]), names[i])
            for k, (y, i) in enumerate(zip(workload.layers, longest, strict=True))
        ),
    )


def _best_batch(roof: Roofline, work: _Work, cache: float, room: float) -> int:
    rates: dict[int, float] = {}
    batch = 1
    while batch <= LARGEST_BATCH and (batch == 1 or work.needed(batch) <= room):
        operations = roof.paced(batch * work.operations, work.convolves)
        times = roof.time_s(operations, work.traffic(batch, cache), work.touched(batch), work.launches)
        rates[batch] = batch / (roof.call_s + float(times.sum()))
        batch *= 2
    enough = SATURATED * max(rates.values())
    return min(b for b, rate in rates.items() if rate >= enough)


def _remarks(
    breakdown: CostBreakdown, workload: Workload, card: DigitalCard, work: _Work, batch: int, cache: float, devices: int
) -> None:
    for name in workload.not_counted:
        breakdown.exclude(f"{name}: a layer that the workload does not know")
    if card.power_active is None:
        breakdown.exclude("power of running clocks at light load, above idle: the card has no figure")
    if card.energy_per_byte is None:
        breakdown.exclude("energy of DRAM traffic as a term of its own: the card has no figure")
    if work.needed(batch) <= cache:
        breakdown.assume("all weights and activations stay in the last-level cache between calls")
    if devices > 1:
        breakdown.assume(
            f"{work.needed(batch) / 1e9:.3g} GB for weights and activations take {devices} devices of "
            f"{card.memory.si / 1e9:.3g} GB (90 % usable), one working at a time, all powered"
        )
        breakdown.exclude("traffic between the devices")
    if any(layer.calls > 1 for layer in workload.layers):
        breakdown.assume("a launch for each call of a layer, as an eager framework has it; fused kernels need fewer")
    if workload.kind == "spiking":
        breakdown.assume("spikes are computed densely: zeros save neither time nor energy")
