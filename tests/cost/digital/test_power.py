"""Power of a GPU: prices of bytes and operations, against sums by hand and published powers that were not fitted."""

from __future__ import annotations

import pytest

from hpml_sim.cards import DigitalCard, load_card
from hpml_sim.cost import estimate
from hpml_sim.cost.digital.power import capped, operation_j, power_of
from hpml_sim.counting import LayerCount, Workload, workload
from hpml_sim.networks.architectures import shape


def gpu(name: str) -> DigitalCard:
    card = load_card(name)
    assert isinstance(card, DigitalCard)
    return card


def product(m: int, k: int, n: int) -> Workload:
    layer = LayerCount(
        "product", "linear", rows=k, cols=n, vectors=m, macs=m * k * n, weight_count=k * n,
        input_elements=m * k, output_elements=m * n,
    )  # fmt: skip
    return Workload((layer,))


def test_joules_of_one_product_are_a_sum_by_hand() -> None:
    card = gpu("h100")
    found = estimate(product(8, 8192, 8192), card, precision="fp16", engine="cuda-graph")
    assert card.power is not None
    seconds = found.latency_s.nominal
    moved = 2 * (8192 * 8192 + 2 * 8 * 8192)
    dynamic = card.power.traffic.si * moved + card.power.operation.si * 2 * 8 * 8192 * 8192
    above = dynamic / seconds
    base = 71.8 + card.power.clocks.si
    watts = (base + above) / (1 + ((base + above) / 700) ** 8) ** (1 / 8)
    assert found.energy_j.nominal == pytest.approx(watts * seconds, rel=1e-6)
    parts = found.by_component()
    assert set(parts) == {"idle", "clocks", "memory", "compute"}
    assert parts["idle"].nominal == pytest.approx(71.8 * seconds)
    assert parts["clocks"].nominal == pytest.approx(card.power.clocks.si * seconds)
    ratio = card.power.traffic.si * moved / (card.power.operation.si * 2 * 8 * 8192 * 8192)
    assert parts["memory"].nominal / parts["compute"].nominal == pytest.approx(ratio)
    idle_apart = found.reported_separately["energy_without_idle_j"].nominal
    assert idle_apart == pytest.approx((watts - 71.8) * seconds, rel=1e-6)


def test_narrow_operations_take_less_and_the_limit_bends_power() -> None:
    card = gpu("h100")
    assert operation_j(card, "bf16") == power_of(card).operation.si
    assert operation_j(card, "int8") == pytest.approx(power_of(card).operation.si * 989 / 1979)
    assert operation_j(card, "fp32") == pytest.approx(power_of(card).operation.si * 989 / 67)
    assert capped(200, 700) == pytest.approx(200, rel=1e-3)
    assert 600 < capped(700, 700) < 700
    assert capped(5000, 700) == pytest.approx(700, rel=1e-3)


def test_prices_of_a_gpu_without_records_are_scaled_from_its_data_sheet() -> None:
    v100, h100 = gpu("v100"), gpu("h100")
    power = power_of(v100)
    assert power_of(h100).traffic.si * (300 / 700) * (3350 / 900) == pytest.approx(power.traffic.si, rel=0.02)
    assert power.clocks.si == pytest.approx(power_of(h100).clocks.si * 300 / 700, rel=0.02)
    found = estimate(product(64, 1024, 1024), v100, precision="fp16")
    assert any("h100" in sentence and "scaled" in sentence for sentence in found.assumptions)


def test_powers_of_a_v100_that_nothing_was_fitted_to() -> None:
    network, example = shape("resnet50")
    counts = workload(network, data=example)
    # NVIDIA's table of TensorRT on a V100, ResNet-50 in fp16: batch, watts
    for batch, watts in ((1, 120), (8, 153), (64, 274), (128, 285)):
        found = estimate(counts, gpu("v100"), batch=batch, precision="fp16", engine="fused")
        assert found.mapping["mean_power_w"] == pytest.approx(watts, rel=0.3)
