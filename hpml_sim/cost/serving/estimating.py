"""The estimate of a known language model on GPUs: reading a prompt, making a token, or serving many requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hpml_sim.cost.breakdown import CostBreakdown
from hpml_sim.cost.digital.power import power_of
from hpml_sim.cost.digital.quantized import chosen_arithmetic, sparse_speedup
from hpml_sim.cost.result import LayerWork, Roof
from hpml_sim.cost.serving.memory import Memory
from hpml_sim.cost.serving.operations import Split, Step, Widths
from hpml_sim.cost.serving.request import Request
from hpml_sim.cost.serving.scheduling import Load, Served, serve
from hpml_sim.cost.serving.splits import check_devices, chosen, possible, ways
from hpml_sim.cost.serving.step import Host, StepCost, StepModel
from hpml_sim.cost.serving.stored_weights import StoredWeights
from hpml_sim.cost.serving.tables import link_of, serving_of
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import Band

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision
    from hpml_sim.cost.result import Estimate
    from hpml_sim.networks.language import TransformerShape
    from hpml_sim.targets import Engine

BYTES: Mapping[str, float] = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "fp8": 1, "int8": 1, "int4": 0.5, "fp4": 0.5}
UNKNOWN = (0.6, 1.6)
"""Records / estimates on a GPU without records of its own: what the fitted GPUs' constants miss each other by."""
_HOSTS = {
    "engine": "a serving engine with continuous batching and recorded graphs",
    "graph": "a recorded CUDA graph",
    "eager": "an eager framework, operator by operator",
}
LARGEST_BATCH = 8192
SATURATED = 0.95
"""The best batch is the smallest that reaches this share of the best throughput."""


def estimate_language(
    shape: TransformerShape,
    card: DigitalCard,
    request: Request,
    *,
    precision: Precision | None = None,
    weights: str | None = None,
    engine: Engine | None = None,
    devices: int | None = None,
    parallel: Mapping[str, int] | Literal["best"] | None = None,
    stored: StoredWeights | None = None,
) -> Estimate:
    """Energy and time of a language model on GPUs, from its sizes alone.

    Args:
        shape: the network.
        card: one GPU; it has the table `[kernels]`.
        request: what is asked of the network.
        precision: of the arithmetic; None takes what the weights are stored in, where the card computes in it.
        weights: what the weights are stored in, "int8" or "int4", where that is less than `precision`.
        engine: what starts the kernels; None takes a recorded graph, and a serving engine in phase "serve".
        devices: GPUs; None takes as many as `parallel` multiplies to or, without it, as few as hold the network.
        parallel: how they share the network: ways by name, or "best", the split with the most inferences a second (the
            one with the least energy is named beside it). None shares every matrix among all.
        stored: what pruning and quantizing made of the matrices; None: nothing.

    Raises:
        HpmlError: a split, precision, batch or length that network or card do not allow, in one line.

    Example:
        >>> from hpml_sim.cards import load_card
        >>> from hpml_sim.networks.language import language_model
        >>> found = estimate_language(
        ...     language_model("llama-3-70b"), load_card("h200"), Request("decode", context=2048), devices=2)
        >>> print(f"{found.throughput_hz.nominal:.0f} tokens a second")
        46 tokens a second
    """
    request = request.checked(shape)
    arithmetic = _arithmetic(shape, card, precision, weights, stored)
    if request.kv_bits is not None:
        arithmetic = (arithmetic[0], replace(arithmetic[1], cache=request.kv_bits / 8))
    if devices is None:
        devices = (
            math.prod(ways(parallel)) if isinstance(parallel, Mapping) else _fewest(shape, card, request, arithmetic[1])
        )
    devices = check_devices(devices)
    run = _Run(shape, card, request, *arithmetic, _host(engine, request), devices, stored)
    if devices > 1:
        link_of(card)
    if parallel == "best":
        return run.best_split()
    return run.estimate(chosen(shape, devices, parallel))


def _arithmetic(
    shape: TransformerShape,
    card: DigitalCard,
    precision: Precision | None,
    weights: str | None,
    compressed: StoredWeights | None,
) -> tuple[Precision, Widths]:
    """Precision of the arithmetic, and bytes of weights and activations."""
    stored = shape.stored
    if compressed is not None and compressed.in_few_bits:
        precision = chosen_arithmetic({compressed.arithmetic}, card, precision, weights)
    if precision is None:
        wanted = (stored, "bf16", "fp16", "fp32") if stored != "fp32" else ("fp32",)
        precision = next((p for p in wanted if p in card.peak), None)  # type: ignore[assignment]
    if precision is None or precision not in card.peak:
        raise HpmlError(f"precision={precision!r}: card {card.name!r} has a peak for {', '.join(card.peak)} only")
    width = BYTES[precision]
    if weights is None and stored in ("int8", "int4", "fp4", "fp8") and BYTES[stored] < width:
        weights = stored  # stored in fewer bits than the card computes in
    value = max(width, 2.0)
    widths = Widths(
        BYTES[weights] if weights else width, value, value, value, values_rounded=precision in ("int8", "fp8")
    )
    if compressed is None:
        return precision, widths
    speedup = sparse_speedup(card, precision)
    return precision, replace(
        widths,
        weight=compressed.bytes_of_layers(widths.weight, speedup),
        edge=value if compressed.head_bits is None else compressed.head_bits / 8,
        work=compressed.work(speedup),
    )


def _fewest(shape: TransformerShape, card: DigitalCard, request: Request, widths: Widths) -> int:
    """The smallest power of two of GPUs that hold weights and batch; one where the card has no links or none do."""
    batch = 1 if request.batch == "best" else request.batch
    for devices in (1, 2, 4, 8, 16) if card.links else ():
        split = chosen(shape, devices, None)
        if split.data * Memory.of(card, shape, split, widths, request.kept).sequences >= batch:
            return devices
    return 1


def _host(engine: Engine | None, request: Request) -> Host:
    if request.phase == "serve":
        if engine is not None:
            raise HpmlError(f"engine={engine!r}: phase='serve' is run by a serving engine of its own; leave engine out")
        return "engine"
    return "eager" if engine in ("torch", "numba-cuda") else "graph"


@dataclass(frozen=True)
class _Run:
    """A network, a GPU and what is asked, before the split is chosen."""

    shape: TransformerShape
    card: DigitalCard
    request: Request
    precision: Precision
    widths: Widths
    host: Host
    devices: int
    stored: StoredWeights | None

    def estimate(self, split: Split) -> Estimate:
        """The estimate with one split, at the batch that was asked for."""
        batch, memory = self.request.batch, self.memory(split)
        fits = self.fits(split)
        if fits < 1:
            raise HpmlError(self._too_large(split, memory))
        if batch == "best":
            batch = self._best_batch(split, fits)
        if batch > fits:
            raise HpmlError(
                f"batch={batch:,}: {self.shape.name} on {self._machines(split)} has room for {fits:,} sequences of "
                f"{self.request.kept:,.0f} tokens beside its weights; take a batch of at most {fits:,}, more devices, "
                "or batch='best'"
            )
        return self._close(split, batch, memory)

    def best_split(self) -> Estimate:
        """The fastest split, with the most frugal one named."""
        least = 1 if self.request.batch == "best" else self.request.batch
        splits = [split for split in possible(self.shape, self.devices) if self.fits(split) >= least]
        found = [(self.estimate(split), split) for split in splits]
        if not found:
            whole = Split(tensor=1, pipeline=min(self.devices, self.shape.layers))
            raise HpmlError(self._too_large(whole, self.memory(whole)))
        fastest = max(found, key=lambda pair: pair[0].throughput_hz.nominal)
        frugal = min(found, key=lambda pair: pair[0].energy_j.nominal)
        same = "which also takes the least energy" if frugal[1] == fastest[1] else (
            f"the least energy takes {frugal[1]}: {frugal[0].energy_j.nominal:.3g} J at "
            f"{frugal[0].throughput_hz.nominal:.3g} inferences a second"
        )  # fmt: skip
        sentence = f"the fastest of {len(found)} splits over {self.devices} devices is {fastest[1]}; {same}"
        return replace(fastest[0], assumptions=(*fastest[0].assumptions, sentence))

    def memory(self, split: Split) -> Memory:
        return Memory.of(self.card, self.shape, split, self.widths, self.request.kept)

    def fits(self, split: Split) -> int:
        """Sequences that fit into all copies together; a batch is spread over the copies."""
        one = self.memory(split).sequences
        return one * split.data if one > 0 else one

    def _best_batch(self, split: Split, fits: int) -> int:
        rates: dict[int, float] = {}
        batch = split.data
        while batch <= min(fits, LARGEST_BATCH * split.data):
            rates[batch] = self._figures(split, batch)[1]
            batch *= 2
        enough = SATURATED * max(rates.values())
        return min(b for b, rate in rates.items() if rate >= enough)

    def _figures(self, split: Split, batch: int) -> tuple[float, float, float, StepCost, Served | None]:
        """Seconds of a batch, inferences a second, joules of an inference, and the step that they rest on."""
        model = StepModel(self.card, self.shape, split, self.precision, self.widths, self.host)
        own = batch / split.data  # sequences of one copy
        r = self.request
        if r.phase == "serve":
            served = serve(
                model, Load(own, r.sequence or 0, r.output or 1, r.prefix_cached, r.draft_tokens, r.draft_accepted)
            )
            return served.between_s, served.tokens_hz, served.token_j, served.decode, served
        # with a part of the batch in each stage of a pipeline, all of them work at once
        in_flight = split.pipeline if own >= split.pipeline else 1
        part = own / in_flight
        if r.phase == "decode":
            step = Step(decodes=part, context=float(r.context or 0), checked=r.draft_tokens + 1)
            tokens = Load(part, 0, 1, 0.0, r.draft_tokens, r.draft_accepted).tokens_a_step
        else:
            length = r.sequence or 0
            new = length * (1 - r.prefix_cached)
            step, tokens = Step(prompts=part * new, before=length * r.prefix_cached + new / 2, finished=part), 1.0
        cost = model.cost(step, in_flight=in_flight)
        return cost.time_s / tokens, batch * tokens / cost.time_s, cost.energy_j / (own * tokens), cost, None

    def _close(self, split: Split, batch: int, memory: Memory) -> Estimate:
        card, shape = self.card, self.shape
        time_s, rate, joules, cost, served = self._figures(split, batch)
        breakdown = CostBreakdown(card)
        times, energies = self._bands(breakdown)
        # the board cannot draw more than its limit, nor less than when idle
        devices = split.devices
        most, least = card.power_max.si * devices / rate, card.power_idle.si * devices / rate
        energy = Band(
            max(min(energies[0] * joules, joules), least) if least < joules else joules,
            joules,
            max(min(energies[1] * joules, most * times[1]), joules),
        )
        self._charge(breakdown, cost, energy, devices / rate)
        latency = Band(times[0] * time_s, time_s, times[1] * time_s)
        throughput = Band(rate / times[1], rate, rate / times[0])
        breakdown.assume(f"an inference is {self.request.inference()}")
        breakdown.assume(
            f"arithmetic in {self.precision}, weights of {8 * self.widths.weight:.4g} bits, run by {_HOSTS[self.host]}"
        )
        for sentence in () if self.stored is None else self.stored.in_words(sparse_speedup(card, self.precision)):
            breakdown.assume(sentence)
        if self.request.kv_bits is not None:
            breakdown.assume(f"keys and values are kept in {self.request.kv_bits} bits; their scales are left out")
        if devices > 1:
            breakdown.assume(f"{devices} devices, shared by {split}")
        if self.request.draft_tokens:
            breakdown.assume(
                f"{self.request.draft_tokens} tokens are proposed at no cost, and {self.request.draft_accepted:.0%} of "
                "them are right, one by one"
            )
        if shape.experts is not None:
            breakdown.assume("experts are chosen as unevenly as in the records that the model was fitted to")
        separately = {}
        if served is not None:
            separately = {
                "time_to_first_token_s": _spread(served.first_s, times),
                "time_between_tokens_s": latency,
                "step_s": _spread(served.step_s, times),
            }
        idle = Band.exact(card.power_idle.si * devices / rate)
        separately["energy_without_idle_j"] = Band(*(max(getattr(energy, side) - idle.nominal, 0.0) for side in
                                                     ("low", "nominal", "high")))  # fmt: skip
        used = batch / split.data * memory.sequence + memory.weights + memory.workspace
        return breakdown.close(
            batch=batch,
            latency_s=latency,
            throughput_hz=throughput,
            area_mm2=None if card.area is None else breakdown.use(card.area) * (devices * 1e6),
            mapping={
                "devices": float(devices),
                **{name: float(value) for name, value in vars(split).items() if value > 1},
                "weights_bytes": memory.weights * devices / split.data,
                "memory_bytes": used,
                "largest_batch": float(self.fits(split)),
                "exchange_share": cost.exchange_s / cost.time_s,
                "host_share": cost.host_s / cost.time_s,
                "mean_power_w": joules * rate,
                **self.request.sizes(),
                **self._operations(cost, split, batch),
            },
            reported_separately=separately,
            roof=self._roof(cost),
        )

    def _operations(self, cost: StepCost, split: Split, batch: int) -> dict[str, float]:
        """Arithmetic operations of one inference, by name; not of a mixture of prompts and tokens, nor of drafts."""
        if self.request.phase == "serve" or self.request.draft_tokens or split.devices > 1:
            return {}
        return {"operations": sum(part.operations for part in cost.spent) / batch}

    def _bands(self, breakdown: CostBreakdown) -> tuple[tuple[float, float], tuple[float, float]]:
        """Low and high over nominal of seconds and joules: from records of this GPU, or what sisters miss by."""
        card, serving = self.card, serving_of(self.card)
        for quantity in (card.peak[self.precision], card.memory_bandwidth, card.power_max, card.power_idle):
            breakdown.use(quantity)
        if self.devices > 1:
            breakdown.use(link_of(card).start)
        if card.serving is None or card.serving.time_within is None or card.serving.energy_within is None:
            breakdown.assume(f"host, kernels and bounds are of another GPU: card {card.name!r} has no served records")
            return UNKNOWN, UNKNOWN
        for quantity in (serving.step_time, serving.prefill_efficiency, card.serving.time_within):
            breakdown.use(quantity)
        found = [quantity.band() for quantity in (card.serving.time_within, card.serving.energy_within)]
        return (found[0].low, found[0].high), (found[1].low, found[1].high)

    def _charge(self, breakdown: CostBreakdown, cost: StepCost, energy: Band, device_s: float) -> None:
        """The joules of an inference by what takes them: idle and clocks over the time, the rest by kernel."""
        card, power = self.card, power_of(self.card)
        parts = {("", "idle"): card.power_idle.si * device_s, ("", "clocks"): power.clocks.si * device_s}
        rest = max(energy.nominal - sum(parts.values()), 0.0)
        whole = sum(part.energy_j for part in cost.spent) or 1.0
        for part in cost.spent:
            key = (part.name, part.kind)
            parts[key] = parts.get(key, 0.0) + rest * part.energy_j / whole
        total = sum(parts.values())
        sources = {"idle": card.power_idle, "clocks": power.clocks if card.power is not None else card.power_max}
        for (layer, component), joules in parts.items():
            share = joules / total
            quantity = sources.get(component, card.power_max)
            breakdown.add(layer, component, energy * share, quantity)

    def _roof(self, cost: StepCost) -> Roof:
        """What each kind of kernel asks of a GPU, under its ceilings."""
        card = self.card
        rate = card.peak[self.precision].band() * card.compute_efficiency.band()
        bandwidth = card.memory_bandwidth.band() * card.memory_efficiency.band()
        layers = [
            LayerWork(
                y.name, y.operations, y.traffic_bytes, y.time_s, self._limit(y.operations, y.traffic_bytes, y.time_s)
            )
            for y in cost.spent
        ]
        return Roof(rate, bandwidth, tuple(layers))

    def _limit(self, operations: float, traffic: float, seconds: float) -> str:
        compute, memory = operations / self.card.peak[self.precision].si, traffic / self.card.memory_bandwidth.si
        if max(compute, memory) < seconds / 2:
            return "launch"
        return "compute" if compute > memory else "memory"

    def _machines(self, split: Split) -> str:
        return f"{split.devices} x {self.card.name}" if split.devices > 1 else self.card.name

    def _too_large(self, split: Split, memory: Memory) -> str:
        whole = memory.weights * split.sharing * split.pipeline
        needed = next(
            (
                n
                for n in ((2, 4, 8, 16, 32, 64, 128) if self.card.links else ())
                for s in possible(self.shape, n)
                if s.data == 1 and self.fits(s) >= 1
            ),
            None,
        )
        more = f"devices={needed} holds it" if needed else "take a card with more memory"
        return (
            f"{self.shape.name} on {self._machines(split)}: weights of {whole / 1e9:,.4g} GB, "
            f"{memory.workspace / 1e9:.2g} GB of activations and one sequence of {self.request.kept:,.0f} tokens do "
            f"not fit into {memory.room / 1e9:,.4g} GB a device (90 % of its memory); {more}, or fewer bits a weight"
        )


def _spread(value: float, factors: tuple[float, float]) -> Band:
    return Band(value * factors[0], value, value * factors[1])
