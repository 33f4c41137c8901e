"""Device cards: one TOML file for each piece of hardware, every number with its unit, source and status.

A card is read once, checked against the models below and turned into SI floats; pint and pydantic stay at this edge.
The card's `kind` chooses the model: `DigitalCard`, `CrossbarCard` or `NeuromorphicCard`.
"""

from __future__ import annotations

import difflib
import os
import tokenize
import tomllib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from hpml_sim.bands import Band
from hpml_sim.errors import CardError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    import pint

Scope = Literal["core", "chip", "board", "system"]
Status = Literal["measured", "model", "projection", "scaled", "datasheet", "derived", "assumption", "unverified"]
"""How a number came about.

measured: silicon, by its authors. model: a published model or simulation. projection: a published forecast.
scaled: another machine's figure, scaled. datasheet: the vendor's word. derived: arithmetic on other figures of the
card (the note shows it). assumption: ours, no source exists (the note says why). unverified: from memory or a
secondary text that was not checked against the primary one.
"""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Model):
    """Where a number can be read.

    Attributes:
        cite: authors, title, venue, year.
        doi: digital object identifier, if there is one.
        url: address, if there is no doi.
        opened: what was really opened to read the number (the paper, its abstract, a secondary text that quotes it).
    """

    cite: str = Field(min_length=1)
    doi: str = ""
    url: str = ""
    opened: str = ""

    @property
    def reference(self) -> str:
        """The citation with its DOI, or else its address."""
        place = f"doi:{self.doi}" if self.doi else self.url
        return f"{self.cite}, {place}" if place and place.removeprefix("doi:") not in self.cite else self.cite


Figure = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
"""What a card may hold: a number, not text; finite and not negative."""


def _require_place(where: str, note: str) -> None:
    if not (where.strip() or note.strip()):
        raise ValueError(
            "needs `where` (page, table or figure of the source) or, if there is none, a `note` saying why"
        )


class Quantity(_Model):
    """One number of a card: value, unit, source key, where in the source, status and, where known, its bounds.

    Attributes:
        source: key in the card's `[sources]`. where: page, table or figure in it.
        low, high: bounds in the same unit. band_source: key of their source, if it is not that of the value.
        note: the arithmetic of a derived number, the reason of an assumption, conditions.
    """

    value: Figure
    unit: str
    source: str
    where: str = ""
    status: Status
    low: Figure | None = None
    high: Figure | None = None
    band_source: str = ""
    note: str = ""
    _factor: float = PrivateAttr(default=1.0)

    @model_validator(mode="after")
    def _ordered(self) -> Quantity:
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if not low <= self.value <= high:
            raise ValueError(f"must satisfy low <= value <= high, got {low!r}, {self.value!r}, {high!r}")
        return self

    @model_validator(mode="after")
    def _findable(self) -> Quantity:
        _require_place(self.where, self.note)
        return self

    def checked(self, si_unit: str, examples: str) -> Quantity:
        """Check the unit's dimension against `si_unit` and remember the factor to SI.

        Raises:
            ValueError: the unit is unknown or has another dimension; the message offers `examples`.
        """
        self._factor = _si_factor(self.unit, si_unit, examples)
        return self

    @property
    def si(self) -> float:
        """The value in SI units."""
        return self.value * self._factor

    def band(self, default_fraction: float = 0.0) -> Band:
        """Low, nominal and high in SI; where the card gives no bounds, plus or minus `default_fraction`."""
        low = self.value * (1 - default_fraction) if self.low is None else self.low
        high = self.value * (1 + default_fraction) if self.high is None else self.high
        return Band(low, self.value, high) * self._factor

    def __int__(self) -> int:
        return round(self.si)

    def __float__(self) -> float:
        return self.si

    def __str__(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{self.value:g}{unit}"


def _unit(si_unit: str, examples: str) -> Any:
    return AfterValidator(lambda quantity: quantity.checked(si_unit, examples))


def _whole(quantity: Quantity) -> Quantity:
    if quantity.si < 1 or quantity.si != round(quantity.si):
        raise ValueError(f"must be a whole number >= 1, got {quantity}")
    return quantity


def _share(quantity: Quantity) -> Quantity:
    if not quantity.band().high <= 1:
        raise ValueError(
            f"is a share: value, low and high must lie between 0 and 1 (0 and 100 percent), got {quantity}"
        )
    return quantity


def _positive(quantity: Quantity) -> Quantity:
    if not quantity.band().low > 0:
        raise ValueError(f"value and low must be greater than 0, got {quantity}")
    return quantity


# What a field measures; `Quantity.si` is in the unit named first.
Count = Annotated[Quantity, _unit("dimensionless", "1, percent")]
Whole = Annotated[Count, AfterValidator(_whole)]
Share = Annotated[Count, AfterValidator(_share)]
Bits = Annotated[Quantity, _unit("bit", "bit"), AfterValidator(_whole)]
EffectiveBits = Annotated[Quantity, _unit("bit", "bit")]
Bytes = Annotated[Quantity, _unit("byte", "B, kB, KiB, MB, MiB, GB, GiB, TB"), AfterValidator(_positive)]
Energy = Annotated[Quantity, _unit("joule", "J, uJ, nJ, pJ, fJ")]
EnergyPerByte = Annotated[Quantity, _unit("joule/byte", "pJ/B, pJ/bit")]
EnergyPerBit = Annotated[Quantity, _unit("joule/bit", "pJ/bit, fJ/bit")]
EnergyPerOp = Annotated[Quantity, _unit("joule/op", "pJ/OP, pJ/FLOP, pJ/MAC (1 MAC = 2 OP)")]
Power = Annotated[Quantity, _unit("watt", "W, mW, uW")]
Time = Annotated[Quantity, _unit("second", "s, ms, us, ns, h, day")]
Rate = Annotated[Quantity, _unit("1/second", "Hz, kHz, MHz, GHz, 1/s"), AfterValidator(_positive)]
OpRate = Annotated[Quantity, _unit("op/second", "OP/s, GOP/s, TOP/s, TFLOP/s"), AfterValidator(_positive)]
ByteRate = Annotated[Quantity, _unit("byte/second", "B/s, GB/s, TB/s"), AfterValidator(_positive)]
Length = Annotated[Quantity, _unit("meter", "m, um, nm"), AfterValidator(_positive)]
Area = Annotated[Quantity, _unit("meter**2", "mm^2, um^2"), AfterValidator(_positive)]
Voltage = Annotated[Quantity, _unit("volt", "V, mV")]
Conductance = Annotated[Quantity, _unit("siemens", "S, uS")]

_UNITS = """
femto- = 1e-15 = f-
pico- = 1e-12 = p-
nano- = 1e-9 = n-
micro- = 1e-6 = u- = µ-
milli- = 1e-3 = m-
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
percent = 0.01 = %
second = [time] = s
hour = 3600 * second = h
day = 86400 * second
hertz = 1 / second = Hz
meter = [length] = m
kilogram = [mass] = kg
ampere = [current] = A
joule = kilogram * meter ** 2 / second ** 2 = J
watt = joule / second = W
volt = watt / ampere = V
siemens = ampere / volt = S
bit = [information]
byte = 8 * bit = B
op = [operation] = _ = OP = FLOP
mac = 2 * op = _ = MAC
"""


@lru_cache(maxsize=1)
def _registry() -> pint.UnitRegistry:
    """The units a card may use. Our own short list, so that bytes and operations are dimensions; pint's have none."""
    import pint

    registry: pint.UnitRegistry = pint.UnitRegistry(None)  # pyright: ignore[reportArgumentType]
    registry.load_definitions(_UNITS.strip().splitlines())
    return registry


@lru_cache(maxsize=512)
def _si_factor(unit: str, si_unit: str, examples: str) -> float:
    import pint

    registry = _registry()
    try:
        return float(registry.Quantity(1.0, unit).to(si_unit).magnitude)
    except pint.UndefinedUnitError:
        raise ValueError(f"unknown unit {unit!r}; allowed here: {examples}") from None
    except pint.DimensionalityError:
        raise ValueError(f"unit {unit!r} has the wrong dimension; allowed here: {examples}") from None
    except (AssertionError, TypeError, ValueError, SyntaxError, tokenize.TokenError):  # text that is no unit at all
        raise ValueError(f"{unit!r} is not a unit; allowed here: {examples}") from None


# --------------------------------------------------------------------------------------------------------------- kinds


class _Card(_Model):
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
    def _sources_known(self) -> _Card:
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


class DigitalCard(_Card):
    """A CPU or GPU: the ceilings of its roofline, its power, and what a launch costs."""

    kind: Literal["digital"]
    device: Literal["cpu", "cuda"]
    peak: dict[Precision, OpRate] = Field(min_length=1, description="dense operations a second, FLOP or OP (2 a MAC)")
    compute_efficiency: Share = Field(description="share of the peak that tuned large matrix products reach")
    memory_bandwidth: ByteRate
    memory_efficiency: Share = Field(description="share of the bandwidth that streaming kernels reach")
    memory: Bytes
    cache: Bytes | None = Field(default=None, description="last-level cache")
    power_max: Power = Field(description="TDP or board power limit")
    power_idle: Power
    power_active: Power | None = Field(default=None, description="clocks up, host-bound, above idle")
    energy_per_byte: EnergyPerByte | None = Field(default=None, description="DRAM to core, all levels")
    launch_time: Time = Field(description="kernel launch, or the dispatch of one operator")
    call_time: Time = Field(description="framework overhead of one forward call")
    area: Area | None = None


class Array(_Model):
    """The crossbar: `rows` x `cols` unit cells (a unit cell holds one signed weight slice)."""

    rows: Whole
    cols: Whole
    cells_per_weight: Whole = Field(description="columns that one weight takes (1 unless weights are bit-sliced)")
    tiles_per_chip: Whole


class InputOutput(_Model):
    """Converters of the mode the card describes."""

    dac_bits: Bits
    adc_bits: Bits


class Preset(_Model):
    """Measured (or published) totals of one tile in one mode."""

    energy_per_mvm: Energy = Field(description="one full-array MVM of one tile, everything in `scope` included")
    time_per_mvm: Time
    area_per_tile: Area
    static_fraction: Share | None = Field(
        default=None, description="share of the MVM's energy spent at zero utilisation"
    )


class AdcModel(_Model):
    """The ADC by its survey regression instead of a published energy: optimistic, "best published" converters.

    Unless `scale` matches the regression to the circuit at hand, the result is a lower bound, and estimates say so.
    Source: T. Andrulis et al., "Modeling ADC Energy and Area for CiM Accelerator Design", 2024; hwcomponents-adc.
    """

    bits: EffectiveBits = Field(description="effective number of bits, >= 4")
    rate: Rate = Field(description="conversions a second of one ADC")
    scale: Count | None = Field(
        default=None, description="measured energy / regression for this circuit; absent: not matched"
    )


class Part(_Model):
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


class Component(_Model):
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


class Noise(_Model):
    """The conductance-level noise and drift model: which one, its settings, and when its paper has data.

    Attributes:
        model: name of the noise model (aihwkit's physics).
        options: settings handed to the model (`g_max_us` in microsiemens, ...).
        times_s: the only times (seconds) at which the paper gives data; empty means any time >= 0.
        source: key of the source. where: figure, table or equation. note: why this mode and these settings.
    """

    model: Literal["pcm", "hermes", "reram-wan", "reram-cmo", "none"]
    options: dict[str, Option] = Field(default_factory=dict)
    times_s: list[Figure] = Field(default_factory=list)
    source: str
    where: str = ""
    status: Status
    note: str = ""

    @model_validator(mode="after")
    def _findable(self) -> Noise:
        _require_place(self.where, self.note)
        return self


class Digital(_Model):
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


class Programming(_Model):
    """Writing the weights; reported apart from inference."""

    iterations: Count | None = None
    energy_per_pulse: Energy | None = None
    time_per_pulse: Time | None = None


class CrossbarCard(_Card):
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


class Core(_Model):
    """Limits of one neuromorphic core, and how many a chip holds."""

    neurons: Whole
    synapse_memory: Bytes | None = None
    synapse_bits: Bits | None = Field(default=None, description="memory that one synapse takes; default 8 bits")
    fan_in: Whole | None = Field(default=None, description="synapses a neuron can have (rows of a core's crossbar)")
    axons: Whole | None = Field(default=None, description="distinct inputs a core can receive")
    cores_per_chip: Whole


class Events(_Model):
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


class NeuromorphicCard(_Card):
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
_KINDS: dict[str, type[_Card]] = {"digital": DigitalCard, "crossbar": CrossbarCard, "neuromorphic": NeuromorphicCard}
_ADAPTER: TypeAdapter[Card] = TypeAdapter(Annotated[Card, Field(discriminator="kind")])


# ------------------------------------------------------------------------------------------------------------- loading


def list_cards() -> list[str]:
    """Names of all shipped cards and of the cards in the folder `HPML_SIM_CARDS`, sorted."""
    return sorted(_card_files())


def load_card(name_or_path: str | Path) -> Card:
    """Read and check one card.

    Args:
        name_or_path: the name of a card (`hs.list_cards()`), or the path of a TOML file (anything ending in `.toml`).

    Raises:
        UnknownNameError: no card has this name.
        CardError: the file cannot be read or breaks a rule; the message names the file, the field and what is allowed.
    """
    if str(name_or_path).endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise CardError(f"card file {str(path)!r} does not exist")
        return parse_card(_text(path), origin=str(path))
    name = str(name_or_path)
    if (own := _own_files().get(name)) is not None:
        return _named(parse_card(_text(own), origin=str(own)), name, str(own))
    shipped = _shipped_files()
    if name not in shipped:
        raise UnknownNameError("card", name, _card_files(), hint="`hpml-sim cards` lists all cards.")
    return _load_shipped(name)


@lru_cache(maxsize=256)
def _load_shipped(name: str) -> Card:
    path = _shipped_files()[name]
    return _named(parse_card(_text(path), origin=path.name), name, path.name)


def _named(card: Card, name: str, origin: str) -> Card:
    if card.name != name:
        raise CardError(f"{origin}: name: is {card.name!r}, but the file's name says {name!r}; make them equal")
    return card


def _text(path: Path | Traversable) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{path}: cannot be read as UTF-8 text: {error}") from None


def parse_card(text: str, *, origin: str) -> Card:
    """Check the text of a card. `origin` stands in the messages.

    Raises:
        CardError: all problems found, one a line, each with the dotted field.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"{origin}: not valid TOML: {error}") from None
    try:
        return _ADAPTER.validate_python(raw)
    except ValidationError as error:
        raise CardError("\n".join(_readable(origin, problem) for problem in error.errors())) from None


def _readable(origin: str, problem: Any) -> str:
    kinds = list(_KINDS)
    if problem["type"] == "union_tag_not_found":
        return f"{origin}: kind: missing; one of {', '.join(kinds)}"
    if problem["type"] == "union_tag_invalid":
        return f"{origin}: kind: must be one of {', '.join(kinds)} (got {problem['ctx']['tag']!r})"
    kind, *path = problem["loc"] or ("", "")
    field = ".".join(str(part) for part in path if part != "[key]")
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(_KINDS[kind], path[:-1])
        near = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        return f"{origin}: {field}: unknown field; {guess}allowed here: {', '.join(allowed)}"
    message = problem["msg"].removeprefix("Value error, ")
    given = f" (got {problem['input']!r})" if isinstance(problem["input"], (str, int, float, bool)) else ""
    return ": ".join(part for part in (origin, field, message + given) if part)


def _fields_at(model: type[BaseModel], path: list[Any]) -> list[str]:
    """Names of the fields of the model that lies at `path` below `model`."""
    for part in path:
        annotation: Any = model.model_fields[part].annotation if part in model.model_fields else model
        model = next(m for m in _models_in(annotation))
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _card_files() -> dict[str, Any]:
    return _shipped_files() | _own_files()


def _shipped_files() -> dict[str, Traversable]:
    return {p.name.removesuffix(".toml"): p for p in files("hpml_sim.devices").iterdir() if p.name.endswith(".toml")}


def _own_files() -> dict[str, Path]:
    """Cards in the folder `HPML_SIM_CARDS`; one of the same name as a shipped card takes its place."""
    if not (own := os.environ.get("HPML_SIM_CARDS")):
        return {}
    if not Path(own).is_dir():
        raise CardError(f"HPML_SIM_CARDS={own!r} is not a folder; name the folder of your cards, or unset it")
    return {p.stem: p for p in Path(own).glob("*.toml")}
