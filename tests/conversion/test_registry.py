"""A kind of hardware of one's own: a configuration class and a converter."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.conversion import registry
from hpml_sim.errors import HpmlError


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(registry, "_CONVERTERS", dict(registry._CONVERTERS))


def test_a_registered_class_is_a_target():
    @dataclass(frozen=True)
    class Scaled:
        by: float

    @hs.register_target(Scaled)
    def scale(network, target, wanted):
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Linear) and wanted(name, layer):
                layer.weight.data *= target.by
        return hs.Converted(network, target, ())

    net = hs.models.mlp(4, 3, 2)
    made = hs.convert(net, Scaled(2.0), skip="3")
    assert torch.equal(made.network[1].weight, 2 * net.get_parameter("1.weight"))
    assert torch.equal(made.network[3].weight, net[3].weight)
    assert made.network[3].weight is not net[3].weight


@pytest.mark.parametrize(("config", "given"), [(3, "3"), ("Analog", "'Analog'"), (hs.Analog("pcm"), "<Analog>")])
def test_only_a_class_can_be_registered(config, given):
    with pytest.raises(HpmlError, match=rf"^register_target: config={given}: must be a class"):
        hs.register_target(config)


def test_a_converter_can_be_called():
    with pytest.raises(HpmlError, match="conversion function=3: must be a function"):
        hs.register_target(int)(3)
    assert int not in registry._CONVERTERS


def test_an_instance_of_a_class_that_nothing_converts_for():
    with pytest.raises(HpmlError, match="nothing converts for a float"):
        registry.converter_of(3.5)
