from __future__ import annotations

import math

import pytest

from hpml_sim.cards import load_card
from hpml_sim.cost import estimate, followed_bits
from hpml_sim.cost.adc import adc_energy_j, adc_ratio
from hpml_sim.cost.crossbar import Placement, place, replicate_greedily
from hpml_sim.counting import LayerCount, Workload
from hpml_sim.errors import HpmlError

from .machines import PRESET, crossbar, linear, mlp, q, snn

COMPONENT = f"""
[component]
encoding = "bit-serial"
input_bits = {q(4, "bit")}
output_bits = {q(6, "bit")}
row_energy = {q(1, "pJ")}
cell_energy = {q(1, "fJ")}
conversion_energy = {q(2, "pJ")}
merge_energy = {q(0.5, "pJ")}
cycle_time = {q(10, "ns")}
conversion_time = {q(1, "ns")}
columns_per_adc = {q(8)}
"""


def conv(name: str, rows: int, cols: int, vectors: int, groups: int = 1) -> LayerCount:
    return LayerCount(
        name,
        "conv",
        rows=rows,
        cols=cols,
        groups=groups,
        vectors=vectors,
        macs=rows * cols * groups * vectors,
        output_elements=cols * groups * vectors,
    )


def test_full_tile_costs_the_preset():
    result = estimate(mlp(100, 100), crossbar())
    assert result.energy_j.nominal == pytest.approx(10e-9)
    assert (result.energy_j.low, result.energy_j.high) == pytest.approx((7.5e-9, 12.5e-9))
    assert result.latency_s.nominal == pytest.approx(100e-9)
    assert result.mapping["utilization"] == 1


def test_partial_tiles_by_hand():
    result = estimate(mlp(250, 110), crossbar())
    # 3 row blocks x (one full tile and one with 10 of 100 columns, which takes the assumed 30 %)
    assert result.mapping["tiles"] == 6
    assert result.energy_j.nominal == pytest.approx(10e-9 * 3 * (1 + 0.3))
    assert result.energy_j.low == pytest.approx(0.75 * 10e-9 * 3 * (1 + 0.1))
    assert result.energy_j.high == pytest.approx(1.25 * 10e-9 * 6)
    assert result.mapping["utilization"] == pytest.approx(250 * 110 / 60_000)
    assert any("30%" in sentence for sentence in result.assumptions)


def test_published_static_fraction_replaces_the_assumption():
    result = estimate(mlp(100, 10), crossbar(PRESET + f"static_fraction = {q(0.6)}\n"))
    assert result.energy_j.nominal == pytest.approx(6e-9)
    assert not result.assumptions


def test_bit_slices_take_columns():
    placement = place(linear("fc", 100, 50), 100, 100, 8)
    assert placement.tiles == 5  # 12 whole weights a tile: their cells lie together, as in the simulation
    assert placement.cells == 100 * 400


def test_small_groups_share_a_tile_on_its_diagonal():
    depthwise = conv("dw", 9, 1, 1, groups=32)
    placement = place(depthwise, 100, 100, 1)  # 11 groups of 9 rows fit into 100 rows
    assert placement.tiles == 3
    assert placement.cells == 2 * 99 * 11 + 90 * 10
    assert place(conv("grouped", 200, 10, 1, groups=4), 100, 100, 1).tiles == 8


def test_replication_equalizes_stages_within_the_budget():
    early, late = Placement(conv("a", 10, 10, 100), (), 1), Placement(conv("b", 10, 10, 25), (), 1)
    placements = [place(p.layer, 100, 100, 1) for p in (early, late)]
    replicate_greedily(placements, 3)
    assert [p.copies for p in placements] == [4, 1]
    assert [p.rounds() for p in placements] == [25, 25]


def test_replication_raises_throughput_not_energy():
    network = Workload((conv("a", 100, 100, 100), conv("b", 100, 100, 10)))
    clone, single = (estimate(network, crossbar(), replicate=r) for r in (True, False))
    assert clone.throughput_hz.nominal == pytest.approx(1 / (15 * 100e-9))  # 7 copies: ceil(100 / 7) rounds
    assert single.throughput_hz.nominal == pytest.approx(1 / (100 * 100e-9))
    assert clone.energy_j == single.energy_j


def test_recurrent_steps_cannot_be_replicated():
    assert estimate(Workload((linear("lstm", 100, 100, vectors=50),)), crossbar()).mapping["max_copies"] == 8
    lstm = LayerCount("lstm", "recurrent", rows=100, cols=100, vectors=50, macs=500_000)
    assert estimate(Workload((lstm,)), crossbar()).mapping["max_copies"] == 1
    result = estimate(Workload((linear("cell", 100, 100, steps=50),)), crossbar())
    assert result.mapping["max_copies"] == 1
    assert result.latency_s.nominal == pytest.approx(50 * 100e-9)


def test_networks_larger_than_a_chip_say_how_many_chips():
    result = estimate(mlp(1000, 1000), crossbar())
    assert result.mapping["tiles"] == 100
    assert result.mapping["chips"] == 13
    assert result.area_mm2.nominal == pytest.approx(13 * 8 * 0.5)
    with pytest.raises(HpmlError, match="chips=2: 100 tiles need 13 chips"):
        estimate(mlp(1000, 1000), crossbar(), chips=2)


def test_core_scope_counts_the_area_of_used_tiles():
    assert estimate(mlp(100, 200), crossbar(scope="core")).area_mm2.nominal == pytest.approx(1.0)


def test_component_mode_by_hand():
    result = estimate(mlp(50, 20), crossbar(COMPONENT))
    parts = {name: band.nominal for name, band in result.by_component().items()}
    assert parts == pytest.approx(
        {"dac": 50 * 4e-12, "array": 50 * 20 * 4e-15, "adc": 20 * 4 * 2e-12, "shift-add": 20 * 4 * 0.5e-12}
    )
    assert result.latency_s.nominal == pytest.approx(4 * (10e-9 + 8e-9))
    assert result.mapping["conversions_per_mac"] == pytest.approx(4 / 50)
    assert result.energy_j.high == pytest.approx(4 * result.energy_j.nominal)


def test_sample_and_hold_overlaps_conversion_and_read():
    result = estimate(mlp(50, 20), crossbar(COMPONENT + "pipelined = true\n"))
    assert result.latency_s.nominal == pytest.approx(4 * 10e-9)


def test_bits_change_component_mode_only():
    card = crossbar(PRESET + COMPONENT)
    assert estimate(mlp(50, 20), card).by_component().keys() == {"mvm"}
    eight = estimate(mlp(50, 20), card, mode="component", input_bits=8)
    assert eight.by_component()["adc"].nominal == pytest.approx(20 * 8 * 2e-12)
    with pytest.raises(HpmlError, match=r"input_bits=4: .*published total for one input"):
        estimate(mlp(50, 20), crossbar(), input_bits=4)
    with pytest.raises(HpmlError, match="has preset only"):
        estimate(mlp(50, 20), crossbar(), mode="component")


def test_pulse_count_encoding_as_neurram_has_it():
    # 5 magnitude bits in phases of at most 3: 3 + 2, so 7 + 3 pulses, and 8 + (8 - 3) steps of the converter
    body = f"""
[component]
encoding = "pulse-count"
signed_rows = true
input_bits = {q(6, "bit")}
output_bits = {q(8, "bit")}
bits_per_phase = {q(3, "bit")}
column_energy = {q(1, "pJ")}
step_energy = {q(10, "pJ")}
cycle_time = {q(10, "ns")}
step_time = {q(100, "ns")}
phase_time = {q(1000, "ns")}
"""
    result = estimate(mlp(10, 1), crossbar(body))
    parts = {name: band.nominal for name, band in result.by_component().items()}
    assert parts == pytest.approx({"column": 10e-12, "adc": 130e-12})
    assert result.latency_s.nominal == pytest.approx(10 * 10e-9 + 13 * 100e-9 + 2 * 1000e-9)


def test_parts_known_by_their_power():
    body = f"""
[component]
encoding = "bit-serial"
input_bits = {q(1, "bit")}
output_bits = {q(6, "bit")}
cycle_time = {q(100, "ns")}
[component.parts]
buffer = {{ power = {q(4, "mW")}, tiles = {q(4)}, area = {q(1, "mm^2")} }}
adc = {{ power = {q(2, "mW")}, tiles = {q(1)}, scales = "cols" }}
serdes = {{ power = {q(1, "W")}, tiles = {q(8)}, scales = "constant" }}
"""
    result = estimate(mlp(100, 50), crossbar(body))
    parts = {name: band.nominal for name, band in result.by_component().items()}
    assert parts == pytest.approx({"serdes": 1 * 100e-9, "buffer": 1e-3 * 100e-9, "adc": 1e-3 * 100e-9})
    assert result.area_mm2.nominal == pytest.approx(2)
    assert any("buffer, adc, serdes" in sentence for sentence in result.assumptions)
    assert not any("buffers for" in sentence for sentence in result.excluded)


def test_unmatched_adc_is_a_flagged_lower_bound():
    body = f"""
[component]
encoding = "pwm"
input_bits = {q(8, "bit")}
output_bits = {q(8, "bit")}
cycle_time = {q(130, "ns")}
[component.adc]
bits = {q(8, "bit")}
rate = {q(7, "MHz")}
"""
    with pytest.raises(HpmlError, match="node"):
        estimate(mlp(100, 100), crossbar(body))
    result = estimate(mlp(100, 100), crossbar(body, node_nm=14))
    assert result.energy_j.nominal == pytest.approx(100 * adc_energy_j(8, 14e-9, 7e6))
    assert result.energy_j.low == result.energy_j.nominal
    assert result.energy_j.high == pytest.approx(80 * result.energy_j.nominal)
    assert any("LOWER BOUND" in sentence for sentence in result.assumptions)


@pytest.mark.parametrize(
    ("bits", "node_nm", "rate", "picojoules"),
    # worked out by hand from the formula: 8 bit at 32, 14, 65 nm; 5 and 6 bit at 32 nm; 10 bit at 14 nm
    [(8, 32, 1.28e9, 1.93), (8, 14, 1e7, 0.362), (8, 65, 1e6, 6.49), (5, 32, 1e9, 0.936), (10, 14, 1e7, 0.700)],
)
def test_adc_regression(bits, node_nm, rate, picojoules):
    assert adc_energy_j(bits, node_nm * 1e-9, rate) == pytest.approx(picojoules * 1e-12, rel=5e-3)


def test_spikes_need_one_bit_in_component_mode():
    result = estimate(snn(50, 20, steps=10, rate=0.2), crossbar(COMPONENT))
    parts = {name: band.nominal for name, band in result.by_component().items()}
    assert parts["adc"] == pytest.approx(10 * 20 * 1 * 2e-12)
    assert parts["dac"] == pytest.approx(10 * 50 * 1 * 1e-12 * 0.2)


def test_spikes_drive_full_scale_where_the_cell_s_energy_is_for_a_mean_input():
    own = f"{COMPONENT}mean_input = {q(0.25)}\n"
    values, spikes = estimate(mlp(50, 20), crossbar(own)), estimate(snn(50, 20, steps=10, rate=0.2), crossbar(own))
    # 4 cycles of 1 fJ a cell at the mean input; a spike is one cycle at 4 times that, in a fifth of the rows, 10 steps
    assert values.by_component()["array"].nominal == pytest.approx(50 * 20 * 4 * 1e-15)
    assert spikes.by_component()["array"].nominal == pytest.approx(10 * 50 * 20 * 0.2 / 0.25 * 1e-15)


def test_spikes_in_preset_mode_are_charged_in_full_with_a_wider_band():
    result = estimate(snn(100, 100, steps=10), crossbar())
    assert result.energy_j.nominal == pytest.approx(10 * 10e-9)
    assert (result.energy_j.low, result.energy_j.high) == pytest.approx((50e-9, 200e-9))


def test_digital_layers_and_their_operations():
    around = f"[digital]\nenergy_per_op = {q(1, 'pJ/OP')}\n"
    network = Workload((linear("fc1", 100, 100), linear("fc2", 100, 10)))
    result = estimate(network, crossbar(PRESET + around), digital_layers=["fc2"])
    assert result.by_component()["digital"].nominal == pytest.approx(1e-12 * (100 + 2 * 1000))
    assert result.mapping["digital_macs"] == 1000
    with pytest.raises(HpmlError, match=r"unknown layer in digital_layers= 'fc3'\. Did you mean 'fc[12]'"):
        estimate(network, crossbar(), digital_layers=["fc3"])


def test_macs_off_the_crossbar_are_named_with_their_share():
    attention = LayerCount("attention", "attention", macs=10_000, output_elements=100)
    result = estimate(Workload((linear("fc", 100, 300), attention)), crossbar())
    assert any("25.0% of the MACs" in sentence for sentence in result.excluded)
    assert result.mapping["digital_macs"] == 10_000


def test_what_the_card_lacks_is_named():
    text = " ".join(estimate(mlp(100, 100), crossbar()).excluded)
    for what in ("digital operations", "buffers", "tile to tile", "static power", "programming", "drift"):
        assert what in text


def test_calibration_and_programming_stay_apart():
    body = PRESET + f"[programming]\niterations = {q(10)}\nenergy_per_pulse = {q(5, 'pJ')}\n"
    result = estimate(mlp(100, 200), crossbar(body))
    assert result.reported_separately["recalibration_j"].nominal == pytest.approx(2 * 100 * 10e-9)
    assert result.reported_separately["programming_j"].nominal == pytest.approx(100 * 200 * 10 * 5e-12)
    assert result.energy_j.nominal == pytest.approx(20e-9)


def test_static_power_follows_the_time():
    body = PRESET + f"[digital]\npower_static = {q(2, 'W')}\n"
    one = estimate(mlp(100, 100, 100), crossbar(body))
    assert one.by_component()["static"].nominal == pytest.approx(2 * 200e-9)
    many = estimate(mlp(100, 100, 100), crossbar(body), batch="best")
    assert many.by_component()["static"].nominal == pytest.approx(2 * 100e-9, rel=0.06)


def test_links_between_chips():
    body = PRESET + f"[digital]\nenergy_per_bit_off_chip = {q(10, 'pJ/bit')}\n"
    fits = estimate(mlp(100, 100, 100), crossbar(body))
    assert "off-chip" not in fits.by_component()
    two = estimate(mlp(100, 800, 100), crossbar(body))  # 8 tiles, then 8 on the second chip
    assert two.by_component()["off-chip"].nominal == pytest.approx(800 * 8 * 10e-12)


# ------------------------------------------------------------------------------------- converters of other resolutions


def regression_ratio(bits: int, own: int) -> float:
    """From the paper's formulas: 6.0206 dB of SNDR and 3.2205 dB of figure of merit a bit; node and rate cancel."""
    return 10 ** (0.1 * (20 * math.log10(2) - 3.2205) * (bits - own)) * (bits / own) ** -2.82913


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 9, 10])
def test_ratio_of_two_converters_spans_three_laws(bits):
    ratio = adc_ratio(bits, 8)
    assert ratio.nominal == pytest.approx(regression_ratio(bits, 8))
    ladder = {4: 0.79, 5: 0.99, 6: 1.20, 7: 1.42, 9: 1.97, 10: 2.38}[bits] / 1.67
    assert (ratio.low, ratio.high) == pytest.approx(
        (min(2.0 ** (bits - 8), ladder, ratio.nominal), max(2.0 ** (bits - 8), ladder, ratio.nominal))
    )
    assert adc_ratio(bits, bits).low == adc_ratio(bits, bits).high == 1


def test_a_preset_scales_the_share_of_its_converters():
    share = f"adc_share = {q(0.5, low=0.4, high=0.6)}\n"
    own, coarse = (estimate(mlp(100, 100), crossbar(PRESET + share), output_bits=b) for b in (8, 6))
    assert own.energy_j.nominal == pytest.approx(10e-9)
    assert not own.assumptions
    # 2^-2 = 0.25 is the least, the ladder's 1.20 / 1.67 the most; the share does not move nominal
    assert coarse.energy_j.nominal == pytest.approx(10e-9 * (0.5 + 0.5 * regression_ratio(6, 8)))
    assert coarse.energy_j.low == pytest.approx(7.5e-9 * (0.4 + 0.6 * 0.25))
    assert coarse.energy_j.high == pytest.approx(12.5e-9 * (0.6 + 0.4 * 1.20 / 1.67))
    assert coarse.latency_s == own.latency_s
    assert any("6-bit outputs: the converters' share of an MVM, 50% (40% to 60%)" in s for s in coarse.assumptions)


def test_a_counting_converter_takes_longer_once_it_outlasts_the_input():
    """By hand: two conversions of 2^bits steps of 1 ns against a published 100 ns."""
    body = PRESET + "".join(
        f"{name} = {value}\n"
        for name, value in {"adc_share": q(0.5), "adc_step_time": q(1, "ns"), "conversions": q(2)}.items()
    )
    times = {b: estimate(mlp(100, 100), crossbar(body), output_bits=b).latency_s.nominal for b in (4, 5, 8, 10)}
    assert times == pytest.approx({4: 100e-9, 5: 100e-9, 8: 100e-9, 10: 2048e-9})


def test_a_component_card_scales_its_conversions_only():
    six, eight = (estimate(mlp(50, 20), crossbar(COMPONENT), output_bits=b).by_component() for b in (6, 8))
    assert eight["adc"].nominal / six["adc"].nominal == pytest.approx(regression_ratio(8, 6))
    assert eight["adc"].high / six["adc"].high == pytest.approx(4)
    assert {**eight, "adc": None} == {**six, "adc": None}


def test_an_adc_model_takes_the_bits_asked_for():
    card = load_card("pcm-design-study")
    own, finer = (estimate(mlp(100, 100), card, output_bits=b).by_component()["adc"].nominal for b in (None, 10))
    assert own == pytest.approx(100 * adc_energy_j(8, 14e-9, 4e6))
    assert finer == pytest.approx(100 * adc_energy_j(10, 14e-9, 4e6))


def test_shorter_pulses_take_less_time_and_array_energy():
    """By hand: 4 bits by pulse width are 2^-4 of the 8-bit pulse; a spike keeps the whole pulse."""
    body = f"""
[component]
encoding = "pwm"
input_bits = {q(8, "bit")}
output_bits = {q(8, "bit")}
cell_energy = {q(16, "fJ")}
conversion_energy = {q(1, "pJ")}
cycle_time = {q(160, "ns")}
"""
    short = estimate(mlp(100, 50), crossbar(body), input_bits=4)
    assert short.latency_s.nominal == pytest.approx(10e-9)
    assert short.by_component()["array"].nominal == pytest.approx(100 * 50 * 1e-15)
    spikes = [estimate(snn(100, 50, steps=1), crossbar(body), input_bits=b) for b in (4, 8)]
    assert spikes[0].latency_s.nominal == spikes[1].latency_s.nominal  # outputs keep their bits, and so do links


def test_a_preset_with_components_is_scaled_by_their_ratio():
    card = crossbar(PRESET + COMPONENT)
    network = mlp(100, 100)
    own, long = (estimate(network, card, input_bits=b) for b in (None, 8))
    parts = [sum(c.nominal for c in estimate(network, card, mode="component", input_bits=b).by_component().values())
             for b in (4, 8)]  # fmt: skip
    assert long.energy_j.nominal == pytest.approx(own.energy_j.nominal * parts[1] / parts[0])
    assert long.energy_j.high == pytest.approx(1.25 * own.energy_j.high * parts[1] / parts[0])
    assert long.latency_s.nominal == pytest.approx(2 * own.latency_s.nominal)
    assert long.by_component().keys() == {"mvm"}
    assert any("ratio of the sums" in sentence for sentence in long.assumptions)


@pytest.mark.parametrize(
    ("card", "asked", "followed"),
    [
        ("pcm-hermes", (None, 6), (None, 6)),
        ("pcm-hermes", (4, 8), (None, None)),  # a preset of 8-bit inputs; 8 is its own
        ("pcm-hermes", (None, 3), (None, None)),  # outside the regression
        ("pcm-hermes", (None, 12), (None, None)),
        ("puma", (8, 6), (None, None)),  # the share of its converters is not known
        ("isaac", (8, 6), (8, None)),  # eight-bit readings are merged into sixteen
        ("raella", (4, 6), (4, None)),
        ("reram-neurram", (4, 6), (4, 6)),
        ("reram-neurram", (None, 3), (None, 3)),  # its converters count: any number of steps
        ("pcm-design-study", (6, 10), (6, 10)),
    ],
)
def test_what_a_card_can_follow(card, asked, followed):
    assert followed_bits(load_card(card), dac_bits=asked[0], adc_bits=asked[1]) == followed
    into, out = followed
    estimate(mlp(64, 10), card, input_bits=into, output_bits=out)


@pytest.mark.parametrize(
    ("card", "bits", "said"),
    [
        ("pcm-34tile-tile", 6, r"output_bits=6: card 'pcm-34tile-tile' .*not known \(preset.adc_share\)"),
        ("pcm-hermes", 12, "output_bits=12: card 'pcm-hermes' follows 4 to 10 bits"),
        ("isaac", 6, "output_bits=6: card 'isaac' has no energy of a conversion"),
    ],
)
def test_bits_that_no_figure_follows_are_refused(card, bits, said):
    with pytest.raises(HpmlError, match=said):
        estimate(mlp(64, 10), card, output_bits=bits)
