"""Products with the weights of layers, and layers with a forward or attributes of their own, on the crossbar."""

import functools
import types
import warnings

import pytest
import torch
from torch import nn
from torch._C._dynamo import eval_frame
from torch._dynamo.eval_frame import skip_code
from torch.nn import functional as F

from hpml_sim.analog import calibrate, program
from hpml_sim.analog.conversion import AnalogModel
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.counting import workload
from hpml_sim.targets import Analog, Spiking

PRODUCTS = {
    "F.linear": lambda x, layer: F.linear(x, layer.weight, layer.bias),
    "F.linear by name": lambda x, layer: F.linear(x, bias=layer.bias, weight=layer.weight),
    "F.linear of a view": lambda x, layer: F.linear(x, layer.weight.view(8, 8), layer.bias),
    "x @ W.T": lambda x, layer: x @ layer.weight.T + layer.bias,
    "matmul": lambda x, layer: torch.matmul(x, layer.weight.t()) + layer.bias,
    "method": lambda x, layer: x.matmul(layer.weight.mT) + layer.bias,
    "mm": lambda x, layer: torch.mm(x, layer.weight.T) + layer.bias,
    "addmm": lambda x, layer: torch.addmm(layer.bias, x, layer.weight.T),
    "W @ x.T": lambda x, layer: (layer.weight @ x.T).T + layer.bias,
    "einsum": lambda x, layer: torch.einsum("bi,oi->bo", x, layer.weight) + layer.bias,
    "einsum, weight first": lambda x, layer: torch.einsum("oi,bi->bo", layer.weight, x) + layer.bias,
}


class Functional(nn.Module):
    """Multiplies with the weight of `a` by itself; `product` None calls the layer."""

    def __init__(self, product=None):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)
        self.product = product

    def forward(self, x):
        return self.b((self.a(x) if self.product is None else self.product(x, self.a)).relu())


def chips_of(net, x, **options):
    model = convert(net, Analog("pcm-hermes", **options))
    calibrate(model, x)
    return program(model, chips=2, seed=3).at("1 day")(x)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_with_a_layers_weight_is_the_layers(product):
    x = torch.randn(32, 8)
    assert torch.allclose(chips_of(Functional(PRODUCTS[product]), x), chips_of(Functional(), x), atol=1e-6)


@pytest.mark.parametrize("product", ["F.linear", "x @ W.T"])
def test_training_runs_through_the_crossbar_too(product):
    x, found = torch.randn(32, 8), []
    for net in (Functional(PRODUCTS[product]), Functional()):
        model = convert(net, Analog("pcm-hermes")).train()
        torch.manual_seed(1)
        for _ in range(3):
            model(x).square().sum().backward()
        found.append((model.network.a.weight.grad, int(model.network.a.crossbar.observations)))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] == 3


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({"padding": 1}, {"padding": 1}),
        ({"stride": 2}, {"stride": (2, 2)}),
        ({"padding": "same", "dilation": 2}, {"padding": "same", "dilation": 2}),
        ({"groups": 2, "padding": (1, 0)}, {"groups": 2, "padding": (1, 0)}),
    ],
)
def test_convolutions_with_a_layers_weight(settings, call):
    class Net(nn.Module):
        def __init__(self, plain):
            super().__init__()
            torch.manual_seed(0)
            self.c = nn.Conv2d(4, 6, 3, **settings)
            self.plain = plain

        def forward(self, x):
            return self.c(x) if self.plain else F.conv2d(x, self.c.weight, self.c.bias, **call)

    x = torch.randn(4, 4, 9, 9)
    assert torch.equal(chips_of(Net(False), x), chips_of(Net(True), x))


def test_settings_of_the_call_count_not_those_of_the_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(2, 3, 3, padding=1)

        def forward(self, x):
            return F.conv2d(x, self.c.weight, None, stride=2)

    torch.manual_seed(0)
    net, x = Net(), torch.randn(4, 2, 9, 9)
    model = convert(
        net,
        Analog(
            "pcm-hermes", dac_bits=16, adc_bits=16, output_noise=0, input_range={"name": "percentile", "share": 1.0}
        ),
    ).eval()
    calibrate(model, x)
    torch.testing.assert_close(model(x), net(x), atol=2e-3, rtol=0)


def test_hooks_of_the_user_see_no_product_outside_of_the_layer():
    net = Functional(PRODUCTS["F.linear"])
    seen = []
    net.a.register_forward_hook(lambda _module, _inputs, _y: seen.append(1))
    convert(net, "pcm-hermes")(torch.rand(2, 8))
    assert seen == []


def test_a_workload_counts_the_product_as_the_layers():
    def rows(net):
        counts = workload(convert(net, "pcm-hermes"), data=torch.rand(4, 8)).layers
        return [(row.name, row.op, row.macs, row.weight_count) for row in counts if row.macs]

    assert rows(Functional(PRODUCTS["F.linear"])) == rows(Functional())


@pytest.mark.parametrize(
    "product",
    [
        lambda x, layer: x @ layer.weight,  # the other direction
        lambda x, layer: F.linear(x[:, :4], layer.weight[:, :4]),
        lambda x, layer: torch.einsum("bi,io->bo", x, layer.weight),
    ],
)
@pytest.mark.parametrize("first", ["calibrate", "workload", "call"])
def test_any_other_product_is_named_by_the_first_call_that_sees_it(product, first):
    model, x = convert(Functional(product), "pcm-hermes").eval(), torch.rand(4, 8)
    calls = {
        "calibrate": lambda: calibrate(model, x),
        "workload": lambda: workload(model, data=x),
        "call": lambda: model(x),
    }
    with pytest.warns(RuntimeWarning, match=r"multiplies with the weights of 'a' outside"):
        calls[first]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(x)


def test_a_network_without_such_products_is_not_watched_after_its_first_call(monkeypatch):
    made = []
    from hpml_sim.analog import weight_products

    init = weight_products.WeightProducts.__init__
    monkeypatch.setattr(
        weight_products.WeightProducts, "__init__", lambda self, *a, **k: (made.append(1), init(self, *a, **k))[1]
    )
    model = convert(Functional(), "pcm-hermes").eval()
    for _ in range(3):
        model(torch.rand(2, 8))
    assert len(made) == 1


class ByWeights(nn.Module):
    """Names the weights in its own forward()."""

    def __init__(self, calls: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.act, self.b = nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 6)
        self.calls = calls

    def forward(self, x):
        if self.calls:
            return self.b(self.act(self.a(x)))
        return F.linear(self.act(F.linear(x, self.a.weight, self.a.bias)), self.b.weight, self.b.bias)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own compiler does so
def test_a_network_that_is_compiled_before_its_first_call_is_watched_too():
    torch.manual_seed(0)
    model, x = convert(ByWeights(), Analog("pcm-hermes", dac_bits=3)).eval(), torch.rand(4, 8)
    compiled = torch.compile(model, backend="eager")
    got = [compiled(x) for _ in range(2)]
    want = convert(ByWeights(calls=True), Analog("pcm-hermes", dac_bits=3)).eval()(x)
    assert all(torch.equal(y, want) for y in got)
    assert not torch.allclose(want, ByWeights()(x), atol=1e-3)
    torch._dynamo.reset()


def test_torchs_compiler_takes_no_part_of_a_call_that_is_watched():
    graphs = []
    skip_code(AnalogModel.forward.__code__)  # as after too many networks, or a graph break
    try:
        model, x = convert(ByWeights(), Analog("pcm-hermes", dac_bits=3)).eval(), torch.rand(4, 8)
        compiled = torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph.forward)
        got = [compiled(x) for _ in range(2)]
    finally:
        torch._dynamo.reset()
        eval_frame.reset_code(AnalogModel.forward.__code__)
    want = convert(ByWeights(calls=True), Analog("pcm-hermes", dac_bits=3)).eval()(x)
    assert all(torch.equal(y, want) for y in got)
    assert not graphs


def test_spiking_networks_on_crossbars_compute_them_there():
    target, x, found = Spiking("loihi", steps=16, synapses=Analog("pcm-hermes")), torch.rand(16, 8), []
    for calls in (False, True):
        model = convert(ByWeights(calls), target).eval()
        calibrate(model, x)
        found.append(program(model, chips=2, seed=0).at("1 day")(x))
    assert torch.equal(*found)
    assert not torch.equal(found[0][0], found[0][1])


# ------------------------------------------------------------------------------------- what a user put onto a layer


def _adapter(layer):
    down, up = torch.randn(2, 8), torch.randn(8, 2)
    original = layer.forward
    layer.forward = lambda x: original(x) + x @ down.T @ up.T


def _offloading(layer):
    def new_forward(module, *args, **kwargs):
        return module._old_forward(*args, **kwargs)

    layer._old_forward = layer.forward
    layer.forward = functools.update_wrapper(functools.partial(new_forward, layer), layer._old_forward)


def _by_hand(layer):
    layer.forward = types.MethodType(lambda self, x: 2 * F.linear(x, self.weight, self.bias), layer)


@pytest.mark.parametrize("patch", [_adapter, _offloading, _by_hand])
def test_a_forward_on_the_instance_is_kept_and_its_product_is_analog(patch):
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 8), torch.randn(64, 8)
    patch(layer)
    for net in (nn.Sequential(layer, nn.ReLU()), layer):
        model = convert(
            net,
            Analog(
                "pcm-hermes", dac_bits=16, adc_bits=16, output_noise=0, input_range={"name": "percentile", "share": 1.0}
            ),
        )
        calibrate(model.eval(), x)
        torch.testing.assert_close(model(x), net(x), atol=5e-3, rtol=0)
        one, other = program(model, chips=2).at("1 day")(x)
        assert (one - other).norm() > 0.01 * net(x).norm()


def test_a_forward_on_the_instance_without_the_product_stays_digital():
    lazy, other, fails = nn.Linear(8, 8), nn.Conv1d(8, 8, 3), nn.LSTM(8, 8)
    lazy.forward = lambda x: F.linear(x, lazy.weight * 2)
    other.forward = lambda x: x / 0
    fails.forward = lambda x: (x, None)
    for layer in (lazy, other, fails):
        model = convert(nn.ModuleList([layer, nn.Linear(8, 8)]), "pcm-hermes")
        assert model.layers[0].became == "digital"
        assert model.layers[0].why == "its forward is replaced on the instance"


def test_attributes_of_a_subclass_are_kept():
    class Tagged(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            self.tag, self._secret = "q", 3
            self.scale = nn.Parameter(torch.ones(4))
            self.register_buffer("seen", torch.zeros(()))
            self.register_buffer("scratch", torch.zeros(()), persistent=False)
            self.norm = nn.LayerNorm(4)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = Tagged()

        def forward(self, x):
            self.a.get_buffer("seen").add_(1)
            return self.a.norm(self.a(x) * self.a.scale) if self.a.tag == "q" else None

    net = Net()
    model = convert(net, "pcm-hermes")
    model(torch.rand(2, 4))
    layer = model.network.a
    assert (layer.tag, layer._secret, float(layer.seen), float(net.a.seen)) == ("q", 3, 1.0, 0.0)
    assert set(net.state_dict()) <= set(model.network.state_dict())
    assert "a.scratch" not in model.network.state_dict()
    assert len(crossbars(model)) == 1


def test_fast_weights_of_a_step_inside_forward_keep_their_gradient():
    class Adapts(nn.Module):
        """One step of gradient descent on the head before it is used, as meta-learning takes it."""

        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x):
            h = torch.relu(self.body(x))
            with torch.enable_grad():
                fast = self.head.weight.detach().requires_grad_()
                (step,) = torch.autograd.grad(F.linear(h.detach()[:2], fast).square().mean(), fast)
            return F.linear(h, self.head.weight - 0.1 * step, self.head.bias)

    torch.manual_seed(0)
    net, x = Adapts().eval(), torch.rand(5, 8)
    ideal = Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal", output_noise=0.0)
    with pytest.warns(RuntimeWarning, match="'head'"):
        got = convert(net, ideal).eval()(x)
    with torch.no_grad():
        assert torch.allclose(got, net(x), atol=1e-6)
