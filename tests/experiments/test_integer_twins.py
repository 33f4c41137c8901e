"""Beside every spiking row stands the same network in integers that carry as much, on digital machines."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.experiments.integer_twins import twin_bits
from hpml_sim.experiments.result import Comparison

QUICK = {"epochs": 6, "finetune_epochs": 2, "seeds": 1}


@pytest.mark.parametrize(
    ("card", "steps", "bits"),
    # 3 steps tell one of 4 numbers: 2 bits; 4 steps one of 5: 3 bits. Loihi's weights have 8 bits, ODIN's 4
    [
        ("loihi-2", 3, (8, 2)), ("loihi-2", 4, (8, 3)), ("loihi-2", 1, (8, 1)), ("odin", 25, (4, 5)),
        ("loihi", 4000, (8, 8)),
    ],
)  # fmt: skip
def test_bits_are_those_of_equal_information(card, steps, bits):
    assert twin_bits(hs.Spiking(card, steps=steps)) == bits


@pytest.fixture(scope="module")
def run() -> Comparison:
    targets = {"cpu": "cpu", "few": hs.Spiking("loihi-2", steps=3), "many": hs.Spiking("loihi-2", steps=15)}
    return hs.compare("mlp", "digits", targets, **QUICK)


def test_a_twin_for_each_number_of_bits_on_each_digital_card(run):
    twins = [row for row in run.rows if "twin" in row.target]
    assert [row.target for row in twins] == ["cpu, integer twin of few", "cpu, integer twin of many"]
    said = [row.compression for row in twins]
    assert said == ["int8 (weights of 8, inputs of 2 bits)", "int8 (weights of 8, inputs of 4 bits)"]
    for row in twins:
        assert row.estimates
        assert row.training is not None
        assert row.training.finetune_epochs == 2  # as the spiking rows were
        assert row.measurements == []
        assert row.score is not None
        assert row.score.mean > 0.8


def test_inputs_of_layers_have_as_many_levels_as_spikes_tell_apart():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), torch.rand(5, 16)
    twin = hs.quantize(net, "int8", weight_bits=4, input_bits=2)
    seen: list[torch.Tensor] = []
    twin[2].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    twin(x)
    for vector in seen[0]:
        assert len(vector.unique()) <= 4
        assert bool(torch.isclose(vector.max(), twin[1](twin[0](x)).max(1).values, atol=1e-6).any())
    for row in twin[0].weight.detach():
        assert len(row.unique()) <= 15
    signed = hs.quantize(nn.Linear(16, 4, bias=False), "int8", input_bits=3)
    signed.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    signed(torch.randn(5, 16))
    assert all(len(vector.unique()) <= 7 for vector in seen[-1])


def test_without_a_digital_machine_an_accelerator_of_integers_has_it():
    rows = hs.compare("mlp", "digits", ["odin"], epochs=0, finetune_epochs=0).rows
    assert [row.target for row in rows] == ["odin", "hailo-8, integer twin of odin"]
    assert rows[1].estimates[0].card == "hailo-8"
    assert any("computed in int8" in sentence for sentence in rows[1].estimates[0].assumptions)


def test_no_twin_where_there_is_no_integer_network():
    quick = {"epochs": 0, "finetune_epochs": 0}
    quantized = hs.compare(hs.quantize(hs.models.mlp(64, 32, 10)), "digits", ["loihi"], **quick)
    assert [row.target for row in quantized.rows] == ["loihi"]
    asked = hs.compare("mlp", "digits", ["loihi"], quantize="int8", **quick)
    assert [row.target for row in asked.rows] == ["loihi"]
    no_spikes = hs.compare("mlp", "digits", ["cpu"], **quick)
    assert [row.target for row in no_spikes.rows] == ["cpu"]
