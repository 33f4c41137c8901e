"""CPUs and GPUs: time from a roofline with launch costs, energy from idle power, operations and memory traffic.

Source: the roofline of energy of J. W. Choi et al., IPDPS 2013 (time overlaps, energy does not), with launch and
framework overheads as terms of their own; docs/equations.md, section 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from hpml_sim.cost.breakdown import CostBreakdown
from hpml_sim.cost.digital.bands import LENT, NETWORK, around, ordered
from hpml_sim.cost.digital.ceilings import CORNERS, Roofline, started
from hpml_sim.cost.digital.gpu import Gpu
from hpml_sim.cost.digital.power import SISTER, capped, operation_j, power_of
from hpml_sim.cost.digital.products import BYTES
from hpml_sim.cost.digital.quantized import sparse_speedup
from hpml_sim.cost.digital.work import Work
from hpml_sim.cost.result import LayerWork, Roof
from hpml_sim.cost.system.work import generates
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO, Band, product

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision
    from hpml_sim.cost.result import Estimate
    from hpml_sim.counting import Workload
    from hpml_sim.targets import EstimatedEngine as Engine

SATURATED = 0.95
"""The best batch is the smallest that reaches this share of the best throughput."""
MEMORY_SHARE = 0.9
"""Share of the memory that weights and activations may take; the rest is the runtime's."""
LARGEST_BATCH = 65536
Weights = Literal["int8", "int4"]
"""Formats of weights alone: they are read in fewer bytes, and multiplied in the precision of the activations."""
WEIGHT_BYTES: dict[Weights, float] = {"int8": 1.0, "int4": 0.5}
"""Bytes of such a weight; its scales, one in some 100 weights, are left out."""


def estimate_digital(
    workload: Workload,
    card: DigitalCard,
    *,
    batch: int | Literal["best"] = 1,
    precision: Precision = "fp32",
    engine: Engine = "torch",
    weights: Weights | None = None,
    channels_last: bool = False,
    fused_attention: bool = True,
) -> Estimate:
    """Energy and time of a network on a CPU or GPU.

    For a batch b and layer k: g_k = max(operations / (eta_c peak), bytes / (eta_m bandwidth)), T(b) = t_call + the sum
    of g_k and of what starting them adds, E(b) = (P_idle + P_active) T + sum max(e_op operations, e_byte bytes), with
    mean power capped at the board limit (g_k stretches). A GPU with a table `[kernels]` has times by the model of its
    kernels, and pays for operations and bytes, as a serving engine does. An inference takes E(b)/b; throughput
    b/T(b); latency T(b); where layers are a pipeline (`in_flight`), that many times T(b). Where the card says what
    the host takes for an operator (`dispatch_time`), the host runs ahead of the GPU, which
    waits only for what has not been started. In a CUDA graph a kernel takes at least `replay_time`, and t_call has two
    operators more, which copy the input in and the result out.

    Args:
        workload: what there is to do.
        card: the machine.
        batch: samples a call, or "best": the smallest that reaches 95 % of the best throughput within the memory.
        precision: of weights, activations and arithmetic.
        engine: what runs the network. "numba-cuda" is estimated as "torch", which is said.
        weights: how weights are stored where not in `precision`; they are multiplied in `precision` all the same.
        channels_last: whether images of an eager network have the channel innermost.
        fused_attention: whether attention is one kernel, as in PyTorch from 2.0 on.

    Raises:
        HpmlError: the card has no peak for `precision`, an engine that its device does not have, or weights that are
            stored in no fewer bytes than `precision` has.

    Source: docs/equations.md, section 1.
    """
    if precision not in card.peak:
        raise HpmlError(f"precision={precision!r}: card {card.name!r} has a peak for {', '.join(card.peak)} only")
    if engine in ("cuda-graph", "numba-cuda", "fused") and card.device != "cuda":
        what = "is a CPU" if card.device == "cpu" else "has no CUDA"
        raise HpmlError(f"engine={engine!r}: card {card.name!r} {what}; take 'torch' or 'torch-compile'")
    stored = None if weights is None else WEIGHT_BYTES[weights]
    if stored is not None and stored >= BYTES[precision]:
        raise HpmlError(
            f"weights={weights!r}: precision={precision!r} stores its weights in as few bytes; leave weights out, or "
            "take precision='fp16' or 'bf16'"
        )
    sparse = sparse_speedup(card, precision)
    work = Work.of(workload, BYTES[precision], engine, stored, fused_attention, sparse)
    cache = 0.0 if card.cache is None else card.cache.si
    gpu = None if card.kernels is None else Gpu.of(card, precision, engine, channels_last, stored)
    run = _Run.of(card, work, precision, engine, batch, cache, gpu)
    breakdown = CostBreakdown(card)
    _note_sources(breakdown, card, work, precision, engine)
    _charge_time(breakdown, workload, card, run)
    _charge_work(breakdown, workload, card, precision, run)
    without_idle = sum((term.energy_j for term in breakdown.terms if term.component != "idle"), ZERO)

    taken = around(run.call + Band(*map(float, run.times.sum(axis=1))), run.band, run.floor_s)
    # of a machine whose layers are a pipeline, several inferences are under way at once
    latency = taken if card.in_flight is None else product(taken, breakdown.use(card.in_flight)).maximum(taken)
    if card.in_flight is not None and generates(workload):  # a token waits for the one before it
        idle = breakdown.use(card.power_idle) * run.devices
        waits = Band(latency.low - taken.low, latency.nominal - taken.nominal, latency.high - taken.high)
        breakdown.add("", "pipeline", idle * waits / run.batch, card.power_idle)
        taken = latency
    overheads = run.call.nominal + float((work.launches * run.nominal.start_s).sum())
    _remarks(breakdown, workload, card, work, run.batch, cache, run.devices)
    if card.dispatch_time is not None and engine == "torch" and overheads > 0.5 * taken.nominal:
        breakdown.assume(
            "the host starts operator by operator, and the GPU waits for it; engine='cuda-graph' waits less"
        )
    if engine == "numba-cuda":
        breakdown.assume(f"engine={engine!r} is estimated as operator by operator: its own kernels have no model")
    _note_zeros(breakdown, workload, card, sparse)
    if weights is not None:
        breakdown.assume(f"weights are stored as {weights} and multiplied as {precision}; unpacking them is hidden")
    return breakdown.close(
        batch=run.batch,
        latency_s=latency,
        throughput_hz=taken.inverse() * float(run.batch),
        area_mm2=None if card.area is None else breakdown.use(card.area) * (run.devices * 1e6),
        mapping={
            "devices": float(run.devices),
            "launches": float(work.launches.sum()),
            "weights_bytes": work.stored_bytes,
            "memory_bytes": work.needed(run.batch),
            "weights_cached": float(work.needed(run.batch) <= cache),
            "overhead_share": overheads / taken.nominal,
            "slowest_layer_share": float(run.times[1].max() / taken.nominal),
            "mean_power_w": breakdown.total().nominal * run.batch / taken.nominal,
            "energy_without_idle_j": without_idle.nominal,
        },
        reported_separately={"energy_without_idle_j": without_idle},
        roof=_roof(workload, work, run),
    )


def _note_zeros(breakdown: CostBreakdown, workload: Workload, card: DigitalCard, sparse: float) -> None:
    """What the machine makes of weights that are zero."""
    if not any(layer.zero_weights for layer in workload.layers):
        return
    fitting = [layer.name for layer in workload.layers if layer.zero_pattern == "2:4"]
    if sparse > 1 and fitting and card.sparse_speedup is not None:
        breakdown.use(card.sparse_speedup)
        breakdown.assume(
            f"{len(fitting)} layers with two zeros in four are stored without them and multiplied at {sparse:g} times "
            "the dense rate, which large products alone reach"
        )
    elif any(layer.zero_share > 0.1 for layer in workload.layers):
        breakdown.assume("weights that are zero are stored, read and multiplied as all others")


@dataclass(frozen=True)
class _Run:
    """One batch on the machine, at the three corners of its bounds: low, nominal, high.

    Attributes:
        batch: samples.
        devices: as many as hold weights and activations.
        corners: the ceilings.
        operations: of each layer.
        paced: operations of each layer, a convolution's multiplied by how much slower it runs; an array a corner.
        traffic: bytes of each layer to and from DRAM.
        times: seconds of each layer, (corner, layer).
        dynamic: joules above idle and clocks of each layer, (corner, layer).
        work_s: seconds of each layer's work on the device, nominal.
        calls: of devices, for one batch.
        band: the factor that bounds what the model of the device leaves open.
        floor_s: seconds that no machine with this data sheet undercuts.
    """

    batch: int
    devices: int
    corners: list[Roofline]
    operations: np.ndarray
    paced: list[np.ndarray]
    traffic: np.ndarray
    times: np.ndarray
    dynamic: np.ndarray
    work_s: np.ndarray
    calls: int
    band: float
    floor_s: float

    @classmethod
    def of(
        cls,
        card: DigitalCard,
        work: Work,
        precision: Precision,
        engine: Engine,
        batch: int | Literal["best"],
        cache: float,
        gpu: Gpu | None,
    ) -> _Run:
        room = MEMORY_SHARE * card.memory.si
        if batch == "best":  # as many devices as one sample needs, filled
            fewest = math.ceil(work.needed(1) / room)
            batch = _best_batch(Roofline.of(card, precision, engine=engine), work, cache, fewest * room, gpu)
        if batch > 1 and work.needed(batch) > room >= work.needed(1):
            raise HpmlError(_too_many(card, work, batch, room))
        operations, traffic, touched = batch * work.operations, work.traffic(batch, cache), work.touched(batch)
        if gpu is not None:
            traffic = traffic - work.kept(batch, cache)
        corners = [Roofline.of(card, precision, corner, engine) for corner in CORNERS]
        paced = [roof.paced(operations, work.convolves) for roof in corners]
        pairs = list(zip(corners, paced, strict=True))
        peak, bandwidth = card.peak[precision].band().high, card.memory_bandwidth.band().high
        floor = np.maximum(operations / peak, traffic / bandwidth)
        band = NETWORK
        if gpu is None:
            spent = [roof.work_s(p, traffic, touched) for roof, p in pairs]
        else:
            band = NETWORK if fitted(card) else LENT
            nominal = np.maximum(gpu.time_s(work, batch, traffic), floor)
            spent = [np.maximum(nominal * factor, floor) for factor in (1 / band, 1.0, band)]
        times = np.stack([roof.time_s(s, work.launches) for roof, s in zip(corners, spent, strict=True)])
        dynamic = np.stack([roof.dynamic_j(p, traffic) for roof, p in pairs])
        if gpu is not None:
            bytes_j, arithmetic_j = power_of(card).traffic.si * traffic, operation_j(card, precision) * operations
            calls = [roof.call_s for roof in corners]
            dynamic = np.stack(
                [_drawn(card, bytes_j + arithmetic_j, c + t.sum()) for c, t in zip(calls, times, strict=True)]
            )
        devices = math.ceil(work.needed(batch) / room)
        return cls(
            batch=batch,
            devices=devices,
            corners=corners,
            operations=operations,
            paced=paced,
            traffic=traffic,
            times=times,
            dynamic=dynamic,
            work_s=spent[1],
            calls=devices if card.device == "npu" else 1,
            band=band,
            floor_s=float(floor.sum()),
        )

    @property
    def nominal(self) -> Roofline:
        return self.corners[1]

    @property
    def call(self) -> Band:
        """Seconds of a forward call besides its operators; each of several accelerators is called by itself."""
        return Band(*(roof.call_s for roof in self.corners)) * float(self.calls)


def _note_sources(
    breakdown: CostBreakdown, card: DigitalCard, work: Work, precision: Precision, engine: Engine
) -> None:
    for quantity in (card.peak[precision], card.compute_efficiency, card.power_max, started(card, engine)):
        breakdown.use(quantity)
    if card.convolution_efficiency is not None and work.convolves.any():
        breakdown.use(card.convolution_efficiency)
    if card.kernels is not None:
        for quantity in (card.kernels.tile_efficiency, card.kernels.product_bandwidth):
            breakdown.use(quantity)
    for quantity in (card.memory_bandwidth, card.memory_efficiency, card.call_time):
        breakdown.use(quantity)


def _charge_time(breakdown: CostBreakdown, workload: Workload, card: DigitalCard, run: _Run) -> None:
    """What the machine draws for as long as it takes: idle power of all devices, and clocks of the one at work."""
    idle = breakdown.use(card.power_idle) * run.devices
    clocks = card.power_active if card.kernels is None else power_of(card).clocks
    active = ZERO if clocks is None else clocks.band()
    if clocks is not None and card.kernels is not None and card.power is None:
        clocks = card.power_max  # what another card's prices were scaled by
    if clocks is not None:
        breakdown.use(clocks)
    spans = [("", run.call), *((y.name, ordered(t)) for y, t in zip(workload.layers, run.times.T, strict=True))]
    for name, span in spans:
        breakdown.add(name, "idle", around(span * idle, NETWORK) / run.batch, card.power_idle)
        if clocks is not None:
            breakdown.add(name, "clocks", around(span * active, NETWORK) / run.batch, clocks)


def _charge_work(
    breakdown: CostBreakdown, workload: Workload, card: DigitalCard, precision: Precision, run: _Run
) -> None:
    """What operations and traffic take beyond that; without a table `[kernels]`, the one of both that costs more."""
    nominal = run.nominal
    if card.kernels is not None:
        power = power_of(card)
        bytes_j = power.traffic.si * run.traffic
        share = bytes_j / np.maximum(bytes_j + operation_j(card, precision) * run.operations, 1e-300)
        for k, layer in enumerate(workload.layers):
            energy = around(ordered(run.dynamic[:, k]), NETWORK) / run.batch
            for part, name, price in (
                (share[k], "memory", power.traffic),
                (1 - share[k], "compute", power.operation),
            ):
                breakdown.add(layer.name, name, energy * float(part), card.power_max if card.power is None else price)
        return
    for k, layer in enumerate(workload.layers):
        memory_bound = nominal.byte_j * run.traffic[k] > nominal.operation_j * run.paced[1][k]
        quantities = [card.power_max, card.peak[precision]]
        if memory_bound and card.energy_per_byte is not None:
            breakdown.use(card.energy_per_byte)
            quantities = [card.energy_per_byte]
        energy = around(ordered(run.dynamic[:, k]), NETWORK) / run.batch
        breakdown.add(layer.name, "memory" if memory_bound else "compute", energy, *quantities)


def _too_many(card: DigitalCard, work: Work, batch: int, room: float) -> str:
    fits = int((room - work.stored_bytes) // (work.needed(1) - work.stored_bytes))
    return (
        f"batch={batch:,}: weights and activations of {work.needed(batch) / 1e9:,.4g} GB do not fit into the "
        f"{room / 1e9:,.4g} GB that card {card.name!r} has for them; take a batch of at most {fits:,}, or batch='best'"
    )


def _drawn(card: DigitalCard, dynamic: np.ndarray, seconds: float) -> np.ndarray:
    """Joules of each layer above idle and clocks, once the board's limit has bent the mean power of the call."""
    base = card.power_idle.si + power_of(card).clocks.si
    above = float(dynamic.sum()) / seconds if seconds > 0 else 0.0
    if not 0 < above < math.inf:
        return dynamic
    return dynamic * max(capped(base + above, card.power_max.si) - base, 0.0) / above


def fitted(card: DigitalCard) -> bool:
    """Whether the constants of the card's kernels come from measurements of this very machine.

    Args:
        card: the machine.
    """
    return card.kernels is not None and card.kernels.tile_efficiency.status == "measured"


def _roof(workload: Workload, work: Work, run: _Run) -> Roof:
    """The layers under the ceilings; "launch" limits one that waits for its start for most of its time.

    Where compute and power agree (a card without clocks' power), it is compute.
    """
    fast, nominal, slow = run.corners
    operations, traffic, spans = run.batch * work.operations, run.traffic, run.times[1]
    limits = nominal.limits_s(run.paced[1], traffic, work.touched(run.batch))
    names, seconds = [*limits, "launch"], np.stack(list(limits.values()))
    longest = np.argmax(seconds * (1 - 1e-12 * np.arange(len(limits)))[:, None], axis=0)  # the first of equals
    longest = np.where(run.work_s < spans / 2, len(limits), longest)
    return Roof(
        operations_hz=Band(slow.rate, nominal.rate, fast.rate),
        bandwidth=Band(slow.bandwidth, nominal.bandwidth, fast.bandwidth),
        layers=tuple(
            LayerWork(y.name, float(operations[k]), float(traffic[k]), float(spans[k]), names[i])
            for k, (y, i) in enumerate(zip(workload.layers, longest, strict=True))
        ),
    )


def _best_batch(roof: Roofline, work: Work, cache: float, room: float, gpu: Gpu | None) -> int:
    rates: dict[int, float] = {}
    batch = 1
    while batch <= LARGEST_BATCH and (batch == 1 or work.needed(batch) <= room):
        traffic = work.traffic(batch, cache)
        if gpu is None:
            spent = roof.work_s(roof.paced(batch * work.operations, work.convolves), traffic, work.touched(batch))
        else:
            spent = gpu.time_s(work, batch, traffic - work.kept(batch, cache))
        times = roof.time_s(spent, work.launches)
        rates[batch] = batch / (roof.call_s + float(times.sum()))
        batch *= 2
    enough = SATURATED * max(rates.values())
    return min(b for b, rate in rates.items() if rate >= enough)


def _remarks(
    breakdown: CostBreakdown, workload: Workload, card: DigitalCard, work: Work, batch: int, cache: float, devices: int
) -> None:
    for name in workload.not_counted:
        breakdown.exclude(f"{name}: a layer that the workload does not know")
    if card.power_active is None and card.kernels is None:
        breakdown.exclude("power of running clocks at light load, above idle: the card has no figure")
    if card.energy_per_byte is None and card.kernels is None:
        breakdown.exclude("energy of DRAM traffic as a term of its own: the card has no figure")
    if card.kernels is not None and card.power is None:
        breakdown.assume(
            f"prices of bytes, operations and clocks are the {SISTER}'s, scaled by limits, peaks, bandwidths"
        )
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
