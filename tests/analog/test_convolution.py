"""Convolutions of whole images against a plain float64 computation of every input vector on every row tile."""

import math

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.analog.row_tiles import row_tiles
from hpml_sim.conversion.tiling import Tiling

CASES = {
    "tiles between channels": (lambda: nn.Conv2d(8, 5, 3, padding=1), (3, 8, 6, 5)),
    "a tile inside a channel": (lambda: nn.Conv2d(5, 4, 3, stride=2, padding=1), (3, 5, 7, 6)),
    "a kernel larger than a tile": (lambda: nn.Conv2d(2, 3, 7, padding=3), (2, 2, 8, 8)),
    "groups": (lambda: nn.Conv2d(12, 6, 3, padding=1, groups=2, bias=False), (2, 12, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6), (2, 6, 5, 5)),
    "one-sided padding": (lambda: nn.Conv2d(3, 4, (2, 4), padding="same"), (2, 3, 6, 6)),
    "circular": (lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"), (2, 6, 5, 5)),
    "dilated": (lambda: nn.Conv2d(6, 4, 3, padding=2, dilation=2), (2, 6, 6, 6)),
    "one dimension": (lambda: nn.Conv1d(20, 4, 3, padding=1), (3, 20, 9)),
    "three dimensions": (lambda: nn.Conv3d(3, 4, 3, padding=1), (2, 3, 4, 4, 4)),
}
TILE_ROWS = 32
SETTINGS = {
    "output_noise": 0.0,
    "training_noise": 0.0,
    "weight_clip": None,
    "dac_bits": 6,
    "adc_bits": 7,
    "adc_bound": 10.0,
}


def plain(layer, x, dac_range, bound, tile_rows):
    """Every place of the kernel as a vector, in float64, by the equations of `converters.py`; straight-through."""
    x, weight = x.double(), layer.weight.double()
    n = len(layer.kernel_size)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = nn.functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    for axis, (k, s, d) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        x = x.unfold(2 + axis, d * (k - 1) + 1, s)[..., ::d]
    sizes = x.shape[2 : 2 + n]
    order = (0, *range(2, 2 + n), 1, *range(2 + n, 2 + 2 * n))
    vectors = x.permute(order).reshape(len(x), math.prod(sizes), layer.groups, -1)
    matrix = weight.flatten(1).unflatten(0, (layer.groups, -1))
    dac, adc = 2**5 - 1, 2**6 - 1

    def converted(values, top, levels):
        clipped = values.clamp(-top, top)
        return clipped + ((clipped * levels / top).round() * top / levels - clipped).detach()

    rows, pieces = matrix.shape[-1], math.ceil(matrix.shape[-1] / tile_rows)
    height, total = math.ceil(rows / pieces), 0.0
    for begin in range(0, rows, height):
        part = matrix[..., begin : begin + height]
        scale = part.detach().abs().amax(-1)  # (groups, cols)
        codes = converted(vectors[..., begin : begin + height], dac_range, dac)
        y = torch.einsum("bpgi,gji->bpgj", codes, part) / (scale * dac_range)
        total = total + converted(y, bound, adc) * scale * dac_range
    y = total.flatten(2).transpose(1, 2).unflatten(2, sizes)
    return y if layer.bias is None else y + layer.bias.double().view(-1, *[1] * n)


def converted(make, card_rows, **more):
    torch.manual_seed(0)
    layer = make()
    target = hs.Analog("pcm", **{**SETTINGS, **more})
    analog = hs.convert(nn.Sequential(layer), target)
    crossbar = analog.network[0].crossbar
    t = crossbar.tiling
    crossbar.tiling = Tiling(t.groups, t.rows, t.cols, card_rows, t.tile_cols)
    known(crossbar, 1.5)
    return layer, analog


def known(crossbar, full_scale):
    """Ranges as after a calibration, past the steps of training that move them."""
    crossbar.input_range.fill_(full_scale)
    crossbar.dynamic.fill_(False)
    crossbar.observations.fill_(51)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dynamic", [False, True])
def test_equals_every_vector_alone(case, training, dynamic):
    make, shape = CASES[case]
    layer, analog = converted(make, TILE_ROWS)
    analog.train(training)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    own, its = x.clone().requires_grad_(), x.clone().requires_grad_()
    dac_range = 1.5
    if dynamic:  # the largest value of each sample and group
        analog.network[0].crossbar.dynamic.fill_(True)
        dac_range = x.unflatten(1, (layer.groups, -1)).flatten(2).abs().amax(-1).double()[:, None, :, None]
    want = plain(layer, its, dac_range, 10.0, TILE_ROWS)
    got = analog(own)
    assert got.shape == want.shape
    step = 2 * float(want.detach().abs().max())  # far more than a step: what differs by one is counted
    far = (got.double() - want).abs() > 1e-5 * step
    assert far.double().mean() < 0.01
    weight = analog.network[0].weight
    slope = torch.randn(want.shape, generator=torch.Generator().manual_seed(2))
    mine = torch.autograd.grad(got, (own, weight), slope)
    theirs = torch.autograd.grad(want, (its, layer.weight), slope.double())
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=0, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("case", CASES)
def test_chips_compiled_equal_operator_by_operator(case, monkeypatch):
    make, shape = CASES[case]
    _, analog = converted(make, 256, output_noise=0.05)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    chips = hs.program(analog, chips=2, seed=0)
    with torch.no_grad():
        got = chips.at("1 h")(x)
        monkeypatch.setattr(type(analog.network[0].crossbar), "fuses", lambda self, x: False)
        want = chips.at("1 h")(x)
    assert ((got - want).abs() > 1e-5 * want.abs().max()).float().mean() < 0.01


def test_expanded_gradient_is_that_of_ones():
    _, analog = converted(CASES["tiles between channels"][0], TILE_ROWS)
    analog.train()
    x = torch.randn(3, 8, 6, 5, generator=torch.Generator().manual_seed(1))
    weight = analog.network[0].weight
    summed = torch.autograd.grad(analog(x).sum(), weight)[0]
    y = analog(x)
    assert torch.equal(summed, torch.autograd.grad(y, weight, torch.ones_like(y))[0])


def test_row_tiles_by_hand():
    # 18 rows of 2 channels on tiles of 7: cut evenly at 6 and 12
    found = row_tiles(Tiling(1, 18, 4, 7, 8), (3, 3))
    assert [(t.first, t.channels, t.lead, t.used, t.trail) for t in found] == [
        (0, 1, 0, 6, 3),
        (0, 2, 6, 6, 6),
        (1, 1, 3, 6, 0),
    ]


def test_training_is_seeded_by_torch_and_noise_has_its_size():
    torch.manual_seed(0)
    target = hs.Analog("pcm", adc_bits=12, output_noise=0.05, training_noise=0.0, weight_clip=None, adc_bound=10.0)
    analog = hs.convert(nn.Sequential(nn.Conv2d(4, 40, 3)), target)
    known(analog.train().network[0].crossbar, 2.0)
    x = torch.rand(20, 4, 12, 12)
    ys = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        ys.append(analog(x).detach())
    assert torch.equal(ys[0], ys[1])
    # two draws differ by sqrt(2) sigma, in units of a full-scale product; the ADC's step is far smaller
    full = 2.0 * analog.network[0].weight.detach().flatten(1).abs().amax(1).view(-1, 1, 1)
    spread = float(((ys[0] - ys[2]) / full).std()) / 2**0.5
    # 80,000 numbers: 5 standard deviations are 1.3 %, and the rounding adds less than 0.1 %
    assert abs(spread / 0.05 - 1) < 0.015
