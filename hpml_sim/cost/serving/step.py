"""What a step takes on GPUs: seconds of kernels, exchange and host; joules by what the GPUs do.

    seconds = sum over kernels (work + start) + host a step + host a sequence x sequences
    joules  = (idle + clocks) x seconds + bytes x price + keys and values x price + operations x price
    power   = joules / seconds, at most the board's limit: where it would be more, the clocks fall

Source: docs/gpu_validation.md, which lists the constants of a card, what they were fitted to and what was held out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from hpml_sim.cost.digital.power import capped, power_of
from hpml_sim.cost.digital.products import Products
from hpml_sim.cost.serving.collectives import Collective, Collectives
from hpml_sim.cost.serving.operations import Operation, Split, Step, StepWork, Widths
from hpml_sim.cost.serving.tables import link_of, serving_of

if TYPE_CHECKING:
    from hpml_sim.cards import DigitalCard, Precision
    from hpml_sim.networks.language import TransformerShape

Host = Literal["engine", "graph", "eager"]
"""Who starts the kernels: a serving engine, a recorded graph alone, or a framework operator by operator."""
CLOCK_POWER = 3
"""Power of a clocked circuit grows with the third power of its clock, as voltage follows.

Source: T. Mudge, "Power: a first-class architectural design constraint", IEEE Computer 34(4):52 (2001).
"""
EAGER_OPERATORS = 4
"""Operators of an eager framework for what an engine does in one kernel: a norm is a square, a mean, a root, ..."""
BARRIERS = 2
"""Kernels' starts that an engine's own all-reduce takes in a recorded graph: the GPUs meet before they read and after.

Source: vLLM 0.11, `csrc/custom_all_reduce.cuh`: one kernel with a barrier at either end.
"""
ZEROS = 0.6
"""Energy of multiplying rows of zeros over that of others.

Source: T. Gregersen, P. Patel, E. Choukse, "Input-dependent power usage in GPUs", SC24 workshops, arXiv:2409.18324:
what is multiplied changes the power of a product by almost 40 %.
"""
_EDGES = ("head", "pooler", "router")


@dataclass(frozen=True)
class Spent:
    """What one kind of kernel takes in a step, on one GPU.

    Attributes:
        name: what they do.
        kind: "product", "attention", "values" or "exchange".
        time_s: seconds of all of them, starts included.
        energy_j: joules above idle and clocks.
        operations: floating-point operations.
        traffic_bytes: bytes to and from memory.
    """

    name: str
    kind: str
    time_s: float
    energy_j: float
    operations: float
    traffic_bytes: float


@dataclass(frozen=True)
class StepCost:
    """One step of one copy of a network.

    Attributes:
        spent: by kind of kernel, on one GPU.
        host_s: seconds in which the GPUs wait for the host.
        time_s: seconds of the step.
        power_w: mean watts of one GPU.
        devices: GPUs of the copy.
    """

    spent: tuple[Spent, ...]
    host_s: float
    time_s: float
    power_w: float
    devices: int

    @property
    def energy_j(self) -> float:
        """Joules of all GPUs of the copy while a step takes its way, those of other steps in flight included."""
        return self.power_w * self.time_s * self.devices

    @property
    def exchange_s(self) -> float:
        """Seconds in which GPUs exchange data."""
        return math.fsum(part.time_s for part in self.spent if part.kind == "exchange")


@dataclass(frozen=True)
class StepModel:
    """A network on GPUs.

    Attributes:
        card: of one GPU; it has the table `[kernels]`.
        shape: the network.
        split: over GPUs.
        precision: of the arithmetic.
        widths: bytes of weights, activations and cache.
        host: who starts the kernels.
    """

    card: DigitalCard
    shape: TransformerShape
    split: Split
    precision: Precision
    widths: Widths
    host: Host = "engine"

    def cost(self, step: Step, *, in_flight: int = 1) -> StepCost:
        """Seconds and watts of one step.

        Args:
            step: its tokens, of one copy.
            in_flight: such steps at a time, each in another stage of a pipeline; from 1 to the number of stages.
        """
        card, split = self.card, self.split
        serving, power = serving_of(card), power_of(card)
        operations = StepWork(self.shape, step, split, self.widths).operations()
        seconds = self._seconds(operations)
        spent = tuple(
            Spent(
                y.name,
                _component(y),
                y.count * seconds[i],
                y.count * self._joules(y),
                y.count * y.operations,
                y.count * (y.weights_bytes + y.moved_bytes),
            )
            for i, y in enumerate(operations)
        )
        kernels_s = math.fsum(part.time_s for part in spent)
        host_s = 0.0
        if self.host == "engine":
            host_s = serving.step_time.si + serving.sequence_time.si * (step.decodes + step.finished)
        elif self.host == "eager":  # the host runs ahead; what it takes longer, the GPU waits
            operators = sum(y.count * (EAGER_OPERATORS if y.kind == "values" else 1) for y in operations)
            started = operators * (card.dispatch_time or card.launch_time).si
            host_s = max(started - kernels_s, 0.0)
        # of a pipeline's stages, as many work at a time as there are steps in flight
        own = math.fsum(part.energy_j for part in spent) * in_flight / split.pipeline
        watts = card.power_idle.si + power.clocks.si + own / (kernels_s + host_s)
        drawn = capped(watts, card.power_max.si)
        slower = (watts / drawn) ** (1 / CLOCK_POWER)
        return StepCost(spent, host_s, kernels_s * slower + host_s, drawn, split.sharing * split.pipeline)

    def _seconds(self, operations: list[Operation]) -> list[float]:
        """Seconds of one kernel of each kind; all products are computed at once."""
        layers = Products.of(self.card, self.precision, self.widths.weight)
        edges = Products.of(self.card, self.attention_precision, self.widths.edge)
        found = [0.0 if y.kind == "product" else self._kernel_s(y) for y in operations]
        for products, at_edge, speedup in ((layers, False, 1 / self.widths.work), (edges, True, 1.0)):
            own = [i for i, y in enumerate(operations) if y.kind == "product" and (y.name in _EDGES) == at_edge]
            if own:
                sizes = np.array([(operations[i].rows, operations[i].inputs, operations[i].outputs) for i in own])
                for i, value in zip(own, products.time_s(*sizes.T, speedup=speedup), strict=True):
                    found[i] = float(value)
        return found

    def _kernel_s(self, y: Operation) -> float:
        card, serving = self.card, serving_of(self.card)
        bandwidth, peak = card.memory_bandwidth.si, card.peak[self.attention_precision].si
        start = serving.kernel_time.si
        match y.kind:
            case "experts":
                read = (y.weights_bytes + y.moved_bytes) / (bandwidth * serving.expert_bandwidth.si)
                # values of 8 bits are scaled in blocks, on the way out of the tensor cores: no faster than 16
                rate = card.peak[self.attention_precision].si * serving.expert_rate.si
                return read + y.filled_operations / rate + serving.expert_time.si
            case "attention":
                read = y.moved_bytes / (bandwidth * serving.attention_efficiency.si)
                return max(read, y.operations / (peak * serving.prefill_efficiency.si)) + 2 * start  # and the merge
            case "prefill":
                return y.operations / (peak * serving.prefill_efficiency.si) + y.moved_bytes / bandwidth + start
            case "values":
                return y.moved_bytes / (bandwidth * card.memory_efficiency.si) + start
            case _:
                gpus = 2 if y.kind == "send" else self.split.sharing
                collectives = Collectives(link_of(card), None if self.host == "eager" else BARRIERS * start)
                return collectives.time_s(cast(Collective, y.kind), y.sent_bytes, gpus)

    def _joules(self, y: Operation) -> float:
        """Joules of one kernel above idle and clocks."""
        power = power_of(self.card)
        moved = y.moved_bytes + 2 * y.sent_bytes
        match y.kind:
            case "attention":
                return power.attention.si * moved
            case "experts":
                # rows that fill up a block are zeros; scaling 8-bit weights takes the same whatever the rows
                zeros = 1.0 if self.widths.values_rounded else ZEROS
                operations = y.operations + zeros * (y.filled_operations - y.operations)
                return power.traffic.si * (y.weights_bytes + moved) + power.expert_operation.si * operations
            case _:
                narrow = 0.5 if self.precision in ("fp8", "int8") and y.name not in _EDGES else 1.0
                arithmetic = power.operation.si * (narrow if y.kind == "product" else 1.0) * y.operations
                return power.traffic.si * (y.weights_bytes + moved) + arithmetic

    @property
    def attention_precision(self) -> Precision:
        """Attention, router and head compute in 16 bits where the layers compute in fewer."""
        if self.precision in ("fp32", "tf32", "bf16", "fp16"):
            return self.precision
        return "bf16" if "bf16" in self.card.peak else "fp16" if "fp16" in self.card.peak else self.precision


def _component(y: Operation) -> str:
    if y.sent_bytes:
        return "exchange"
    return {"experts": "product", "prefill": "attention"}.get(y.kind, y.kind)
