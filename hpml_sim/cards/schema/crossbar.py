"""What the card of an analog in-memory machine holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hpml_sim.cards.schema.base import BaseCard
from hpml_sim.cards.schema.input_ranges import InputRanges
from hpml_sim.cards.schema.noise import Noise
from hpml_sim.units.quantities import (
    Area,
    Bits,
    ByteRate,
    CardModel,
    Count,
    EffectiveBits,
    Energy,
    EnergyPerBit,
    EnergyPerByte,
    EnergyPerOp,
    OpRate,
    Period,
    PositiveEnergy,
    PositiveShare,
    Power,
    Rate,
    Ratio,
    Share,
    Time,
    Whole,
)


class Array(CardModel):
    """The crossbar: `rows` x `cols` unit cells (a unit cell holds one signed weight slice)."""

    rows: Whole
    cols: Whole
    cells_per_weight: Whole = Field(description="columns that one weight takes (1 unless weights are bit-sliced)")
    tiles_per_chip: Whole
    tiers: Whole | None = Field(
        default=None, description="tiles stacked over one periphery, of which one works at a time; default 1"
    )


class InputOutput(CardModel):
    """Converters of the mode the card describes."""

    dac_bits: Bits
    adc_bits: Bits
    input_ranges: InputRanges | None = Field(
        default=None, description="what can set the full scale of the inputs; absent: any"
    )

    def can_range(self, name: str) -> bool:
        """Whether the hardware can do an input range.

        Args:
            name: of a range, as in `hs.Analog(input_range=)`; all but "dynamic" are static.
        """
        return self.input_ranges is None or ("dynamic" if name == "dynamic" else "static") in self.input_ranges.kinds

    @property
    def scales_channels(self) -> bool:
        """Whether the hardware can scale each input channel by itself."""
        return self.input_ranges is None or "channel" in self.input_ranges.kinds


class Preset(CardModel):
    """Measured (or published) totals of one tile in one mode."""

    energy_per_mvm: PositiveEnergy = Field(description="one full-array MVM of one tile, everything in `scope` included")
    time_per_mvm: Period
    area_per_tile: Area
    static_fraction: Share | None = Field(
        default=None, description="share of the MVM's energy spent at zero utilization"
    )
    adc_share: Share | None = Field(default=None, description="share of the MVM's energy spent by its converters")
    adc_step_time: Period | None = Field(
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

    bits: EffectiveBits = Field(description="effective number of bits, 4 to 10")
    rate: Rate = Field(description="conversions a second of one ADC")
    scale: Ratio | None = Field(
        default=None, description="measured energy / regression for this circuit; absent: not matched"
    )

    @model_validator(mode="after")
    def _within_the_regression(self) -> AdcModel:
        if not 4 <= self.bits.si <= 10:
            raise ValueError(f"bits: the regression holds for 4 to 10 effective bits, got {self.bits}")
        return self


class Part(CardModel):
    """A block known by its power (and area) only, as in ISAAC's table: it spends power x time while its tiles work.

    Attributes:
        power: of one instance, working.
        area: of one instance.
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
    cycle_time: Period = Field(description="one array read")
    conversion_time: Period | None = Field(default=None, description="ADC: one conversion")
    step_time: Period | None = Field(default=None, description="ADC: one step")
    phase_time: Time | None = Field(default=None, description="between phases")
    columns_per_adc: Whole | None = Field(
        default=None, description="columns that share an ADC, one after the other; default 1"
    )
    pipelined: bool = Field(False, description="the next read runs while the last one is converted")
    area_per_tile: Area | None = None
    parts: dict[str, Part] = Field(default_factory=dict)
    mean_input: PositiveShare | None = Field(
        default=None, description="mean input (share of full scale) at which cell_energy holds"
    )

    @model_validator(mode="after")
    def _one_adc(self) -> Component:
        given = [name for name in ("conversion_energy", "adc", "step_energy") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of conversion_energy, adc, step_energy, got {' and '.join(given)}")
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
    time_per_pulse: Period | None = None


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
    recalibration_time: Period | None = Field(default=None, description="time between drift calibrations")
    area: Area | None = Field(default=None, description="whole chip")
    cache: Literal["lpddr", "hbm", "gddr6", "ddr", "sram-cache", "gain-cell"] | None = Field(
        default=None, description="component that keeps keys and values at system scope; default lpddr, hbm in a server"
    )
    includes: list[Literal["digital", "buffers", "links", "static"]] = Field(
        default_factory=list,
        description="what the preset or component figures hold beside the product; cards with parts hold all of it",
    )

    def _highlights(self) -> list[tuple[str, str]]:
        array, preset = self.array, self.preset
        tile = "" if preset is None else f"{preset.energy_per_mvm} and {preset.time_per_mvm} a full MVM"
        parts = "" if self.component is None else "the sum of its components"
        return [
            (
                "tiles",
                f"{array.tiles_per_chip} of {array.rows} x {array.cols} cells, {array.cells_per_weight} a weight",
            ),
            ("converters", f"{self.io.dac_bits} in, {self.io.adc_bits} out"),
            ("one tile", ", or ".join(part for part in (tile, parts) if part) or "no energy: devices only"),
            ("noise", self.noise.model),
        ]
