"""Input ranges by channel: each channel is divided by a scale, and its weights are multiplied by it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import hpml_sim as hs

BY_CHANNEL = {"input_range_by": "channel", "output_noise": 0.0}


def uneven(*shape: int) -> Tensor:
    """Inputs of which channel 1 is 300 times larger than the others."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x[:, 1] *= 300
    return x


def error(y: Tensor, exact: Tensor) -> float:
    return float((y - exact).norm() / exact.norm())


def layer() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(32, 16)


@torch.no_grad()
@pytest.mark.parametrize("name", ["percentile", "sigma", "mse", "dynamic", "learned"])
def test_a_channel_far_larger_than_the_others_costs_them_no_resolution(name: str) -> None:
    plain, x = layer(), uneven(400, 32)
    small = x.clone()
    small[:, 1] = 0  # what the other channels give
    found = {}
    for by in ("layer", "channel"):
        share = {"share": 1.0} if name == "percentile" else {"sigmas": 20.0} if name in ("sigma", "learned") else {}
        target = hs.Analog("pcm", input_range={"name": name, **share}, **{**BY_CHANNEL, "input_range_by": by})
        analog = hs.convert(plain, target).eval()
        hs.calibrate(analog, x)
        loss = (analog(x) - plain(x)).norm() / (plain(small) - plain.bias).norm()
        found[by] = float(loss)
        assert list(analog.report["input_range"]) == [name + (" by channel" if by == "channel" else "")]
    # what the ADC loses of large outputs stays
    assert found["channel"] < 0.7 * found["layer"]


@torch.no_grad()
def test_scales_are_those_of_smoothquant() -> None:
    plain, x = layer(), uneven(100, 32)
    analog = hs.convert(plain, hs.Analog("pcm", **BY_CHANNEL))
    hs.calibrate(analog, x)
    largest, weight = x.double().abs().numpy().max(0), plain.weight.double().abs().numpy().max(0)
    scale = analog.network.crossbar.channel_scale
    assert isinstance(scale, Tensor)
    np.testing.assert_allclose(scale.numpy(), np.sqrt(largest / weight), rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nn.Linear(8, 5), (20, 8)),
        (nn.Conv2d(4, 6, 3, padding=1), (3, 4, 5, 5)),
        (nn.Conv2d(4, 6, 3, groups=2, padding=1, padding_mode="reflect"), (3, 4, 5, 5)),
        (nn.Conv1d(4, 4, 3, groups=4), (3, 4, 9)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (3, 4, 5, 5)),
        (nn.GRU(4, 6, batch_first=True), (3, 4, 4)),
        (nn.MultiheadAttention(8, 2, batch_first=True), (3, 5, 8)),
    ],
)
def test_with_ideal_converters_every_layer_computes_what_it_did(net: nn.Module, shape: tuple[int, ...]) -> None:
    x = uneven(*shape)
    inputs = (x, x, x) if isinstance(net, nn.MultiheadAttention) else (x,)
    target = hs.Analog("pcm-afm", dac_bits="ideal", adc_bits="ideal", **BY_CHANNEL)
    analog = hs.convert(net, target).eval()
    hs.calibrate(analog, [(inputs if len(inputs) > 1 else x,)])
    scales = [s for m in analog.modules() if isinstance(s := getattr(m, "channel_scale", None), Tensor)]
    assert any(float((scale - 1).abs().max()) > 0.1 for scale in scales)

    def first(y: Any) -> Tensor:
        return y[0] if isinstance(y, tuple) else y

    exact = first(net.eval()(*inputs))
    assert error(first(analog(*inputs)), exact) < 1e-5
    twin = hs.to_digital(analog)
    assert error(first(twin(*inputs)), exact) < 1e-5


@torch.no_grad()
def test_chips_hold_scaled_weights_and_divide_their_inputs(tmp_path: Path) -> None:
    plain, x = layer(), uneven(50, 32)
    analog = hs.convert(plain, hs.Analog("pcm-afm", **BY_CHANNEL))
    hs.calibrate(analog, x)
    chips = hs.program(analog, chips=3, seed=0)
    exact = plain(x)
    for y in chips.at("1 s")(x):
        assert error(y, exact) < 0.2
    path = tmp_path / "chips.safetensors"
    hs.save_chips(chips, path)
    assert torch.equal(hs.load_chips(path, analog).at("1 s")(x), chips.at("1 s")(x))
    # a chip's weights in the layer's own units
    one = chips.at("1 s", only=0)
    assert error(hs.to_digital(one)(x), one(x)) < 0.05


def test_training_sets_scales_once_and_calibrating_sets_them_anew() -> None:
    x, plain = uneven(64, 32), layer()
    y = plain(x).argmax(1).detach()
    analog = hs.convert(plain, hs.Analog("pcm", weight_clip=None, **BY_CHANNEL))
    hs.fit(analog, TensorDataset(x, y), task="classification", epochs=2, lr=1e-4, batch_size=64, show_progress=False)
    crossbar = analog.network.crossbar
    of_training = crossbar.channel_scale.clone()
    assert float(of_training[1]) > 5 * float(of_training[2])
    hs.calibrate(analog, x / 4)
    torch.testing.assert_close(crossbar.channel_scale, of_training / 2, rtol=0.05, atol=0)
    # an input that does not fit costs no earlier scales
    before = crossbar.channel_scale.clone()
    with pytest.raises(hs.HpmlError):
        hs.calibrate(analog, torch.rand(4, 7))
    assert torch.equal(crossbar.channel_scale, before)


def test_gradients_of_weights_are_those_of_the_digital_layer() -> None:
    plain, x = layer(), uneven(64, 32)
    target = hs.Analog(
        "pcm-afm", dac_bits="ideal", adc_bits="ideal", training_noise=0.0, weight_clip=None, **BY_CHANNEL
    )
    analog = hs.convert(plain, target).train()
    analog(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert analog.network.weight.grad is not None
    assert plain.weight.grad is not None
    assert error(analog.network.weight.grad, plain.weight.grad) < 1e-4


def test_the_estimate_charges_a_multiplication_an_input() -> None:
    plain = layer()
    estimates = {}
    for by in ("layer", "channel"):
        target = hs.Analog("pcm-hermes", input_range="percentile", input_range_by=by)
        estimates[by] = hs.estimate(hs.convert(plain, target), input_shape=(32,))
    assert estimates["channel"].energy_j.nominal > estimates["layer"].energy_j.nominal
    assert any("by channel" in line for line in estimates["channel"].assumptions)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    with pytest.raises(hs.HpmlError, match=re.escape("input_range_by='channel': card 'isaac'")) as refused:
        hs.Analog("isaac", input_range_by="channel")
    assert "\n" not in str(refused.value)
    with pytest.raises(hs.HpmlError, match="aihwkit's layers have one input range"):
        hs.Analog("pcm", engine="aihwkit", input_range_by="channel")
    with pytest.raises(hs.HpmlError, match="input_range_by"):
        hs.Analog("pcm", input_range_by="column")
