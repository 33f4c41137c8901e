"""A target brings what it says of the machine: its card, precision, engine, converter bits and slices."""

from __future__ import annotations

import pytest
import torch

import hpml_sim as hs
from hpml_sim import models
from hpml_sim.cards import CrossbarCard, load_card
from hpml_sim.conversion import convert
from hpml_sim.cost import estimate
from hpml_sim.counting import workload
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.targets import Analog, Digital, InMemory, PerLayer, Spiking

from .machines import mlp, snn

NETWORK = mlp(300, 200, 10)


@pytest.mark.parametrize(
    ("target", "card", "options"),
    [
        (Digital("h200"), "h200", {}),
        (Digital("h200", precision="bf16"), "h200", {"precision": "bf16"}),
        (Digital("h200", engine="cuda-graph"), "h200", {"engine": "cuda-graph"}),
        (Analog("pcm-hermes"), "pcm-hermes", {}),
        (Analog("pcm-hermes", adc_bits=6), "pcm-hermes", {"output_bits": 6}),
        (Analog("reram-neurram", dac_bits=4, adc_bits=6), "reram-neurram", {"input_bits": 4, "output_bits": 6}),
        (InMemory("pcm-hermes", device="ecram"), "pcm-hermes", {}),
    ],
)
def test_a_target_gives_what_its_options_give(target, card, options):
    assert estimate(NETWORK, target) == estimate(NETWORK, card, **options)


def test_a_spiking_target_runs_on_its_card_or_on_the_crossbars_of_its_synapses():
    spikes = snn(100, 50)
    assert estimate(spikes, Spiking("loihi")) == estimate(spikes, "loihi")
    assert estimate(spikes, Spiking("loihi", synapses=Analog("pcm-hermes"))) == estimate(spikes, "pcm-hermes")


def test_slices_take_columns_of_their_own():
    target = Analog("pcm-hermes", levels=16, slices=3)
    assert estimate(mlp(100, 100), target).mapping["tiles"] == 2  # 300 columns on tiles of 256
    card = load_card("pcm-hermes")
    assert isinstance(card, CrossbarCard)
    assert card.array.cells_per_weight.value == 1  # the card itself stays what it is


def test_bits_that_no_figure_follows_are_said_and_the_card_s_are_taken():
    found = estimate(NETWORK, Analog("pcm-hermes", dac_bits=4))
    own = estimate(NETWORK, "pcm-hermes")
    assert found.energy_j == own.energy_j
    assert found.assumptions == (
        *own.assumptions,
        "dac_bits=4 of the target: no figure of card 'pcm-hermes' follows it; energy, time and area are with the "
        "card's 8",
    )


@pytest.mark.parametrize("option", [{"precision": "bf16"}, {"engine": "torch"}])
def test_what_a_target_decides_is_not_given_twice(option):
    with pytest.raises(HpmlError, match=rf"{next(iter(option))}=.*Digital\('h200', ...\) decides it"):
        estimate(NETWORK, Digital("h200"), **option)


def test_other_options_go_with_a_target():
    assert estimate(NETWORK, Analog("pcm-hermes"), chips=3).mapping["chips"] == 3
    with pytest.raises(HpmlError, match="mode: not for card 'h200'"):
        estimate(NETWORK, Digital("h200"), mode="preset")


@pytest.mark.parametrize("target", [3, None, {"0": Analog("pcm")}, ["h200"], PerLayer({"0": Analog("pcm")}), Digital])
def test_what_is_no_target_is_refused_on_one_line(target):
    with pytest.raises(HpmlError, match=r"estimate: target=.*must be a card's name.*, or a target") as refusal:
        estimate(NETWORK, target)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": True}, "batch=True: must be a whole number from 1 to 2\\^31 - 1"),
        ({"batch": "3"}, "batch='3': must be a whole number from 1 to 2\\^31 - 1"),
        ({"chips": "3"}, "chips='3': must be a whole number from 1 to 2\\^31 - 1"),
        ({"chips": 0}, "chips=0"),
        ({"input_bits": 4.0}, r"input_bits=4\.0"),
        ({"output_bits": "six"}, "output_bits='six'"),
        ({"engine": "cudagraph"}, "engine='cudagraph': unknown; did you mean 'cuda-graph'"),
    ],
)
def test_slips_in_options_are_refused_before_anything_is_computed(options, said):
    with pytest.raises(HpmlError, match=said):
        estimate(NETWORK, "pcm-hermes", **options)


def test_a_layer_that_does_not_exist_gets_the_nearest_name():
    names = [layer.name for layer in NETWORK.layers]
    with pytest.raises(UnknownNameError, match=f"Did you mean '{names[0]}'"):
        estimate(NETWORK, "pcm-hermes", digital_layers=[names[0] + "x"])
    assert estimate(NETWORK, "pcm-hermes", digital_layers=names[0]).mapping["digital_macs"] == 300 * 200


def test_layers_that_conversion_left_digital_are_charged_as_digital():
    model = convert(models.mlp(64, 32, 10), Analog("pcm-hermes"), skip=["3"])
    counts = workload(model, data=torch.rand(2, 1, 8, 8))
    found = estimate(counts, model.target)
    assert found.mapping["analog_macs"] == 64 * 32
    assert found.mapping["digital_macs"] == 32 * 10
    (said,) = [sentence for sentence in found.excluded if "% of the MACs" in sentence]
    assert said.endswith("digital layers): network.3")


def test_a_card_of_integers_named_alone_means_its_integers():
    for card in ("hailo-8", "northpole"):
        assert hs.Digital(card).precision == "int8"
        assert "precision='int8'" in repr(hs.Digital(card))
        counts = hs.workload(hs.models.mlp(784, 128, 10), input_shape=(1, 28, 28))
        alone, named = (hs.estimate(counts, target) for target in (card, hs.Digital(card)))
        assert alone.energy_j == named.energy_j
        for found in (alone, named, hs.estimate("resnet18", card)):
            assert f"arithmetic in int8: card {card!r} has no fp32" in found.assumptions
    assert hs.Digital("h200").precision == "fp32"
    with pytest.raises(HpmlError, match="has a peak for int8 only; leave precision out") as raised:
        hs.Digital("hailo-8", precision="fp32")
    assert "\n" not in str(raised.value)


def test_layers_in_a_pipeline_work_on_several_inferences_at_once():
    """Hailo's own run: 2.936 ms from an image to its classes, and 1,329 images a second."""
    found = hs.estimate("resnet50", "hailo-8")
    assert found.latency_s.nominal * found.throughput_hz.nominal == pytest.approx(3.9)
    assert found.latency_s.low >= found.throughput_hz.inverse().low
    # what waits between inferences is what the machine, and not an image, has left
    slow = hs.estimate("resnet50", "hailo-8", rate_hz=100.0)
    assert slow.by_component()["waiting"].nominal == pytest.approx(0.5 * (0.01 - 1 / found.throughput_hz.nominal))
