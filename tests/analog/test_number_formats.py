"""Masks of float32 beside networks of fewer bits, as torch itself takes them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hpml_sim as hs


class Encoder(nn.Module):
    def __init__(self, padding: bool) -> None:
        super().__init__()
        self.layer, self.padding = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), padding

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        padding = torch.zeros(x.shape[:2]) if self.padding else None
        return self.layer(x, src_mask=mask, src_key_padding_mask=padding)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("padding", [False, True])
def test_masks_of_float32_fit_networks_of_fewer_bits(dtype, padding):
    torch.manual_seed(0)
    net = Encoder(padding).eval()
    x = torch.rand(3, 5, 8)
    ideal = hs.Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal", output_noise=0.0)
    with torch.no_grad():
        want = copy.deepcopy(net).double()(x.double())
        got = hs.convert(net, ideal).eval().to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    assert float((got.double() - want).abs().max()) < 16 * torch.finfo(dtype).eps * float(want.abs().max())
    chips = hs.program(hs.convert(net, "pcm-hermes"), chips=2, seed=0).at("1 day").to(dtype)
    assert chips(x.to(dtype)).dtype == dtype
