"""ADCs that are not linear; the oracle is numpy in double precision."""

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.analog.layers import crossbars

BITS, QMAX, BOUND = 5, 15, 1.25
QUIET = {"adc_bits": BITS, "adc_bound": BOUND, "input_range": "dynamic", "output_noise": 0.0, "training_noise": 0.0}
EQUAL = tuple((k + 0.5) / QMAX for k in range(-QMAX, QMAX))
UNEQUAL = tuple(float(t) for t in np.sign(EQUAL) * np.abs(EQUAL) ** 1.2)
BENT = {"adc_polynomial": (0.9, 0.05, -0.2)}


def by_hand(x: np.ndarray, weight: np.ndarray, dac_range: float, code_of) -> np.ndarray:
    """A layer of one tile without noise: 8-bit DAC of each vector's range, product, ADC of the column's range."""
    peak = np.abs(x).max(1, keepdims=True) * dac_range
    codes = np.rint(x / peak * 127)
    scale = np.abs(weight).max(1)
    v = np.clip(codes @ (weight / scale[:, None]).T / 127 / BOUND, -1, 1)
    return code_of(v) * BOUND / QMAX * scale * peak


def polynomial(v):
    return np.clip(np.rint(QMAX * (0.9 * v + 0.05 * v**2 - 0.2 * v**3)), -QMAX, QMAX)


def thresholds(v):
    return (np.asarray(UNEQUAL) <= v[..., None]).sum(-1) - QMAX


@pytest.mark.parametrize(("option", "code_of"), [(BENT, polynomial), ({"adc_thresholds": UNEQUAL}, thresholds)])
def test_a_layer_reads_what_the_adc_gives(option, code_of):
    torch.manual_seed(0)
    layer = nn.Linear(16, 8, bias=False, dtype=torch.float64)
    model = hs.convert(layer, hs.Analog("pcm", dac_bits=8, weight_clip=None, **option, **QUIET)).eval()
    x = torch.randn(40, 16, dtype=torch.float64)
    hs.calibrate(model, x)
    (crossbar,) = crossbars(model).values()
    want = by_hand(x.numpy(), layer.weight.detach().numpy(), float(crossbar.dac_range()), code_of)
    assert np.allclose(model(x).detach().numpy(), want, atol=1e-9)


def net() -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(convolution, nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3))


def chips_of(x: torch.Tensor, **options) -> torch.Tensor:
    model = hs.convert(net(), hs.Analog("pcm", **options, **QUIET)).eval()
    hs.calibrate(model, x)
    return hs.program(model, chips=3, seed=0).at("1 day")(x)


@pytest.mark.parametrize("option", [{"adc_polynomial": (1.0,)}, {"adc_thresholds": EQUAL}])
@pytest.mark.filterwarnings("ignore:calibrate. the converters alone")
def test_a_linear_one_is_the_linear_adc_on_chips(option):
    x = torch.rand(20, 1, 6, 6)
    linear, same, bent = chips_of(x), chips_of(x, **option), chips_of(x, **BENT)
    step = linear.abs().max() / QMAX
    assert ((linear - same).abs() > 1e-4 * step).float().mean() < 0.02  # the edge of a step, in few places
    assert ((linear - bent).abs() > 1e-4 * step).float().mean() > 0.5


@pytest.mark.parametrize("option", [BENT, {"adc_thresholds": UNEQUAL}])
def test_training_runs_through_it(option):
    model = hs.convert(net(), hs.Analog("pcm", **option, **QUIET)).train()
    for _ in range(4):
        model.zero_grad()
        model(torch.rand(8, 1, 6, 6)).square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(bool(g.isfinite().all()) and float(g.abs().max()) > 0 for g in gradients if g is not None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"adc_polynomial": (1.0,), "adc_thresholds": EQUAL}, "has one of the two"),
        ({"adc_polynomial": (1.0,), "adc_bits": "ideal"}, "an ideal ADC has no range"),
        ({"adc_polynomial": (1.0,), "engine": "aihwkit"}, "take engine='fused'"),
        ({"adc_polynomial": 3}, "must be a list, each a finite number"),
        ({"adc_polynomial": (0.0, 0.0)}, "must have a coefficient"),
        ({"adc_polynomial": (float("nan"),)}, "finite"),
        ({"adc_thresholds": EQUAL[1:], "adc_bits": BITS}, "5 bits has 30 thresholds; 29 are given"),
        ({"adc_thresholds": EQUAL[::-1], "adc_bits": BITS}, "must increase"),
    ],
)
def test_what_is_no_adc_is_refused(options, said):
    with pytest.raises(hs.HpmlError, match=said):
        hs.Analog("pcm", **options)
