"""A card with a mistake is refused by a line that names the file, the field and what is allowed; units of all kinds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpml_sim import cards as module
from hpml_sim.cards import load_card, parse_card
from hpml_sim.errors import CardError
from hpml_sim.units.unit_parsing import si_factor

FOLDER = Path(module.__file__).parent.parent / "devices"


def change(name: str, old: str, new: str, count: int = 1) -> str:
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    assert old in text
    return text.replace(old, new, count)


def message(text: str) -> str:
    with pytest.raises(CardError) as caught:
        parse_card(text, origin="bad.toml")
    return str(caught.value)


MISTAKES = [
    (
        "cpu",
        'value = 280\nunit = "W"',
        'value = 280\nunit = "J"',
        "power_max: unit 'J' has the wrong dimension; allowed here: W, mW, uW",
    ),
    (
        "cpu",
        'unit = "GB/s"',
        'unit = "GFLOP/s"',
        "memory_bandwidth: unit 'GFLOP/s' has the wrong dimension; allowed here: B/s",
    ),
    ("cpu", 'unit = "TFLOP/s"', 'unit = "TB/s"', "peak.fp32: unit 'TB/s' has the wrong dimension; allowed here: OP/s"),
    (
        "pcm-hermes",
        'unit = "nJ"',
        'unit = "nano joule"',
        "preset.energy_per_mvm: unknown unit 'nano joule'; allowed here: J, uJ",
    ),
    ("pcm-hermes", 'unit = "nJ"', 'unit = "3 nJ"', "preset.energy_per_mvm: '3 nJ' is not a unit"),
    ("pcm-hermes", 'unit = "nJ"', 'unit = "("', "preset.energy_per_mvm: '(' is not a unit"),
    ("cpu", "value = 280", "value = -280", "power_max.value: Input should be greater than or equal to 0 (got -280)"),
    ("cpu", "value = 280", "value = nan", "power_max.value: Input should be a finite number (got nan)"),
    ("cpu", "value = 280", "value = inf", "power_max.value: Input should be a finite number (got inf)"),
    ("cpu", "value = 280", 'value = "280"', "power_max.value: Input should be a valid number (got '280')"),
    ("cpu", "value = 280", "value = true", "power_max.value: Input should be a valid number (got True)"),
    (
        "cpu",
        "value = 280",
        "valeu = 280",
        "power_max.valeu: unknown field; did you mean 'value'? allowed here: value, unit, source",
    ),
    ("cpu", "[power_max]", "[power_maxx]", "power_maxx: unknown field; did you mean 'power_max'?"),
    ("cpu", "[power_max]", "[power_maxx]", "power_max: Field required"),
    (
        "cpu",
        "[peak.fp32]",
        "[peak.fp64]",
        "peak.fp64: Input should be 'fp32', 'tf32', 'bf16', 'fp16', 'fp8', 'int8' or 'fp4'",
    ),
    (
        "cpu",
        'source = "techgage"',
        'source = "techage"',
        "cache.source: unknown source key 'techage'; did you mean 'techgage'? [sources] has",
    ),
    (
        "loihi",
        'band_source = "SANAFE"',
        'band_source = "sanafe"',
        "events.sop_energy.band_source: unknown source key 'sanafe'",
    ),
    (
        "pcm-hermes",
        'source = "aihwkit"',
        'source = "aihw"',
        "noise.source: unknown source key 'aihw'; did you mean 'aihwkit'?",
    ),
    (
        "cpu",
        'status = "datasheet"',
        'status = "sure"',
        "memory.status: Input should be 'measured', 'model', 'projection'",
    ),
    ("cpu", "low = 0.6", "low = 0.85", "compute_efficiency: must satisfy low <= value <= high, got 0.85, 0.8, 0.9"),
    ("cpu", "value = 0.8\n", "value = 80\n", "compute_efficiency: must satisfy low <= value <= high"),
    (
        "a100",
        "value = 0.869",
        "value = 86.9",
        "compute_efficiency: is a share: value, low and high must lie between 0 and 1",
    ),
    ("pcm-hermes", "value = 64\n", "value = 63.5\n", "array.tiles_per_chip: must be a whole number >= 1, got 63.5"),
    ("cpu", "value = 204.8", "value = 0", "memory_bandwidth: value and low must be greater than 0"),
    (
        "cpu",
        'kind = "digital"',
        'kind = "digitl"',
        "kind: must be one of digital, crossbar, neuromorphic (got 'digitl')",
    ),
    ("cpu", 'kind = "digital"\n', "", "kind: missing; one of digital, crossbar, neuromorphic"),
    (
        "cpu",
        'scope = "chip"',
        'scope = "socket"',
        "scope: Input should be 'core', 'chip', 'board' or 'system' (got 'socket')",
    ),
    (
        "pcm-hermes",
        'model = "hermes"',
        'model = "hermess"',
        "noise.model: Input should be 'pcm', 'hermes', 'custom', 'reram-wan'",
    ),
    ("pcm-hermes", "g_max_us = 20.7", 'g_max_us = "20.7"', "noise.options.g_max_us: Input should be a valid number"),
    (
        "reram-neurram",
        "times_s = [1.0,",
        "times_s = [-1.0,",
        "noise.times_s.0: Input should be greater than or equal to 0",
    ),
    (
        "pcm-design-study",
        "[digital.energy_per_op]",
        "[digital.energy_per_oop]",
        "digital.energy_per_oop: unknown field; did you mean 'energy_per_op'?",
    ),
    (
        "isaac",
        "[component.parts.adc.power]",
        "[component.parts.adc.pwr]",
        "component.parts.adc.pwr: unknown field; did you mean 'power'? allowed here: power, area",
    ),
    ("cpu", "version = 1", "version = = 1", "not valid TOML: Invalid value (at line 5"),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), MISTAKES)
def test_a_mistake_names_the_file_the_field_and_what_is_allowed(name, old, new, expected):
    assert f"bad.toml: {expected}" in message(change(name, old, new))


def test_a_number_that_points_nowhere_is_refused():
    text = change("pcm-hermes", 'where = "abstract: throughput"\n', "")
    text = re.sub(r'(\[preset\.time_per_mvm\][^\[]*?)note = "[^"]*"\n', r"\1", text)
    assert "bad.toml: preset.time_per_mvm: needs `where`" in message(text)


def test_a_field_that_is_called_like_a_kind_is_named_in_full():
    text = change("pcm-design-study", 'unit = "pJ/MAC"', 'unit = "pJ"')
    assert message(text).startswith("bad.toml: digital.energy_per_op: unit 'pJ' has the wrong dimension")


def test_all_mistakes_are_told_at_once():
    text = change("cpu", "value = 280", "value = -280").replace('unit = "GB/s"', 'unit = "W"')
    assert message(text).count("\n") == 1


def test_two_adcs_are_refused():
    number = 'value = 1\nunit = "pJ"\nsource = "HWL"\nwhere = "x"\nstatus = "model"\n'
    text = change("reram-neurram", "\n[noise]", f"\n[component.conversion_energy]\n{number}\n[noise]")
    assert "give one of conversion_energy, adc, step_energy" in message(text)


# ---------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("unit", "si_unit", "factor"),
    [
        ("GB/s", "byte/second", 1e9),
        ("TFLOP/s", "op/second", 1e12),
        ("GMAC/s", "op/second", 2e9),
        ("pJ/bit", "joule/byte", 8e-12),
        ("pJ/MAC", "joule/op", 0.5e-12),
        ("pJ/B", "joule/bit", 0.125e-12),
        ("KiB", "byte", 1024.0),
        ("Mbit", "byte", 125_000.0),
        ("percent", "dimensionless", 0.01),
        ("%", "dimensionless", 0.01),
        ("mm**2", "meter**2", 1e-6),
        ("µm^2", "meter**2", 1e-12),
        ("uS", "siemens", 1e-6),
        ("day", "second", 86400.0),
        ("mV", "volt", 1e-3),
        ("1/ms", "1/second", 1e3),
    ],
)
def test_units(unit, si_unit, factor):
    assert si_factor(unit, si_unit, "") == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(
    ("unit", "si_unit"),
    [
        ("bit", "dimensionless"),
        ("1", "bit"),
        ("B", "dimensionless"),
        ("OP/s", "1/second"),
        ("W", "joule"),
        ("", "joule"),
        ("GFLOP/s", "byte/second"),
        ("pJ", "joule/op"),
        ("K", "dimensionless"),
        ("(", "joule"),
        ("'", "joule"),
        ("pJ pJ", "joule"),
        ("2 pJ", "joule"),
        ("os.name", "joule"),
    ],
)
def test_units_that_measure_something_else(unit, si_unit):
    with pytest.raises(ValueError, match="allowed here: these"):
        si_factor(unit, si_unit, "these")


def test_bounds_come_in_si_and_default_to_a_fraction():
    card = load_card("loihi")
    assert card.power_static.band().low == pytest.approx(0.029)
    band = card.events.reset_energy.band(0.5)
    assert (band.low, band.nominal, band.high) == pytest.approx((2.97e-6, 5.94e-6, 8.91e-6))
    assert int(card.core.synapse_memory) == 131072
    assert str(card.power_host) == "65 mW"
