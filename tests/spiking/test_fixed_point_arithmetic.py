from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hpml_sim.conversion import convert
from hpml_sim.data import load_data
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.networks import models
from hpml_sim.spiking import FixedPointNeurons, LeakyNeurons, SynapticNeurons, fixed_point
from hpml_sim.targets import Analog, Spiking
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate


def by_hand(currents: list[float], beta: float, resolution: int, reset: str) -> list[int]:
    """Python's unbounded integers; the threshold is 1."""
    v, seen = 0, []
    decay = round(beta * 4096)
    for current in currents:
        fired = v > resolution
        kept = 0 if fired and reset == "zero" else v
        v = math.trunc(kept * decay / 4096) + round(current * resolution)
        if fired and reset == "subtract":
            v -= resolution
        seen.append(v)
    return seen


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("resolution", [16, 4096])
def test_equals_integers_by_hand(reset, resolution):
    x = 0.6 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) + 0.2
    neurons = FixedPointNeurons(LeakyNeurons(0.9, reset=reset, steps=40), resolution).eval()
    spikes, *_, membrane = neurons.run_steps(neurons.unfold(x))
    for n in range(5):
        want = by_hand(x[:, n].tolist(), float(torch.tensor(0.9)), resolution, reset)
        np.testing.assert_array_equal(membrane[0, :, 0, n] * resolution, want)
        np.testing.assert_array_equal(spikes[0, :, 0, n], np.array(want) > resolution)


def test_membrane_saturates_instead_of_wrapping():
    neurons = FixedPointNeurons(LeakyNeurons(1.0, reset="none", steps=3), 4096).eval()
    _, membrane = neurons.run_steps(torch.full((1, 3, 1, 1), 1e9))
    assert (membrane == (2**23 - 1) / 4096).all()


def test_training_is_in_floating_point():
    x = torch.rand(4, 3, requires_grad=True)
    neurons = FixedPointNeurons(LeakyNeurons(0.9, steps=4)).train()
    out = neurons(x)
    out.sum().backward()
    assert torch.equal(out, LeakyNeurons(0.9, steps=4)(x))


def test_digits_in_integers():
    digits = load_data("digits")
    model = convert(models.build("mlp", (1, 8, 8), 10), Spiking("loihi", encoder="direct"))
    fit(model, digits, epochs=8, lr=5e-3, show_progress=False)
    exact = evaluate(model, digits).mean
    integers = fixed_point(model)
    assert abs(evaluate(integers, digits).mean - exact) <= 0.01
    coarse = fixed_point(model, weight_bits=2, resolution=8)
    assert evaluate(coarse, digits).mean < exact - 0.02
    weight = integers.network[1].weight
    scale = 2.0 ** float(torch.ceil(torch.log2(model.network[1].weight.detach().abs().max() / 127)))
    whole = weight / scale
    assert torch.equal(whole, whole.round())
    assert whole.abs().max() <= 127
    report = integers.report.set_index("layer")
    assert "8-bit weights x 2^" in report.why["1"]
    assert report.why["(output)"] == "integers, threshold 4096"
    assert isinstance(model.network[2], LeakyNeurons)
    assert not isinstance(model.network[2], FixedPointNeurons)


def test_bad_input_is_named():
    with pytest.raises(HpmlError, match="resolution=1: must be"):
        FixedPointNeurons(LeakyNeurons(0.9), 1)
    with pytest.raises(ConversionError, match="SynapticNeurons with reset_delay"):
        FixedPointNeurons(SynapticNeurons(0.9))
    net = models.build("mlp", (1, 8, 8), 10)
    with pytest.raises(HpmlError, match="weight_bits=12"):
        fixed_point(convert(net, "loihi"), weight_bits=12)
    with pytest.raises(ConversionError, match="crossbars"):
        fixed_point(convert(net, Spiking("loihi", synapses=Analog("pcm-hermes"))))
