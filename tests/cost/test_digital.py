from __future__ import annotations

from dataclasses import replace

import pytest

from hpml_sim.cost import estimate
from hpml_sim.counting import LayerCount, Workload
from hpml_sim.errors import HpmlError

from .machines import digital, linear, mlp, neurons, q

# The made-up machine: 1 TFLOP/s reached, 100 GB/s, 100 W above idle at full load, so 100 pJ an operation.


def test_launch_bound_network_by_hand():
    result = estimate(mlp(10, 10, 10), digital())
    # two layers of 200 operations and 480 bytes: both far below 1 us of launch
    assert result.latency_s.nominal == pytest.approx(10e-6 + 2 * 1e-6)
    idle = 10 * 12e-6
    dynamic = 2 * max(100e-12 * 200, 100e-12 * 4 * (100 + 20))
    assert result.energy_j.nominal == pytest.approx(idle + dynamic)
    assert result.reported_separately["energy_without_idle_j"].nominal == pytest.approx(dynamic)
    assert result.throughput_hz.nominal == pytest.approx(1 / 12e-6)


def test_compute_bound_layer_draws_the_board_limit():
    layer = LayerCount("big", "linear", rows=10**4, cols=10**4, vectors=1000, macs=1e11, weight_count=10**8)
    result = estimate(Workload((layer,)), digital(call_time=q(0, "us")))
    assert result.latency_s.nominal == pytest.approx(2e11 / 1e12)
    assert result.mapping["mean_power_w"] == pytest.approx(110)


def test_memory_bound_layer_by_hand():
    result = estimate(Workload((linear("fc", 1000, 1000),)), digital(call_time=q(0, "us")))
    traffic = 4 * (10**6 + 2000)
    assert result.latency_s.nominal == pytest.approx(traffic / 100e9)
    assert result.by_component()["memory"].nominal == pytest.approx(100e-12 * traffic)


def test_traffic_beyond_the_power_limit_stretches_time():
    result = estimate(
        Workload((linear("fc", 1000, 1000),)), digital(energy_per_byte=q(4000, "pJ/B"), call_time=q(0, "us"))
    )
    dynamic = 4000e-12 * 4 * (10**6 + 2000)
    assert result.latency_s.nominal == pytest.approx(dynamic / 100)
    assert result.mapping["mean_power_w"] == pytest.approx(110)


def test_weights_in_the_cache_cost_no_traffic_and_are_flagged():
    big_cache = digital(cache=q(1, "GB"), launch_time=q(0, "us"))
    result = estimate(Workload((linear("fc", 1000, 1000),)), big_cache)
    assert result.latency_s.nominal == pytest.approx(10e-6 + max(2e6 / 1e12, 8000 / 100e9))
    assert any("last-level cache" in sentence for sentence in result.assumptions)


def test_an_embedding_moves_only_the_rows_it_looks_up():
    table = LayerCount("table", "embedding", weight_count=10**7, input_elements=1, output_elements=100)
    result = estimate(Workload((table,)), digital())
    assert result.by_component()["memory"].nominal == pytest.approx(100e-12 * 4 * (100 + 101))
    assert result.mapping["memory_bytes"] == pytest.approx(4 * (10**7 + 101))


def test_key_value_cache_takes_memory_for_each_sample():
    workload = Workload((linear("fc", 10, 10),), extra={"kv_cache_elements": 1e8})
    assert estimate(workload, digital()).mapping["devices"] == 1
    with pytest.raises(HpmlError, match=r"batch=8: .* 3\.2 GB do not fit into the 0\.9 GB .* at most 2, or"):
        estimate(workload, digital(), batch=8)
    assert estimate(workload, digital(), batch=2).mapping["memory_bytes"] == pytest.approx(0.8e9, rel=0.01)


def test_batching_amortizes_overhead():
    network = mlp(64, 128, 10)
    one, many, best = (estimate(network, digital(), batch=b) for b in (1, 64, "best"))
    assert many.energy_j.nominal < one.energy_j.nominal
    assert best.throughput_hz.nominal >= many.throughput_hz.nominal
    assert best.batch > 64


def test_best_batch_stays_within_memory():
    wide = Workload((LayerCount("norm", "norm", input_elements=1e6, output_elements=1e6),))
    best = estimate(wide, digital(), batch="best")
    assert best.mapping["memory_bytes"] <= 0.9e9
    assert best.mapping["devices"] == 1


def test_network_too_large_for_the_memory_says_how_many_devices():
    result = estimate(Workload((linear("fc", 50_000, 50_000),)), digital())
    assert result.mapping["devices"] == 12  # 10 GB in 0.9 GB each
    assert any("12 devices" in sentence for sentence in result.assumptions)
    assert any("between the devices" in sentence for sentence in result.excluded)


def test_every_device_draws_idle_power_for_as_long_as_the_batch_takes():
    small, large = (estimate(Workload((linear("fc", n, n),)), digital()) for n in (5_000, 50_000))
    assert small.mapping["devices"] == 1
    for result, devices in ((small, 1), (large, 12)):
        idle = result.by_component()["idle"].nominal
        assert idle == pytest.approx(10 * devices * result.latency_s.nominal)  # 10 W each


def test_every_call_is_a_launch():
    layers = (linear("fc", 10, 10, steps=25, calls=25), neurons("lif", 10, steps=25, spikes=5))
    spiking = Workload((layers[0], replace(layers[1], calls=25)), kind="spiking")
    result = estimate(spiking, digital())
    assert result.latency_s.nominal == pytest.approx(10e-6 + 50e-6)
    assert any("densely" in sentence for sentence in result.assumptions)


def test_active_clocks_are_dynamic_power():
    result = estimate(mlp(10, 10), digital(power_active=q(20, "W")))
    assert result.by_component()["clocks"].nominal == pytest.approx(20 * 11e-6)
    assert result.reported_separately["energy_without_idle_j"].nominal >= 20 * 11e-6


def test_unknown_precision_names_what_there_is():
    with pytest.raises(HpmlError, match=r"precision='int8'.*fp32"):
        estimate(mlp(10, 10), digital(), precision="int8")


def test_best_batch_of_a_network_on_several_devices_fills_them():
    workload = Workload((linear("fc", 20_000, 20_000),), extra={"kv_cache_elements": 1e6})
    best = estimate(workload, digital(), batch="best")
    assert best.mapping["devices"] == 2  # 1.6 GB in 0.9 GB each, and the rest for 50 caches of 4 MB
    assert best.batch == 32


def test_roof_names_what_limits_each_layer():
    layers = (
        LayerCount("big", "linear", rows=10**4, cols=10**4, vectors=1000, macs=1e11, weight_count=10**8),
        linear("wide", 1000, 1000),
        linear("small", 10, 10),
    )
    roof = estimate(Workload(layers), digital()).roof
    assert roof is not None
    assert (roof.operations_hz.nominal, roof.bandwidth.nominal) == (1e12, 100e9)
    assert [layer.limit for layer in roof.layers] == ["compute", "memory", "launch"]
    assert roof.layers[1].operations == 2e6
    assert roof.layers[1].traffic_bytes == 4 * (10**6 + 2000)
    assert roof.layers[1].time_s == pytest.approx(4 * (10**6 + 2000) / 100e9)
    slow = estimate(Workload(layers), digital(energy_per_byte=q(4000, "pJ/B"))).roof
    assert slow is not None
    assert slow.layers[1].limit == "power"


def test_no_layer_is_above_its_roof_and_times_add_up():
    for batch in (1, 64, "best"):
        result = estimate(mlp(784, 512, 10), digital(), batch=batch)
        assert result.roof is not None
        spent = sum(layer.time_s for layer in result.roof.layers)
        assert spent + 10e-6 == pytest.approx(result.latency_s.nominal)
        for layer in result.roof.layers:
            ceiling = min(1e12, 100e9 * layer.operations / layer.traffic_bytes)
            assert layer.operations / layer.time_s <= ceiling * (1 + 1e-9)


def test_convolutions_that_run_slower_take_longer_and_draw_for_longer():
    """By hand: 1 TFLOP/s for products, half of it for convolutions; both far from memory and launches."""
    layers = tuple(
        replace(linear(name, 1000, 1000, vectors=1000), op=op) for name, op in (("a", "linear"), ("b", "conv"))
    )
    counts = Workload(layers)
    fast, slow = (estimate(counts, card) for card in (digital(), digital(convolution_efficiency=q(0.25))))
    times = [{y.layer: y.time_s for y in found.roof.layers} for found in (fast, slow)]
    assert times[0] == pytest.approx({"a": 2e-3, "b": 2e-3})
    assert times[1] == pytest.approx({"a": 2e-3, "b": 4e-3})
    assert slow.energy_j.nominal - fast.energy_j.nominal == pytest.approx(
        2e-3 * (10 + 100), rel=1e-6
    )  # idle and dynamic
    assert [y.operations for y in fast.roof.layers] == [y.operations for y in slow.roof.layers]


def test_weights_in_the_cache_still_have_to_come_from_there():
    """By hand: 4 MB of weights in the cache take 0.1 ms at 40 GB/s; arithmetic takes 2 us, DRAM nothing."""
    counts = Workload((linear("fc", 1000, 1000),))
    cached = {"cache": q(1, "GB"), "memory": q(10, "GB")}
    free, limited = (estimate(counts, digital(**cached, **more)) for more in ({}, {"cache_bandwidth": q(40, "GB/s")}))
    assert free.roof.layers[0].time_s == pytest.approx(2e-6)
    assert limited.roof.layers[0].time_s == pytest.approx((4e6 + 8e3) / 40e9)
    assert limited.roof.layers[0].limit == "memory"
    assert limited.roof.layers[0].traffic_bytes == free.roof.layers[0].traffic_bytes


HOST = {"dispatch_time": q(20, "us", low=5, high=40), "replay_time": q(2, "us"), "call_time": q(3, "us")}


def test_an_eager_operator_takes_the_host_its_time_and_a_recorded_kernel_less():
    """By hand: 2 layers far below any launch; eager 3 + 2 x 20 us and the last kernel's 2 us; as a graph 3 + 2 x 20 us
    (copies) + 2 x 2 us."""
    eager, graph = (estimate(mlp(10, 10, 10), digital(**HOST), engine=e) for e in (None, "cuda-graph"))
    assert eager.latency_s.nominal == pytest.approx(45e-6)
    assert graph.latency_s.nominal == pytest.approx(47e-6)
    deep = mlp(*[10] * 101)
    eager, graph = (estimate(deep, digital(**HOST), engine=e) for e in ("torch", "cuda-graph"))
    assert eager.latency_s.nominal == pytest.approx(3e-6 + 100 * 20e-6 + 2e-6)
    assert graph.latency_s.nominal == pytest.approx(3e-6 + 40e-6 + 100 * 2e-6)
    assert eager.latency_s.low == pytest.approx(3e-6 + 100 * 5e-6 + 2e-6)
    assert eager.latency_s.high == pytest.approx(3e-6 + 100 * 40e-6 + 2e-6)
    assert any("waits for it" in sentence for sentence in eager.assumptions)
    assert not any("waits for it" in sentence for sentence in graph.assumptions)


def test_the_host_runs_ahead_while_the_gpu_works():
    """By hand: starts at 20, 40, 60 us; the first layer works for 100 us (1e8 operations), the others 2 us each."""
    big = LayerCount("big", "linear", rows=100, cols=100, vectors=5000, macs=5e7, weight_count=10**4)
    network = Workload((big, linear("a", 10, 10), linear("b", 10, 10)))
    found = estimate(network, digital(**HOST))
    assert found.latency_s.nominal == pytest.approx(3e-6 + 20e-6 + 100e-6 + 2 * 2e-6)
    assert {y.layer: (y.limit, y.time_s) for y in found.roof.layers} == {
        "big": ("compute", pytest.approx(120e-6)),
        "a": ("launch", pytest.approx(2e-6)),
        "b": ("launch", pytest.approx(2e-6)),
    }
    reversed_order = estimate(Workload(network.layers[::-1]), digital(**HOST))
    assert reversed_order.latency_s.nominal == pytest.approx(3e-6 + 60e-6 + 100e-6)


def test_without_such_figures_every_engine_pays_the_launch():
    for engine, copies in (("torch", 0), ("cuda-graph", 2)):
        found = estimate(mlp(10, 10, 10), digital(), engine=engine)
        assert found.latency_s.nominal == pytest.approx(10e-6 + (2 + copies) * 1e-6)


def test_engines_that_are_not_modeled_say_so_and_a_cpu_has_no_graphs():
    found = estimate(mlp(10, 10), digital(), engine="numba-cuda")
    assert any("'numba-cuda'" in sentence for sentence in found.assumptions)
    assert found.latency_s == estimate(mlp(10, 10), digital()).latency_s
    with pytest.raises(HpmlError, match=r"engine='cuda-graph'.*'cpu' is a CPU"):
        estimate(mlp(10, 10), "cpu", engine="cuda-graph")
    with pytest.raises(HpmlError, match="engine: not for card 'pcm-hermes'"):
        estimate(mlp(10, 10), "pcm-hermes", engine="torch")
