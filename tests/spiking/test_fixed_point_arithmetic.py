from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hpml_sim.cards import load_card
from hpml_sim.conversion import convert
from hpml_sim.data import load_data
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.networks import models
from hpml_sim.spiking import (
    AdaptiveNeurons,
    FixedPointNeurons,
    IzhikevichNeurons,
    LeakyNeurons,
    SynapticNeurons,
    fixed_point,
)
from hpml_sim.spiking.fixed_point_arithmetic import in_integers_of
from hpml_sim.spiking.fixed_point_neurons import integers_of
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


def cut(number: float) -> int:
    return math.trunc(number)


def synaptic_by_hand(currents: list[float], alpha: float, beta: float, reset: str, late: bool) -> list[tuple[int, int]]:
    """Spikes and membranes in Python's integers, 1,024 steps to a threshold of 1."""
    top, a, b, i, v, seen = 1024, round(alpha * 4096), round(beta * 4096), 0, 0, []
    for current in currents:
        before = v > top
        i = cut(i * a / 4096) + round(current * top)
        v = cut(v * b / 4096) + i
        if late:
            v = v if not before else 0 if reset == "zero" else v - top
            seen.append((int(v > top), v))
        else:
            fired = v > top
            v = v if not fired else 0 if reset == "zero" else v - top
            seen.append((int(fired), v))
    return seen


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_synaptic_neurons_equal_integers_by_hand(reset, late):
    x = 0.4 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    exact = SynapticNeurons(0.6, 0.9, reset=reset, reset_delay=late, steps=40)
    neurons = integers_of(exact, 1024).eval()
    spikes, _, membrane = neurons.run_steps(neurons.unfold(x))
    for n in range(5):
        want = synaptic_by_hand(x[:, n].tolist(), float(torch.tensor(0.6)), float(torch.tensor(0.9)), reset, late)
        np.testing.assert_array_equal(spikes[0, :, 0, n], [fired for fired, _ in want])
        np.testing.assert_array_equal(membrane[0, :, 0, n] * 1024, [v for _, v in want])
    assert type(exact) is SynapticNeurons


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_an_immediate_reset_equals_integers_by_hand(reset):
    x = 0.6 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) + 0.2
    neurons = FixedPointNeurons(LeakyNeurons(0.9, reset=reset, reset_delay=False, steps=40), 1024).eval()
    spikes, membrane = neurons.run_steps(neurons.unfold(x))
    for n in range(5):
        want = synaptic_by_hand(x[:, n].tolist(), 0.0, float(torch.tensor(0.9)), reset, late=False)
        np.testing.assert_array_equal(spikes[0, :, 0, n], [fired for fired, _ in want])
        np.testing.assert_array_equal(membrane[0, :, 0, n] * 1024, [v for _, v in want])


def test_adaptive_neurons_equal_integers_by_hand():
    x = 0.6 * torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + 0.3
    neurons = integers_of(AdaptiveNeurons(0.9, adaptation=0.5, adaptation_decay=0.75, steps=60), 1024).eval()
    spikes, *_, membrane = neurons.run_steps(neurons.unfold(x))
    for n in range(5):
        a, v, seen = 0, 0, []
        for current in x[:, n].tolist():
            before = v > 1024 + cut(0.5 * a)
            v = cut(v * round(float(torch.tensor(0.9)) * 4096) / 4096) + round(current * 1024) - 1024 * before
            a = cut(a * 0.75) + 1024 * before
            seen.append((int(v > 1024 + cut(0.5 * a)), v))
        np.testing.assert_array_equal(spikes[0, :, 0, n], [fired for fired, _ in seen])
        np.testing.assert_array_equal(membrane[0, :, 0, n] * 1024, [v for _, v in seen])


@pytest.mark.parametrize("make", [lambda: SynapticNeurons(0.6, 0.9), AdaptiveNeurons, lambda: LeakyNeurons(0.9, 0.7)])
def test_a_sequence_in_pieces_is_the_sequence(make):
    neurons = integers_of(make(), 1024).eval()
    x = 0.6 * torch.randn(1, 20, 3, 4, generator=torch.Generator().manual_seed(1)) + 0.3
    neurons.steps = 20
    whole = neurons.run_steps(x)
    neurons.steps = 10
    first = neurons.run_steps(x[:, :10])
    second = neurons.run_steps(x[:, 10:], neurons.final_states(*first))
    for a, b, c in zip(whole, first, second, strict=True):
        assert torch.equal(a, torch.cat([b, c], 1))


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("loihi", "weights of 8 bits, states of 24 bits, decays of 12 bits (M. Davies"),
        ("spinnaker-1", "weights of 17 bits, states of 32 bits, decays of 15 bits (SpiNNakerManchester"),
        ("speck", "weights of 8 bits, states of 16 bits, decays not rounded (SynSense"),
        ("xylo", "weights of 8 bits, states in floating point"),
    ],
)
def test_the_integers_of_a_card(card, words):
    model = convert(models.build("mlp", (1, 8, 8), 10), Spiking(card, encoder="direct", steps=4))
    integers, said = in_integers_of(load_card(card), model)
    assert said.startswith(words)
    assert torch.isfinite(integers(torch.rand(3, 1, 8, 8))).all()


def test_a_card_without_widths_says_so():
    model = convert(models.build("mlp", (1, 8, 8), 10), Spiking("truenorth", encoder="direct", steps=4))
    with pytest.raises(ConversionError, match="'truenorth' does not say how wide"):
        in_integers_of(load_card("truenorth"), model)


def test_batch_norms_are_folded_before_weights_are_rounded():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU())
    net.append(torch.nn.Linear(16, 10))
    net[2].running_var.fill_(9.0)
    model = convert(net.eval(), Spiking("loihi", encoder="direct", steps=4)).eval()
    integers = fixed_point(model, example=torch.rand(2, 1, 8, 8))
    weight = integers.network[1].weight
    norm = model.network[2]
    folded = model.network[1].weight * (norm.weight / torch.sqrt(norm.running_var + norm.eps))[:, None]
    scale = 2.0 ** float(torch.ceil(torch.log2(folded.detach().abs().max() / 127)))
    assert torch.equal(weight, (folded / scale).round() * scale)


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
    with pytest.raises(ConversionError, match="neurons are SynapticNeurons; LeakyNeurons"):
        FixedPointNeurons(SynapticNeurons(0.9))
    with pytest.raises(HpmlError, match="state_bits=2"):
        FixedPointNeurons(LeakyNeurons(0.9), state_bits=2)
    with pytest.raises(ConversionError, match="IzhikevichNeurons have no integer arithmetic"):
        integers_of(IzhikevichNeurons(), 4096)
    net = models.build("mlp", (1, 8, 8), 10)
    with pytest.raises(HpmlError, match="weight_bits=32"):
        fixed_point(convert(net, "loihi"), weight_bits=32)
    with pytest.raises(ConversionError, match="crossbars"):
        fixed_point(convert(net, Spiking("loihi", synapses=Analog("pcm-hermes"))))
