"""Training on the CPU runs in compiled passes; operator by operator, as on other devices, it must compute the same."""

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim.analog.nn as analog_nn
from hpml_sim.analog import calibrate, crossbar, program
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.kernels.crossbar_product.training import spread
from hpml_sim.targets import Analog
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate


def trained(model, x, monkeypatch, *, passes):
    """Output and gradients of one step that does not calibrate."""
    with monkeypatch.context() as patch:
        patch.setattr(Crossbar, "learns", lambda _: False)
        if not passes:
            patch.setattr(crossbar, "takes_compiled_pass", lambda *_, **__: False)
        x = x.clone().requires_grad_()
        model.zero_grad()
        y = model.train()(x)
        generator = torch.Generator().manual_seed(5)
        (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("rows", [256, 7])
@pytest.mark.parametrize("weight_clip", [None, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_passes_and_operators_give_the_same_outputs_and_gradients(card_file, monkeypatch, rows, weight_clip, dtype):
    options = {"output_noise": 0.0, "training_noise": 0.0, "weight_clip": weight_clip, "adc_bound": 1.703}
    options["input_range"] = "percentile"
    torch.manual_seed(0)
    target = Analog(card_file(rows=rows), **options)
    model = nn.Sequential(
        analog_nn.AnalogConv2d(4, 6, 3, groups=2, card=target, dtype=dtype),
        nn.ReLU(),
        nn.Flatten(),
        analog_nn.AnalogLinear(96, 33, card=target, dtype=dtype),
    )
    x = torch.randn(5, 4, 6, 6, dtype=dtype)
    calibrate(model, 0.7 * x)  # so that some inputs are beyond the range
    for one in crossbars(model).values():
        one.output_range.mul_(0.8)  # and some outputs
    fused, plain = (trained(model, x, monkeypatch, passes=passes) for passes in (True, False))
    for a, b in zip(fused, plain, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-4 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_under_autocast_the_passes_run_on(kind, given, monkeypatch):
    """Products in bfloat16, which rounds a weight and a product by at most 1 in 256; all else as without."""
    monkeypatch.setattr(Crossbar, "learns", lambda _: False)
    target = Analog("pcm", training_noise=0.0, output_noise=0.0, weight_clip=None, input_range="dynamic")
    plain = nn.Linear(64, 16) if kind == "linear" else nn.Conv2d(4, 16, 3)
    layer = convert(plain, target)
    x = torch.randn(8, 64) if kind == "linear" else torch.randn(8, 4, 6, 6)
    calibrate(layer, x)
    layer.train()
    found = []
    for autocast in (True, False):
        layer.zero_grad()
        own = x.to(given).to(given if autocast else torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert all(one.trains_in_one_pass(own) for one in crossbars(layer).values())
            y = layer(own)
        assert y.dtype == torch.float32
        y.square().sum().backward()
        found.append([y.detach(), own.grad.float(), *(p.grad for p in layer.parameters())])
    for fewer, all_bits in zip(*found, strict=True):
        assert float((fewer - all_bits).norm() / all_bits.norm()) < 0.02
    with torch.autocast("cpu", torch.float16):
        assert not any(one.trains_in_one_pass(x) for one in crossbars(layer).values())


def test_noise_of_the_passes_has_its_size(monkeypatch):
    """Weights: 40,000 draws of 5 % of a column's largest; outputs: 0.04 of a full-scale product; 5 standard errors."""
    target = Analog("pcm", training_noise=0.05, output_noise=0.0, weight_clip=None)
    layer = analog_nn.AnalogLinear(200, 200, bias=False, card=target).train()
    effective_weights = layer.effective_weights()
    weight = layer.weight.detach()
    noise = (effective_weights.matrix.detach()[0, 0, 0] - weight) / weight.abs().amax(1, keepdim=True)
    assert float(noise.std()) == pytest.approx(0.05, rel=0.018)
    assert abs(float(noise.mean())) < 5 * 0.05 / 200
    target = Analog("pcm", training_noise=0.0, output_noise=0.04, weight_clip=None, adc_bits=14)
    layer = analog_nn.AnalogLinear(200, 200, bias=False, card=target)
    x = torch.rand(200, 200)
    calibrate(layer, x)
    monkeypatch.setattr(Crossbar, "learns", lambda _: False)
    full = torch.maximum(layer.crossbar.input_range, layer.crossbar.output_range)
    quiet = layer.eval()(x)
    noise = ((layer.train()(x) - quiet) / (layer.weight.abs().amax(1) * full)).detach()
    assert float(noise.std()) == pytest.approx(0.04, rel=0.03)


@pytest.mark.parametrize("model", ["analog-foundation-models", "hermes", "reram-wan", "reram-cmo", "none"])
@pytest.mark.parametrize("passes", [True, False])
def test_training_under_the_noise_of_programming(model, passes, card_file, monkeypatch):
    """By the size of a weight, training sees the spread of that weight over chips right after programming."""
    if not passes:
        monkeypatch.setattr(crossbar, "takes_compiled_pass", lambda *_, **__: False)
    target = Analog(card_file(model=model), training_noise="programming", weight_clip=None)
    layer = analog_nn.AnalogLinear(32, 400, bias=False, card=target).train()
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 32).expand(400, 32) * 3)
    torch.manual_seed(0)
    seen = torch.cat([layer.effective_weights().matrix.detach()[0, 0, 0] for _ in range(10)]) / 3
    devices = layer.crossbar.device_model()
    chips = devices.program(devices.conductances(layer.weight.detach() / 3), seeds=list(range(10)))
    held = torch.cat([devices.weights(chips.programmed(chip)) for chip in range(10)])
    # 4,000 draws of each weight: five standard errors of the ratio of two such deviations are 7.9 %
    assert torch.allclose(seen.std(0), held.std(0), rtol=0.08, atol=1e-5)
    assert (float(held.std(0).max()) > 0.01) == (model != "none")


def test_the_callers_seed_decides_the_noise():
    layer = analog_nn.AnalogLinear(30, 20, card="pcm").train()
    x = torch.rand(4, 30)
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        layer.crossbar.reset_calibration()
        found.append([layer(x) for _ in range(60)])
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][-1], found[2][-1])
    assert not torch.equal(found[0][-1], found[0][-2])


@pytest.mark.parametrize("options", [{}, {"levels": 4, "slices": 2}])
def test_calibration_learns_the_same_either_way(card_file, monkeypatch, options):
    target = Analog(card_file(rows=7), output_noise=0.0, training_noise=0.0, **options)
    ranges = []
    for passes in (True, False):
        torch.manual_seed(0)
        layer = analog_nn.AnalogLinear(30, 20, card=target).train()
        with monkeypatch.context() as patch:
            if not passes:
                patch.setattr(crossbar, "takes_compiled_pass", lambda *_, **__: False)
            layer(torch.zeros(4, 30))  # shows nothing
            assert int(layer.crossbar.observations) == 0
            for _ in range(75):
                layer(torch.rand(4, 30))
        assert int(layer.crossbar.observations) == 75
        ranges.append([float(layer.crossbar.input_range), float(layer.crossbar.output_range)])
    assert ranges[0] == pytest.approx(ranges[1], rel=1e-5)


@pytest.mark.parametrize("n", [1, 31, 32, 1000])
def test_spread_is_the_standard_deviation(n):
    x = 3 + torch.randn(n, generator=torch.Generator().manual_seed(0))
    assert spread(x) == pytest.approx(float(x.double().std(correction=0)), abs=1e-9)


def test_constant_and_zero_weights_train():
    for value in (0.0, 0.3):
        layer = analog_nn.AnalogLinear(30, 20, card="pcm").train()
        with torch.no_grad():
            layer.weight.fill_(value)
        y = torch.stack([layer(torch.rand(4, 30)) for _ in range(52)])
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(layer.weight.grad).all()


@pytest.mark.filterwarnings("ignore")  # dynamo warns of what it does itself
@pytest.mark.parametrize("mode", ["training", "evaluation", "chips"])
def test_compile_and_autocast_do_not_break_it(mode):
    torch.manual_seed(0)
    model = convert(nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5)), "pcm")
    x = torch.rand(8, 30)
    calibrate(model, x)
    model.train(mode == "training")
    run = program(model, chips=2, seed=0).at("1 h") if mode == "chips" else model
    with torch.no_grad():
        want = model.eval()(x)
    model.train(mode == "training")
    with torch.autocast("cpu", torch.bfloat16):
        low = run(x)
    compiled = torch.compile(run, backend="eager")(x)
    for y in (low.float(), compiled):
        assert (y.detach() - want).abs().max() < 0.5 * want.std() + 0.1
    if mode == "training":
        compiled.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.filterwarnings("ignore")  # as above
@pytest.mark.parametrize("training", [False, True])
def test_a_network_is_compiled_before_it_ran(training):
    torch.manual_seed(0)
    torch._dynamo.reset()
    exact = Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal", training_noise=0, output_noise=0, weight_clip=None)
    net, x = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5)), torch.rand(8, 30)
    compiled = torch.compile(convert(net, exact).train(training), backend="eager")
    for _ in range(2):
        assert torch.allclose(compiled(x), net(x), atol=1e-5)


# ----------------------------------------------------------------------------------- drop-connect, learned input ranges


@pytest.mark.parametrize("passes", [True, False])
def test_drop_connect_takes_its_share_of_the_weights(monkeypatch, passes):
    """40,000 weights: 5 standard errors."""
    if not passes:
        monkeypatch.setattr(crossbar, "takes_compiled_pass", lambda *_, **__: False)
    target = Analog("pcm", drop_connect=0.2, training_noise=0.0, weight_clip=None)
    layer = analog_nn.AnalogLinear(200, 200, bias=False, card=target).train()
    matrices = [layer.effective_weights().matrix.detach()[0, 0, 0] for _ in range(2)]
    gone = [matrix == 0 for matrix in matrices]
    for matrix, zero in zip(matrices, gone, strict=True):
        assert float(zero.double().mean()) == pytest.approx(0.2, abs=5 * 0.4 / 200)
        assert torch.equal(matrix[~zero], layer.weight.detach()[~zero])
    assert float((gone[0] & gone[1]).double().mean()) == pytest.approx(0.04, abs=0.01)
    layer.effective_weights().matrix.sum().backward()
    assert float((layer.weight.grad == 0).double().mean()) == pytest.approx(0.2, abs=0.01)
    assert torch.equal(layer.eval().effective_weights().matrix.detach()[0, 0, 0], layer.weight.detach())


def converters(x, w, a, bits=5, bound=2.0):
    """z and the straight-through dz/da, one output after the other; x and w in float64 numpy."""
    top = 2 ** (bits - 1) - 1
    z, slope = np.zeros((len(x), len(w))), np.zeros((len(x), len(w)))
    for v, i in np.ndindex(*z.shape):
        s = np.abs(w[i]).max()
        codes, through = x[v] / a * top, np.abs(x[v] / a * top) <= top
        y = (w[i] / s * np.clip(np.rint(codes), -top, top)).sum() / top * top / bound
        z[v, i] = np.clip(np.rint(y), -top, top) * a * s * bound / top
        passed = (w[i] * x[v] * through).sum() if abs(y) <= top else 0.0
        slope[v, i] = (z[v, i] - passed) / a
    return z, slope


@pytest.mark.parametrize("passes", [True, False])
def test_the_range_has_the_gradient_of_a_learned_step(card_file, monkeypatch, passes):
    """LSQ's: (z - x)/a inside, the sign outside; here through both converters."""
    options = {"dac_bits": 5, "adc_bits": 5, "adc_bound": 2.0, "output_noise": 0.0, "training_noise": 0.0}
    target = Analog(card_file(), input_range={"name": "learned", "decay": 0}, weight_clip=None, **options)
    torch.manual_seed(0)
    layer = analog_nn.AnalogLinear(12, 6, bias=False, card=target, dtype=torch.float64).train()
    layer.crossbar.set_ranges(1.5)
    with torch.no_grad():
        layer.crossbar.range_shift.fill_(-0.3)
    if not passes:
        monkeypatch.setattr(crossbar, "takes_compiled_pass", lambda *_, **__: False)
    x, upstream = torch.randn(9, 12, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)
    y = layer(x)
    y.backward(upstream)
    a = 1.5 * 2**-0.3
    z, slope = converters(x.numpy(), layer.weight.detach().numpy(), a)
    assert np.allclose(y.detach().numpy(), z, atol=1e-12)
    want = np.log(2) * a * (slope * upstream.numpy()).sum()
    assert float(layer.crossbar.range_shift.grad) == pytest.approx(want, rel=1e-9)
    assert int(layer.crossbar.observations) == 101


@pytest.mark.parametrize("wrong", [8.0, 1 / 8])
def test_a_wrong_range_is_mended_by_training(card_file, wrong):
    options = {"dac_bits": 4, "output_noise": 0.0, "training_noise": 0.0, "weight_clip": None, "adc_bound": 100.0}
    target = Analog(card_file(model="none"), input_range="learned", adc_bits=14, **options)
    torch.manual_seed(0)
    layer = analog_nn.AnalogLinear(20, 10, card=target).train()
    layer.requires_grad_(False)
    shift = layer.crossbar.range_shift.requires_grad_()
    layer.crossbar.set_ranges(3.0 * wrong)
    optimizer = torch.optim.Adam([shift], lr=0.05)
    losses = []
    for _ in range(150):
        x = torch.randn(64, 20)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(layer(x), nn.functional.linear(x, layer.weight, layer.bias))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert 2.0 < float(layer.crossbar.dac_range().detach()) < 4.5  # a 4-bit converter of normal numbers: about 2.5 to 3
    assert losses[-1] < losses[0] / 4
    # it is saved, and chips have it
    state = layer.state_dict()
    assert float(state["crossbar.range_shift"]) == float(shift.detach())
    calibrate(layer, torch.randn(64, 20))
    assert float(shift.detach()) == 0.0


def test_ranges_are_learned_in_fit_and_kept_by_chips():
    torch.manual_seed(0)
    model = convert(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        Analog("pcm", input_range={"name": "learned", "batches": 20}, dac_bits=4),
    )
    fit(model, "digits", epochs=4, lr=5e-3, show_progress=False)
    one = next(iter(crossbars(model).values()))
    assert float(one.range_shift.detach()) != 0.0
    x = torch.rand(4, 1, 8, 8)
    chips = program(model, chips=2)
    assert torch.isfinite(chips.at("1 day")(x)).all()
    assert evaluate(chips.at("1 h"), "digits").mean > 0.85


def test_gradients_can_be_differentiated_again():
    """As where the loss is a differential equation; the oracle is the digital network, converters nearly ideal."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    fine = {"dac_bits": 14, "adc_bits": 16, "input_range": "learned"}
    target = Analog("pcm-hermes", output_noise=0.0, training_noise=0.0, weight_clip=None, **fine)
    model = convert(net, target).train()
    for _ in range(5):  # ranges stand
        model(torch.rand(64, 2)).sum().backward()
    x, found = 0.25 + 0.25 * torch.rand(8, 2), []  # within the ranges
    for network in (model, net):
        network.zero_grad()
        points = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(points).sum(), points, create_graph=True)
        slope.square().mean().backward()
        found.append([layer.weight.grad for layer in network.modules() if isinstance(layer, nn.Linear)])
    for got, want in zip(*found, strict=True):
        assert torch.allclose(got, want, atol=1e-3 * float(want.abs().max()))
