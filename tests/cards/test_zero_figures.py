"""A zero in a card: refused where something is divided by it, and harmless where it is not."""

from __future__ import annotations

import math
import re
from importlib.resources import files

import pytest

from hpml_sim.cards import list_cards, parse_card
from hpml_sim.cost import estimate
from hpml_sim.counting import LayerCount, Workload
from hpml_sim.errors import CardError, HpmlError

FOLDER = files("hpml_sim.devices")
MATRIX = {"rows": 300, "cols": 40, "vectors": 5.0, "macs": 300 * 40 * 5, "weight_count": 12_000, "steps": 5}
LAYERS = (
    LayerCount("conv", "conv", input_elements=1500, output_elements=200, binary_input=True, sops=9_000, **MATRIX),
    LayerCount("neurons", "neuron", neurons=40, updates=200, spikes=50, output_elements=200, steps=5),
    LayerCount("readout", "linear", input_elements=1500, output_elements=200, sops=9_000, **MATRIX),
)
WORKLOADS = {
    "digital": Workload(LAYERS[2:], samples=1),
    "crossbar": Workload(LAYERS, samples=1, kind="spiking"),
    "neuromorphic": Workload(LAYERS, samples=1, kind="spiking"),
}


def _numbers(text: str) -> list[str]:
    """Headings of the tables that hold a number."""
    return re.findall(r"^\[([^\]]+)\]\nvalue = ", text, re.MULTILINE)


def _zeroed(text: str, path: str) -> str:
    """The card with one number 0, its bounds left out."""
    head, _, rest = text.partition(f"[{path}]\n")
    table, rest = re.split(r"^(?=\[)", rest, maxsplit=1, flags=re.MULTILINE)
    table = re.sub(r"^value = .*$", "value = 0", table, flags=re.MULTILINE)
    table = re.sub(r"^(low|high) = .*\n", "", table, flags=re.MULTILINE)
    return f"{head}[{path}]\n{table}{rest}"


@pytest.mark.parametrize("name", list_cards())
def test_no_zero_gives_an_infinite_figure_or_a_raw_error(name):
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    own = _figures(text)
    for path in _numbers(text):
        try:
            changed = _figures(_zeroed(text, path))
        except HpmlError as refusal:
            assert "\n" not in str(refusal), path  # noqa: PT017
            continue
        for figure, value in changed.items():
            assert math.isfinite(value) or not math.isfinite(own[figure]), f"{path} = 0 makes {figure} {value}"


def _figures(text: str) -> dict[str, float]:
    card = parse_card(text, origin="card.toml")
    try:
        found = estimate(WORKLOADS[card.kind], card)
    except HpmlError as error:
        assert "describes devices only" in str(error)  # noqa: PT017
        return {}
    bands = {"energy": found.energy_j, "latency": found.latency_s, "throughput": found.throughput_hz}
    bands |= found.reported_separately
    return {name: band.nominal for name, band in bands.items()} | found.mapping


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("h200", "compute_efficiency"),
        ("h200", "convolution_efficiency"),
        ("h200", "memory_efficiency"),
        ("h200", "peak.fp32"),
        ("h200", "memory_bandwidth"),
        ("pcm-hermes", "preset.time_per_mvm"),
        ("pcm-hermes", "preset.energy_per_mvm"),
        ("isaac", "component.cycle_time"),
        ("loihi", "events.sop_time"),
        ("truenorth", "events.tick_time"),
    ],
)
def test_a_rate_or_a_period_of_zero_is_refused_by_name(name, path):
    text = _zeroed((FOLDER / f"{name}.toml").read_text(encoding="utf-8"), path)
    with pytest.raises(CardError, match=rf"card\.toml: {path}: value and low must be greater than 0, got 0"):
        parse_card(text, origin="card.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('unit = "nJ"', 'unit = "J^(9^9^9)"', r"energy_per_mvm: 'J\^\(9\^9\^9\)' is not a unit; allowed here: J, uJ"),
        ('unit = "nJ"', 'unit = "(1/0)*J"', r"energy_per_mvm: '\(1/0\)\*J' is not a unit"),
        ("value = 14", f"value = {'[' * 5000}", "not valid TOML: nested too deeply"),
        ("value = 14", f"value = {'9' * 5000}", "not valid TOML"),
        ("value = 14", f"value = {'9' * 400}", "node.value"),
        ("value = 14", "value = inf", "node.value"),
        ("value = 14", "value = nan", "node.value"),
        ('unit = "nm"', f'unit = "{"m" * 9000}"', r"node: unknown unit '.*\.\.\.; allowed here: m"),
    ],
)
def test_hostile_text_in_a_card_gives_one_short_line(old, new, said):
    text = (FOLDER / "pcm-hermes.toml").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(CardError, match=said) as refusal:
        parse_card(text.replace(old, new, 1), origin="card.toml")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 250


def test_a_number_that_overflows_in_si_units_is_refused():
    text = (FOLDER / "h200.toml").read_text(encoding="utf-8")
    huge = re.sub(r"(\[memory\]\n)value = [^\n]*", r"\1value = 1e305", text)
    with pytest.raises(CardError, match=r"card\.toml: memory: is too large to compute with, got 1e\+305 GB"):
        parse_card(huge, origin="card.toml")
