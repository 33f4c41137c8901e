"""The rankings that physics predicts: which zeros save on which machine, and on no other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hpml_sim as hs


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 64))


def _spiking(network: nn.Module) -> hs.Workload:
    torch.manual_seed(0)
    spiking = hs.convert(network, hs.Spiking("loihi-2", steps=4))
    return hs.workload(spiking, data=torch.rand(8, 256))


def _small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


@pytest.mark.parametrize("card", ["loihi", "loihi-2", "spinnaker-1", "spinnaker-2"])
def test_every_zero_saves_on_chips_that_store_none(card):
    dense, sparse = _spiking(_small()), _spiking(hs.prune(_small(), share=0.5))
    a, b = (hs.estimate(counts, card) for counts in (dense, sparse))
    assert b.mapping["synapses"] < 0.55 * a.mapping["synapses"]
    # spikes differ a little between the networks: operations for each spike that arrives halve
    ratio = (b.mapping["sops"] / sum(y.sops for y in sparse.layers)) / (
        a.mapping["sops"] / sum(y.sops for y in dense.layers)
    )
    assert ratio == pytest.approx(0.5, abs=0.05)


def test_a_zero_saves_nothing_where_the_card_does_not_say_so():
    sparse = _spiking(hs.prune(_small(), share=0.5))
    assert hs.estimate(sparse, "odin").mapping["sops"] == pytest.approx(sum(y.sops for y in sparse.layers))


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("card", ["pcm-hermes", "reram-neurram"])
def test_single_zeros_save_nothing_on_crossbars(card, pattern):
    a, b = (hs.estimate(n, card, input_shape=(1024,)) for n in (_network(), hs.prune(_network(), pattern)))
    assert (b.energy_j, b.latency_s) == (a.energy_j, a.latency_s)


@pytest.mark.parametrize("pattern", ["rows", "columns", "tiles"])
@pytest.mark.parametrize("card", ["pcm-hermes", "reram-neurram"])
def test_whole_rows_columns_and_tiles_save_on_crossbars(card, pattern):
    options = {"card": card} if pattern == "tiles" else {}
    pruned = hs.prune(_network(), pattern, 0.5, **options)
    a, b = (hs.estimate(n, card, input_shape=(1024,)) for n in (_network(), pruned))
    assert b.mapping["tiles"] < 0.6 * a.mapping["tiles"]
    assert b.energy_j.nominal < 0.75 * a.energy_j.nominal


def _gpu(network: nn.Module, card: str, precision: str) -> hs.Estimate:
    return hs.estimate(network, hs.Digital(card, precision=precision), input_shape=(1024,), batch=16384)


@pytest.mark.parametrize("card", ["h200", "a100"])
def test_two_of_four_saves_on_gpus_with_sparse_tensor_cores(card):
    dense, sparse = (_gpu(n, card, "bf16") for n in (_network(), hs.prune(_network(), "2:4")))
    assert sparse.energy_j.nominal < 0.85 * dense.energy_j.nominal
    assert sparse.latency_s.nominal < dense.latency_s.nominal  # starting kernels takes as long as before
    assert sparse.mapping["weights_bytes"] == pytest.approx(0.5625 * dense.mapping["weights_bytes"], rel=0.01)


@pytest.mark.parametrize(("card", "precision"), [("h200", "fp32"), ("v100", "fp16"), ("t4", "fp16"), ("cpu", "fp32")])
def test_two_of_four_saves_nothing_elsewhere(card, precision):
    dense, sparse = (_gpu(n, card, precision) for n in (_network(), hs.prune(_network(), "2:4")))
    assert (sparse.energy_j, sparse.latency_s) == (dense.energy_j, dense.latency_s)


@pytest.mark.parametrize("card", ["h200", "cpu"])
def test_single_zeros_save_nothing_on_gpus_and_cpus(card):
    dense, sparse = (_gpu(n, card, "fp32") for n in (_network(), hs.prune(_network(), share=0.5)))
    assert (sparse.energy_j, sparse.latency_s) == (dense.energy_j, dense.latency_s)


@pytest.mark.parametrize("card", ["h200", "cpu", "pcm-hermes", "reram-neurram"])
def test_channels_save_everywhere(card):
    pruned = hs.prune(_network(), "channels", data=torch.rand(2, 1024))
    a, b = (hs.estimate(n, card, input_shape=(1024,)) for n in (_network(), pruned))
    assert b.energy_j.nominal < a.energy_j.nominal


def test_channels_save_on_neuromorphic_chips():
    dense, pruned = (hs.convert(n, hs.Spiking("loihi-2", steps=4)) for n in (_small(), hs.prune(_small(), "channels", data=torch.rand(2, 256))))  # fmt: skip  # noqa: E501
    a, b = (hs.estimate(hs.workload(n, data=torch.rand(8, 256)), "loihi-2") for n in (dense, pruned))
    assert b.mapping["synapses"] == pytest.approx(0.5 * a.mapping["synapses"], rel=0.02)
    assert b.mapping["sops"] < 0.7 * a.mapping["sops"]


def test_four_bits_save_the_traffic_of_weights_and_no_products():
    plain, small = _network(), hs.quantize(_network(), "int4")
    one, few = (hs.estimate(n, t, input_shape=(1024,)) for n, t in ((plain, hs.Digital("h200", precision="bf16")), (small, "h200")))  # fmt: skip  # noqa: E501
    assert few.mapping["weights_bytes"] == pytest.approx(4.25 / 16 * one.mapping["weights_bytes"], rel=0.01)
    assert few.latency_s.nominal <= one.latency_s.nominal
    # a large batch is bound by products, which stay those of bf16
    many = [hs.estimate(n, t, input_shape=(1024,), batch=65536).latency_s.nominal for n, t in ((plain, hs.Digital("h200", precision="bf16")), (small, "h200"))]  # fmt: skip  # noqa: E501
    assert many[1] == pytest.approx(many[0], rel=0.05)


def test_eight_bits_multiply_faster_where_the_card_has_a_peak():
    plain, small = _network(), hs.quantize(_network(), "int8")
    bf16 = hs.estimate(plain, hs.Digital("h200", precision="bf16"), input_shape=(1024,), batch=65536)
    assert hs.estimate(small, "h200", input_shape=(1024,), batch=65536).latency_s.nominal < 0.8 * bf16.latency_s.nominal


def test_bits_save_nothing_on_crossbars():
    a, b = (hs.estimate(n, "pcm-hermes", input_shape=(1024,)) for n in (_network(), hs.quantize(_network(), "int4")))
    assert (b.energy_j, b.latency_s) == (a.energy_j, a.latency_s)


def test_a_quantized_network_takes_no_precision_beside():
    small = hs.quantize(_small(), "int4")
    for call in (
        lambda: hs.convert(small, hs.Digital("h200", precision="bf16")),
        lambda: hs.estimate(small, "h200", precision="bf16", input_shape=(256,)),
        lambda: hs.estimate(small, hs.Digital("h200", precision="int8"), input_shape=(256,)),
        lambda: hs.estimate(small, "h200", weights="int8", input_shape=(256,)),
    ):
        with pytest.raises(hs.HpmlError, match="the network is quantized"):
            call()
