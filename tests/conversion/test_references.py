"""What stands in the place of a layer stands there wherever the network keeps it."""

import functools
import types
from typing import Any

import pytest
import torch
from torch import nn

from hpml_sim.analog import calibrate, program
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.conversion.cloning import clone
from hpml_sim.targets import Analog


class Helper:
    def __init__(self, layers):
        self.layers = layers

    def run(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def _in_a_default(first):
    def call(x, layer: Any = first, *, then=torch.relu):
        return then(layer(x))

    return call


def _itself(first):
    def call(x, again=True):
        return call(first(x), again=False) if again else x

    return call


WAYS = {
    "lambda": lambda net: lambda x: net.b(net.a(x)),
    "dict in a closure": lambda net: (lambda layers: lambda x: layers["b"](layers["a"](x)))({"a": net.a, "b": net.b}),
    "default": lambda net: (lambda first: lambda x: net.b(first(x)))(_in_a_default(net.a)),
    "function that holds itself": lambda net: (lambda first: lambda x: net.b(first(x)))(_itself(net.a)),
    "partial": lambda net: functools.partial(lambda a, x, b: b(a(x)), net.a, b=net.b),
    "bound method of a plain object": lambda net: Helper([net.a, net.b]).run,
    "bound method of a layer": lambda net: (lambda a, b: lambda x: b(a(x)))(net.a.forward, net.b.forward),
    "method of the network": lambda net: types.MethodType(lambda self, x: self.b(self.a(x)), net),
    "partial of a list": lambda net: functools.partial(lambda layers, x: layers[1](layers[0](x)), [net.a, net.b]),
    "tuple of tuples": lambda net: (lambda pairs: lambda x: pairs[1][0](pairs[0][0](x)))(((net.a,), (net.b,))),
}


class Net(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)
        self.call = WAYS[way](self)

    def forward(self, x):
        return self.call(x)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_calls_its_own_layers_and_leaves_the_original_alone(way):
    torch.manual_seed(0)
    net, x = Net(way), torch.randn(5, 8)
    want = net(x).detach()
    copied = clone(net)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(copied(x), torch.zeros(5, 4))
    assert torch.equal(net(x), want)
    copied(x).sum().backward()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(parameter.grad is not None for parameter in copied.parameters())


@pytest.mark.parametrize("way", WAYS)
def test_crossbars_are_at_work_wherever_a_layer_is_kept(way):
    torch.manual_seed(0)
    net, x = Net(way), torch.randn(64, 8)
    model = convert(net, Analog("pcm-hermes"))
    calibrate(model, x)
    assert all(crossbar.calibrated for crossbar in crossbars(model).values())
    first, second = program(model, chips=2).at("1 day")(x)
    assert (first - second).norm() > 0.03 * net(x).norm()


def test_genuine_chips_are_at_work_wherever_a_layer_is_kept():
    torch.manual_seed(0)
    net, x = Net("lambda"), torch.randn(64, 8)
    model = convert(net, Analog("pcm", engine="aihwkit"))
    calibrate(model, x)
    first, second = program(model, chips=2).at("1 day")(x)
    assert (first - second).norm() > 0.01 * net(x).norm()


def test_layers_in_plain_lists_tuples_dicts_sets_and_objects_are_replaced():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net.kept = {"list": [net[0]], "tuple": (net[0], (net[1],)), "object": Helper([net[1]]), net[0]: {net[1]}}
    model = convert(net, Analog("pcm-hermes"))
    a, b = model.network.children()
    kept = model.network.kept
    assert kept["list"] == [a]
    assert kept["tuple"] == (a, (b,))
    assert kept["object"].layers == [b]
    assert kept[a] == {b}
    assert list(kept) == ["list", "tuple", "object", a]


def test_functions_that_know_nothing_of_the_network_are_shared():
    seen = []
    net = nn.Sequential(nn.Linear(4, 4))
    net.note = seen.append
    net.scale = functools.partial(torch.mul, other=2)
    net.key = lambda x: seen
    copied = clone(net)
    assert copied.key is net.key


def test_a_hook_goes_on_telling_the_object_that_collects():
    class Collector:
        def __init__(self, network):
            self.network, self.seen = network, []
            network[0].register_forward_hook(lambda _module, _inputs, y: self.seen.append(y.shape))

    net = nn.Sequential(nn.Linear(4, 4))
    collector = Collector(net)
    convert(net, Analog("pcm-hermes"))(torch.rand(2, 4))
    assert collector.seen == [(2, 4)]


def test_a_hook_that_knows_the_whole_network_is_copied_once():
    """torch wraps it in an object that holds its layer weakly, and copies of weak references know no end."""
    net, modes = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), []
    for _, module in net.named_modules():
        module.register_forward_hook(lambda _module, _inputs, _y: modes.append(net.training))
    analog = convert(net, Analog("pcm-hermes")).eval()
    analog(torch.rand(2, 4))
    assert len(modes) == 3
    assert program(analog, chips=2, seed=0).at("1 s")(torch.rand(2, 4)).shape == (2, 2, 4)


def test_a_hook_that_runs_another_layer_runs_that_of_the_copy():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    adapter = net[1]
    net[0].register_forward_hook(lambda _module, _inputs, y: adapter(y))
    copied = clone(net)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert not copied(torch.rand(2, 4)).any()


def test_what_cannot_be_copied_beside_the_network_stays_the_users():
    class Locked:
        def __init__(self, network):
            self.network = network

        def __deepcopy__(self, memo):
            raise TypeError("a lock")

    net = nn.Sequential(nn.Linear(4, 4))
    locked = Locked(net)
    net.tell = lambda: locked
    assert clone(net).tell() is locked
