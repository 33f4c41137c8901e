import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import hpml_sim.analog.nn as analog_nn
from hpml_sim.analog import calibrate
from hpml_sim.analog.converters import quantize
from hpml_sim.analog.effective_weights import clip_weights
from hpml_sim.analog.layers import crossbars
from hpml_sim.data import load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.targets import Analog

from . import oracles

QUIET = {"output_noise": 0.0, "training_noise": 0.0, "weight_clip": None}


def linear(inputs, outputs, card, *, seed=0, **options):
    torch.manual_seed(seed)
    return analog_nn.AnalogLinear(inputs, outputs, card=Analog(card, **options), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize(("dac_bits", "adc_bits"), [(8, 8), (6, 8), (2, 4), (12, 10)])
@pytest.mark.parametrize("rows", [256, 16, 7])
@pytest.mark.parametrize("input_range", [None, 0.8])
def test_the_product_equals_its_formula(card_file, dac_bits, adc_bits, rows, input_range):
    layer = linear(40, 9, card_file(rows=rows), dac_bits=dac_bits, adc_bits=adc_bits, adc_bound=2.03).eval()
    if input_range is not None:
        layer.crossbar.set_ranges(input_range)
    x = torch.randn(25, 40, dtype=torch.float64)
    x[3] = 0.0
    expected = oracles.product(
        x.numpy(),
        layer.weight.detach().numpy(),
        dac_bits=dac_bits,
        adc_bits=adc_bits,
        bound=2.03,  # no sum lies on a rounding edge
        rows=rows,
        input_range=input_range,
    )
    y = layer(x).detach().numpy() - layer.bias.detach().numpy()
    assert np.abs(y - expected).max() < 1e-12


def test_single_precision_differs_only_in_its_rounding(card_file):
    layer = linear(64, 32, card_file(), adc_bits=12, dac_bits=8).eval()
    x = torch.randn(50, 64, dtype=torch.float64)
    wide = layer(x)
    narrow = layer.float()(x.float())
    step = 2 * 10.0 / (2**12 - 2) * layer.weight.abs().max() * x.abs().max()
    off = (wide - narrow).abs()
    assert off.max() < 1.01 * step  # a sum at a rounding edge may fall to the next code ...
    assert (off > 1e-5).double().mean() < 0.01  # ... which is rare


def test_evaluation_is_deterministic_and_training_is_not(card_file):
    layer = linear(20, 5, card_file())
    x = torch.randn(4, 20, dtype=torch.float64)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_noise_in_training_has_the_size_that_was_asked_for(card_file):
    options = {"dac_bits": 16, "adc_bits": 16, "weight_clip": None, "adc_bound": 100.0}
    x = torch.eye(50, dtype=torch.float64)
    for output_noise, training_noise in ((0.04, 0.0), (0.0, 0.1), (0.03, 0.1)):
        layer = linear(50, 200, card_file(), output_noise=output_noise, training_noise=training_noise, **options)
        layer(x)  # learns its input range (1, so that the identity is a full-scale input)
        full = layer.weight.detach().abs().amax(1)
        clean = x @ layer.weight.detach().T + layer.bias.detach()
        draws = torch.stack([(layer(x).detach() - clean) / full for _ in range(20)])
        expected = np.hypot(output_noise, training_noise)
        assert float(draws.std()) == pytest.approx(expected, rel=0.02)  # 200,000 draws: 12 standard errors
        assert abs(float(draws.mean())) < 5 * expected / np.sqrt(draws.numel())


def test_an_all_zero_and_a_constant_layer_give_finite_numbers(card_file):
    x = torch.randn(3, 10, dtype=torch.float64)
    for value in (0.0, 0.5):
        layer = linear(10, 4, card_file()).eval()
        with torch.no_grad():
            layer.weight.fill_(value)
        assert torch.allclose(layer(x), x @ layer.weight.T + layer.bias, atol=0.2)
    assert torch.isfinite(layer(torch.zeros(3, 10, dtype=torch.float64))).all()


# ------------------------------------------------------------------------------------------------------- the gradients


@pytest.mark.parametrize("rows", [256, 5])
def test_gradients_with_ideal_converters_are_exact(card_file, rows):
    card = card_file(rows=rows)
    layers = [
        (linear(12, 6, card, **QUIET), (4, 12)),
        (analog_nn.AnalogConv1d(4, 6, 3, groups=2, card=Analog(card, **QUIET), dtype=torch.float64), (2, 4, 7)),
        (analog_nn.AnalogConv2d(2, 3, 3, stride=2, card=Analog(card, **QUIET), dtype=torch.float64), (2, 2, 6, 5)),
        (analog_nn.AnalogConv2d(3, 6, 2, groups=3, card=Analog(card, **QUIET), dtype=torch.float64), (2, 3, 4, 3)),
        (analog_nn.AnalogConv3d(2, 2, 2, card=Analog(card, **QUIET), dtype=torch.float64), (1, 2, 3, 3, 4)),
    ]
    for layer, shape in layers:
        layer.crossbar.dac_qmax = layer.crossbar.adc_qmax = None
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

        def call(x, *parameters, layer=layer):
            names = [name for name, _ in layer.named_parameters()]
            return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

        layer.eval()
        assert torch.autograd.gradcheck(call, (x, *layer.parameters()))


def test_gradients_through_converters_are_straight_through(card_file):
    layer = linear(30, 8, card_file(), **QUIET)
    layer.crossbar.set_ranges(2.0, output_bound=10.0)
    layer.eval()
    x = torch.randn(20, 30, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(20, 8, dtype=torch.float64)
    layer(x).backward(upstream)
    inside = (x.detach().abs() <= 2.0).double()
    assert 0 < inside.mean() < 1
    assert torch.allclose(x.grad, (upstream @ layer.weight.detach()) * inside)
    seen = torch.clamp(torch.round(x.detach() / 2 * 127), -127, 127) / 127 * 2
    assert torch.allclose(layer.weight.grad, upstream.T @ seen)
    assert torch.allclose(layer.bias.grad, upstream.sum(0))


def test_a_saturated_adc_passes_no_gradient():
    x = torch.tensor([0.4, 7.6, -9.0], requires_grad=True)
    codes = quantize(x, torch.tensor(1.0), 7)
    assert codes.tolist() == [0.0, 7.0, -7.0]
    codes.sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]


def test_rounding_is_half_to_even():
    codes = quantize(torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]), torch.tensor(1.0), 127)
    assert codes.tolist() == [0.0, 2.0, 2.0, -0.0, -2.0]


def test_clipped_weights_can_come_back_but_not_go_further():
    weight = torch.tensor([-2.0, -2.0, 0.5, 2.0, 2.0], requires_grad=True)
    clipped = clip_weights(weight, torch.tensor(1.0))
    assert clipped.tolist() == [-1.0, -1.0, 0.5, 1.0, 1.0]
    clipped.backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))  # a descent step subtracts this
    assert weight.grad.tolist() == [0.0, -1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_any_optimizer_trains_and_clips(card_file, optimizer):
    torch.manual_seed(0)
    layer = linear(8, 3, card_file(), weight_clip=1.2)
    with torch.no_grad():
        layer.weight[0, 0] = 30.0
    step = optimizer(layer.parameters(), lr=1e-2)
    x, goal = torch.randn(64, 8, dtype=torch.float64), torch.randn(64, 3, dtype=torch.float64)
    losses = []
    for _ in range(60):
        step.zero_grad()
        loss = nn.functional.mse_loss(layer(x), goal)
        loss.backward()
        step.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    clipped = layer.eval().crossbar.clipped(layer.weight)
    assert clipped.abs().max() == layer.crossbar.weight_limit < 30
    assert layer.crossbar.weight_limit == pytest.approx(1.2 * layer.weight.std(correction=0).item(), rel=0.1)


def test_weights_are_not_clipped_before_training(card_file):
    layer = linear(8, 3, card_file(), weight_clip=1.0).eval()
    assert torch.equal(layer.crossbar.clipped(layer.weight), layer.weight)


# ------------------------------------------------------------------------------------------- like the digital layers

CONVOLUTIONS = [
    (nn.Conv1d, (2, 6, 11), {"kernel_size": 3, "padding": 1, "dilation": 2}),
    (nn.Conv1d, (2, 6, 11), {"kernel_size": 4, "padding": "same", "padding_mode": "circular"}),
    (nn.Conv2d, (2, 6, 9, 8), {"kernel_size": 3, "padding": 1}),
    (nn.Conv2d, (2, 6, 9, 8), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1), "bias": False}),
    (nn.Conv2d, (2, 6, 9, 8), {"kernel_size": 3, "groups": 3}),
    (nn.Conv2d, (2, 6, 9, 8), {"kernel_size": 3, "groups": 6, "padding": "valid"}),
    (nn.Conv2d, (2, 6, 9, 8), {"kernel_size": 3, "padding": "same", "padding_mode": "reflect"}),
    (nn.Conv2d, (2, 6, 9, 8), {"kernel_size": 3, "padding": 2, "padding_mode": "replicate"}),
    (nn.Conv3d, (2, 6, 5, 6, 4), {"kernel_size": 2, "groups": 2, "padding": 1}),
    (nn.Conv3d, (2, 6, 5, 6, 4), {"kernel_size": (2, 3, 1), "stride": (1, 2, 1), "dilation": (1, 2, 1)}),
]


@pytest.mark.parametrize(("kind", "shape", "arguments"), CONVOLUTIONS)
@pytest.mark.parametrize("rows", [256, 11])
def test_convolutions_equal_the_digital_ones_up_to_quantization(card_file, kind, shape, arguments, rows):
    torch.manual_seed(0)
    digital = kind(6, 12, **arguments)
    target = Analog(card_file(rows=rows), dac_bits=16, adc_bits=16, input_range={"name": "percentile", "share": 1.0})
    layer = getattr(analog_nn, f"Analog{kind.__name__}").from_digital(digital, target).eval()
    x = torch.randn(shape)
    assert torch.allclose(layer(x), digital(x), atol=3e-3)
    calibrate(nn.Sequential(layer), x)
    assert (digital(x) - layer(x)).abs().median() < 3e-3  # the range comes from a sample, so a few inputs are cut off
    assert layer(x[0]).shape == digital(x[0]).shape
    drop_in = getattr(analog_nn, f"Analog{kind.__name__}")(6, 12, **arguments, card=target)
    drop_in.load_state_dict(digital.state_dict(), strict=False)
    assert torch.allclose(drop_in.eval()(x), digital(x), atol=3e-3)


@pytest.mark.parametrize("shape", [(10,), (3, 10), (3, 4, 10), (2, 3, 4, 10)])
def test_linear_takes_any_leading_shape(card_file, shape):
    torch.manual_seed(0)
    digital = nn.Linear(10, 7)
    layer = analog_nn.AnalogLinear.from_digital(digital, Analog(card_file(rows=4), dac_bits=16, adc_bits=16)).eval()
    x = torch.randn(shape)
    assert torch.allclose(layer(x), digital(x), atol=2e-3)


def test_a_wrong_number_of_inputs_is_named(card_file):
    with pytest.raises(HpmlError, match="must have 10 values in dimension -1"):
        analog_nn.AnalogLinear(10, 7, card=card_file())(torch.rand(3, 9))
    with pytest.raises(HpmlError, match="must have 4 values in dimension 1"):
        analog_nn.AnalogConv2d(4, 7, 3, card=card_file())(torch.rand(1, 3, 9, 9))


# --------------------------------------------------------------------------------------------------------- calibration


def test_calibration_covers_the_percentile_of_inputs_that_are_not_zero(card_file):
    layer = linear(100, 5, card_file(), input_range={"name": "percentile", "share": 0.9}, adc_bits=16)
    x = torch.zeros(100, 100, dtype=torch.float64)
    x[::10] = torch.arange(1, 101, dtype=torch.float64)
    ranges = calibrate(nn.Sequential(layer), x)
    assert ranges["0"] == pytest.approx(90, abs=2)


def test_calibration_keeps_the_adc_from_saturating(card_file):
    layer = linear(200, 5, card_file(), **QUIET)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.weight[:, ::2] = 0.4
    x = torch.rand(300, 200, dtype=torch.float64)
    calibrate(nn.Sequential(layer), x)
    layer.eval()
    error = layer(x) - nn.functional.linear(x, layer.weight, layer.bias)
    assert error.abs().max() < 1.0  # of 45; with the percentile of the inputs alone, more than 40 are lost


def test_calibration_runs_through_all_layers_and_leaves_the_mode_alone(card_file):
    card = card_file()
    card = Analog(card, input_range="sigma")
    net = nn.Sequential(analog_nn.AnalogLinear(20, 10, card=card), nn.ReLU(), analog_nn.AnalogLinear(10, 5, card=card))
    ranges = calibrate(net, [torch.rand(16, 20), torch.rand(16, 20)])
    assert net.training
    assert set(ranges) == {"0", "2"}
    assert all(float(value) > 0 for value in ranges.values())
    assert all(int(crossbar.observations) == 2 for crossbar in crossbars(net).values())
    assert calibrate(net, torch.zeros(4, 20))["0"] == "dynamic"
    with pytest.raises(HpmlError, match="no analog layers"):
        calibrate(nn.Linear(3, 3), torch.rand(1, 3))


def test_calibration_takes_a_loader_and_a_data_set_by_name(card_file):
    net = nn.Sequential(nn.Flatten(), analog_nn.AnalogLinear(64, 10, card=card_file()))
    data = load_data("digits")
    by_name = calibrate(net, "digits")
    images = first(data.train, 10_000)[0]
    assert by_name == calibrate(net, images.split(500)) == calibrate(net, data)
    assert by_name == calibrate(net, DataLoader(data.train, batch_size=500))
    with pytest.raises(UnknownNameError, match="Did you mean 'digits'"):
        calibrate(net, "digit")


def test_training_learns_the_range_by_itself(card_file):
    layer = linear(20, 10, card_file(), adc_bound=100.0, input_range="percentile")
    for _ in range(60):
        layer(torch.rand(64, 20, dtype=torch.float64) * 3)
    assert float(layer.crossbar.input_range) == pytest.approx(3.0, rel=0.05)
    state = layer.state_dict()
    fresh = linear(20, 10, card_file(), seed=1, adc_bound=100.0, input_range="percentile")
    fresh.load_state_dict(state)
    x = torch.rand(4, 20, dtype=torch.float64)
    assert torch.equal(fresh.eval()(x), layer.eval()(x))
