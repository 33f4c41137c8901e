from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.data import load_data
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.networks import models
from hpml_sim.spiking import (
    AdaptiveNeurons,
    GradedNeurons,
    LeakyNeurons,
    SynapticNeurons,
    TimeFoldedMaxPool,
    TimeFoldedMean,
    calibrated,
)
from hpml_sim.spiking.relu_conversion.channel_scales import ChannelScale, choose_scales
from hpml_sim.targets import Adaptive, Leaky, Spiking, Synaptic
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.ReLU()
        self.head = nn.Linear(4 * 64, 10)

    def forward(self, x):
        y = self.act(self.norm(self.conv(x)))
        return self.head(self.last(self.second(y) + y).flatten(1))


def test_digits_within_one_point_of_the_relu_network():
    digits = load_data("digits")
    relu = models.build("mlp", (1, 8, 8), 10)
    fit(relu, digits, epochs=20, lr=5e-3, show_progress=False)
    before = copy.deepcopy(relu.state_dict())
    model = calibrated(relu, digits)
    assert model.steps == 64
    assert abs(evaluate(model, digits).mean - evaluate(relu, digits).mean) <= 0.01
    assert all(torch.equal(before[key], value) for key, value in relu.state_dict().items())
    assert "calibrated: 1 spike a step" in model.report.set_index("layer").why["2"]


def test_rates_follow_activations_through_a_residual_sum_and_batch_norm():
    torch.manual_seed(0)
    net = Residual()
    x = torch.rand(64, 1, 8, 8)
    for _ in range(30):
        net.train()(x)  # running statistics
    model = calibrated(net, x, Spiking("loihi", steps=400, neuron=Leaky(beta=1.0), encoder="direct"), percentile=100)
    rate = model.spikes(x).mean(dim=1)[0]
    want = net.eval()(x).clamp(min=0)
    assert torch.corrcoef(torch.stack([rate.flatten(), want.flatten()]))[0, 1] > 0.97


def test_batch_norm_and_max_pooling_lose_nothing():
    """A logical OR in place of the maximum of counts loses about 2 points here."""
    digits = load_data("digits")
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    fit(net, digits, epochs=6, lr=5e-3, show_progress=False)
    model = calibrated(net, digits)
    assert evaluate(model, digits).mean >= evaluate(net, digits).mean - 0.01
    report = model.report.set_index("layer")
    assert report.became["3"] == report.became["5"] == "TimeFoldedMaxPool"
    assert "with batch norm '1' folded in" in report.why["0"]
    assert "folded into the layer before it" in report.why["1"]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_the_largest_count_passes_a_pool():
    spikes = (torch.rand(2 * 30 * 3, 4, 6, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    pool = TimeFoldedMaxPool(nn.MaxPool1d(2), steps=30, chips=2)
    out = pool.unfold(pool(spikes))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    counts = pool.unfold(spikes).sum(1)
    assert torch.equal(out.sum(1), nn.MaxPool1d(2)(counts.flatten(0, 1)).unflatten(0, (2, 3)))
    assert nn.MaxPool1d(2)(spikes).sum() > 1.2 * out.sum()  # the OR of each step


def test_half_a_threshold_rounds_counts():
    current = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    counts = {}
    for initial in (0.0, 0.5):
        neurons = LeakyNeurons(torch.tensor(1.0).double(), initial=initial, steps=16).double()
        counts[initial] = neurons(current.expand(16, 50)).sum(0)
    assert (counts[0.5] - 16 * current).abs().max() <= 0.5 + 1e-9
    assert (counts[0.0] - 16 * current).abs().max() > 0.9
    with pytest.raises(HpmlError, match=r"initial=1\.5: must be a finite number from 0 to 1"):
        LeakyNeurons(0.9, initial=1.5)
    with pytest.raises(HpmlError, match="do not have this option"):
        SynapticNeurons(0.9, initial=0.5)


@pytest.mark.parametrize(
    ("net", "arguments", "options", "message"),
    [
        (nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (torch.rand(3, 4), Spiking("loihi")), {}, "Leaky\\(beta=1.0\\)"),
        (nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (torch.rand(3, 4),), {"percentile": 10}, "percentile=10: must be"),
        (nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (torch.rand(3, 4),), {"initial_membrane": 2}, "initial_membrane=2"),
        (nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (torch.rand(0, 4),), {}, "no inputs"),
        (nn.Sequential(nn.Linear(4, 2)), (torch.rand(3, 4),), {}, "no nn.ReLU behind a layer"),
        (nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.ReLU(), nn.Linear(9, 2)), (torch.rand(9, 4),), {}, "Tanh has no"),
    ],
)  # fmt: skip
def test_what_cannot_be_calibrated_is_named(net, arguments, options, message):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=2.0)
    with pytest.raises((ConversionError, HpmlError), match=message):
        calibrated(net, *arguments, **options)


@pytest.mark.parametrize(
    ("neuron", "kind"),
    [(Synaptic(reset="zero", surrogate="SFS"), SynapticNeurons), (Adaptive(surrogate="SFS"), AdaptiveNeurons)],
)
def test_other_neurons_through_the_converter(neuron, kind):
    model = convert(models.build("mlp", (1, 8, 8), 10), Spiking("loihi", steps=8, neuron=neuron))
    assert type(model.network[2]) is type(model.output) is kind
    assert model.network[2].surrogate.name == "SFS"
    out = model.train()(torch.rand(4, 1, 8, 8))
    out.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Spiking("loihi", neuron="synaptic", engine="snntorch"), "engine='snntorch'.*only leaky neurons"),
        (lambda: Adaptive(reset_delay=False), "reset_delay: unknown option"),
        (lambda: Adaptive(reset="zero"), "reset: unknown option"),
        (lambda: Synaptic(reset_delay=False), "reset_delay: unknown option"),
        (lambda: Spiking("loihi", beta=0.9), "beta: unknown option"),
    ],
)
def test_options_that_a_neuron_lacks_are_named(build, message):
    with pytest.raises(HpmlError, match=message):
        build()


def test_output_population_is_pooled():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 30))
    model = convert(net, Spiking("loihi", steps=8, population=3, encoder="direct")).eval()
    x = torch.rand(5, 1, 8, 8)
    counts = model.spikes(x).sum(1)[0]
    torch.testing.assert_close(model(x), counts.reshape(5, 10, 3).sum(-1) / 3)
    odd = convert(net, Spiking("loihi", steps=8, population=4, encoder="direct"))
    with pytest.raises(HpmlError, match="30 outputs do not divide into classes of 4"):
        odd(x)


def chain():
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 5))


def pooled():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    )


def two_layers_behind_one_another():
    return nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 5))


@pytest.mark.parametrize("threshold", [0.01, 0.5, 2.0, 100.0])
@pytest.mark.parametrize("build", [chain, pooled, two_layers_behind_one_another, Residual], ids=lambda f: f.__name__)
def test_every_threshold_gives_the_rates_of_threshold_1(build, threshold):
    torch.manual_seed(0)
    net = build().eval()
    x = torch.rand(20, *((16,) if isinstance(net[0] if build is not Residual else net, nn.Linear) else (1, 8, 8)))
    rates = [
        calibrated(net, x, Spiking("loihi", steps=64, neuron=Leaky(beta=1.0, threshold=theta), encoder="direct"))
        .spikes(x)
        .mean(1)
        for theta in (1.0, threshold)
    ]
    assert rates[0].max() > 0.1
    # a membrane that lies on its threshold may fire a step earlier or later
    torch.testing.assert_close(rates[1], rates[0], rtol=0, atol=2.5 / 64)


def test_neurons_at_a_residual_sum_say_that_their_spikes_have_heights():
    torch.manual_seed(0)
    x = torch.rand(20, 1, 8, 8)
    model = calibrated(Residual().eval(), x, Spiking("loihi", steps=8, neuron=Leaky(beta=1.0, threshold=2.0)))
    report = model.report.set_index("layer")
    assert report.became["act"] == "GradedNeurons"  # read by a layer and by the sum
    assert "spikes of these heights: they reach a sum" in report.why["act"]
    assert report.became["last"] == "LeakyNeurons"  # driven by the sum, read by a layer
    assert "thresholds of these values in place of 2" in report.why["last"]
    assert isinstance(model.network.get_submodule("act"), GradedNeurons)
    assert model.network.get_submodule("last").threshold.shape == (4, 1, 1)


def counts_of(network: nn.Module, scale: ChannelScale, x: torch.Tensor, steps: int) -> torch.Tensor:
    """Spikes of one layer of neurons, one step after the other, in float64: the textbook neuron."""
    current = network[0](x).double()
    membrane, spikes = scale.start.double() * scale.scale.double(), torch.zeros_like(current)
    for _ in range(steps):
        membrane = membrane + current
        fired = membrane > scale.scale
        spikes, membrane = spikes + fired, membrane - fired * scale.scale.double()
    return spikes


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 2, 4, 16])
def test_scales_have_the_smallest_error_of_spikes(steps):
    """No other scale or start of a channel comes nearer to the activations: tried with neurons that spike."""
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), torch.rand(40, 6)
    found = choose_scales(network, x, steps, None, None).scales["1"]
    want = network[:2](x).double()

    def error(scale: ChannelScale) -> torch.Tensor:
        return (counts_of(network, scale, x, steps) * scale.scale / steps - want).square().mean(0)

    best = error(found)
    for factor in (0.7, 0.9, 1.1, 1.4):
        # twice the float32 grid's own error may be lost: it is as fine as 0.04 of the largest activation
        assert (best <= 1.1 * error(ChannelScale(factor * found.scale, found.start)) + 1e-9).all()
    for start in (0.0, 1.0):
        assert (best <= error(ChannelScale(found.scale, torch.full_like(found.start, start))) + 1e-9).all()


@torch.no_grad()
def test_every_call_of_one_rectifier_has_scales_of_its_own():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.act = nn.Linear(6, 8), nn.Linear(8, 8), nn.ReLU()
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.act(20 * self.two(self.act(self.one(x)))))

    torch.manual_seed(0)
    net, x = Twice().eval(), torch.rand(60, 6)
    model = calibrated(net, x)
    assert len(list(model.neurons())) == 2
    assert (model(x) - net(x)).abs().max() < 0.05 * net(x).abs().max()


class Block(nn.Module):
    """A transformer block: attention and a layer norm see no spikes of a single step."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.wide, self.act, self.narrow = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return (x + self.narrow(self.act(self.wide(self.norm(x))))).mean(1)


@torch.no_grad()
def test_attention_and_layer_norms_see_rates():
    torch.manual_seed(0)
    first, block = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), Block()
    net, x = nn.Sequential(first, block).eval(), torch.rand(50, 5, 4)
    model = calibrated(net, x)
    report = model.report.set_index("layer")
    assert report.became["1.attention"] == report.became["1.norm"] == "TimeFoldedMean"
    error = (model(x) - net(x)).abs().mean() / net(x).std()
    assert error < 0.03
    for module in model.modules():  # what they did on the spikes of each step
        for key, child in list(module._modules.items()):
            if isinstance(child, TimeFoldedMean):
                module._modules[key] = child.layer
    assert (model(x) - net(x)).abs().mean() / net(x).std() > 3 * error


@torch.no_grad()
def test_membranes_give_the_values_of_the_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    x = torch.randn(200, 5)
    model = calibrated(net, x, replace(calibrated(net, x).target, steps=256))
    assert (model(x) - net(x)).abs().max() < 0.02
    with pytest.raises(HpmlError, match="with readout='membrane' the output neurons never fire"):
        model.spikes(x)


@pytest.mark.parametrize("threshold", [0.25, 0.5, 1.0])
def test_biases_are_scaled_with_the_rates_that_come_in(threshold):
    """The neurons integrate without a leak, so that rates are homogeneous: rate / bias stays what it was."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    for layer in (net[0], net[2], net[4]):
        assert isinstance(layer, nn.Linear)
        layer.weight.data.abs_().mul_(4)
        layer.bias.data.abs_().mul_(4)
    x = 0.3 * torch.rand(10, 4)  # no neuron saturates
    spiking = convert(net, Spiking("loihi", steps=2000, neuron=Leaky(beta=1.0, threshold=threshold), encoder="direct"))
    rates, want = spiking.eval().spikes(x).mean(1)[0], net(x).detach()
    ratios = rates / want
    assert ratios.max() / ratios.min() < 1.02


@pytest.mark.parametrize("threshold", [0.01, 0.5, 1.0, 2.0, 100.0])
def test_the_identity_gives_its_input_at_every_threshold(threshold):
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    for parameter in net.parameters():
        parameter.data.fill_(1.0)
    x = torch.tensor([[1.0], [0.5], [0.25]])
    target = Spiking("loihi", steps=64, neuron=Leaky(beta=1.0, threshold=threshold), encoder="direct")
    rates = calibrated(net, x, target, percentile=100).spikes(x).mean(1).flatten()
    assert (rates - x.flatten()).abs().max() < 0.03
