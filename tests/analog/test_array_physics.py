"""IR drop and read noise of the array, against their equations in float64 numpy and aihwkit's compiled tiles."""

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim.analog.nn as analog_nn
from hpml_sim.analog import calibrate, program, to_aihwkit
from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError
from hpml_sim.targets import Analog

IDEAL = {"dac_bits": 16, "adc_bits": 16, "output_noise": 0.0, "training_noise": 0.0, "weight_clip": None}


def layer_on(card, inputs, outputs, *, exact=True, **options):
    torch.manual_seed(0)
    target = Analog(card, **{**IDEAL, **options})
    layer = analog_nn.AnalogLinear(inputs, outputs, bias=False, card=target, dtype=torch.float64)
    if exact:
        layer.crossbar.dac_qmax = layer.crossbar.adc_qmax = None
    return layer.eval()


def dropped(x, w, g_max_us, strength=1.0):
    """One tile: x (vectors, n) and w (columns, n), both in full scale."""
    n = x.shape[1]
    y = x @ w.T
    for v, i in np.ndindex(*y.shape):
        a = n * 0.35 * g_max_us * 1e-6 * (np.abs(w[i]) * np.abs(x[v])).sum()
        c = a * (a * (0.05 * a - 0.2) + 0.5)
        y[v, i] -= strength * c * sum(w[i, j] * x[v, j] * (1 - (1 - j / n) ** 2) for j in range(n))
    return y


@pytest.mark.parametrize(("card", "g_max_us"), [("pcm", 25.0), ("pcm-hermes", 20.7)])
@pytest.mark.parametrize("strength", [1.0, 2.5])
def test_ir_drop_is_that_of_its_polynomial(card, g_max_us, strength):
    layer = layer_on(card, 90, 7, ir_drop=strength)
    x = torch.rand(5, 90, dtype=torch.float64)
    w, full = layer.weight.detach().numpy(), x.numpy().max(1, keepdims=True)
    scale = np.abs(w).max(1, keepdims=True)
    want = dropped(x.numpy() / full, w / scale, g_max_us, strength) * full * scale.T
    got = layer(x).detach().numpy()
    assert np.allclose(got, want, rtol=1e-6, atol=1e-9)
    lost = 1 - (got * (x @ layer.weight.T).detach().numpy()).sum() / ((x @ layer.weight.T) ** 2).sum().item()
    assert 0.002 < lost < 0.2


def test_ir_drop_acts_on_each_tile_by_its_own_rows(card_file):
    layer = layer_on(card_file(rows=16), 40, 5, ir_drop=5.0)  # three tiles of 14, 14 and 12 rows
    x = torch.randn(3, 40, dtype=torch.float64)
    w, full = layer.weight.detach().numpy(), x.abs().numpy().max(1, keepdims=True)
    want = 0
    for rows in (slice(0, 14), slice(14, 28), slice(28, 40)):
        scale = np.abs(w[:, rows]).max(1, keepdims=True)
        want = want + dropped(x.numpy()[:, rows] / full, w[:, rows] / scale, 25.0, 5.0) * full * scale.T
    assert np.allclose(layer(x).detach().numpy(), want, atol=1e-9)


def test_ir_drop_equals_that_of_genuine_tiles():
    """aihwkit's compiled tile, in float32, with neither noise nor rounding."""
    from aihwkit.nn import AnalogLinear
    from aihwkit.simulator.configs import InferenceRPUConfig
    from aihwkit.simulator.parameters.enums import BoundManagementType, NoiseManagementType

    config = InferenceRPUConfig()
    config.mapping.weight_scaling_omega, config.mapping.weight_scaling_columnwise = 1.0, True
    io = config.forward
    io.inp_res = io.out_res = -1
    io.out_noise, io.out_bound = 0.0, 0.0
    io.noise_management, io.bound_management = NoiseManagementType.ABS_MAX, BoundManagementType.NONE
    io.ir_drop, io.ir_drop_g_ratio = 2.0, 1 / 0.35 / 25e-6
    layer = layer_on("pcm", 120, 30, ir_drop=2.0)
    with torch.random.fork_rng(devices=[]):
        genuine = AnalogLinear(120, 30, bias=False, rpu_config=config).eval()
    genuine.set_weights(layer.weight.detach().float())
    x = torch.rand(20, 120)
    with torch.no_grad():
        ours, theirs, ideal = layer(x.double()), genuine(x), x.double() @ layer.weight.T
    assert (ours - ideal).abs().max() > 0.02 * ideal.abs().max()
    assert torch.allclose(ours.float(), theirs, atol=2e-5 * float(ideal.abs().max()))


def test_chips_and_training_feel_ir_drop(card_file):
    path = card_file(model="none", options="{ g_max_us = 25.0 }")
    layer = layer_on(path, 90, 7, exact=False, ir_drop=10.0, compensation="none")
    x = torch.rand(5, 90, dtype=torch.float64)
    calibrate(layer, x)
    expected = layer(x).detach()
    assert not torch.allclose(expected, x @ layer.weight.T, atol=0.02)
    chips = program(nn.Sequential(layer), chips=2).at("1 day")(x)
    assert torch.allclose(chips, expected.expand(2, 5, 7), atol=2e-3)
    assert torch.allclose(layer.train()(x), expected, atol=2e-3)


@pytest.mark.parametrize("rows", [256, 5])
def test_gradients_through_ir_drop_are_exact(card_file, rows):
    layer = layer_on(card_file(rows=rows), 12, 4, ir_drop=10.0)
    # full scales are constants to the gradient, so the largest weights and inputs stay fixed
    layer.crossbar.set_ranges(2.0, output_bound=10.0)
    x = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_read_noise_grows_with_the_current(card_file):
    """Chips that differ in nothing else: 20,000 draws for each figure, five standard errors."""
    path = card_file(model="none")
    layer = layer_on(path, 30, 200, exact=False, read_noise=0.02, adc_bound=40.0, compensation="none")
    x = torch.ones(3, 30, dtype=torch.float64)
    x[1] *= torch.linspace(-1, 1, 30, dtype=torch.float64)
    x[2] = 0.0
    calibrate(layer, torch.ones(3, 30, dtype=torch.float64))
    scale = layer.weight.detach().abs().amax(1)
    y = program(nn.Sequential(layer), chips=100, seed=0).at(0)(x)
    noise = (y - x @ layer.weight.detach().T) / scale
    expected = 0.02 * (x.square() @ (layer.weight.detach().abs() / scale.unsqueeze(1)).T).sqrt()
    for v in range(2):
        ratio = noise[:, v] / expected[v]
        assert float(ratio.std()) == pytest.approx(1, rel=5 / np.sqrt(2 * 20_000))
    assert (noise[:, 2].abs() < 2e-3).all()


def test_read_and_output_noise_add_up(card_file):
    options = {"read_noise": 0.03, "adc_bound": 40.0, "compensation": "none"}
    both = layer_on(card_file(model="none"), 30, 200, exact=False, **{**options, "output_noise": 0.1})
    x = torch.ones(1, 30, dtype=torch.float64)
    calibrate(both, x)
    scale = both.weight.detach().abs().amax(1)
    noise = (program(nn.Sequential(both), chips=100).at(0)(x)[:, 0] - x @ both.weight.detach().T) / scale
    current = (both.weight.detach().abs() / scale.unsqueeze(1)).sum(1)
    ratio = noise / (0.1**2 + 0.03**2 * current).sqrt()
    assert float(ratio.std()) == pytest.approx(1, rel=0.025)


def test_networks_train_and_run_with_all_of_it():
    model = convert(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        Analog("pcm", ir_drop=1.0, read_noise=0.0175, drop_connect=0.1, levels=16, slices=2),
    )
    x = torch.rand(5, 2, 6, 6)
    for _ in range(3):
        model.train()(x).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    chips = program(model, chips=3)
    assert torch.isfinite(chips.at("1 h")(x)).all()
    assert torch.equal(chips.at("1 h")(x), chips.at("1 h")(x))
    few = program(model, chips=2).at("1 h")(x)
    assert torch.allclose(few, chips.at("1 h")(x)[:2], atol=1e-5)


def test_aihwkits_torch_tiles_have_none_of_it():
    for options in ({"ir_drop": 1.0}, {"read_noise": 0.01}):
        model = convert(nn.Linear(4, 4), Analog("pcm", **options))
        calibrate(model, torch.rand(3, 4))
        with pytest.raises(ConversionError, match="no ir_drop and no read_noise"):
            to_aihwkit(model)
