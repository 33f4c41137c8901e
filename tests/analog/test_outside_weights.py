"""Layers and weights kept in containers, closures, defaults and globals.

They lie on the crossbar where they are the network's own, and are named where torch does not know them. What a chip
multiplies with is held against plain float64 numpy.
"""

from __future__ import annotations

import collections
import functools
import types
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hpml_sim as hs

IDEAL = hs.Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal", output_noise=0.0)
torch.manual_seed(0)
GLOBAL_LAYER, GLOBAL_WEIGHT, GLOBAL_LIST = nn.Linear(6, 6), torch.randn(6, 6), [nn.Linear(6, 6)]


def global_function(h):
    return F.linear(h, GLOBAL_WEIGHT)


@dataclass
class Held:
    layer: Any
    others: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Slots:
    layer: Any


@dataclass(frozen=True)
class Frozen:
    layer: Any


class Net(nn.Module):
    """Three layers; how the second one is reached is the case's."""

    def __init__(self, keep, call) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.kept, self.call = keep(self.b), call

    def forward(self, x):
        return self.c(self.call(self.kept, self.a(x)))


def over(layer):
    return lambda h: layer(h)


LAYERS: dict[str, tuple[Any, Any]] = {
    "list": (lambda b: [b], lambda k, h: k[0](h)),
    "nested": (lambda b: {"x": [({"y": (b,)},)]}, lambda k, h: k["x"][0][0]["y"][0](h)),
    "dataclass": (lambda b: Held(None, {"q": [Held(b)]}), lambda k, h: k.others["q"][0].layer(h)),
    "slots": (Slots, lambda k, h: k.layer(h)),
    "frozen": (Frozen, lambda k, h: k.layer(h)),
    "deque": (lambda b: collections.deque([b]), lambda k, h: k[0](h)),
    "chain map": (lambda b: collections.ChainMap({"a": b}), lambda k, h: k["a"](h)),
    "namespace": (lambda b: types.SimpleNamespace(one=b), lambda k, h: k.one(h)),
    "partial": (lambda b: functools.partial(lambda h, own: own(h), own=b), lambda k, h: k(h)),
    "default": (lambda b: lambda h, own=b: own(h), lambda k, h: k(h)),
    "default by name": (lambda b: lambda h, *, own=[b]: own[0](h), lambda k, h: k(h)),
    "closures": (lambda b: over(over(b)), lambda k, h: k(h)),
    "method": (lambda b: b.forward, lambda k, h: k(h)),
    "weak": (weakref.ref, lambda k, h: k()(h)),
}
WEIGHTS: dict[str, tuple[Any, Any]] = {
    "in a list": (lambda b: [b.weight], lambda k, h: F.linear(h, k[0])),
    "in a closure": (lambda b: over(functools.partial(F.linear, weight=b.weight)), lambda k, h: k(h)),
    "in slots": (lambda b: Slots(b.weight), lambda k, h: F.linear(h, k.layer)),
    "turned round": (lambda b: b.weight.T, lambda k, h: h @ k),
    "turned round in a list": (lambda b: [b.weight.t()], lambda k, h: h @ k[0]),
    "as data": (lambda b: [b.weight.data], lambda k, h: F.linear(h, k[0])),
}
OUTSIDE: dict[str, tuple[Any, Any, str]] = {
    "list": (lambda b: [b, nn.Linear(6, 6)], lambda k, h: k[1](k[0](h)), "kept[1]"),
    "dataclass": (lambda b: {"a": Held(nn.Linear(6, 6))}, lambda k, h: k["a"].layer(h), "kept['a'].layer"),
    "slots": (lambda b: Slots(nn.Linear(6, 6)), lambda k, h: k.layer(h), "kept.layer"),
    "closure": (lambda b: over(nn.Linear(6, 6)), lambda k, h: k(h), "kept.layer"),
    "default": (lambda b: lambda h, own=nn.Linear(6, 6): own(h), lambda k, h: k(h), "kept.own"),  # noqa: B008
    "global layer": (lambda b: None, lambda k, h: GLOBAL_LAYER(h), "call.GLOBAL_LAYER"),
    "global list": (lambda b: None, lambda k, h: GLOBAL_LIST[0](h), "call.GLOBAL_LIST[0]"),
}
TENSORS: dict[str, tuple[Any, Any, str]] = {
    "attribute": (lambda b: torch.randn(6, 6), lambda k, h: h @ k, "kept"),
    "list": (lambda b: [torch.randn(6, 6)], lambda k, h: h @ k[0], "kept[0]"),
    "partial": (lambda b: functools.partial(F.linear, weight=torch.randn(6, 6)), lambda k, h: k(h), "kept['weight']"),
    "global": (lambda b: None, lambda k, h: F.linear(h, GLOBAL_WEIGHT), "call.GLOBAL_WEIGHT"),
    "global function": (lambda b: None, lambda k, h: global_function(h), "call.global_function.GLOBAL_WEIGHT"),
}


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(16, 8)


@pytest.mark.parametrize("name", [*LAYERS, *WEIGHTS])
def test_what_is_the_networks_own_lies_on_the_crossbar(name, x):
    keep, call = (LAYERS | WEIGHTS)[name]
    net = Net(keep, call)
    chips = hs.program(hs.convert(net, IDEAL), chips=2, seed=0)
    y = x.double().numpy()
    for layer in "abc":
        y = y @ chips.weights(layer, "1 day")[1].double().numpy().T
        if layer != "b" or name in LAYERS:
            y = y + getattr(net, layer).bias.detach().double().numpy()
    np.testing.assert_allclose(chips.at("1 day")(x)[1].double().numpy(), y, atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.filterwarnings("ignore:calibrate. .b.")
def test_layers_that_torch_does_not_know_are_rows_and_are_named(name, x):
    keep, call, place = OUTSIDE[name]
    analog = hs.convert(Net(keep, call), "pcm-hermes")
    row = analog.report.set_index("layer").loc[place]
    assert (row["was"], row["became"]) == ("Linear", "digital")
    assert "no part of the network" in row["why"]
    with pytest.warns(RuntimeWarning) as said:
        hs.calibrate(analog, x)
    assert any(f"no part of the network: {place}" in str(one.message) for one in said)


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("first", ["calibrate", "workload"])
@pytest.mark.filterwarnings("ignore:(calibrate|workload). .b.")
def test_tensors_that_torch_does_not_know_are_named_where_they_are_multiplied_with(name, first, x):
    keep, call, place = TENSORS[name]
    analog = hs.convert(Net(keep, call), "pcm-hermes")
    with pytest.warns(RuntimeWarning) as said:
        _ = hs.calibrate(analog, x) if first == "calibrate" else hs.workload(analog, data=x)
    assert any(f"no part of the network: {place} (6, 6)" in str(one.message) for one in said)


def test_copies_of_a_network_keep_views_of_their_own_weights():
    net = Net(*WEIGHTS["turned round"])
    copied: Any = hs.convert(net, "pcm-hermes").network
    assert copied.kept.data_ptr() == copied.b.weight.data_ptr() != net.b.weight.data_ptr()
