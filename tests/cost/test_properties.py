"""What must hold of every estimate, whatever the network."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpml_sim.cards import Card, list_cards, load_card
from hpml_sim.cost import estimate
from hpml_sim.counting import Workload
from hpml_sim.errors import HpmlError
from hpml_sim.units.bands import ZERO

from .machines import PRESET, crossbar, digital, linear, mlp, neuromorphic, q, snn
from .test_crossbar import COMPONENT

AROUND = f"""
[digital]
energy_per_op = {q(0.1, "pJ/OP", low=0.05, high=0.3)}
energy_per_byte_buffer = {q(2, "pJ/B")}
energy_per_bit_link = {q(0.1, "pJ/bit")}
energy_per_bit_off_chip = {q(10, "pJ/bit")}
power_static = {q(1, "W")}
ops_rate = {q(1, "GOP/s")}
"""
STATIC = [digital(), crossbar(PRESET + AROUND), crossbar(COMPONENT + AROUND, slices=4)]
SPIKING = [*STATIC, neuromorphic(events=f"hop_energy = {q(4, 'pJ')}\nspike_energy = {q(2, 'pJ')}")]
sizes = st.lists(st.integers(1, 600), min_size=2, max_size=5)
fixed = settings(max_examples=40, deadline=None, derandomize=True)


def networks(shape: list[int]) -> list[tuple[Workload, Card]]:
    return [(mlp(*shape), card) for card in STATIC] + [(snn(*shape, steps=4), card) for card in SPIKING]


def same(a, b) -> bool:
    return (a.low, a.nominal, a.high) == pytest.approx((b.low, b.nominal, b.high))


@fixed
@given(sizes, st.sampled_from([1, 7, "best"]))
def test_parts_sum_to_the_total_and_bands_are_ordered(shape, batch):
    for workload, card in networks(shape):
        result = estimate(workload, card, batch=batch)
        total = sum((term.energy_j for term in result.terms), ZERO)
        assert same(total, result.energy_j)
        assert same(sum(result.by_component().values(), ZERO), result.energy_j)
        assert same(sum(result.by_layer().values(), ZERO), result.energy_j)
        for band in (result.energy_j, result.latency_s, result.throughput_hz, *result.reported_separately.values()):
            assert 0 <= band.low <= band.nominal <= band.high
        assert set(result.sources) == {"paper"}
        assert all(term.sources for term in result.terms)


def own_energy(result) -> float:
    """Without what truly falls when a network grows: a neuron too many for one core halves the time, and with it the
    static energy; a tile too many moves the border between two chips to a layer with fewer outputs."""
    parts = result.by_component()
    return sum(band.nominal for name, band in parts.items() if name not in ("static", "off-chip"))


@fixed
@given(sizes, st.integers(0, 4), st.integers(1, 300))
def test_monotone_in_macs(shape, index, more):
    index %= len(shape)
    larger = [size + more * (k == index) for k, size in enumerate(shape)]
    for (small, card), (large, _) in zip(networks(shape), networks(larger), strict=True):
        assert own_energy(estimate(large, card)) >= own_energy(estimate(small, card)) * (1 - 1e-12)


@fixed
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 50), st.integers(2, 9))
def test_linear_in_vectors(rows, cols, vectors, times):
    for card in (crossbar(), crossbar(COMPONENT)):
        once = estimate(Workload((linear("fc", rows, cols, vectors=vectors),)), card)
        often = estimate(Workload((linear("fc", rows, cols, vectors=vectors * times),)), card)
        assert same(often.energy_j, once.energy_j * times)


@fixed
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=6), st.randoms())
def test_order_of_layers_changes_nothing(shapes, rng: random.Random):
    layers = [linear(f"fc{k}", *shape) for k, shape in enumerate(shapes)]
    shuffled = rng.sample(layers, len(layers))
    for card in (digital(), crossbar(), crossbar(COMPONENT)):
        first, second = estimate(Workload(tuple(layers)), card), estimate(Workload(tuple(shuffled)), card)
        assert same(first.energy_j, second.energy_j)
        # which layer is the last, and sends nothing on, changes what the upper bound holds for links
        assert (first.latency_s.low, first.latency_s.nominal) == pytest.approx(
            (second.latency_s.low, second.latency_s.nominal)
        )
        assert same(first.throughput_hz, second.throughput_hz)
        assert {k: v.nominal for k, v in first.by_layer().items()} == pytest.approx(
            {k: v.nominal for k, v in second.by_layer().items()}
        )


@fixed
@given(sizes)
def test_sparser_spikes_never_cost_more(shape):
    busy, quiet = snn(*shape, rate=0.5), snn(*shape, rate=0.1)
    for card in SPIKING:
        assert estimate(quiet, card).energy_j.nominal <= estimate(busy, card).energy_j.nominal * (1 + 1e-12)


@pytest.mark.parametrize("name", list_cards())
def test_every_shipped_card_gives_an_estimate(name):
    card = load_card(name)
    workload = snn(64, 128, 10) if card.kind == "neuromorphic" else mlp(64, 128, 10)
    if card.kind == "crossbar" and card.preset is None and card.component is None:
        with pytest.raises(HpmlError, match="describes devices only"):
            estimate(workload, card)
        return
    for batch in (1, "best"):
        result = estimate(workload, card, batch=batch)
        assert result.energy_j.nominal > 0
        assert result.latency_s.nominal > 0
        assert result.scope == card.scope
        assert set(result.sources) <= set(card.sources)
        assert all(set(term.sources) <= set(result.sources) for term in result.terms)
        assert same(sum((term.energy_j for term in result.terms), ZERO), result.energy_j)


def test_more_data_or_layers_never_lower_the_total():
    one = mlp(64, 64)
    two = Workload((*one.layers, replace(one.layers[0], name="again")))
    for card in STATIC:
        assert estimate(two, card).energy_j.nominal > estimate(one, card).energy_j.nominal
