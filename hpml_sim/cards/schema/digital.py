"""What the card of a CPU or GPU holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpml_sim.cards.schema.base import BaseCard
from hpml_sim.cards.schema.kernels import Kernels
from hpml_sim.cards.schema.serving import Link, Serving, WorkPower
from hpml_sim.units.quantities import (
    Area,
    ByteRate,
    Bytes,
    EnergyPerByte,
    OpRate,
    PositiveShare,
    Power,
    Ratio,
    Time,
)

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4"]


class DigitalCard(BaseCard):
    """A CPU or GPU: the ceilings of its roofline, its power, and what a launch costs."""

    kind: Literal["digital"]
    device: Literal["cpu", "cuda", "mps", "npu"]
    peak: dict[Precision, OpRate] = Field(min_length=1, description="dense operations a second, FLOP or OP (2 a MAC)")
    compute_efficiency: PositiveShare = Field(description="share of the peak that tuned large matrix products reach")
    convolution_efficiency: PositiveShare | None = Field(
        default=None, description="the same of convolutions; default: as matrix products"
    )
    memory_bandwidth: ByteRate
    memory_efficiency: PositiveShare = Field(description="share of the bandwidth that streaming kernels reach")
    memory: Bytes
    cache: Bytes | None = Field(default=None, description="last-level cache")
    cache_bandwidth: ByteRate | None = Field(default=None, description="from that cache; default: no limit")
    power_max: Power = Field(description="TDP or board power limit")
    power_idle: Power
    power_active: Power | None = Field(default=None, description="clocks up, host-bound, above idle")
    energy_per_byte: EnergyPerByte | None = Field(default=None, description="DRAM to core, all levels")
    launch_time: Time = Field(description="one kernel started from compiled code")
    dispatch_time: Time | None = Field(
        default=None, description="one operator of an eager framework, launch included: the host's; default launch_time"
    )
    replay_time: Time | None = Field(
        default=None, description="one kernel of a recorded CUDA graph; default launch_time"
    )
    in_flight: Ratio | None = Field(
        default=None, description="inferences at once in a pipeline of layers: latency x throughput; default: one"
    )
    call_time: Time = Field(description="framework overhead of one forward call besides its operators")
    sparse_speedup: Ratio | None = Field(
        default=None,
        description="peak of tensor cores on weights of which two in four are zero (2:4), over the dense peak; "
        "default: the machine has no use for such zeros",
    )
    area: Area | None = None
    host_share: Ratio | None = Field(
        default=None, description="eighths of a server that surround one device; default: one"
    )
    kernels: Kernels | None = Field(
        default=None, description="model of matrix products on a GPU; default: the roofline alone"
    )

    serving: Serving | None = Field(default=None, description="a serving engine for language models on this GPU")
    power: WorkPower | None = Field(default=None, description="what a GPU draws by what it does")
    links: dict[str, Link] = Field(default_factory=dict, description="between GPUs of one machine, the usual one first")

    def _highlights(self) -> list[tuple[str, str]]:
        return [
            ("peak", ", ".join(f"{precision} {rate}" for precision, rate in self.peak.items())),
            ("memory", f"{self.memory} at {self.memory_bandwidth}"),
            ("power", f"{self.power_idle} idle, {self.power_max} at most"),
        ]
