"""What the card of a GPU says of serving language models: host and kernels of an engine, links, what work draws."""

from __future__ import annotations

from pydantic import Field, model_validator

from hpml_sim.units.quantities import (
    ByteRate,
    CardModel,
    EnergyPerByte,
    EnergyPerOp,
    PositiveShare,
    Power,
    Quantity,
    Ratio,
    Time,
)


class Serving(CardModel):
    """A serving engine (continuous batching, recorded graphs) on this GPU and its host; fitted to served records."""

    step_time: Time = Field(description="host, one step: schedule, prepare, collect; the GPU waits")
    sequence_time: Time = Field(description="host, one sequence in one step: sample, detokenize, answer")
    kernel_time: Time = Field(description="one kernel of a recorded graph beside its work; products have their own")
    attention_efficiency: Ratio = Field(
        description="keys and values that decodes read a second / memory bandwidth; above 1 where the cache helps"
    )
    expert_bandwidth: Ratio = Field(description="weights of experts that are read a second / memory bandwidth")
    expert_rate: PositiveShare = Field(description="share of the peak that grouped products of experts reach")
    expert_time: Time = Field(description="one grouped product of experts beside its work: sort, gather, start")
    prefill_efficiency: PositiveShare = Field(description="share of the peak that attention over a prompt reaches")
    time_within: Ratio | None = Field(
        default=None, description="records / estimates of seconds: 1, and bounds with nine of ten between them"
    )
    energy_within: Ratio | None = Field(default=None, description="the same of joules")


class WorkPower(CardModel):
    """What a GPU draws by what it does, above idle; the sum is cut at the board's limit."""

    clocks: Power = Field(description="a running engine with nothing on the GPU, above idle")
    traffic: EnergyPerByte = Field(description="weights and activations, from memory to the cores")
    attention: EnergyPerByte = Field(description="keys and values, with the arithmetic on them")
    operation: EnergyPerOp = Field(description="products in 16 bits, with operands on the chip; 8 bits: half of it")
    expert_operation: EnergyPerOp = Field(description="grouped products of experts, rows that fill up included")


class Link(CardModel):
    """How GPUs of one machine exchange data. t = max(floor, start + 2 (n - 1) / n bytes / rate) for an all-reduce.

    The rates are bus bandwidths: what each GPU sends and receives, whatever the number of GPUs.
    """

    start: Time = Field(description="of a collective, whatever its size")
    floor: Time = Field(description="the shortest collective of the library, started from the host")
    rate: dict[str, ByteRate] = Field(min_length=1, description="by number of GPUs, '2', '4', ...")

    @model_validator(mode="after")
    def _numbers(self) -> Link:
        for count in self.rate:
            if not count.isdecimal() or int(count) < 2:
                raise ValueError(f"rate.{count}: name a number of GPUs, 2 or more")
        return self

    def rate_of(self, gpus: int) -> Quantity:
        """The rate for a number of GPUs: that of the largest number recorded that is not above it, or the smallest.

        Args:
            gpus: in the collective, at least 2.
        """
        counts = sorted(map(int, self.rate))
        below = [count for count in counts if count <= gpus]
        return self.rate[str(below[-1] if below else counts[0])]
