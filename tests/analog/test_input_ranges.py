"""Input ranges: what each rule finds, which one is chosen, what it loses, and that networks with outliers survive."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.analog.layers import crossbars
from hpml_sim.errors import HpmlError

QUIET = {"output_noise": 0.0, "training_noise": 0.0, "weight_clip": None}


def one_layer(card="pcm", **options):
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=False)
    return layer, hs.convert(layer, hs.Analog(card, **QUIET, **options)).eval()


def outliers(scale=4000.0):
    """256 vectors of normal numbers, of which four have one channel that is `scale` times larger."""
    x = torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
    x[::64, 7] = scale
    return x


def decibels(exact, found):
    """The larger of the error of all outputs together and of the mean over the vectors, in plain numpy."""
    exact, error = exact.detach().double().numpy(), (found - exact).detach().double().numpy()
    together = (error**2).sum() / (exact**2).sum()
    by_vector = np.minimum(1, (error**2).sum(1) / (exact**2).sum(1)).mean()
    return -10 * np.log10(max(together, by_vector))


def test_each_rule_finds_its_range():
    x = torch.randn(400, 64, generator=torch.Generator().manual_seed(2))
    for rule, want in (
        ("sigma", 3 * float(x.std())),
        ({"name": "sigma", "sigmas": 5}, 5 * float(x.std())),
        ({"name": "percentile", "share": 1.0}, float(x.abs().max())),
        ({"name": "percentile", "share": 0.9}, float(x.abs().flatten().quantile(0.9))),
        ("learned", 3 * float(x.std())),
    ):
        _, analog = one_layer(input_range=rule)
        assert hs.calibrate(analog, x)["network"] == pytest.approx(want, rel=0.05)
    assert hs.calibrate(one_layer(input_range="dynamic")[1], x) == {"network": "dynamic"}
    # of normal numbers and 4 bits the least squared error is at 2.6 sigma (J. Max, 1960, for 15 levels)
    _, analog = one_layer(input_range="mse", dac_bits=4, adc_bits="ideal")
    assert hs.calibrate(analog, x)["network"] == pytest.approx(2.6, rel=0.15)


def test_dynamic_scales_each_vector_by_its_own_largest():
    layer, analog = one_layer(input_range="dynamic")
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(3))
    hs.calibrate(analog, x)
    assert torch.allclose(
        analog(x * torch.logspace(-3, 3, 50).unsqueeze(1)) / torch.logspace(-3, 3, 50).unsqueeze(1),
        analog(x),
        rtol=1e-2,
        atol=2e-3,
    )
    assert decibels(layer(x), analog(x)) > 35


@pytest.mark.parametrize("calibrated", [True, False])
def test_an_outlier_costs_the_default_nothing(calibrated):
    layer, analog = one_layer("pcm-hermes")
    x = outliers()
    if calibrated:
        hs.calibrate(analog, x)
        assert list(analog.report["input_range"]) == ["dynamic"]
    assert decibels(layer(x), analog(x)) > 30


def test_the_report_says_what_converters_lose():
    """On all vectors, against plain numpy."""
    for rule in ("dynamic", "percentile", "sigma", "mse"):
        layer, analog = one_layer(input_range=rule)
        x = outliers(20.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that some of them lose a lot
            hs.calibrate(analog, x)
        assert float(analog.report["converter_db"].iloc[0]) == pytest.approx(decibels(layer(x), analog(x)), abs=0.2)


class Block(nn.Module):
    """A residual block with a channel of 4,000 times the others at the first position, as language models have it."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 16)

    def forward(self, x):
        h = self.up(x).relu()
        h = torch.cat([h[:, :1] * torch.cat([torch.full((1,), 4000.0), torch.ones(63)]), h[:, 1:]], 1)
        return self.head(x + self.down(h))


def test_a_static_range_that_ruins_the_network_is_said_with_the_layer_first():
    torch.manual_seed(0)
    net, x = Block(), torch.randn(8, 16, 32)
    analog = hs.convert(net, hs.Analog("pcm-hermes", input_range="percentile")).eval()
    with pytest.warns(
        RuntimeWarning, match=r"^calibrate: the converters alone.*error: 'down' \(.*percentile\).*Next: "
    ):
        hs.calibrate(analog, x)
    assert str(analog.report.set_index("layer")["converter_db"].idxmin()) == "down"
    default = hs.convert(net, "pcm-hermes").eval()
    hs.calibrate(default, x)  # warnings are errors
    want = net(x)
    # at worst the errors of the three layers add up; each keeps what 8 bits at both ends can
    lost = sum(10 ** (-db / 20) for db in default.report["converter_db"])
    assert float(((default(x) - want).norm() / want.norm()).detach()) < lost < 0.05


class Largest(nn.Module):
    """A layer of which the network reads the large products alone, or all of them."""

    def __init__(self, above):
        super().__init__()
        self.layer, self.above = nn.Linear(64, 32, bias=False), above

    def forward(self, x):
        return (self.layer(x) - self.above).relu()


@pytest.mark.parametrize(("above", "holds"), [(40.0, True), (-100.0, False)])
def test_the_network_decides_whether_large_products_are_clipped(above, holds):
    """With 4 bits most products round to zero unless the few large ones are clipped."""
    torch.manual_seed(0)
    x = torch.randn(512, 64).sign() * (1 + 0.1 * torch.rand(512, 64))
    net = Largest(above)
    with torch.no_grad():
        net.layer.weight.copy_(torch.randn(32, 64).sign() * (1 - 0.1 * torch.rand(32, 64)))
        x[::64] = 1.05 * net.layer.weight[0].sign()
    analog = hs.convert(net, hs.Analog("pcm", adc_bits=4, **QUIET)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hs.calibrate(analog, x)
    crossbar = crossbars(analog)["network.layer"]
    weight = net.layer.weight.detach().double()
    scaled = (x / x.abs().amax(1, keepdim=True)).double() @ (weight / weight.abs().amax(1, keepdim=True)).T
    assert (crossbar.adc_bound() >= float(scaled.abs().max())) == holds


def test_chips_and_the_converted_network_see_the_same_ranges():
    _, analog = one_layer(dac_bits=8, adc_bits=8)
    x = outliers()
    hs.calibrate(analog, x)
    assert dataclasses.asdict(analog.target)["input_range"] is None
    y = hs.program(analog, chips=2, seed=0).at("1 s")(x)
    assert float(((y - analog(x)).norm() / (2**0.5 * analog(x).norm())).detach()) < 0.15  # the devices' errors alone


@pytest.mark.parametrize("options", [{"input_range": {"name": "sigma", "sigmas": 1e-6}}, {"adc_bound": 1e-9}])
def test_a_range_that_loses_everything_is_refused_and_the_last_one_stays(options):
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(6))
    _, analog = one_layer(**options)
    before = {name: value.clone() for name, value in analog.state_dict().items()}
    with pytest.raises(HpmlError, match=r"^calibrate: layer 'network': .* lose everything") as caught:
        hs.calibrate(analog, x)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in analog.state_dict().items())


def test_ideal_converters_lose_nothing():
    layer, analog = one_layer(dac_bits="ideal", adc_bits="ideal")
    x = outliers()
    assert torch.allclose(analog(x), layer(x), rtol=1e-4, atol=1e-3)
    hs.calibrate(analog, x)
    assert torch.allclose(analog(x), layer(x), rtol=1e-4, atol=1e-3)
    assert float(analog.report["converter_db"].iloc[0]) > 100


def test_a_fixed_adc_range_is_kept():
    layer, analog = one_layer(adc_bound=2.0)
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(5)).abs()
    hs.calibrate(analog, x)
    assert next(iter(crossbars(analog).values())).adc_bound() == 2.0
    assert decibels(layer(x), analog(x)) > 15


def test_a_convolution_shares_a_range_by_sample():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    analog = hs.convert(layer, hs.Analog("pcm", **QUIET, input_range="dynamic")).eval()
    x = torch.randn(4, 3, 6, 6)
    hs.calibrate(analog, x)
    scale = torch.tensor([1.0, 10.0, 100.0, 1000.0]).view(-1, 1, 1, 1)
    assert torch.allclose(analog(x * scale) / scale, analog(x), atol=0.05)
    # a sample does not depend on the others of its batch
    assert torch.allclose(analog(x)[2:3], analog(x[2:3]), atol=1e-6)


def test_training_with_dynamic_ranges_has_straight_through_gradients():
    layer, analog = one_layer(input_range="dynamic", dac_bits=12, adc_bits=14)
    analog.train()
    x = torch.randn(16, 64, requires_grad=True)
    upstream = torch.randn(16, 32)
    for _ in range(3):  # the first pass runs operator by operator, later ones compiled
        x.grad = analog.network.weight.grad = None
        analog(x).backward(upstream)
        assert torch.allclose(x.grad, upstream @ layer.weight.detach(), rtol=1e-3, atol=1e-3)
        assert torch.allclose(analog.network.weight.grad, upstream.T @ x.detach(), rtol=2e-2, atol=2e-2)


def test_the_digital_work_of_dynamic_ranges_is_charged():
    net = hs.models.mlp(64, 32, 10)
    dynamic = hs.estimate(net, hs.Analog("pcm-hermes", input_range="dynamic"), input_shape=(64,))
    static = hs.estimate(net, hs.Analog("pcm-hermes", input_range="mse"), input_shape=(64,))
    terms = [term for term in dynamic.terms if term.component == "input-range"]
    # |x| > max: 0.4 pJ an input; x / max and y max: 1.1 pJ an input and an output (Horowitz, ISSCC 2014)
    want = (64 + 32) * 0.4e-12 + (64 + 32 + 32 + 10) * 1.1e-12
    assert sum(term.energy_j.high for term in terms) == pytest.approx(want)
    assert not any(term.component == "input-range" for term in static.terms)
    assert any("Horowitz" in said for said in dynamic.assumptions)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input_range": "dynamc"}, "Did you mean 'dynamic'"),
        ({"input_range": {"name": "sigma", "sigmas": 0}}, "sigmas=0: must be a finite number > 0"),
        ({"input_range": {"name": "sigma", "share": 0.9}}, "share: unknown option"),
        ({"input_range": {"share": 0.9}}, "give its name as well"),
        ({"input_range": {"name": "percentile", "share": 0.1}}, "share=0.1: must be"),
        ({"input_range": 3}, "input_range=3: must be one of"),
        ({"card": "isaac", "input_range": "dynamic"}, "card 'isaac' has static ranges only"),
        ({"share": 0.9}, "the range has it: input_range="),
    ],
)
def test_bad_ranges_are_refused_on_one_line(options, said):
    with pytest.raises(HpmlError, match=said) as caught:
        hs.Analog(**{"card": "pcm", **options})
    assert "\n" not in str(caught.value)


def test_a_range_is_shown_as_it_is_written():
    for rule in ("'sigma'", "{'name': 'percentile', 'share': 0.9}"):
        target = hs.Analog("pcm", input_range=eval(rule))
        assert repr(target) == f"Analog('pcm', input_range={rule})"


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, x, y):
        return self.a(x) + self.b(y)


A = torch.linspace(-2, 2, 80).view(20, 4)
B = torch.linspace(-7, 7, 100).view(20, 5)
LABELS = torch.zeros(20)


@pytest.mark.parametrize(
    "inputs",
    [
        [((A, B), LABELS)],
        [{"x": A, "y": B}],
        hs.Data("pairs", [((a, b), 0) for a, b in zip(A, B, strict=True)], [((A[0], B[0]), 0)], (4,)),
        hs.Data("named", [{"x": a, "y": b, "label": 0} for a, b in zip(A, B, strict=True)], [((A[0], B[0]), 0)], (4,)),
    ],
    ids=["batches", "by name", "data", "data by name"],
)
def test_all_inputs_of_a_network_are_calibrated(inputs):
    """Each layer's range is the percentile of its own input, the largest value of all, in plain torch."""
    model = hs.convert(TwoInputs(), hs.Analog("pcm-hermes", input_range={"name": "percentile", "share": 1.0}))
    found = hs.calibrate(model, inputs)
    assert found == {"network.a": pytest.approx(2.0), "network.b": pytest.approx(7.0)}
    with pytest.raises(HpmlError, match="holds NaN or infinite values"):
        hs.calibrate(model, [((A, B / 0), LABELS)])
