"""Calls of neurons, encoders and spiking networks with what they cannot take."""

from __future__ import annotations

import inspect

import pytest
import torch

import hpml_sim as hs
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.spiking.time_folding import TimeFolded

NET = hs.models.mlp(64, 16, 10)


@pytest.mark.parametrize("given", ["x", 3, None, [1.0]])
@pytest.mark.parametrize(
    "module",
    [
        hs.spiking.LeakyNeurons(0.9),
        hs.spiking.LapicqueNeurons(),
        hs.spiking.DirectEncoder(4),
        hs.spiking.RateEncoder(4),
        hs.spiking.LatencyEncoder(4),
        hs.spiking.PopulationEncoder(4),
        hs.spiking.FramesEncoder(4),
        hs.spiking.DeltaEncoder(4),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_is_no_tensor_is_refused(module, given):
    with pytest.raises(HpmlError, match=rf"^{type(module).__name__}: input=.*must be a tensor"):
        module(given)


def test_a_batch_must_divide_into_the_chips():
    with pytest.raises(HpmlError, match=r"^DirectEncoder: input of shape \(3, 2\).*multiple of the 2 chip"):
        hs.spiking.DirectEncoder(4, chips=2)(torch.rand(3, 2))


def test_a_spiking_network_says_which_input_it_takes():
    model = hs.convert(NET, hs.Spiking("loihi", steps=3))
    with pytest.raises(HpmlError, match=r"^SpikingModel: .*shape \(2, 3\).*64"):
        model(torch.rand(2, 3))
    with pytest.raises(HpmlError, match=r"^SpikingModel: .*shape \(2, 3\).*64"):
        hs.spiking.firing_rates(model, torch.rand(2, 3))


@pytest.mark.parametrize("target", ["pcm-hermes", hs.Spiking("loihi", steps=3)])
def test_a_converted_network_takes_no_text(target):
    with pytest.raises(HpmlError, match=r"input='x': must be a tensor"):
        hs.convert(NET, target)("x")


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for name in dir(hs.spiking)
        if inspect.isclass(kind := getattr(hs.spiking, name))
        and issubclass(kind, TimeFolded)
        and name.endswith(("Neurons", "Encoder", "Integrators"))
    ],
)
def test_an_unknown_option_is_named(kind):
    with pytest.raises(UnknownNameError, match=rf"^unknown option of {kind.__name__} 'nonsense'"):
        kind(nonsense=3)


def test_checked_options_keep_their_signature():
    assert "seed" in inspect.signature(hs.spiking.RateEncoder).parameters
    assert "reset_delay" in inspect.signature(hs.spiking.LeakyNeurons).parameters
