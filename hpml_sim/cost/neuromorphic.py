"""Spiking machines: energy and time from synaptic operations, neuron updates, spikes and hops, static power and host.

Source: docs/equations.md, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hpml_sim.cost.arithmetic import arithmetic_only_j
from hpml_sim.cost.breakdown import OTHER_WORKLOAD, SAME_CLASS, CostBreakdown, si
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO, Band

if TYPE_CHECKING:
    from hpml_sim.cards import NeuromorphicCard, Quantity
    from hpml_sim.cost.result import Estimate
    from hpml_sim.counting import LayerCount, Workload

SPREAD = 4
"""Times as many cores as a network needs that a compiler may spread it over, for the low bound of time: assumed."""
SYNAPSE_BITS = 8
"""Memory for one synapse where the card says nothing."""


@dataclass(frozen=True)
class Population:
    """The synapses and neurons that share cores: one matrix and the neurons it drives.

    Attributes:
        name: of the matrix's layer.
        neurons: on the cores.
        fan_in: inputs of one neuron.
        synapses: stored weights.
        sops: synaptic operations in one inference; those of zero weights as far as the machine does them.
        updates: neuron updates in one inference.
        spikes: spikes sent in one inference.
        steps: time steps.
        delay_steps: longest delay of a synapse, in steps; 0: none.
    """

    name: str
    neurons: int
    fan_in: int
    synapses: int
    sops: Band
    updates: float
    spikes: float
    steps: int
    delay_steps: int = 0

    @property
    def delay_bits(self) -> int:
        """Of each synapse, to hold its delay.

        Source: M. Davies et al., IEEE Micro 38(1):82 (2018): Loihi stores a delay of up to 62 steps with each synapse.
        """
        return self.delay_steps.bit_length()


ALL = Band.exact(1.0)
"""What a zero weight takes of any other on a machine that stores and processes it."""


def populations(workload: Workload, zero_weight_cost: Band = ALL) -> list[Population]:
    """Matrices paired with the neurons that follow them, in order of execution.

    A matrix without neurons behind it (a readout that only sums up) occupies one neuron for each output; neurons
    without a matrix before them (an encoder, or behind a pooling layer) stand alone, without synapses. What an axon
    sends later is late at each of its synapses, so that its delay lies with the matrix behind it.

    Args:
        workload: of a spiking network.
        zero_weight_cost: what a synapse of weight zero takes of any other's memory, energy and time, 0 to 1.
    """
    found: list[Population] = []
    matrix: LayerCount | None = None
    late = waiting = 0  # steps: of the matrix, and of what comes next

    def close(neurons: LayerCount | None) -> None:
        nonlocal matrix
        if matrix is None:
            if neurons is not None:
                alone = Population(
                    neurons.name, neurons.neurons, 0, 0, ZERO, neurons.updates, neurons.spikes, max(neurons.steps, 1)
                )
                found.append(alone)
            return
        steps = max(matrix.steps, 1)
        outputs = neurons.neurons if neurons else round(matrix.output_elements / steps)
        stored = matrix.weight_count or matrix.rows * matrix.cols * matrix.groups
        empty = min(matrix.zero_weights, stored)
        found.append(
            Population(
                matrix.name,
                neurons=outputs,
                fan_in=matrix.rows,
                synapses=stored - round(empty * (1 - zero_weight_cost.nominal)),
                sops=_sops(matrix, workload.samples, zero_weight_cost),
                updates=neurons.updates if neurons else float(outputs * steps),
                spikes=neurons.spikes if neurons else 0.0,
                steps=steps,
                delay_steps=late,
            )
        )
        matrix = None

    for layer in workload.layers:
        if layer.rows > 0 and layer.cols > 0:
            close(None)
            matrix, late, waiting = layer, waiting + layer.delay_steps, 0
        elif layer.neurons > 0:
            close(layer)
        elif layer.delay_steps:
            waiting += layer.delay_steps
    close(None)
    return found


def _sops(layer: LayerCount, samples: int, zero_weight_cost: Band) -> Band:
    """Synaptic operations; without data every input is taken as active, the upper bound."""
    every = layer.sops if samples or layer.sops else layer.macs
    if not layer.zero_weights:
        return Band.exact(every)
    effective = layer.effective_acs + layer.effective_macs if samples else every * (1 - layer.zero_share)
    effective = min(effective, every)
    return Band.exact(effective) + zero_weight_cost * (every - effective)


def cores_for(population: Population, card: NeuromorphicCard) -> int:
    """Cores that a population takes: by neurons, by synapse memory, and by inputs where a core holds too few.

    cores = max(ceil(N / neurons) x ceil(fan-in / most inputs of a core), ceil(synapse bytes / memory))

    Args:
        population: what shares the cores.
        card: the machine.

    Source: docs/equations.md, section 3 (mapping).
    """
    core = card.core
    by_neurons = math.ceil(population.neurons / int(core.neurons))
    inputs = min(si(core.fan_in, math.inf), si(core.axons, math.inf))
    by_inputs = 1 if math.isinf(inputs) else math.ceil(population.fan_in / inputs)
    by_memory = 1
    if core.synapse_memory is not None:
        stored = population.synapses * (si(core.synapse_bits, SYNAPSE_BITS) + population.delay_bits) / 8
        by_memory = math.ceil(stored / core.synapse_memory.si)
    return max(1, by_neurons * by_inputs, by_memory)


def estimate_neuromorphic(
    workload: Workload, card: NeuromorphicCard, *, batch: int | Literal["best"] = 1, chips: int | None = None
) -> Estimate:
    """Energy and time of a spiking network on a spiking machine.

    E = SOP e_sop + active updates e_a + idle updates e_i + spikes e_spike + packets hops e_hop
        + (P_static chips + P_core cores + P_host chips) T + e_reset chips,
    t_step = max(tick, max over cores (SOP t_sop + N t_update + spikes t_spike) + t_barrier), T = steps t_step.

    Args:
        workload: of a spiking network.
        card: the machine.
        batch: inferences at once, each on its own copy of the network as long as the powered chips have cores free,
            then one after the other; "best": as many copies as fit.
        chips: chips that are powered, over whose cores the network is spread; None takes as few as hold it.

    Raises:
        HpmlError: the network has no spiking neurons, or `chips` are too few.

    Source: docs/equations.md, section 3.
    """
    if workload.kind != "spiking":
        raise HpmlError(
            f"card {card.name!r} runs spiking networks only, and this workload has no spiking neurons; convert the "
            f"network first: hs.convert(net, hs.Spiking({card.name!r}))"
        )
    groups = populations(workload, _zero_weight_cost(card))
    if not groups:
        raise HpmlError(
            f"card {card.name!r}: the workload has no layer with weights, so there is nothing to map on cores"
        )
    breakdown = CostBreakdown(card)
    layout = _lay_out(breakdown, card, groups, chips)
    if batch == "best":
        batch = layout.copies
    for group, receivers in zip(groups, [*layout.cores[1:], 0], strict=True):
        _events(breakdown, card, group)
        _hops(breakdown, card, group, receivers, layout.used)
    step = _step_time(breakdown, card, groups, layout.cores, layout.chips)
    if chips is None:  # a compiler may spread the network over cores that would stay empty
        most = [SPREAD * own for own in layout.cores]
        spread = list(map(min, most, _spread(layout.cores, card, layout.chips)))
        wide = _step_time(breakdown, card, groups, spread, layout.chips)
        if wide.nominal < step.nominal:
            breakdown.assume(
                f"the network lies on as few cores as hold it, {layout.used}; spread over {sum(spread)} a step "
                f"could take {wide.nominal:.3g} s in place of {step.nominal:.3g} s: the low bound of time holds that"
            )
            step = Band(min(step.low, wide.low), step.nominal, step.high)
    steps = max(group.steps for group in groups)
    latency = step * float(steps)
    # layers may work on the same step at once or, at worst, hand it on from one to the next
    latency = Band(latency.low, latency.nominal, latency.high + step.high * (len(groups) - 1))
    rounds = math.ceil(batch / layout.copies)
    latency = latency * float(rounds)
    _powers(breakdown, card, layout, batch, latency / batch)
    if card.events.reset_energy is not None:
        reset = breakdown.use(card.events.reset_energy, OTHER_WORKLOAD) * (layout.chips * rounds / batch)
        breakdown.add("", "reset", reset, card.events.reset_energy)
    _remarks(breakdown, workload, card, groups, batch, layout.copies)
    dynamic = {"sop", "update", "spike", "hop"}
    return breakdown.close(
        batch=batch,
        latency_s=latency,
        throughput_hz=latency.inverse() * float(batch),
        area_mm2=None if card.area is None else breakdown.use(card.area) * (layout.chips * 1e6),
        mapping={
            "cores": float(layout.used),
            "chips": float(layout.chips),
            "copies": float(min(batch, layout.copies)),
            "core_utilization": sum(g.neurons for g in groups) / (layout.used * int(card.core.neurons)),
            "neurons": float(sum(g.neurons for g in groups)),
            "synapses": float(sum(g.synapses for g in groups)),
            "sops": sum(g.sops.nominal for g in groups),
            "updates": sum(g.updates for g in groups),
            "spikes": sum(g.spikes for g in groups),
            "steps": float(steps),
            "step_time_s": step.nominal,
        },
        reported_separately={
            "dynamic_j": sum((t.energy_j for t in breakdown.terms if t.component in dynamic), ZERO),
            "arithmetic_only_j": Band.exact(arithmetic_only_j(workload)),
        },
    )


def _zero_weight_cost(card: NeuromorphicCard) -> Band:
    cost = card.events.zero_weight_cost
    return ALL if cost is None else cost.band()


@dataclass(frozen=True)
class _Layout:
    """Where the populations lie.

    Attributes:
        cores: of each population.
        chips: that are powered.
        copies: of the whole network that fit on them.
    """

    cores: list[int]
    chips: int
    copies: int

    @property
    def used(self) -> int:
        """Cores of one copy."""
        return sum(self.cores)


def _lay_out(breakdown: CostBreakdown, card: NeuromorphicCard, groups: list[Population], chips: int | None) -> _Layout:
    cores = [cores_for(group, card) for group in groups]
    for quantity in (card.core.neurons, card.core.cores_per_chip, card.core.fan_in, card.core.axons):
        if quantity is not None:
            breakdown.use(quantity)
    if card.core.synapse_memory is not None:
        breakdown.use(card.core.synapse_memory)
        if card.core.synapse_bits is None:
            breakdown.assume(f"{SYNAPSE_BITS} bits of memory for a synapse")
    per_chip = int(card.core.cores_per_chip)
    used = sum(cores)
    fewest = math.ceil(used / per_chip)
    if chips is not None and chips < fewest:
        raise HpmlError(f"chips={chips}: {used} cores need {fewest} chips of {per_chip} cores")
    if chips is not None:  # each then has less to do in a step
        cores = _spread(cores, card, chips)
    chips = chips or fewest
    return _Layout(cores, chips, copies=max(1, chips * per_chip // sum(cores)))


def _spread(cores: list[int], card: NeuromorphicCard, chips: int) -> list[int]:
    """The same populations over all cores of some chips, in proportion."""
    free = chips * int(card.core.cores_per_chip)
    used = sum(cores)
    return [max(own, own * free // used) for own in cores]


def _powers(breakdown: CostBreakdown, card: NeuromorphicCard, layout: _Layout, batch: int, share: Band) -> None:
    """What flows whether or not an event happens, for the `share` of the time that one inference bears."""
    chips = float(layout.chips)
    breakdown.add("", "static", share * breakdown.use(card.power_static, SAME_CLASS) * chips, card.power_static)
    if card.power_core is not None:
        running = float(min(batch, layout.copies) * layout.used)
        breakdown.add("", "cores", share * breakdown.use(card.power_core, SAME_CLASS) * running, card.power_core)
    if card.power_host is not None:
        breakdown.add("", "host", share * breakdown.use(card.power_host, SAME_CLASS) * chips, card.power_host)
    else:
        breakdown.exclude("the host or management processor: the card has no figure")


def _band_factor(quantity: Quantity) -> float:
    """A measured figure carries the band of its class; a published model's, that of another workload."""
    return SAME_CLASS if quantity.status in ("measured", "derived") else OTHER_WORKLOAD


def _events(breakdown: CostBreakdown, card: NeuromorphicCard, group: Population) -> None:
    events = card.events
    sop = breakdown.use(events.sop_energy, _band_factor(events.sop_energy))
    breakdown.add(group.name, "sop", sop * group.sops, events.sop_energy)
    fired = min(group.spikes, group.updates)
    active = breakdown.use(events.update_energy, _band_factor(events.update_energy))
    quantities = [events.update_energy]
    update = active * group.updates
    if events.idle_update_energy is not None:
        idle = breakdown.use(events.idle_update_energy, _band_factor(events.idle_update_energy))
        quantities.append(events.idle_update_energy)
        # a neuron that fires is active, but one that only receives may be as well: the high bound takes all as active
        split = active * fired + idle * (group.updates - fired)
        update = Band(min(split.low, update.low), split.nominal, max(split.high, update.high))
    breakdown.add(group.name, "update", update, *quantities)
    if events.spike_energy is not None:
        spike = breakdown.use(events.spike_energy, _band_factor(events.spike_energy))
        breakdown.add(group.name, "spike", spike * group.spikes, events.spike_energy)


def _hops(breakdown: CostBreakdown, card: NeuromorphicCard, group: Population, receivers: int, used: int) -> None:
    """A packet to each core of the next layer, over the mean distance of two cores of a square mesh, 2/3 sqrt(n)."""
    hop = card.events.hop_energy
    if hop is None:
        return
    side = math.sqrt(used)
    packets = group.spikes * receivers
    energy = breakdown.use(hop, _band_factor(hop))
    band = Band(0.0, energy.nominal * 2 / 3 * side, energy.high * 2 * side) * packets
    if packets:
        breakdown.assume("a spike travels 2/3 sqrt(cores) hops, the mean distance in a square mesh of the cores in use")
    breakdown.add(group.name, "hop", band, hop)


def _step_time(
    breakdown: CostBreakdown, card: NeuromorphicCard, groups: list[Population], cores: list[int], chips: int
) -> Band:
    events = card.events

    def seconds(quantity: Quantity | None) -> Band:
        return ZERO if quantity is None else breakdown.use(quantity, _band_factor(quantity))

    sop, update, spike = seconds(events.sop_time), seconds(events.update_time), seconds(events.spike_time)
    slowest = ZERO
    for group, own in zip(groups, cores, strict=True):
        share = 1.0 / (group.steps * own)
        busy = sop * group.sops * share + update * (group.updates * share) + spike * (group.spikes * share)
        slowest = slowest.maximum(busy)
    step = slowest + _barrier(breakdown, card, chips)
    if events.tick_time is not None:
        step = step.maximum(breakdown.use(events.tick_time))
    if step.nominal == 0:
        breakdown.exclude("time: the card has neither event times nor a tick")
    return step


def _barrier(breakdown: CostBreakdown, card: NeuromorphicCard, chips: int) -> Band:
    """End of a time step: one chip's barrier, or that of several, which grows with the side of their mesh."""
    events = card.events
    one = ZERO if events.barrier_time is None else breakdown.use(events.barrier_time, _band_factor(events.barrier_time))
    if chips == 1 or events.barrier_time_chips is None:
        return one
    many = breakdown.use(events.barrier_time_chips, _band_factor(events.barrier_time_chips))
    if events.barrier_chips is None:
        return many
    breakdown.use(events.barrier_chips)
    scale = math.sqrt(chips / int(events.barrier_chips))
    longest = events.barrier_time_chips.band().high
    nominal = max(one.nominal, min(many.nominal * scale, longest))
    return Band(min(one.low, nominal), nominal, max(many.high, nominal))


def _remarks(
    breakdown: CostBreakdown,
    workload: Workload,
    card: NeuromorphicCard,
    groups: list[Population],
    batch: int,
    copies: int,
) -> None:
    for name in workload.not_counted:
        breakdown.exclude(f"{name}: a layer that the workload does not know")
    others = [y.name for y in workload.layers if not (y.rows > 0 or y.neurons > 0) and (y.macs or y.output_elements)]
    if others:
        breakdown.exclude(
            f"layers without weights or neurons ({', '.join(others)}): they have no event energy on this chip"
        )
    if any(y.zero_weights for y in workload.layers if y.rows > 0):
        if card.events.zero_weight_cost is None:
            breakdown.assume("synapses of weight zero are stored and processed as all others: the card says no more")
        else:
            breakdown.use(card.events.zero_weight_cost)
            breakdown.assume(
                "synapses of weight zero are not stored and take no operation; the high bound has them all"
            )
    graded = [y.name for y in workload.layers if y.rows > 0 and not y.binary_input]
    if graded:
        breakdown.assume(
            f"{', '.join(graded)}: inputs are not spikes; each value that is not zero counts as one synaptic operation"
        )
    if any(not y.sops and y.macs and not workload.samples for y in workload.layers if y.rows > 0):
        breakdown.assume("no data was counted: every input is taken as active at every step, an upper bound")
    if convolutions := [y.name for y in workload.layers if y.op == "conv"]:
        breakdown.assume(
            f"{', '.join(convolutions)}: a core stores the weights of a convolution once, not once a position"
        )
    for group in groups:
        if group.delay_steps:
            breakdown.assume(
                f"{group.name}: delays of up to {group.delay_steps} steps take {group.delay_bits} bits more of each "
                "synapse's memory; whether the chip has delays, and the memory of what waits, are not looked at"
            )
    limit = min(si(card.core.fan_in, math.inf), si(card.core.axons, math.inf))
    wide = [group.name for group in groups if group.fan_in > limit]
    if wide:
        breakdown.assume(
            f"{', '.join(wide)}: more than {limit:.0f} inputs, split over cores; neurons that merge are free"
        )
    if card.events.hop_energy is None:
        breakdown.exclude("transport of spikes between cores: the card has no figure")
    if card.events.spike_energy is None:
        breakdown.exclude("generating a spike: the card has no figure of its own for it")
    if batch > 1:
        breakdown.assume(f"{min(batch, copies)} copies of the network on the cores left over, sharing static power")
    breakdown.exclude("loading the weights, and moving inputs and results between the host and the chip")
