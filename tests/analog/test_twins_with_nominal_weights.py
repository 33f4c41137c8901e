"""A chip's digital twin where the chip does some products in digital, with the weights from before programming."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hpml_sim as hs

IDEAL = hs.Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal", output_noise=0.0)
pytestmark = pytest.mark.filterwarnings("ignore:forward.. multiplies with the weights", "ignore:programmed chips")


class Autoencoder(nn.Module):
    """Decodes with the weight of its encoder, turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 6)

    def forward(self, x):
        return F.linear(torch.relu(self.a(x)), self.a.weight.t())


class BySelf(Autoencoder):
    """Encodes so as well: the chip's product and the digital one read one parameter."""

    def forward(self, x):
        return F.linear(torch.relu(F.linear(x, self.a.weight)), self.a.weight.t())


class Cosine(nn.Module):
    """Classifies by angles: the weight of a layer that is never called is normalized in digital."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        return F.linear(F.normalize(self.a(x)), F.normalize(self.b.weight))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x):
        x = x.unflatten(1, (2, 2, 2))
        return F.conv_transpose2d(self.c(x), self.c.weight, padding=1)


class Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.b(F.linear(x, self.a.weight, self.a.bias))


class Boltzmann(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 6))

    def forward(self, x):
        return torch.sigmoid(torch.sigmoid(x @ self.w) @ self.w.t())


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(5, 8)


@pytest.mark.parametrize("kind", [Autoencoder, Cosine, Convolutions, Product])
def test_the_twin_computes_what_the_chip_computes(kind, x):
    chips = hs.program(hs.convert(kind(), IDEAL), chips=3, seed=0)
    want = chips.at("1 day")(x)[1]
    twin = hs.to_digital(chips.at("1 day", only=1))
    with torch.no_grad():
        assert torch.allclose(twin(x), want, atol=1e-6 * float(want.abs().max()), rtol=1e-5)
        assert torch.equal(copy.deepcopy(twin)(x), twin(x))
    assert isinstance(twin, kind)


def test_a_tied_decoder_keeps_the_nominal_weight(x):
    net = Autoencoder()
    chips = hs.program(hs.convert(net, IDEAL), chips=1, seed=0)
    chips.at("1 day")(x)
    own, nominal, bias = (
        t.detach().double().numpy() for t in (chips.weights("a", "1 day")[0], net.a.weight, net.a.bias)
    )
    want = np.maximum(x.double().numpy() @ own.T + bias, 0) @ nominal
    with torch.no_grad():
        got = hs.to_digital(chips.at("1 day")).double()(x.double()).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert np.abs(own - nominal).max() > 1e-3  # else nothing was told apart


@pytest.mark.parametrize(("kind", "name"), [(BySelf, "a"), (Boltzmann, "w")])
def test_one_parameter_in_both_ways_is_refused(kind, name, x):
    chips = hs.program(hs.convert(kind(), IDEAL), chips=2, seed=0)
    with pytest.raises(hs.HpmlError, match="call the chips once"):
        hs.to_digital(chips.at("1 day", only=0))
    chips.at("1 day")(x)
    with pytest.raises(hs.HpmlError, match=f"weights of '{name}' and also .*line .*parameter of its own"):
        hs.to_digital(chips.at("1 day", only=0))
