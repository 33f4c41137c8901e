from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpml_sim.cards import DigitalCard, load_card
from hpml_sim.cost.digital.products import SMALL_TILE, Products


def products(name: str = "a100") -> Products:
    card = load_card(name)
    assert isinstance(card, DigitalCard)
    return Products.of(card, "fp16")


IDEAL = replace(
    products(), tile_efficiency=1.0, tile_half=0.0, start_s=0.0, wave_share=1.0, fill_depth=0.0, overlap=16.0,
    product_bandwidth=1.0, split_traffic=1e6,
)  # fmt: skip
NO_MEMORY = replace(IDEAL, bandwidth=1e21, split_traffic=1e12)


def test_full_waves_of_an_ideal_machine_run_at_the_peak():
    n = 128 * 108  # 108 columns of tiles, one for each multiprocessor
    assert float(NO_MEMORY.time_s(128, 8192, n)) == pytest.approx(2 * 128 * 8192 * n / 312e12, rel=0.02)


def test_one_tile_more_than_a_wave_takes_two():
    one, more = (float(NO_MEMORY.time_s(128, 8192, 256 * tiles)) for tiles in (108, 109))
    # tiles of a quarter of the size: 436 of them in five waves instead of four
    assert more == pytest.approx(1.25 * one)


def test_few_rows_are_bound_by_the_weights():
    machine = replace(IDEAL, split_traffic=0.0)
    assert float(machine.time_s(1, 4096, 4096)) == pytest.approx(2 * (4096 * 4096 + 2 * 4096) / 2.039e12, rel=0.02)


def test_a_sum_is_split_where_there_are_few_tiles():
    machine = replace(NO_MEMORY, split_traffic=0.0)
    alone = float(machine.time_s(128, 65536, 128))
    # two tiles of 64 x 128, each with its sum on eight multiprocessors: 16 of 108
    assert alone == pytest.approx(2 * 64 * 128 * 65536 / 8 / (312e12 / 108), rel=0.02)


def test_groups_fill_the_machine_together():
    one, many = (float(NO_MEMORY.time_s(128, 4096, 128, groups)) for groups in (1, 54))
    assert many == pytest.approx(one)  # 2 tiles of 64 x 128 or 108, in one wave


def test_weights_of_fewer_bytes_speed_up_decoding_alone():
    whole = products()
    half = replace(whole, weight_bytes=1)
    assert float(half.time_s(1, 8192, 28672)) < 0.67 * float(whole.time_s(1, 8192, 28672))
    assert float(half.time_s(4096, 8192, 28672)) > 0.99 * float(whole.time_s(4096, 8192, 28672))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    m=st.integers(1, 10**5), k=st.integers(1, 10**5), n=st.integers(1, 10**5), name=st.sampled_from(["a100", "h100"])
)
def test_never_faster_than_the_data_sheet(m: int, k: int, n: int, name: str):
    machine = products(name)
    moved = 2 * (m * k + k * n + m * n)
    roof = max(2 * m * k * n / machine.rate, moved / machine.bandwidth)
    assert float(machine.time_s(m, k, n)) >= roof


def test_ordinary_arithmetic_has_a_small_tile_for_few_rows():
    wide = replace(NO_MEMORY, split_traffic=1e12)
    small = replace(wide, tiles=(*wide.tiles, SMALL_TILE))
    assert float(small.time_s(1, 4096, 128 * 108)) == pytest.approx(float(wide.time_s(1, 4096, 128 * 108)) / 4)
    card = load_card("h200")
    assert isinstance(card, DigitalCard)
    assert SMALL_TILE in Products.of(card, "fp32").tiles
    assert SMALL_TILE not in Products.of(card, "bf16").tiles


def test_shapes_broadcast():
    machine = products()
    m = np.array([[1], [64]])
    k = np.array([1024, 2048, 4096])
    times = machine.time_s(m, k, 4096)
    assert times.shape == (2, 3)
    assert float(times[1, 2]) == float(machine.time_s(64, 4096, 4096))


# m, k, n, milliseconds in fp16: seven rows of the published measurements (Vidur, data/profiling/compute)
MEASURED = {
    "a100": [(1, 8192, 28672 * 2, 0.580), (512, 4096, 4096, 0.088), (4096, 8192, 8192, 2.377), (64, 4096, 4096, 0.027)],
    "h100": [(1, 8192, 28672 * 2, 0.311), (2048, 4096, 4096, 0.096), (4096, 8192, 8192, 0.7885)],
}


@pytest.mark.parametrize("name", MEASURED)
def test_near_published_measurements(name: str):
    machine = products(name)
    for m, k, n, milliseconds in MEASURED[name]:
        assert float(machine.time_s(m, k, n)) == pytest.approx(1e-3 * milliseconds, rel=0.2)
