"""Stuck devices, finite conductance levels, and weights cut into slices: what aihwkit lacks at inference."""

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim.analog.nn as analog_nn
from hpml_sim.analog import calibrate, load_chips, program, save_chips, to_aihwkit
from hpml_sim.analog.bit_slicing import bit_slices as sliced
from hpml_sim.analog.devices import DeviceModel
from hpml_sim.cards import CrossbarCard
from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.targets import Analog
from hpml_sim.targets.cards import card_named

from . import oracles


def layer_on(card, inputs=40, outputs=9, **options):
    torch.manual_seed(0)
    return analog_nn.AnalogLinear(inputs, outputs, card=Analog(card, output_noise=0.0, **options), dtype=torch.float64)


def programmed(chips, name="0"):
    """Conductances right after programming, microsiemens, (chips, devices, groups, row tiles, columns, height)."""
    return torch.stack([g.clone() for g in chips.backend.layers[name].conductances(range(len(chips)), None)])


# ------------------------------------------------------------------------------------------------------- stuck devices


@pytest.mark.parametrize("card", ["pcm", "pcm-hermes", "reram-neurram"])
def test_the_share_of_stuck_devices_is_that_asked_for(card):
    """128,000 devices: 5 standard errors, a false alarm in 2 million."""
    target = Analog(card, stuck_at_g_min=0.03, stuck_at_g_max=0.01)
    physics = DeviceModel(card_named(target.card, CrossbarCard).noise)
    # weights in the middle: no device is at an end of its range by itself, except the idle one of a pair
    layer = analog_nn.AnalogLinear(200, 80, bias=False, card=target)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.weight[:, 0] = 1.0
    g_us = programmed(program(nn.Sequential(layer), chips=4, seed=0))[:, 0, :, :, :, 1:100]
    n = g_us.numel()
    for end, share in ((physics.g_min_us, 0.03), (physics.g_max_us, 0.01)):
        found = float((g_us == end).double().mean())
        assert found == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / n))


def test_stuck_devices_are_others_on_each_chip_and_the_same_at_all_times():
    layer = layer_on("pcm", 60, 60, stuck_at_g_min=0.1, stuck_at_g_max=0.1, compensation="none")
    chips = program(nn.Sequential(layer), chips=3, seed=0)
    g_us = programmed(chips)
    high = g_us == 25.0
    assert 0.07 < high.double().mean() < 0.13
    # independent choices agree on 1 % of the devices, never on the 10 % of equal ones
    assert (high[0] & high[1]).double().mean() < 0.02
    for time in (0.0, 86400.0):
        weight = chips.at(time).network[0].crossbar.programmed.weight
        both = high[:, 0] & (g_us[:, 1] == 0)  # G+ stuck at its largest and G- at its smallest: a weight of 1
        assert both.any()
        assert (weight[both] == 1.0).all()
    assert torch.equal(programmed(program(nn.Sequential(layer), chips=2, seed=0)), g_us[:2])
    assert not torch.equal(programmed(program(nn.Sequential(layer), chips=3, seed=1)), g_us)


def test_more_faults_add_to_fewer():
    few, many = (
        programmed(program(nn.Sequential(layer_on("pcm", stuck_at_g_max=share)), chips=1)) == 25.0
        for share in (0.05, 0.2)
    )
    assert (few <= many).all()
    assert few.sum() < many.sum()


def test_dead_and_saturated_arrays_compute_what_they_must(card_file):
    x = torch.rand(4, 40, dtype=torch.float64)
    for options in ({"stuck_at_g_min": 1.0}, {"stuck_at_g_max": 1.0}):  # G+ equals G-: the products vanish
        layer = layer_on(card_file(model="none"), **options)
        y = program(nn.Sequential(layer), chips=2).at(0)(x)
        assert torch.allclose(y, layer.bias.detach().expand_as(y))


def test_faults_alone_change_only_the_faulty_weights(card_file):
    path = card_file(model="none")
    sound, faulty = (
        program(nn.Sequential(layer_on(path, stuck_at_g_min=share)), chips=1)
        .at(0)
        .network[0]
        .crossbar.programmed.weight
        for share in (0.0, 0.2)
    )
    changed = sound != faulty
    assert (faulty[changed] == 0).all()  # the device that held the weight is dead, the other one was idle
    assert 0.1 < changed.double().mean() < 0.3


# ---------------------------------------------------------------------------------------------------- levels and slices


BOUND = 3.9173
"""Range of the ADC: with it no product of whole numbers lies right between two codes."""


def bit_slices(weight, levels, slices, signed):
    """Digits of integers, one weight at a time, in Python's own whole numbers: most significant first, as weights."""
    found = np.zeros((slices, *weight.shape))
    for index, w in np.ndenumerate(weight):
        number = round(float((abs(w) if signed else (w + 1) / 2) * (levels**slices - 1)))
        for place in range(slices - 1, -1, -1):
            number, digit = divmod(number, levels)
            share = digit / (levels - 1)
            found[(place, *index)] = np.sign(w) * share if signed else 2 * share - 1
    return found


@pytest.mark.parametrize(("levels", "slices"), [(2, 1), (5, 1), (16, 1), (2, 4), (4, 3), (16, 2), (256, 2)])
@pytest.mark.parametrize("model", ["none", "reram-cmo"])
def test_cells_hold_the_digits_of_the_weights(card_file, levels, slices, model):
    target = Analog(card_file(model=model), levels=levels, slices=slices)
    physics = DeviceModel(card_named(target.card, CrossbarCard).noise)
    weight = 2 * torch.rand(30, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    weight[0, :3] = torch.tensor([0.0, 1.0, -1.0])
    want = bit_slices(weight.numpy(), levels, slices, signed=model == "none")
    got = sliced(weight, levels, slices, signed=physics.signed)
    assert len(got) == slices
    for a, b in zip(got, want, strict=True):
        assert np.allclose(a.numpy(), b, atol=1e-12)
    # each cell is at one of its levels, and together they are the weight to half a step
    counts = [(levels - 1) * levels**i / (levels**slices - 1) for i in range(slices - 1, -1, -1)]
    step = (1 if model == "none" else 2) / (levels**slices - 1)
    assert (sum(c * d for c, d in zip(counts, got, strict=True)) - weight).abs().max() <= step / 2 + 1e-12
    g_us = physics.conductances(got[0])
    place = (g_us - physics.g_min_us) / (physics.g_max_us - physics.g_min_us) * (levels - 1)
    assert torch.allclose(place, place.round(), atol=1e-9)


@pytest.mark.parametrize("rows", [256, 16])
@pytest.mark.parametrize(("levels", "slices"), [(8, 1), (4, 2), (2, 3)])
@pytest.mark.parametrize("compensation", ["none", "global", "column"])
def test_chips_shift_and_add_what_their_columns_say(card_file, rows, levels, slices, compensation):
    """Each slice is a product of its own through its own ADC; the digital sum weighs it by its place."""
    options = {"input_range": "mse", "dac_bits": 6, "adc_bits": 6, "adc_bound": BOUND, "compensation": compensation}
    layer = layer_on(card_file(rows=rows, model="none"), levels=levels, slices=slices, **options)
    layer.bias = None
    x = torch.randn(12, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    calibrate(layer, x)
    full = float(torch.maximum(layer.crossbar.input_range, layer.crossbar.output_range))
    y = program(nn.Sequential(layer), chips=2, seed=0).at("1 year")(x)
    weight = layer.weight.detach().numpy()
    pieces = -(-40 // rows)
    height = -(-40 // pieces)
    want = np.zeros((12, 9))
    for piece in range(pieces):
        part = slice(piece * height, min(40, (piece + 1) * height))
        scale = np.abs(weight[:, part]).max(1)
        for place, digit in zip(
            range(slices - 1, -1, -1),
            bit_slices((weight[:, part] / scale[:, None]).astype(np.float32), levels, slices, signed=True),
            strict=True,
        ):
            codes = np.clip(np.rint(x.numpy()[:, part] / full * 31), -31, 31) / 31
            read = np.clip(np.rint(codes @ digit.T * 31 / BOUND), -31, 31) * BOUND / 31
            want += (levels - 1) * levels**place / (levels**slices - 1) * read * scale * full
    assert np.allclose(y.numpy(), want, atol=1e-5)


@pytest.mark.parametrize(("levels", "slices"), [(2, 1), (4, 2)])
def test_training_sees_the_levels_and_its_gradient_goes_straight_through(card_file, levels, slices):
    options = {
        "dac_bits": "ideal",
        "adc_bits": "ideal",
        "weight_clip": None,
        "training_noise": 0.0,
    }
    layer = layer_on(card_file(model="none"), levels=levels, slices=slices, **options)
    layer.bias = None
    x, upstream = torch.randn(12, 40, dtype=torch.float64), torch.randn(12, 9, dtype=torch.float64)
    weight = layer.weight.detach().numpy()
    full = np.abs(weight).max(1, keepdims=True)
    held = np.rint(np.abs(weight) / full * (levels**slices - 1)) / (levels**slices - 1) * full * np.sign(weight)
    for training in (True, False):
        y = layer.train(training)(x)
        assert np.allclose(y.detach().numpy(), x.numpy() @ held.T, atol=1e-6)
    layer.train()(x).backward(upstream)
    assert np.allclose(layer.weight.grad.numpy(), (upstream.T @ x).numpy(), atol=1e-6)


def test_slices_take_columns_and_tiles(card_file):
    path = card_file(rows=16, cols=8)
    model = nn.Sequential(nn.Linear(30, 10))
    for options, tiles, cols in (({}, 4, 8), ({"levels": 4}, 4, 8), ({"levels": 4, "slices": 3}, 10, 2)):
        converted = convert(model, Analog(path, **options))
        assert converted.layers[0].tiles == tiles
        tiling = converted.network[0].crossbar.tiling
        assert (tiling.tile_cols, tiling.tiles) == (cols, tiles)
        assert program(converted, chips=2).at("1 day")(torch.rand(3, 30)).shape == (2, 3, 10)
    with pytest.raises(HpmlError, match=r"one weight takes 9 columns, a tile of card .* has 8"):
        convert(model, Analog(path, levels=2, slices=9))


def test_compensation_of_slices_is_one_factor_a_tile_or_one_a_column(card_file):
    for compensation, distinct in (("none", {1}), ("global", {3, 4}), ("column", {*range(10, 15)})):
        target = Analog(card_file(rows=64, cols=4), compensation=compensation, levels=16, slices=2)
        torch.manual_seed(0)
        model = nn.Sequential(analog_nn.AnalogLinear(60, 7, card=target))
        chips = program(model, chips=1, seed=0)
        factors = (
            chips.at("1 day").network[0].crossbar.programmed.scale.squeeze() / chips.backend.layers["0"].column_scale
        )
        factors = factors.reshape(2, 7)
        assert len({round(float(f), 6) for f in factors.flatten()}) in distinct
        if compensation == "global":  # two weights a tile, both slices of each
            assert torch.allclose(factors[0], factors[1])
            assert torch.allclose(factors[:, 0], factors[:, 1])


def test_more_slices_hold_weights_better(card_file):
    """Rounding error of uniform weights: a step over sqrt(12)."""
    for levels, slices in ((4, 1), (4, 2), (4, 3)):
        layer = layer_on(card_file(model="none"), 100, 100, levels=levels, slices=slices, compensation="none")
        layer.crossbar.dac_qmax = layer.crossbar.adc_qmax = None
        x = torch.eye(100, dtype=torch.float64)
        y = program(nn.Sequential(layer), chips=1).at(0)(x)[0] - layer.bias
        error = ((y - layer.weight.T) / layer.weight.abs().amax(1)).detach().std()
        assert float(error) == pytest.approx(1 / (levels**slices - 1) / np.sqrt(12), rel=0.05)


def test_options_come_back_from_a_file(tmp_path):
    options = {"levels": 8, "slices": 2, "stuck_at_g_min": 0.05, "stuck_at_g_max": 0.02}
    model = convert(nn.Linear(12, 5), Analog("pcm", **options))
    chips = program(model, chips=2, seed=3)
    save_chips(chips, tmp_path / "chips.safetensors")
    x = torch.rand(4, 12)
    assert torch.equal(load_chips(tmp_path / "chips.safetensors", model).at("1 day")(x), chips.at("1 day")(x))
    with pytest.raises(HpmlError, match=r"other settings \(.*slices"):
        load_chips(tmp_path / "chips.safetensors", convert(nn.Linear(12, 5), Analog("pcm", levels=8)))


def test_converted_networks_train_and_run_with_all_options():
    model = convert(
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
        Analog("pcm-hermes", levels=16, slices=2, stuck_at_g_min=0.01),
    )
    x = torch.rand(5, 2, 6, 6)
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    y = program(model, chips=2).at("1 h")(x)
    assert y.shape == (2, 5, 3)
    assert torch.isfinite(y).all()


def test_what_does_not_fit_together_is_refused():
    for options, reason in (
        ({"slices": 2}, "give levels= as well"),
        ({"levels": 1}, "levels=1: must be a whole number from 2 to 65536"),
        ({"levels": 65536, "slices": 2}, "at most 2\\^31"),
        ({"stuck_at_g_min": 0.6, "stuck_at_g_max": 0.6}, "at most 1 together"),
        ({"stuck_at_g_min": -0.1}, r"stuck_at_g_min=-0\.1: must be a finite number from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=reason):
            Analog("pcm", **options)
    for options in ({"levels": 4}, {"stuck_at_g_max": 0.1}):
        model = convert(nn.Linear(4, 4), Analog("pcm", **options))
        calibrate(model, torch.rand(3, 4))
        with pytest.raises(ConversionError, match="no levels, slices or stuck devices"):
            to_aihwkit(model)


def test_the_reference_product_is_unchanged_by_a_single_fine_slice(card_file):
    options = {"compensation": "none", "dac_bits": 8, "adc_bits": 8, "adc_bound": 10.0}
    layer = layer_on(card_file(model="none"), levels=65536, **options)
    layer.bias = None
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = program(nn.Sequential(layer), chips=1).at(0)(x)[0].numpy()
    want = oracles.product(
        x.numpy(), layer.weight.detach().numpy(), dac_bits=8, adc_bits=8, bound=10.0, rows=256, input_range=None
    )
    assert np.isclose(y, want, atol=1e-4).mean() > 0.95
