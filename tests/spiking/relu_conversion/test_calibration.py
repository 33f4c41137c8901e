from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.data import load_data
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.networks import models
from hpml_sim.spiking import AdaptiveNeurons, LeakyNeurons, SynapticNeurons, TimeFoldedMaxPool, calibrated
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
    assert "calibrated: 1 spike a step" in model.report.set_index("layer").why["1"]


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
        (nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.ReLU(), nn.Linear(9, 2)), (torch.rand(9, 4),), {}, "changes"),
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


def test_neurons_in_a_residual_sum_say_that_their_threshold_is_1():
    torch.manual_seed(0)
    x = torch.rand(20, 1, 8, 8)
    model = calibrated(Residual().eval(), x, Spiking("loihi", steps=8, neuron=Leaky(beta=1.0, threshold=2.0)))
    assert model.target.neuron.threshold == 1
    assert "threshold 1 in place of 2" in model.report.set_index("layer").why["act"]


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
