"""Slips in calls of `convert`: one line that names the argument, the value and what is allowed."""

from __future__ import annotations

import pytest
from torch import nn

import hpml_sim as hs
from hpml_sim.errors import HpmlError, UnknownNameError


def net():
    return hs.models.mlp(8, 4, 2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: hs.convert("mlp", "pcm"), r"convert: model='mlp': must be a network .*hs\.models\.build\('mlp'"),
        (lambda: hs.convert(None, "pcm"), r"convert: model=None: must be a network \(torch\.nn\.Module\)"),
        (lambda: hs.convert(nn.ReLU, "pcm"), r"this is its class: call it, ReLU\(\.\.\.\)"),
        (lambda: hs.convert(net(), 3), "target=3: give a card's name, such as 'pcm-hermes', or a target"),
        (lambda: hs.convert(net(), None), "target=None: give a card's name"),
        (lambda: hs.convert(net(), hs.Analog), "target: Analog is a class; call it"),
        (lambda: hs.convert(net(), "pcm-hermse"), "unknown card 'pcm-hermse'. Did you mean 'pcm-hermes'"),
        (lambda: hs.convert(net(), {}), "must name at least one layer"),
        (lambda: hs.convert(net(), {"1": 3}), "target=3: give a card's name"),
        (lambda: hs.convert(net(), {1: "pcm"}), "unknown layer in target= 1"),
        (lambda: hs.convert(net(), {"1": "cpu"}), r"only crossbars can be chosen layer by layer, each an hs\.Analog"),
        (
            lambda: hs.convert(net(), "pcm", only=3),
            "only=3: must be names of layers, such as '1'|only=3: must be names",
        ),
        (lambda: hs.convert(net(), "pcm", only=nn.Linear), "such as lambda name, module: isinstance"),
        (lambda: hs.convert(net(), "pcm", skip=nn.ReLU()), "skip=<ReLU>: must be names of layers"),
        (lambda: hs.convert(net(), "pcm", skip=[3]), "unknown layer in skip= 3"),
        (lambda: hs.convert(net(), "pcm", skip="4"), "unknown layer in skip= '4'. Known: 0, 1, 2, 3"),
    ],
)
def test_slips(call, said):
    with pytest.raises(HpmlError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "Unknown" not in type(caught.value).__name__ or isinstance(caught.value, UnknownNameError)


def test_layers_of_their_own_may_be_trained_in_memory():
    both = hs.convert(net(), {"1": hs.InMemory("pcm", device="ecram"), "3": hs.InMemory("pcm", device="capacitor")})
    assert list(both.report["became"]) == ["digital", "aihwkit.AnalogLinear", "digital", "aihwkit.AnalogLinear"]
