"""Transposed convolutions on crossbars: with converters that lose next to nothing they equal torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.errors import HpmlError

FINE = hs.Analog("pcm", dac_bits=16, adc_bits=16, output_noise=0, training_noise=0, weight_clip=None)
LAYERS = {
    "1d": (lambda: nn.ConvTranspose1d(3, 4, 3), (3, 7)),
    "1d, all options": (
        lambda: nn.ConvTranspose1d(4, 6, 4, stride=3, padding=2, output_padding=1, dilation=2, groups=2),
        (4, 5),
    ),
    "2d, upsampling": (lambda: nn.ConvTranspose2d(8, 3, 2, stride=2), (8, 4, 5)),
    "2d, overlapping": (lambda: nn.ConvTranspose2d(5, 4, (4, 3), stride=(2, 1), padding=(1, 0)), (5, 4, 3)),
    "2d, depthwise": (lambda: nn.ConvTranspose2d(6, 6, 3, stride=2, groups=6, bias=False), (6, 3, 3)),
    "2d, of one tile's rows and more": (lambda: nn.ConvTranspose2d(600, 2, 2), (600, 2, 2)),
    "3d": (lambda: nn.ConvTranspose3d(2, 3, 2, stride=2, output_padding=1), (2, 2, 3, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_with_fine_converters_it_equals_torch_s(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    layer, x = make(), torch.randn(3, *shape)
    analog = hs.convert(layer, FINE).eval()
    expected = layer(x)
    assert torch.allclose(analog(x), expected, atol=2e-3 * float(expected.detach().abs().max()))
    assert torch.allclose(analog(x[0]), layer(x[0]), atol=2e-3 * float(expected.detach().abs().max()))


def test_gradients_equal_torch_s():
    torch.manual_seed(0)
    layer, x = nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1), torch.randn(2, 3, 4, 4)
    analog = hs.convert(layer, FINE)
    hs.calibrate(analog, x)
    analog.train()
    for model in (layer, analog):
        model(x).square().mean().backward()
    (weight, bias), own = layer.parameters(), dict(analog.named_parameters())
    assert torch.allclose(own["network.weight"].grad, weight.grad, rtol=0, atol=5e-3 * float(weight.grad.abs().max()))
    assert torch.allclose(own["network.bias"].grad, bias.grad, rtol=0, atol=5e-3 * float(bias.grad.abs().max()))


def test_chips_see_the_programmed_weights_and_differ():
    torch.manual_seed(0)
    net = nn.Sequential(nn.ConvTranspose2d(4, 2, 2, stride=2), nn.Flatten())
    analog = hs.convert(net, "pcm-hermes")
    x = torch.rand(5, 4, 3, 3)
    hs.calibrate(analog, x)
    y = hs.program(analog, chips=3, seed=0).at("1 day")(x)
    assert y.shape == (3, 5, 72)
    expected = net(x).detach().expand_as(y)
    assert float((y - expected).norm() / expected.norm()) < 0.5
    assert not torch.equal(y[0], y[1])


def test_its_matrix_has_a_row_an_input_channel_and_a_column_for_all_that_it_spreads():
    analog = hs.convert(nn.ConvTranspose2d(8, 6, 3, groups=2), "pcm-hermes")
    (product,) = analog.mapping.products.values()
    assert (product.tiling.rows, product.tiling.cols, product.tiling.groups) == (4, 27, 2)
    counts = hs.workload(analog, input_shape=(8, 5, 5))
    (layer,) = (y for y in counts.layers if y.rows)
    assert (layer.rows, layer.cols, layer.groups, layer.vectors) == (4, 27, 2, 25)


def test_an_output_size_picks_among_what_the_stride_leaves_open():
    torch.manual_seed(0)
    layer, x = nn.ConvTranspose2d(3, 2, 3, stride=2), torch.rand(1, 3, 4, 4)
    analog = hs.convert(layer, FINE).eval()
    assert torch.allclose(analog(x, output_size=(10, 9)), layer(x, output_size=(10, 9)), atol=1e-2)
    with pytest.raises(HpmlError, match=r"output_size=\(20, 9\)"):
        analog(x, output_size=(20, 9))


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 4, 4), (2, 3, 4)])
def test_inputs_that_do_not_fit_are_refused(shape):
    with pytest.raises(HpmlError, match="analog"):
        hs.convert(nn.ConvTranspose2d(3, 2, 3), "pcm")(torch.rand(shape))
