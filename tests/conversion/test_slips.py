"""What a caller of `convert` or of a target writes by mistake: the message has the call that was meant."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.errors import HpmlError

NET = hs.models.mlp(6, 4, 3)


def split(width: int) -> TensorDataset:
    return TensorDataset(torch.rand(4, width), torch.arange(4))


SLIPS = [
    (lambda: hs.convert(NET, "pcm-hermes", adc_bits=4), "hs.Analog('pcm-hermes', adc_bits=4)"),
    (lambda: hs.convert(NET, "loihi", steps=4), "hs.Spiking('loihi', steps=4)"),
    (lambda: hs.convert(NET, hs.Analog), "hs.Analog('pcm-hermes')"),  # type: ignore[arg-type]
    (lambda: hs.Spiking("loihi", neuron=hs.spiking.Leaky), "neuron=Leaky()"),  # type: ignore[arg-type]
    (lambda: hs.convert("pcm-hermes", NET), "wrong order"),  # type: ignore[arg-type]
    (lambda: hs.convert(NET, {"nosuch": "pcm-hermes"}), "Known: 1, 3."),
    (lambda: hs.register_target(hs.Analog)(lambda network, target, wanted: network), "built-in"),  # type: ignore[arg-type]
    (lambda: hs.Range(1, float("inf")), "Range: high=inf"),
    (lambda: hs.Range("a", "b"), "high='b'"),  # type: ignore[arg-type]
    (lambda: hs.Analog("pcm-hermes", "aihwkit"), "write engine='aihwkit'"),  # type: ignore[call-arg]
    (lambda: hs.Spiking("loihi", 25), "write steps=25"),  # type: ignore[call-arg]
    (lambda: hs.spiking.Leaky(0.9), "write beta=0.9"),  # type: ignore[call-arg]
    (lambda: hs.Spiking("loihi", encoder="poisson"), "did you mean 'rate'"),  # type: ignore[arg-type]
    (lambda: hs.Data(3, split(6), split(6), (6,), 4), "Data: name=3"),  # type: ignore[arg-type]
    (lambda: hs.load_data((split(6), split(3))), "test inputs (3,)"),
    (lambda: hs.download_data("digits"), "no download"),
]


@pytest.mark.parametrize(("call", "part"), SLIPS)
def test_the_message_has_what_was_meant(call, part):
    with pytest.raises(HpmlError) as caught:
        call()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["foo", "nosuch"])
def test_only_a_built_in_network_is_offered_by_name(model):
    with pytest.raises(HpmlError) as caught:
        hs.convert(model, "pcm-hermes")  # type: ignore[arg-type]
    assert "models.build" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "/tmp", "x" * 300])
def test_an_unknown_card_does_not_list_all_cards(name):
    with pytest.raises(HpmlError) as caught:
        hs.Analog(name)
    assert len(str(caught.value)) < 200
    assert "hpml-sim cards" in str(caught.value)


@pytest.mark.parametrize("module", [hs, hs.models, hs.nn, hs.spiking, hs.baselines])
def test_a_public_module_shows_its_public_names_alone(module):
    assert sorted(name for name in dir(module) if not name.startswith("__")) == sorted(module.__all__)
