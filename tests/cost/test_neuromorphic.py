from __future__ import annotations

import pytest

from hpml_sim.cost import estimate
from hpml_sim.cost.arithmetic import arithmetic_only_j, equal_bits
from hpml_sim.counting import Workload
from hpml_sim.errors import HpmlError

from .machines import linear, mlp, neuromorphic, neurons, q, snn


def test_energy_and_time_by_hand():
    result = estimate(snn(50, 20, steps=10, rate=0.1), neuromorphic())
    assert result.by_component()["sop"].nominal == pytest.approx(0.1 * 50 * 20 * 10 * 20e-12)
    assert result.by_component()["update"].nominal == pytest.approx(20 * 10 * 80e-12)
    step = 0.1 * 50 * 20 * 4e-9 + 20 * 10e-9
    assert result.latency_s.nominal == pytest.approx(10 * step)
    assert result.by_component()["static"].nominal == pytest.approx(0.1 * 10 * step)
    assert result.mapping["cores"] == 1


def test_idle_updates_cost_less_but_the_band_reaches_active_ones():
    result = estimate(snn(50, 20, rate=0.1), neuromorphic(events=f"idle_update_energy = {q(50, 'pJ')}"))
    fired = 0.1 * 20 * 10
    update = result.by_component()["update"]
    assert update.nominal == pytest.approx(fired * 80e-12 + (200 - fired) * 50e-12)
    assert update.high == pytest.approx(200 * 80e-12 * 1.25)


def test_cores_by_neurons_memory_and_inputs():
    assert estimate(snn(10, 250), neuromorphic()).mapping["cores"] == 3
    assert estimate(snn(100, 50), neuromorphic(f"synapse_memory = {q(1, 'kB')}")).mapping["cores"] == 5
    assert estimate(snn(100, 50), neuromorphic(f"fan_in = {q(40)}")).mapping["cores"] == 3
    narrow = neuromorphic(f"synapse_memory = {q(1, 'kB')}\nsynapse_bits = {q(1, 'bit')}")
    assert estimate(snn(100, 50), narrow).mapping["cores"] == 1


def test_many_neurons_with_many_inputs_take_cores_for_both():
    # 250 neurons on cores of 100, each with 100 inputs on cores that take 40: 3 x 3 cores, not the larger of the two
    assert estimate(snn(100, 250), neuromorphic(f"fan_in = {q(40)}")).mapping["cores"] == 9
    assert estimate(snn(100, 250), neuromorphic(f"axons = {q(60)}\nfan_in = {q(40)}")).mapping["cores"] == 9


def test_a_reset_is_shared_by_the_inferences_that_run_between_two_of_them():
    card = neuromorphic(events=f"reset_energy = {q(1, 'uJ')}")
    one, ten, fifteen = (estimate(snn(50, 20), card, batch=b).by_component()["reset"].nominal for b in (1, 10, 15))
    assert one == pytest.approx(1e-6)
    assert ten == pytest.approx(1e-6 / 10)  # ten copies on the ten cores of a chip, reset together
    assert fifteen == pytest.approx(2e-6 / 15)  # two rounds of ten
    two_chips = estimate(snn(50, 20), card, chips=2, batch=1).by_component()["reset"].nominal
    assert two_chips == pytest.approx(2e-6)


def test_more_cores_than_a_chip_has_take_more_chips():
    result = estimate(snn(10, 1500), neuromorphic())
    assert result.mapping["chips"] == 2
    assert estimate(snn(10, 10), neuromorphic(), chips=3).mapping["chips"] == 3
    with pytest.raises(HpmlError, match="chips=1: 15 cores need 2 chips"):
        estimate(snn(10, 1500), neuromorphic(), chips=1)


def test_tick_is_the_least_time_of_a_step():
    result = estimate(snn(50, 20, steps=10), neuromorphic(events=f"tick_time = {q(1, 'ms')}"))
    assert result.latency_s.nominal == pytest.approx(10e-3)


def test_barrier_is_added_to_each_step():
    free = estimate(snn(50, 20, steps=10), neuromorphic())
    held = estimate(snn(50, 20, steps=10), neuromorphic(events=f"barrier_time = {q(1, 'us')}"))
    assert held.latency_s.nominal - free.latency_s.nominal == pytest.approx(10e-6)


def test_spikes_hops_cores_host_and_reset():
    card = neuromorphic(
        events=f"spike_energy = {q(2, 'pJ')}\nhop_energy = {q(4, 'pJ')}\nreset_energy = {q(1, 'uJ')}",
        extra=f"power_host = {q(50, 'mW')}\npower_core = {q(1, 'mW')}",
    )
    result = estimate(snn(10, 100, 200, steps=10, rate=0.1), card)
    parts = result.by_component()
    assert parts["spike"].nominal == pytest.approx(0.1 * 300 * 10 * 2e-12)
    # the first layer's 100 spikes go to two cores each, over 2/3 of the side of a square of 3 cores
    assert parts["hop"].nominal == pytest.approx(100 * 2 * (2 / 3) * 3**0.5 * 4e-12)
    assert parts["host"].nominal == pytest.approx(50e-3 * result.latency_s.nominal)
    assert parts["cores"].nominal == pytest.approx(3e-3 * result.latency_s.nominal)
    assert parts["reset"].nominal == pytest.approx(1e-6)


def test_best_batch_fills_the_chip_with_copies():
    one, best = (estimate(snn(50, 20), neuromorphic(), batch=b) for b in (1, "best"))
    assert best.batch == 10
    assert best.latency_s.nominal == one.latency_s.nominal
    assert best.throughput_hz.nominal == pytest.approx(10 * one.throughput_hz.nominal)
    assert best.by_component()["static"].nominal == pytest.approx(one.by_component()["static"].nominal / 10)
    assert best.by_component()["sop"] == one.by_component()["sop"]


def test_readout_without_neurons_still_takes_cores():
    layers = (*snn(10, 20, steps=5).layers, linear("readout", 20, 150, steps=5, sops=10.0))
    result = estimate(Workload(layers, samples=1, kind="spiking"), neuromorphic())
    assert result.mapping["cores"] == 3
    assert result.mapping["updates"] == 20 * 5 + 150 * 5


def test_neurons_without_a_matrix_before_them_count():
    encoder, pooled = neurons("encoder", 30, steps=5, spikes=40), neurons("pooled", 10, steps=5, spikes=3)
    workload = Workload((encoder, *snn(30, 20, steps=5).layers, pooled), samples=1, kind="spiking")
    result = estimate(workload, neuromorphic())
    assert result.mapping["updates"] == 5 * (30 + 20 + 10)
    assert result.mapping["cores"] == 3
    assert {"encoder", "pooled"} <= set(result.by_layer())


def test_without_data_every_input_is_taken_as_active():
    shapes = Workload((linear("fc", 50, 20, steps=10), neurons("lif", 20, steps=10, spikes=0)), kind="spiking")
    result = estimate(shapes, neuromorphic())
    assert result.mapping["sops"] == 50 * 20 * 10
    assert any("upper bound" in sentence for sentence in result.assumptions)


def test_network_without_spikes_is_refused_with_the_next_step():
    with pytest.raises(HpmlError, match=r"spiking networks only.*hs\.Spiking"):
        estimate(mlp(10, 10), neuromorphic())


def test_arithmetic_only_figure_stands_beside_the_total():
    network = snn(50, 20, steps=10, rate=0.1)
    result = estimate(network, neuromorphic())
    assert result.reported_separately["arithmetic_only_j"].nominal == pytest.approx(0.1 * 50 * 20 * 10 * 0.9e-12)
    assert result.reported_separately["arithmetic_only_j"].nominal < result.energy_j.nominal
    assert arithmetic_only_j(mlp(50, 20)) == pytest.approx(50 * 20 * 4.6e-12)


@pytest.mark.parametrize(("steps", "bits"), [(1, 1), (3, 2), (4, 3), (7, 3), (25, 5)])
def test_integer_network_to_stand_beside(steps, bits):
    assert equal_bits(steps) == bits


def test_the_low_bound_of_time_holds_a_network_spread_over_idle_cores():
    """50 neurons on one of ten cores: on four of them a core has a quarter to do in a step, by hand."""
    counts = snn(100, 50, steps=4, rate=0.1)
    card = neuromorphic()
    few, wide = estimate(counts, card), estimate(counts, card, chips=1)
    assert few.mapping["cores"] == 1
    assert wide.mapping["cores"] == 10
    sops, updates = 0.1 * 100 * 50, 50
    step = sops * 4e-9 + updates * 10e-9
    assert few.latency_s.nominal == pytest.approx(4 * step)
    assert wide.latency_s.nominal == pytest.approx(4 * step / 10)
    own = few.latency_s.nominal / wide.latency_s.nominal * wide.latency_s.low  # events' own low bound, on one core
    assert few.latency_s.low == pytest.approx(own / 4)
    assert few.latency_s.high >= few.latency_s.nominal
    assert any("as few cores as hold it, 1; spread over 4" in sentence for sentence in few.assumptions)
    assert not any("as few cores as hold it" in sentence for sentence in wide.assumptions)
