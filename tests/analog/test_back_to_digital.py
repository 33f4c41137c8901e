"""`to_digital` against the networks that were converted, and a chip's digital twin against the chip."""

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.errors import ConversionError, HpmlError

ATTENTION = {"embed_dim": 8, "num_heads": 2}
LAYERS = {
    "linear": lambda: nn.Linear(6, 4),
    "without bias": lambda: nn.Linear(6, 4, bias=False),
    "conv1d": lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2),
    "conv2d": lambda: nn.Conv2d(3, 5, (3, 2), stride=2, padding="valid", dilation=2),
    "conv3d": lambda: nn.Conv3d(2, 3, 2, padding=1, padding_mode="circular"),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
    "lstm": lambda: nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True, proj_size=3, dropout=0.1),
    "gru": lambda: nn.GRU(5, 7, bias=False),
    "rnn": lambda: nn.RNN(5, 7, nonlinearity="relu"),
    "lstm cell": lambda: nn.LSTMCell(5, 7),
    "gru cell": lambda: nn.GRUCell(5, 7),
    "rnn cell": lambda: nn.RNNCell(5, 7, nonlinearity="relu"),
    "attention": lambda: nn.MultiheadAttention(**ATTENTION, batch_first=True),
    "other keys": lambda: nn.MultiheadAttention(**ATTENTION, kdim=6, vdim=5, bias=False),
    "encoder": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"),
    "transformer": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
}


def settings(module):
    """What tells how a layer computes, beside its weights."""
    return {
        name: {k: v for k, v in vars(m).items() if isinstance(v, (bool, int, float, str, tuple))}
        for name, m in module.named_modules()
    }


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("alone", [True, False])
def test_every_layer_comes_back_as_it_was(name, alone):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    net = layer if alone else nn.ModuleDict({"a": layer, "b": nn.LayerNorm(3)})
    back = hs.to_digital(hs.convert(net, "pcm-hermes"))
    assert [type(m) for m in back.modules()] == [type(m) for m in net.modules()]
    want, got = net.state_dict(), back.state_dict()
    assert sorted(got) == sorted(want)
    assert all(torch.equal(got[key], want[key]) for key in want)
    assert settings(back) == settings(net)
    assert not {id(p) for p in back.parameters()} & {id(p) for p in net.parameters()}
    assert all(p.requires_grad for p in back.parameters())
    net.load_state_dict(got)


def test_trained_weights_come_back_and_the_model_stays():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4))
    analog = hs.convert(net, hs.Analog("pcm-hermes", weight_clip=1.2)).train()
    optimizer = torch.optim.SGD(analog.parameters(), 0.01)
    for _ in range(4):
        analog(torch.rand(8, 16)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    analog.eval()
    before = {key: value.clone() for key, value in analog.state_dict().items()}
    back = hs.to_digital(analog)
    assert not back.training
    assert not torch.equal(back[1].weight, net[1].weight)
    for index in (1, 3):
        own, limit = analog.network[index].weight, analog.network[index].crossbar.weight_limit
        assert torch.equal(back[index].weight, own.clamp(-limit, limit))
        assert (own.abs() > limit).any()
    assert all(torch.equal(value, before[key]) for key, value in analog.state_dict().items())
    back(torch.rand(8, 16)).sum().backward()
    assert all(p.grad is None for p in analog.parameters())


class Scaled(nn.Linear):
    """A subclass with attributes, a buffer and a parameter of its own."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.note = ["mine"]
        self.register_buffer("seen", torch.zeros(3))
        self.gain = nn.Parameter(torch.ones(1))


class Reader(nn.LSTM):
    """A subclass of a recurrent layer with an attribute."""

    def __init__(self):
        super().__init__(4, 5)
        self.note = "kept"


class Tied(nn.Module):
    """A language model's head on its embedding, a layer called twice, a lambda over a layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.middle = Scaled(6, 6)
        self.twice = lambda x: self.middle(self.middle(x))
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.twice(self.embedding(x)))


def test_subclasses_ties_hooks_and_closures_come_back():
    torch.manual_seed(0)
    net, seen = Tied(), []
    net.middle.register_forward_hook(lambda *_: seen.append(1))
    back = hs.to_digital(hs.convert(net, "pcm-hermes"))
    assert back.head.weight is back.embedding.weight
    assert type(back.middle) is Scaled
    assert back.middle.note == ["mine"]
    assert list(back.state_dict()) == list(net.state_dict())
    x = torch.arange(5)
    assert torch.equal(back(x), net(x))
    assert len(seen) == 4
    back.load_state_dict(net.state_dict())
    reader = hs.to_digital(hs.convert(nn.Sequential(Reader()), "pcm-hermes"))[0]
    assert (type(reader), reader.note) == (Reader, "kept")
    assert reader(torch.rand(3, 2, 4))[0].shape == (3, 2, 5)


def test_layers_put_in_by_hand_become_torchs():
    torch.manual_seed(0)
    net = nn.Sequential(hs.nn.AnalogConv2d(2, 3, 3), nn.Flatten(), hs.nn.AnalogLinear(12, 4))
    back = hs.to_digital(net)
    assert [type(m) for m in back.children()] == [nn.Conv2d, nn.Flatten, nn.Linear]
    x = torch.rand(2, 2, 4, 4)
    weights = [p.detach() for p in (net[0].weight, net[0].bias, net[2].weight, net[2].bias)]
    want = nn.functional.linear(nn.functional.conv2d(x, *weights[:2]).flatten(1), *weights[2:])
    assert torch.allclose(back(x), want, atol=1e-6)


def test_a_transformer_gets_torchs_fast_path_back():
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1).eval()
    back = hs.to_digital(hs.convert(net, "pcm-hermes"))
    assert back.layers[0].activation_relu_or_gelu == net.layers[0].activation_relu_or_gelu == 1
    x = torch.rand(1, 2, 8)
    with torch.no_grad():
        assert torch.allclose(back(x), net(x), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"levels": 16, "slices": 2}, {"compensation": "column"}])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Linear(300, 7), (3, 300)),
        (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
        (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), (2, 4, 5)),
        (lambda: nn.LSTM(5, 4), (3, 2, 5)),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), (2, 3, 8)),
    ],
)
def test_the_twin_computes_what_the_chip_computes(options, layer, shape):
    torch.manual_seed(0)
    net = nn.Sequential(layer())
    target = hs.Analog("pcm", dac_bits=16, adc_bits=16, output_noise=0.0, **options)
    analog, x = hs.convert(net, target), torch.rand(shape)
    hs.calibrate(analog, x)
    chips = hs.program(analog, chips=2, seed=3)
    both = chips.at("1 day")(x)
    for chip in range(2):
        twin = hs.to_digital(chips.at("1 day", only=chip))
        got, want = twin(x), both
        got, want = (got[0], want[0][chip]) if isinstance(got, tuple) else (got, want[chip])
        assert torch.allclose(got, want, atol=1e-2 * float(want.abs().max()))  # inputs beyond a range are clipped
        assert sorted(twin.state_dict()) == sorted(net.state_dict())
        assert (got - net(x)[0] if isinstance(net(x), tuple) else got - net(x)).abs().max() > 1e-2 * want.abs().max()


def test_a_tied_weight_is_two_matrices_on_a_chip():
    torch.manual_seed(0)
    net = Tied()
    twin = hs.to_digital(hs.program(hs.convert(net, "pcm-hermes"), chips=1).at("1 day"))
    assert torch.equal(twin.embedding.weight, net.embedding.weight)  # a look-up stays digital
    assert not torch.equal(twin.head.weight, twin.embedding.weight)
    assert list(twin.state_dict()) == list(net.state_dict())


def test_what_cannot_come_back_is_refused_in_one_line():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    chips = hs.program(hs.convert(net, "pcm-hermes"), chips=2, seed=0)
    for wrong, kind, said in (
        (chips, HpmlError, r"chips.at\('1 day', only=0\)"),
        (chips.at("1 day"), HpmlError, "holds 2 chips"),
        (net, HpmlError, "no analog layers"),
        (hs.convert(net, "loihi"), ConversionError, "converted for 'loihi'.*keep the network"),
        ("net", HpmlError, "to_digital: model"),
    ):
        with pytest.raises(kind, match=said) as raised:
            hs.to_digital(wrong)
        assert "\n" not in str(raised.value)
