"""Every shipped card loads, each of its numbers can be traced, and what its source reports comes out of it again."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel
from rich.console import Console

from hpml_sim import cards as module
from hpml_sim.cards import CrossbarCard, NeuromorphicCard, list_cards, load_card
from hpml_sim.cards.loading import models_in
from hpml_sim.cards.schema import KINDS
from hpml_sim.errors import CardError, HpmlError, UnknownNameError

view = importlib.import_module("hpml_sim.cli.cards")
FOLDER = Path(module.__file__).parent.parent / "devices"
NAMES = sorted(path.stem for path in FOLDER.glob("*.toml"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")
EXAMPLES = [block for block in re.findall(r"```toml\n(.*?)```", README, re.S) if "\nkind = " in block]

# Written by hand, so that a card's units are not judged by the code under test: unit -> what it measures, factor to SI.
UNITS = {
    "1": ("count", 1.0), "percent": ("count", 0.01), "bit": ("bits", 1.0),
    "kB": ("bytes", 1e3), "KiB": ("bytes", 1024.0), "MB": ("bytes", 1e6), "MiB": ("bytes", 1048576.0),
    "GB": ("bytes", 1e9), "TB": ("bytes", 1e12),
    "fJ": ("energy", 1e-15), "pJ": ("energy", 1e-12), "nJ": ("energy", 1e-9), "uJ": ("energy", 1e-6),
    "pJ/B": ("energy/byte", 1e-12), "pJ/bit": ("energy/bit", 1e-12), "pJ/MAC": ("energy/op", 0.5e-12),
    "pJ/FLOP": ("energy/op", 1e-12),
    "uW": ("power", 1e-6), "mW": ("power", 1e-3), "W": ("power", 1.0),
    "ns": ("time", 1e-9), "us": ("time", 1e-6), "ms": ("time", 1e-3), "MHz": ("rate", 1e6),
    "TFLOP/s": ("op/s", 1e12), "TOP/s": ("op/s", 1e12), "GB/s": ("bytes/s", 1e9),
    "um^2": ("area", 1e-12), "mm^2": ("area", 1e-6), "nm": ("length", 1e-9),
}  # fmt: skip
FIELDS = {
    "count": "rows cols cells_per_weight tiles_per_chip tiles iterations neurons fan_in axons cores_per_chip "
    "barrier_chips columns_per_adc mean_input compute_efficiency memory_efficiency static_fraction scale repeats "
    "convolution_efficiency adc_share conversions multiprocessors tile_efficiency tile_half overlap wave_share "
    "fill_depth split_traffic product_bandwidth channels_last channels_first depthwise attention_efficiency "
    "expert_bandwidth expert_rate prefill_efficiency time_within energy_within in_flight host_share sparse_speedup "
    "zero_weight_cost",
    "bits": "dac_bits adc_bits input_bits output_bits bits bits_per_cycle bits_per_phase synapse_bits weight_bits "
    "state_bits decay_bits",
    "bytes": "memory cache synapse_memory",
    "energy": "energy_per_mvm energy_per_pulse row_energy cell_energy column_energy wordline_energy sample_energy "
    "tile_energy conversion_energy step_energy merge_energy sop_energy update_energy idle_update_energy spike_energy "
    "hop_energy reset_energy",
    "energy/byte": "energy_per_byte energy_per_byte_buffer traffic attention",
    "energy/bit": "energy_per_bit_link energy_per_bit_off_chip",
    "energy/op": "energy_per_op operation expert_operation",
    "power": "power power_max power_idle power_active power_static power_core power_host clocks",
    "time": "launch_time start_time dispatch_time replay_time adc_step_time "
    "call_time time_per_mvm cycle_time conversion_time step_time phase_time sop_time update_time "
    "spike_time barrier_time barrier_time_chips tick_time recalibration_time time_per_pulse sequence_time kernel_time "
    "expert_time start floor",
    "rate": "rate",
    "op/s": "fp32 tf32 bf16 fp16 fp8 fp4 int8 ops_rate",
    "bytes/s": "memory_bandwidth cache_bandwidth link_rate 2 4 8 16",
    "area": "area area_per_tile",
    "length": "node",
}
MEASURES = {name: what for what, names in FIELDS.items() for name in names.split()}


def raw(name: str) -> dict:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def numbers(table: dict, path: str = ""):
    """Path and TOML table of every number, straight from the file."""
    for key, value in table.items():
        if isinstance(value, dict) and "value" in value:
            yield f"{path}{key}", value
        elif isinstance(value, dict) and key != "sources":
            yield from numbers(value, f"{path}{key}.")


# ---------------------------------------------------------------------------------------------------- all shipped cards


def test_the_cards_that_others_name_are_there():
    assert len(NAMES) >= 25
    assert {
        "cpu", "cpu-laptop", "v100", "t4", "a100", "h100", "h200", "b200", "rtx-4090", "jetson-orin",
        "pcm", "pcm-hermes-core", "pcm-hermes", "pcm-hermes-1phase", "pcm-34tile-tile", "pcm-34tile-chip",
        "pcm-34tile-system", "reram-neurram", "reram-neurram-4-2", "reram-neurram-6-4", "isaac", "puma", "raella",
        "sram-jia", "pcm-design-study",
        "loihi", "loihi-2", "truenorth", "odin", "spinnaker-1", "spinnaker-2", "speck", "xylo", "brainscales-2",
    } <= set(NAMES)  # fmt: skip
    assert set(NAMES) <= set(list_cards())


@pytest.mark.parametrize("name", NAMES)
def test_every_number_can_be_traced(name):
    card, text = load_card(name), raw(name)
    found = dict(card.quantities())
    assert found.keys() == dict(numbers(text)).keys()
    for path, number in numbers(text):
        at = f"{name}: {path}"
        assert number["source"] in text["sources"], at
        assert number.get("where", "").strip() or number.get("note", "").strip(), at
        if number["status"] in ("derived", "assumption", "scaled", "unverified"):
            assert number.get("note", "").strip(), f"{at}: the arithmetic or the reason belongs in the note"
        if number["source"] == "none":
            assert number["status"] == "unverified", at
        if number["source"] == "ours":
            assert number["status"] == "assumption", at
        what, factor = UNITS[number["unit"]]
        assert what == MEASURES[path.rsplit(".", 1)[-1]], f"{at}: {number['unit']}"
        assert found[path].si == pytest.approx(number["value"] * factor, rel=1e-12), at
        assert number.get("low", number["value"]) <= number["value"] <= number.get("high", number["value"]), at


@pytest.mark.parametrize("name", NAMES)
def test_every_source_says_what_was_opened_and_is_used(name):
    text = raw(name)
    used = {n["source"] for _, n in numbers(text)} | {n["band_source"] for _, n in numbers(text) if "band_source" in n}
    used |= {text["noise"]["source"]} if "noise" in text else set()
    assert used == set(text["sources"])
    for key, source in text["sources"].items():
        assert source["cite"].strip(), f"{name}: sources.{key}"
        assert source["opened"].strip(), f"{name}: sources.{key}"


@pytest.mark.parametrize("name", NAMES)
def test_every_card_says_what_it_leaves_out(name):
    card = load_card(name)
    assert card.limits
    if isinstance(card, CrossbarCard):
        bits = card.component.input_bits if card.component else card.io.dac_bits
        assert int(bits) == int(card.io.dac_bits), "accuracy and energy must come from one mode"


def test_scaled_and_never_built_machines_say_so_in_their_titles():
    assert "SCALED" in load_card("loihi-2").title
    for name in ("isaac", "isaac-8bit", "puma", "raella"):
        card = load_card(name)
        assert not card.silicon
        assert "never made" in card.title
    assert not load_card("pcm-design-study").silicon


# ------------------------------------------------------------------ identities: what the sources report comes out again


def within(value: float, published: float, tolerance: float) -> None:
    assert value == pytest.approx(published, rel=tolerance)


@pytest.mark.parametrize(
    ("name", "tops", "tops_per_watt"),
    [
        ("pcm-hermes", 16.1, 2.48),
        ("pcm-hermes-1phase", 63.1, 9.76),
        ("pcm-hermes-core", 1.008, 10.5),
        ("reram-neurram", 0.4177183338, 8.257196816),
        ("reram-neurram-8-6-1phase", 0.260797508, 9.12235241),
        ("reram-neurram-4-2", 1.793083771, 40.33412834),
        ("reram-neurram-6-4", 0.7438677864, 15.95409517),
        ("reram-neurram-10-8", 0.2638743409, 6.437388185),
        ("pcm-34tile-tile", None, 20.0),
        ("pcm-34tile-chip", None, 12.4),
        ("pcm-34tile-system", None, 6.94),
    ],
)
def test_presets_give_the_published_throughput_and_efficiency(name, tops, tops_per_watt):
    card = load_card(name)
    operations = 2 * card.array.rows.si * card.array.cols.si
    within(operations / card.preset.energy_per_mvm.si / 1e12, tops_per_watt, 0.03)
    if tops is not None:
        within(card.array.tiles_per_chip.si * operations / card.preset.time_per_mvm.si / 1e12, tops, 0.03)


def test_hermes_energy_of_all_cores_and_density():
    for name, microjoules, density in (("pcm-hermes", 3.38, 0.400), ("pcm-hermes-1phase", 0.86, 1.55)):
        card = load_card(name)
        within(64 * card.preset.energy_per_mvm.si * 1e6, microjoules, 0.03)
        tile = 131072 / card.preset.time_per_mvm.si / 1e12 / (card.preset.area_per_tile.si * 1e6)
        within(tile, density, 0.03)
    core = load_card("pcm-hermes-core").preset
    within(131072 / core.time_per_mvm.si / 1e12 / (core.area_per_tile.si * 1e6), 1.59, 0.03)


def test_hermes_accuracy_goes_with_the_four_phase_mode():
    four, one = load_card("pcm-hermes"), load_card("pcm-hermes-1phase")
    assert four.noise.options == {"num_devices": 2.0, "g_max_us": 20.7}
    assert "92.81" in four.noise.note
    assert any("4-phase" in sentence for sentence in one.limits)
    assert four.preset.energy_per_mvm.si > 3.5 * one.preset.energy_per_mvm.si


def test_neurram_noise_is_asked_only_where_the_paper_has_data():
    for name in NAMES:
        if name.startswith("reram-neurram"):
            noise = load_card(name).noise
            assert (noise.model, noise.options, noise.times_s) == (
                "reram-wan",
                {"g_max_us": 40.0},
                [1.0, 86400.0, 172800.0],
            )


def test_isaac_table_adds_up():
    card = load_card("isaac")
    parts = card.component.parts.values()
    tile_arrays, arrays = 8 * 12, card.array.tiles_per_chip.si
    inside = [part for part in parts if part.within != "chip"]
    within(sum(p.power.si * tile_arrays / p.tiles.si for p in inside), 0.330, 0.02)
    within(sum(p.area.si * 1e6 * tile_arrays / p.tiles.si for p in inside), 0.372, 0.02)
    within(sum(p.power.si * arrays / p.tiles.si for p in parts), 65.8, 0.02)
    within(sum(p.area.si * 1e6 * arrays / p.tiles.si for p in parts), 85.4, 0.02)
    within(card.component.parts["adc"].power.si * arrays, 32.3, 0.02)
    cycles = card.component.input_bits.si / card.component.bits_per_cycle.si
    weights = card.array.rows.si * card.array.cols.si / card.array.cells_per_weight.si
    operations = 2 * weights * arrays / (cycles * card.component.cycle_time.si)
    within(operations / 1e12, 41.3, 0.02)
    within(operations / 65.8 / 1e9, 627.5, 0.02)


@pytest.mark.parametrize(("name", "published"), [("isaac", 1.0), ("isaac-8bit", 0.25), ("raella", 0.063)])
def test_conversions_for_a_mac(name, published):
    card = load_card(name)
    cycles = card.component.input_bits.si / card.component.bits_per_cycle.si
    within(card.array.cells_per_weight.si * cycles / card.array.rows.si, published, 0.01)


def test_sram_macro_gives_its_one_bit_efficiency():
    card = load_card("sram-jia")
    operations = 2 * card.array.rows.si * card.array.cols.si
    analog = card.array.cols.si * (card.component.column_energy.si + card.component.conversion_energy.si)
    within(operations / analog / 1e12, 400, 0.01)  # the paper leaves its data path out of this figure
    within(operations / card.component.cycle_time.si / 1e12, 0.874, 0.01)


def test_truenorth_predicts_the_power_that_was_held_out():
    card = load_card("truenorth")
    for hertz, milliwatts, tolerance in ((11.58, 68, 1e-3), (95.93, 94, 1e-3), (20.07, 71, 0.01)):
        events = 1_048_576 * hertz * 128
        within(1e3 * (card.power_static.si + card.events.sop_energy.si * events), milliwatts, tolerance)


def test_odin_gives_both_published_operating_points():
    card = load_card("odin")
    static = card.power_static.band()
    within(1e6 * (static.nominal + card.events.sop_energy.si * 37.5e6), 477, 0.01)
    slow = load_card("odin-1.3mhz").power_static.si
    within(1e6 * (slow + card.events.sop_energy.si * 650e3), 35, 0.01)


def test_loihi_nearest_neighbor_search_within_a_quarter():
    card = load_card("loihi")
    assert card.events.sop_energy.band().low == pytest.approx(23.6e-12)
    assert card.events.sop_energy.band().high == pytest.approx(35.5e-12)
    for spikes in (667, 750):
        joules = spikes * 76800 * card.events.sop_energy.si + 76800 * 60 * card.events.idle_update_energy.si
        within(joules * 1e3, 1.33, 0.25)
    within(32 * card.power_static.si, 3.34, 0.01)


def test_events_of_a_spiking_chip_are_not_totals_at_one_operating_point():
    totals = {"truenorth": 26e-12, "odin": 12.7e-12}
    for name, total in totals.items():
        assert load_card(name).events.sop_energy.si < 0.7 * total


# -------------------------------------------------------------------------------------------------- folders and names


def change(name: str, old: str, new: str, count: int = 1) -> str:
    text = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    assert old in text
    return text.replace(old, new, count)


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UnknownNameError, match=r"unknown card 'pcm-hermse'\. Did you mean 'pcm-hermes'"):
        load_card("pcm-hermse")


def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> Path:
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("HPML_SIM_CARDS", str(tmp_path))
    return path


def test_cards_of_ones_own(tmp_path, monkeypatch):
    path = own(tmp_path, monkeypatch, "my-cpu", change("cpu", 'name = "cpu"', 'name = "my-cpu"'))
    assert "my-cpu" in list_cards()
    assert load_card("my-cpu").name == load_card(path).name == load_card(str(path)).name == "my-cpu"
    path.write_text(path.read_text(encoding="utf-8").replace("value = 280", "value = 281"), encoding="utf-8")
    assert load_card("my-cpu").power_max.si == 281  # read anew, not from a cache
    with pytest.raises(UnknownNameError, match="Did you mean 'my-cpu'"):
        load_card("my-cpux")


def test_an_own_card_takes_the_place_of_a_shipped_one(tmp_path, monkeypatch):
    own(tmp_path, monkeypatch, "cpu", change("cpu", "value = 280", "value = 200"))
    assert load_card("cpu").power_max.si == 200
    monkeypatch.delenv("HPML_SIM_CARDS")
    assert load_card("cpu").power_max.si == 280


def test_file_and_name_must_agree(tmp_path, monkeypatch):
    own(tmp_path, monkeypatch, "other", change("cpu", "year", "year"))
    with pytest.raises(CardError, match=r"other\.toml: name: is 'cpu', but the file's name says 'other'"):
        load_card("other")


def test_folders_and_files_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HPML_SIM_CARDS", str(tmp_path / "nowhere"))
    with pytest.raises(CardError, match=r"HPML_SIM_CARDS=.*nowhere.* is not a folder"):
        list_cards()
    monkeypatch.delenv("HPML_SIM_CARDS")
    with pytest.raises(CardError, match=r"card file '.*gone\.toml' does not exist"):
        load_card(tmp_path / "gone.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'name = "caf\xe9"\n')
    with pytest.raises(CardError, match=r"latin\.toml: cannot be read as UTF-8"):
        load_card(latin)


# -------------------------------------------------------------------------------------------------------------- README


@pytest.mark.parametrize("text", EXAMPLES, ids=[tomllib.loads(text)["kind"] for text in EXAMPLES])
def test_the_examples_of_the_readme_are_good_cards(text, tmp_path):
    name = tomllib.loads(text)["name"]
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    assert view.check_card(path).name == name


def test_the_readme_has_an_example_of_each_kind():
    assert {tomllib.loads(text)["kind"] for text in EXAMPLES} == {"digital", "crossbar", "neuromorphic"}


def models(model: type[BaseModel]):
    yield model
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            yield from models(inner)


def test_the_readme_explains_every_field_and_status():
    words = set(re.findall(r"[A-Za-z_0-9]+", README))
    for kind in KINDS.values():
        for model in models(kind):
            missing = {name for name in model.model_fields if name not in words}
            assert not missing, f"{model.__name__}: {missing} not in devices/README.md"
    assert set(module.Status.__args__) <= words
    assert set(module.Scope.__args__) <= words


# -------------------------------------------------------------------------------------------------------- command line


def render(table, width: int = 100) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_cards_lists_every_card_with_what_is_weak_in_it():
    entries = {entry["name"]: entry for entry in view.cards_json()}
    assert entries.keys() == set(list_cards())
    assert entries["isaac"]["weak_numbers"] == 0
    assert entries["loihi-2"]["weak_numbers"] > 5
    assert [entry["kind"] for entry in view.cards_json()] == sorted(
        (entry["kind"] for entry in entries.values()), key=["digital", "crossbar", "neuromorphic"].index
    )
    text = render(view.cards_table())
    assert all(name in text for name in NAMES)
    json.dumps(view.cards_json())


@pytest.mark.parametrize("name", NAMES)
def test_show_has_every_number_with_its_source(name):
    card = load_card(name)
    shown = view.card_json(name)
    json.dumps(shown)
    assert [q["path"] for q in shown["quantities"]] == [path for path, _ in card.quantities()]
    assert all(q["source"] in shown["sources"] and (q["where"] or q["note"]) for q in shown["quantities"])
    for width in (80, 160):
        text = render(view.card_table(name), width)
        flat = re.sub(r"\s+", "", text)
        for path, quantity in card.quantities():
            assert re.sub(r"\s+", "", str(quantity)) in flat, path
        assert all(f"{status}" in text for status in {q.status for _, q in card.quantities()})
        assert all(key in text for key in card.sources)
    assert isinstance(card, NeuromorphicCard) == ("encoder" in shown["settings"])


def test_check_refuses_what_the_folder_would_refuse(tmp_path):
    with pytest.raises(CardError, match=r"must end in \.toml"):
        view.check_card(tmp_path / "card.txt")
    path = tmp_path / "other.toml"
    path.write_text((FOLDER / "cpu.toml").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(CardError, match="the file's name says 'other'"):
        view.check_card(path)


# --------------------------------------------------------------------------------------------------- what a card shows


@pytest.mark.parametrize("name", list_cards())
def test_a_card_shows_itself_on_a_few_short_lines(name):
    card = load_card(name)
    lines = repr(card).splitlines()
    assert lines == str(card).splitlines()
    assert lines[0].startswith(f"Card {name}: ")
    assert 4 <= len(lines) <= 8
    assert max(map(len, lines)) <= 80
    assert len(card._repr_html_()) < 2500


def test_a_card_in_a_notebook_is_escaped():
    card = load_card("cpu").model_copy(update={"title": "<b>fast</b>", "summary": "<script>"})
    assert "<b>" not in card._repr_html_()
    assert "<script>" not in card._repr_html_()
    assert "&lt;b&gt;fast&lt;/b&gt;" in card._repr_html_()


@pytest.mark.parametrize("name", [3, None, ["cpu"]])
def test_what_is_no_name_of_a_card_is_refused(name):
    with pytest.raises(HpmlError, match=r"load_card: name_or_path=.*must be the name of a card"):
        load_card(name)
