"""What a card of each kind holds: CPUs and GPUs, crossbars, neuromorphic machines."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, model_validator

from hpml_sim.units.quantities import (
    Area,
    Bits,
    ByteRate,
    Bytes,
    CardModel,
    Count,
    EffectiveBits,
    Energy,
    EnergyPerBit,
    EnergyPerByte,
    EnergyPerOp,
    Figure,
    Length,
    OpRate,
    Power,
    Quantity,
    Rate,
    Scope,
    Share,
    Source,
    Status,
    Time,
    Whole,
    require_place,
)


class BaseCard(CardModel):
    """What cards of every kind hold: a name, a scope, sources, and numbers that each name one of them."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    summary: str
    version: int = Field(ge=1, description="raised whenever a number changes")
    scope: Scope
    year: int = Field(description="year of the publication or of the product")
    silicon: bool = Field(description="false for a machine that was simulated or projected, never built")
    node: Length | None = None
    sources: dict[str, Source]
    limits: list[str] = Field(default_factory=list, description="what the figures leave out, one sentence each")

    @model_validator(mode="after")
    def _sources_known(self) -> BaseCard:
        named = _walk("", self, (Quantity, Noise))
        unknown: list[str] = []
        for path, item in named:
            keys = {"source": item.source}
            if isinstance(item, Quantity) and item.band_source:
                keys["band_source"] = item.band_source
            for field, key in keys.items():
                if key not in self.sources:
                    near = difflib.get_close_matches(key, self.sources, n=1)
                    guess = f"did you mean {near[0]!r}? " if near else ""
                    known = ", ".join(self.sources)
                    unknown.append(f"{path}.{field}: unknown source key {key!r}; {guess}[sources] has {known}")
        if unknown:
            raise ValueError("; ".join(unknown))
        return self

    def quantities(self) -> Iterator[tuple[str, Quantity]]:
        """Every number of the card with its dotted path, in the order of the model."""
        yield from _walk("", self, (Quantity,))


def _walk(path: str, value: Any, wanted: tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, wanted):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(f"{path}.{name}" if path else name, getattr(value, name), wanted)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(f"{path}.{name}", item, wanted)


Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8"]


class DigitalCard(BaseCard):
    """A CPU or GPU: the ceilings of its roofline, its power, and what a launch costs."""

    kind: Literal["digital"]
    device: Literal["cpu", "cuda"]
    peak: dict[Precision, OpRate] = Field(min_length=1, description="dense operations a second, FLOP or OP (2 a MAC)")
    compute_efficiency: Share = Field(description="share of the peak that tuned large matrix products reach")
    convolution_efficiency: Share | None = Field(
        default=None, description="the same of convolutions; default: as matrix products"
    )
    memory_bandwidth: ByteRate
    memory_efficiency: Share = Field(description="share of the bandwidth that streaming kernels reach")
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
    call_time: Time = Field(description="framework overhead of one forward call besides its operators")
    area: Area | None = None


class Array(CardModel):
    """The crossbar: `rows` x `cols` unit cells (a unit cell holds one signed weight slice)."""

    rows: Whole
    cols: Whole
    cells_per_weight: Whole = Field(description="columns that one weight takes (1 unless weights are bit-sliced)")
    tiles_per_chip: Whole


class InputOutput(CardModel):
    """Converters of the mode the card describes."""

    dac_bits: Bits
    adc_bits: Bits


class Preset(CardModel):
    """Measured (or published) totals of one tile in one mode."""

    energy_per_mvm: Energy = Field(description="one full-array MVM of one tile, everything in `scope` included")
    time_per_mvm: Time
    area_per_tile: Area
    static_fraction: Share | None = Field(
        default=None, description="share of the MVM's energy spent at zero utilization"
    )
    adc_share: Share | None = Field(default=None, description="share of the MVM's energy spent by its converters")
    adc_step_time: Time | None = Field(
        default=None, description="converters that count: one step of the output; a conversion of b bits takes 2^b"
    )
    conversions: Whole | None = Field(
        default=None, description="conversions of a column in one MVM, one after another; default 1"
    )


class AdcModel(CardModel):
    """The ADC by its survey regression instead of a published energy: optimistic, "best published" converters.

    Unless `scale` matches the regression to the circuit at hand, the result is a lower bound, and estimates say so.
    Source: T. Andrulis et al., "Modeling ADC Energy and Area for CiM Accelerator Design", 2024; hwcomponents-adc.
    """

    bits: EffectiveBits = Field(description="effective number of bits, >= 4")
    rate: Rate = Field(description="conversions a second of one ADC")
    scale: Count | None = Field(
        default=None, description="measured energy / regression for this circuit; absent: not matched"
    )


class Part(CardModel):
    """A block known by its power (and area) only, as in ISAAC's table: it spends power x time while its tiles work.

    Attributes:
        power: of one instance, working. area: of one instance.
        tiles: how many tiles (arrays) share one instance.
        scales: what its energy follows: the tiles that work ("tiles"), the share of their rows, columns or cells in
            use, or nothing ("constant": it spends its power whether or not the machine works).
        within: level of the published hierarchy it belongs to, for the validation ("ima", "tile", "chip", ...).
    """

    power: Power
    area: Area | None = None
    tiles: Whole
    scales: Literal["tiles", "rows", "cols", "cells", "constant"] = "tiles"
    within: str = "tile"


class Component(CardModel):
    """One tile as a sum of its parts: what each event costs in energy and time. Every field optional but the encoding.

    How an input of b bits reaches the rows (`encoding`), and what is counted in one MVM (m: magnitude bits = b minus
    the sign bit where `signed_rows` is true, at least 1):
    bit-serial: ceil(m / bits_per_cycle) cycles, each with one conversion a column.
    pwm: one cycle of `cycle_time` (the whole pulse), one conversion a column.
    pulse-count: the bits are cut into phases of at most `bits_per_phase`; a phase of p bits takes 2^p - 1 cycles and
    one conversion a column, of (output bits - bits of the phases before) steps.
    `repeats` multiplies all of it (reads of both polarities, several read phases).

    Energies are for one event; a "column" is a physical column, a "cell" a unit cell of `array`.
    """

    encoding: Literal["bit-serial", "pwm", "pulse-count"]
    input_bits: Bits
    output_bits: Bits
    signed_rows: bool = Field(False, description="rows carry the sign, which then costs no cycle")
    bits_per_cycle: Bits | None = Field(
        default=None, description="bit-serial: input bits a row takes at once; default 1"
    )
    bits_per_phase: Bits | None = Field(
        default=None, description="pulse-count: most bits of a phase; default all in one"
    )
    repeats: Whole | None = Field(default=None, description="reads of one MVM, all alike; default 1")
    row_energy: Energy | None = Field(default=None, description="DAC or driver: one row, one cycle")
    cell_energy: Energy | None = Field(
        default=None, description="array: one cell, one cycle, at `mean_input`, mean weight"
    )
    column_energy: Energy | None = Field(default=None, description="bit line or integrator: one column, one cycle")
    wordline_energy: Energy | None = Field(
        default=None, description="switching the select line: one column, one input bit"
    )
    sample_energy: Energy | None = Field(default=None, description="sample and hold: one column, one input bit")
    conversion_energy: Energy | None = Field(default=None, description="ADC: one conversion")
    adc: AdcModel | None = Field(default=None, description="instead of conversion_energy")
    step_energy: Energy | None = Field(
        default=None, description="ADC whose energy grows with its output bits: one step"
    )
    merge_energy: Energy | None = Field(default=None, description="shift and add: one conversion")
    tile_energy: Energy | None = Field(default=None, description="control: one tile, one cycle")
    cycle_time: Time = Field(description="one array read")
    conversion_time: Time | None = Field(default=None, description="ADC: one conversion")
    step_time: Time | None = Field(default=None, description="ADC: one step")
    phase_time: Time | None = Field(default=None, description="between phases")
    columns_per_adc: Whole | None = Field(
        default=None, description="columns that share an ADC, one after the other; default 1"
    )
    pipelined: bool = Field(False, description="the next read runs while the last one is converted")
    area_per_tile: Area | None = None
    parts: dict[str, Part] = Field(default_factory=dict)
    mean_input: Share | None = Field(
        default=None, description="mean input (share of full scale) at which cell_energy holds"
    )

    @model_validator(mode="after")
    def _one_adc(self) -> Component:
        given = [name for name in ("conversion_energy", "adc", "step_energy") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of conversion_energy, adc, step_energy, got {' and '.join(given)}")
        return self


Option = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Noise(CardModel):
    """The conductance-level noise and drift model: which one, its settings, and when its paper has data.

    Attributes:
        model: name of the noise model (aihwkit's physics); "custom" is that of phase-change memory with figures of the
            card's own for programming noise and drift.
        options: settings handed to the model (`g_max_us` in microsiemens, ...).
        curves: of the model "custom": `programming_us`, the polynomial of the programming noise in g / g_max
            (microsiemens, lowest power first), and conductances `drift_at_us` (microsiemens) with the mean and sigma of
            the drift exponent there, `drift_mean` and `drift_sigma`.
        times_s: the only times (seconds) at which the paper gives data; empty means any time >= 0.
        source: key of the source. where: figure, table or equation. note: why this mode and these settings.
    """

    model: Literal["pcm", "hermes", "custom", "reram-wan", "reram-cmo", "none"]
    options: dict[str, Option] = Field(default_factory=dict)
    curves: dict[str, list[Option]] = Field(default_factory=dict)
    times_s: list[Figure] = Field(default_factory=list)
    source: str
    where: str = ""
    status: Status
    note: str = ""

    @model_validator(mode="after")
    def _findable(self) -> Noise:
        require_place(self.where, self.note)
        return self


class Digital(CardModel):
    """What surrounds the tiles; every item optional, and what is missing is named as not counted in the estimate."""

    energy_per_op: EnergyPerOp | None = Field(
        default=None, description="digital arithmetic, one operation (bias, activation, ...)"
    )
    energy_per_byte_buffer: EnergyPerByte | None = None
    energy_per_bit_link: EnergyPerBit | None = Field(default=None, description="tile to tile on one chip")
    energy_per_bit_off_chip: EnergyPerBit | None = Field(default=None, description="chip to chip")
    ops_rate: OpRate | None = Field(default=None, description="digital operations a second, one chip")
    link_rate: ByteRate | None = Field(
        default=None, description="bytes a second into or out of one tile's network port"
    )
    power_static: Power | None = Field(default=None, description="one chip")


class Programming(CardModel):
    """Writing the weights; reported apart from inference."""

    iterations: Count | None = None
    energy_per_pulse: Energy | None = None
    time_per_pulse: Time | None = None


class CrossbarCard(BaseCard):
    """An analog in-memory machine: tiles, converters, energy and its matching noise model (same mode)."""

    kind: Literal["crossbar"]
    array: Array
    io: InputOutput
    preset: Preset | None = None
    component: Component | None = None
    digital: Digital = Field(default_factory=Digital)
    programming: Programming = Field(default_factory=Programming)
    noise: Noise
    recalibration_time: Time | None = Field(default=None, description="time between drift calibrations")
    area: Area | None = Field(default=None, description="whole chip")


class Core(CardModel):
    """Limits of one neuromorphic core, and how many a chip holds."""

    neurons: Whole
    synapse_memory: Bytes | None = None
    synapse_bits: Bits | None = Field(default=None, description="memory that one synapse takes; default 8 bits")
    fan_in: Whole | None = Field(default=None, description="synapses a neuron can have (rows of a core's crossbar)")
    axons: Whole | None = Field(default=None, description="distinct inputs a core can receive")
    cores_per_chip: Whole


class Events(CardModel):
    """Energy and time of each kind of event. Dynamic figures only: a total at one operating point is not an event."""

    sop_energy: Energy
    update_energy: Energy
    idle_update_energy: Energy | None = None
    spike_energy: Energy | None = None
    hop_energy: Energy | None = None
    sop_time: Time | None = None
    update_time: Time | None = None
    spike_time: Time | None = None
    barrier_time: Time | None = Field(default=None, description="end of a time step, one chip")
    barrier_time_chips: Time | None = Field(default=None, description="end of a time step, several chips")
    barrier_chips: Whole | None = Field(
        default=None,
        description="chips that barrier_time_chips holds for; it grows with the side of the mesh, sqrt(chips)",
    )
    reset_energy: Energy | None = Field(default=None, description="clearing the state between inferences, one chip")
    tick_time: Time | None = Field(default=None, description="fixed or minimal duration of one time step")


class NeuromorphicCard(BaseCard):
    """A spiking machine: event energies and times, static and host power, capacity."""

    kind: Literal["neuromorphic"]
    core: Core
    events: Events
    power_static: Power = Field(description="one chip")
    power_core: Power | None = Field(default=None, description="a core in use, on top of the chip's static power")
    power_host: Power | None = Field(default=None, description="management processor, for a chip")
    area: Area | None = Field(default=None, description="whole chip")
    encoder: Literal["rate", "direct"] = Field("rate", description="how real-valued input reaches the chip by default")


Card = DigitalCard | CrossbarCard | NeuromorphicCard
KINDS: dict[str, type[BaseCard]] = {"digital": DigitalCard, "crossbar": CrossbarCard, "neuromorphic": NeuromorphicCard}
ADAPTER: TypeAdapter[Card] = TypeAdapter(Annotated[Card, Field(discriminator="kind")])
