"""hs.estimate of networks: which input it takes, what it refuses, and that it leaves the network as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.cards import load_card
from hpml_sim.errors import HpmlError


def analog(**options):
    torch.manual_seed(0)
    return hs.convert(hs.models.mlp(64, 32, 10), hs.Analog("pcm-hermes"), **options)


def named(found):
    return next(sentence for sentence in found.assumptions if "last call" in sentence)


def test_without_a_shape_it_takes_the_last_call_s_and_names_it():
    model, x = analog(), torch.rand(6, 1, 8, 8)
    data = TensorDataset(x, torch.randint(0, 10, (6,)))
    seen = {
        "a call": lambda m: m(x),
        "calibrate": lambda m: hs.calibrate(m, x),
        "fit": lambda m: hs.fit(m, data, epochs=1, show_progress=False),
        "evaluate": lambda m: hs.evaluate(m, data),
    }
    for call in seen.values():
        fresh = copy.deepcopy(model)
        call(fresh)
        found = hs.estimate(fresh)
        assert "(1, 8, 8)" in named(found)
        assert found.energy_j == hs.estimate(fresh, input_shape=(1, 8, 8)).energy_j
        assert "(1, 8, 8)" in named(hs.estimate(copy.deepcopy(fresh)))


def test_the_last_of_several_shapes_counts():
    class Any1d(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 4, 3)

        def forward(self, x, scale=1.0, more=None):
            return self.conv(x + (0 if more is None else more)).mean(-1) * scale

    model = hs.convert(Any1d(), "pcm-hermes")
    model(torch.rand(5, 2, 16))
    model(torch.rand(5, 2, 32), scale=2.0, more=torch.rand(5, 2, 32))
    assert hs.estimate(model).mapping["analog_macs"] == 30 * 6 * 4
    assert "(2, 32)" in named(hs.estimate(model))


@pytest.mark.parametrize("ask", [{}, {"input_shape": (1, 8, 8)}, {"data": torch.rand(2, 1, 8, 8)}])
def test_the_network_is_left_as_it_was(ask):
    model = analog()
    model(torch.rand(3, 64))
    before, mode = copy.deepcopy(model.state_dict()), model.training
    hs.estimate(model, **ask)
    assert str(model.last_input) == "(64,)"
    assert model.training == mode
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_plain_network_is_estimated_on_every_kind_of_machine():
    net, x = hs.models.mlp(64, 32, 10), torch.rand(4, 1, 8, 8)
    for target in ("cpu", hs.Digital("h200", precision="bf16"), load_card("cpu")):
        assert hs.estimate(net, target, data=x).energy_j == hs.estimate(hs.workload(net, data=x), target).energy_j
    assert hs.estimate(net, "h200", precision="bf16", batch=4, input_shape=(64,)).batch == 4
    spiking = hs.convert(net, hs.Spiking("loihi", steps=4))
    assert hs.estimate(net, hs.Spiking("loihi", steps=4), data=x).energy_j == hs.estimate(spiking, data=x).energy_j


def test_layers_by_their_names_are_a_target():
    net = hs.models.mlp(64, 32, 10)
    found = hs.estimate(net, {"1": "pcm-hermes"}, input_shape=(64,))
    assert (found.mapping["analog_macs"], found.mapping["digital_macs"]) == (64 * 32, 32 * 10)


def test_a_layer_that_was_not_called_keeps_its_tiles_and_is_named():
    class ByHand(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.out = nn.Linear(64, 64), nn.Linear(64, 10)

        def forward(self, x):
            return self.out(x)

    model = hs.convert(ByHand(), "pcm-hermes")
    with pytest.warns(RuntimeWarning, match="'a': on crossbars"):
        found = hs.estimate(model, input_shape=(64,))
    assert found.mapping["tiles"] == model.mapping.tiles == 2
    assert (found.mapping["analog_macs"], found.mapping["digital_macs"]) == (640, 0)
    assert any("'network.a' takes tiles and spends no energy" in sentence for sentence in found.assumptions)


def test_counts_of_a_network_that_was_not_converted_say_where_a_conversion_differs():
    net = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    counts = hs.workload(net, input_shape=(4, 16))
    found = hs.estimate(counts, "pcm-hermes")
    assert any("self_attn.in_proj" in s and "not converted" in s for s in found.assumptions)
    plain = hs.estimate(hs.workload(hs.models.mlp(64, 10), input_shape=(64,)), "pcm-hermes")
    assert not any("not converted" in sentence for sentence in plain.assumptions)


X = torch.rand(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda m, w, n: hs.estimate(m), "was not called yet.*give input_shape="),
        (lambda m, w, n: hs.estimate(n, "pcm-hermes"), "says nothing of its input; give input_shape="),
        (lambda m, w, n: hs.estimate(n, input_shape=(64,)), "target=None: must be a card's name"),
        (lambda m, w, n: hs.estimate(m, "reram-neurram", input_shape=(64,)), r"converted for Analog\('pcm-hermes'\)"),
        (lambda m, w, n: hs.estimate(w, "reram-neurram"), r"converted for Analog\('pcm-hermes'\); leave target= out"),
        (lambda m, w, n: hs.estimate(w, hs.Analog("pcm-hermes", adc_bits=6)), "leave target= out"),
        (lambda m, w, n: hs.estimate(w, "pcm-hermes", output_bits=6), "output_bits=6: the network was converted for"),
        (lambda m, w, n: hs.estimate(w, digital_layers=["network.1"]), "digital_layers=.*which decides it"),
        (lambda m, w, n: hs.estimate(w, input_shape=(64,)), "are for a network"),
        (lambda m, w, n: hs.estimate(n, load_card("pcm-hermes"), data=X), "a network is converted first"),
        (lambda m, w, n: hs.estimate("mlp", "cpu"), "unknown network 'mlp'"),
        (lambda m, w, n: hs.estimate(n, "pcm-hermes", input_shape=(63,)), "must have 64 values"),
        (lambda m, w, n: hs.estimate(n, "pcm-hermes", input_shape=(64,), data=X), "one of input_shape="),
        (lambda m, w, n: hs.estimate(n, {"1": "pcm-hermes", "3": "isaac"}, input_shape=(64,)), "of different scope"),
        (
            lambda m, w, n: hs.estimate(n, {"1": "pcm-hermes", "3": "reram-neurram"}, input_shape=(64,), chips=2),
            "chips of several cards",
        ),
    ],
)
def test_what_cannot_be_estimated_is_refused_on_one_line(ask, said):
    model = analog()
    with pytest.raises(HpmlError, match=said) as refusal:
        ask(model, hs.workload(model, data=X), hs.models.mlp(64, 32, 10))
    assert "\n" not in str(refusal.value)


def test_its_own_card_by_name_is_the_target_of_a_converted_network():
    model = hs.convert(hs.models.mlp(64, 32, 10), hs.Analog("pcm-hermes", adc_bits=6), skip="3")
    counts = hs.workload(model, data=X)
    assert hs.estimate(counts, "pcm-hermes") == hs.estimate(counts) == hs.estimate(model, data=X)
    assert hs.estimate(counts, load_card("pcm-hermes")) == hs.estimate(counts)


def test_arguments_that_are_not_kept_are_named():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, cache):
            return self.layer(x)

    model = hs.convert(Odd(), "pcm-hermes")
    model(torch.rand(2, 4), object())
    with pytest.raises(HpmlError, match=r"object of class object, which is not kept; give data="):
        hs.estimate(model)
