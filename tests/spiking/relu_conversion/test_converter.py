from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.data import load_data
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.networks import models
from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes
from hpml_sim.spiking import LeakyNeurons, SpikingModel, TimeFoldedDropout, firing_rates
from hpml_sim.targets import Analog, Leaky, Spiking
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout2d(0.2)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        y = self.act(self.norm(self.first(x)))
        y = self.act(self.second(y) + y)  # the same module twice
        return self.head(self.drop(self.pool(y)).flatten(1))


def images(n=6, seed=0):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def small(**options):
    return convert(models.build("mlp", (1, 8, 8), 10), Spiking("loihi", **{"steps": 8, **options}))


def test_mlp_becomes_spiking_and_the_original_stays():
    net = models.build("mlp", (1, 8, 8), 10)
    before = copy.deepcopy(net.state_dict())
    model = convert(net, "loihi")
    assert isinstance(model, SpikingModel)
    assert model.steps == 25
    assert [type(layer) for layer in net.children()] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    report = model.report.set_index("layer")
    assert report.became.to_dict() == {
        "0": "Flatten",
        "1": "synapses",
        "2": "LeakyNeurons",
        "3": "synapses",
        "(output)": "LeakyNeurons",
    }
    logits = model.eval()(images())
    assert logits.shape == (6, 10)
    counts = model.spikes(images()).sum(dim=1)[0]
    assert torch.equal(logits, counts * (8 / 25))
    assert counts.max() <= 25
    assert torch.equal(counts, counts.round())


def test_a_network_equals_a_loop_of_snntorch_neurons():
    model = small(encoder="direct", neuron=Leaky(beta=0.9)).eval()
    loop = small(encoder="direct", neuron=Leaky(beta=0.9), engine="snntorch").eval()
    x, y = images().requires_grad_(), images().requires_grad_()
    out, want = model(x), loop(y)
    out.square().sum().backward()
    want.square().sum().backward()
    assert out.sum() > 0
    assert torch.equal(out, want)
    assert torch.equal(x.grad, y.grad)


def test_cnn_with_pooling_and_residual_with_normalization():
    cnn = convert(models.cnn((1, 8, 8), 10, width=4), Spiking("loihi", steps=6))
    assert cnn(images()).shape == (6, 10)
    assert list(cnn.report.became).count("LeakyNeurons") == 4
    model = convert(Residual(), Spiking("loihi", steps=6))
    report = model.report.set_index("layer")
    assert report.became["pool"] == "MaxPool2d"
    assert "OR" in report.why["pool"]
    assert "folds" in report.why["norm"]
    assert isinstance(model.network.act, LeakyNeurons)
    assert isinstance(model.network.drop, TimeFoldedDropout)
    model.train()(images()).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.eval()(images()).shape == (6, 10)


def test_a_constant_input_passes_the_first_layers_once_in_training():
    torch.manual_seed(0)
    model = convert(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10)),
        Spiking("loihi", steps=8, encoder="direct", neuron=Leaky(beta=0.9)),
    ).double()
    model.network[2].eval()
    x = 3 * images().double()
    seen = {}
    for index in (1, 4):
        model.network[index].register_forward_pre_hook(lambda m, inputs, i=index: seen.update({i: len(inputs[0])}))
    gradients = []
    for training in (True, False):
        model.training = training  # of the model alone, so that all else is equal
        model.zero_grad()
        out = model(x)
        out.square().sum().backward()
        gradients.append((out.detach(), *(p.grad.clone() for p in model.parameters())))
        assert seen == {1: 6 if training else 48, 4: 48}
    assert gradients[0][0].sum() > 0
    for once, each in zip(*gradients, strict=True):
        torch.testing.assert_close(once, each)


@pytest.mark.parametrize("encoder", ["direct", "rate", "latency", "population", "frames", "delta"])
def test_every_encoder_through_the_converter(encoder):
    torch.manual_seed(0)
    fan_in = 8 * 5 if encoder == "population" else 5  # eight neurons a value
    net = nn.Sequential(nn.Linear(fan_in, 12), nn.ReLU(), nn.Linear(12, 3))
    model = convert(net, Spiking("loihi", steps=10, encoder=encoder, neuron=Leaky(beta=0.9)))
    in_time = encoder in ("frames", "delta")
    x = torch.rand(4, 10, 5) if in_time else torch.rand(4, 5)
    nn.functional.cross_entropy(model.train()(x), torch.tensor([0, 1, 2, 0])).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    want = model.eval()(x)
    assert want.shape == (4, 3)
    assert torch.equal(torch.cat([model(x[:1]), model(x[1:])]), want)


def test_every_layer_learns():
    model = small().train()
    torch.manual_seed(0)
    nn.functional.cross_entropy(model(images()), torch.arange(6)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_evaluation_is_the_same_to_the_last_bit_in_any_batch():
    model = small().eval()
    x = images(7)
    want = model(x)
    assert torch.equal(model(x), want)
    assert torch.equal(torch.cat([model(x[:2]), model(x[2:])]), want)
    model.train()(x)  # training draws other spikes and leaves nothing behind
    assert torch.equal(model.eval()(x), want)


def test_copies_pickle_state_dict_and_two_side_by_side():
    model = small().eval()
    x = images()
    want = model(x)
    assert torch.equal(copy.deepcopy(model)(x), want)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), want)
    other = convert(models.build("mlp", (1, 8, 8), 10, seed=3), Spiking("loihi", steps=8)).eval()
    assert not torch.equal(other(x), want)
    assert torch.equal(model(x), want)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), want)


def test_same_seed_same_training():
    weights = []
    for _ in range(2):
        model = small()
        fit(model, "digits", epochs=1, seed=4, show_progress=False)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)


def test_chips_side_by_side():
    model = small().eval()
    x = images()
    want = model(x)
    model.chips = 3
    assert torch.equal(model(x.repeat(3, 1, 1, 1)), want.repeat(3, 1))
    with pytest.raises(HpmlError, match=r"multiple of the 3 chip\(s\)"):
        model(x[:4])
    with pytest.raises(HpmlError, match="chips=0"):
        model.chips = 0


def test_weights_shrink_until_a_neuron_can_follow():
    first, last = nn.Linear(4, 2), nn.Linear(2, 2)
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[4.0, 0, 0, 0], [0, 3.0, 0, 0]]))
        first.bias.copy_(torch.tensor([2.0, 0.0]))  # largest current: 1.5 * 4 + 2 = 8
        last.weight.copy_(torch.tensor([[2.0, 0], [0, 1.0]]))
        last.bias.copy_(torch.tensor([8.0, 0.0]))  # the bias shrinks with layer 1: 1.5 * 2 + 8 / 8 = 4
    model = convert(net, Spiking("loihi", steps=4))
    torch.testing.assert_close(model.network[1].weight, first.weight / 8)
    torch.testing.assert_close(model.network[1].bias, first.bias / 8)
    torch.testing.assert_close(model.network[3].weight, last.weight / 4)
    torch.testing.assert_close(model.network[3].bias, last.bias / 32)
    assert "weights x 0.125" in model.report.set_index("layer").why["1"]
    as_is = convert(net, Spiking("loihi", steps=4, scale_weights=False))
    assert torch.equal(as_is.network[1].weight, first.weight)


def test_rates_of_a_linear_chain_follow_relu():
    """With beta = 1 and reset by subtraction a neuron's count is its ReLU current, up to a few spikes in 400 steps."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        net[0].weight.uniform_(-0.3, 0.4, generator=torch.Generator().manual_seed(0))
        net[2].weight.uniform_(-0.1, 0.5, generator=torch.Generator().manual_seed(1))
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    target = Spiking("loihi", steps=400, neuron=Leaky(beta=1.0), encoder="direct", scale_weights=False)
    rate = convert(net, target).double().eval().spikes(x).mean(dim=1)[0]
    torch.testing.assert_close(rate, net(x).clamp(0, 1), rtol=0, atol=4 / 400)


def test_digits_reach_their_mark():
    """94 % is asked; measured 96.7 to 98.1 % over seeds, and 95.8 % before any training."""
    digits = load_data("digits")
    relu = models.build("mlp", (1, 8, 8), 10)
    fit(relu, digits, epochs=20, lr=5e-3, show_progress=False)
    model = convert(relu, "loihi")
    assert evaluate(model, digits).mean > 0.90
    fit(model, digits, epochs=8, lr=5e-3, show_progress=False)
    assert evaluate(model, digits).mean >= 0.955
    rates = firing_rates(model, digits.test[:128][0])
    assert set(rates) == {"network.2", "output"}
    assert all(0.03 < rate < 0.4 for rate in rates.values())


def test_synapses_on_crossbars():
    target = Spiking("loihi", steps=8, synapses=Analog("pcm-hermes"))
    model = convert(models.build("mlp", (1, 8, 8), 10), target)
    report = model.report.set_index("layer")
    assert report.became.loc[["1", "2", "3"]].tolist() == ["AnalogLinear", "LeakyNeurons", "AnalogLinear"]
    assert report.tiles["1"] == 1
    assert model(images()).shape == (6, 10)
    plain = convert(models.build("mlp", (1, 8, 8), 10), Spiking("loihi", steps=8))
    assert torch.equal(model.network[1].weight, plain.network[1].weight)


def test_layers_can_be_left_out():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2))
    model = convert(net, Spiking("loihi", steps=3), skip=["3"])
    assert isinstance(model.network[3], nn.GELU)
    assert "skip" in model.report.set_index("layer").why["3"]
    assert model(torch.rand(2, 4)).shape == (2, 2)


def test_shapes_only():
    for encoder in ("rate", "direct"):
        model = small(encoder=encoder).eval().to("meta")
        assert model(torch.empty(3, 1, 8, 8, device="meta")).shape == (3, 10)


def test_a_network_that_is_one_rectifier():
    model = convert(nn.ReLU(), Spiking("loihi", steps=4, encoder="direct", scale_weights=False))
    assert isinstance(model.network, LeakyNeurons)
    assert model(torch.full((2, 3), 1.5)).shape == (2, 3)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)], r"layer '1': GELU has no spiking counterpart"),
        ([nn.Linear(4, 4), nn.LeakyReLU(), nn.Linear(4, 2)], r"layer '1': LeakyReLU"),
        ([nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2), nn.Softmax(1)], r"layer '3': Softmax .* remove it"),
        ([nn.Linear(4, 2)], r"no nn.ReLU found.*F.relu"),
        ([nn.ReLU(), nn.LSTM(4, 4)], r"layer '1': LSTM keeps a memory"),
    ],
)
def test_what_cannot_spike_is_named(layers, message):
    for target in ("loihi", Spiking("loihi", synapses=Analog("pcm-hermes"))):
        with pytest.raises(ConversionError, match=message):
            convert(nn.Sequential(*layers), target)


def test_what_a_language_model_has_in_the_place_of_rectifiers_is_named():
    sizes = LlamaSizes(
        vocabulary=20, width=8, depth=1, heads=2, kv_heads=2, hidden=8, longest=8, rotary_base=1e4, eps=1e-5
    )
    with pytest.raises(ConversionError, match=r"stands for its SiLU, softmax of attention"):
        convert(LanguageModel(sizes), "loihi")


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Leaky(beta=1.5), "beta=1.5"),
        (lambda: Leaky(beta=-0.1), "beta=-0.1"),
        (lambda: Spiking("loihi", neuron={"name": "leaky", "beta": 1.5}), "neuron: beta=1.5"),
        (lambda: Spiking("loihi", steps=0), "steps=0"),
        (lambda: Leaky(threshold=0.0), "threshold=0.0"),
        (lambda: Spiking("loihi", encoder="rat"), "encoder='rat'"),
        (lambda: Spiking("loihi", step=5), "step: unknown option; did you mean 'steps'"),
        (lambda: Leaky(reset="none"), "reset='none'"),
    ],
)
def test_bad_targets_name_the_field(build, field):
    with pytest.raises(HpmlError, match=field):
        build()


def test_input_out_of_range_is_named_and_direct_takes_it():
    x = images() - 0.5
    with pytest.raises(HpmlError, match=r"encoder='direct'"):
        small()(x)
    assert small(encoder="direct")(x).shape == (6, 10)


class Attends(nn.Module):
    """Attention over the positions of a sample, in either order of torch's."""

    def __init__(self, batch_first: bool):
        super().__init__()
        torch.manual_seed(0)
        self.l, self.r, self.o = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.r(self.l(x))
        h = h if self.attention.batch_first else h.transpose(0, 1)
        h = self.attention(h, h, h)[0]
        h = h if self.attention.batch_first else h.transpose(0, 1)
        return self.o(h.mean(1))


def test_attention_with_the_sequence_first_is_that_with_the_batch_first():
    x = torch.rand(4, 5, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for batch_first in (True, False):
        model = convert(Attends(batch_first), Spiking("loihi", steps=8)).eval()
        torch.manual_seed(1)
        found.append(model(x))
    assert torch.equal(*found)
