import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils._pytree import tree_map

import hpml_sim.analog.nn as analog_nn
from hpml_sim.analog import calibrate, program
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.targets import Analog

FINE = {"dac_bits": 16, "adc_bits": 16, "output_noise": 0.0, "training_noise": 0.0, "weight_clip": None}


class Conv1D(nn.Module):
    """What Hugging Face's transformers call Conv1D: `pytorch_utils.py`, y = x W + b with W (inputs, outputs)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x):
        size_out = (*x.size()[:-1], self.nf)
        x = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return x.view(size_out)


def test_conv1d_of_hugging_face_is_mapped(card_file):
    torch.manual_seed(0)
    digital = nn.Sequential(Conv1D(12, 8), nn.GELU(), Conv1D(3, 12))
    converted = convert(digital, Analog(card_file(rows=5, model="none"), **FINE))
    assert list(converted.report["became"]) == ["AnalogConv1D", "digital", "AnalogConv1D"]
    assert [row.tiles for row in converted.layers] == [2, None, 3]
    converted.network.load_state_dict(digital.state_dict(), strict=False)  # the weight keeps its shape
    x = torch.randn(4, 6, 8)
    with torch.no_grad():
        expected = digital(x)
        assert torch.allclose(converted.eval()(x), expected, atol=1e-4)
    assert torch.allclose(program(converted, chips=3).at("1 year")(x), expected.expand(3, 4, 6, 3), atol=1e-4)


def test_conv1d_of_hugging_face_goes_to_aihwkit():
    torch.manual_seed(0)
    digital = nn.Sequential(Conv1D(12, 8))
    x = torch.randn(40, 8)
    noise = {}
    for engine in ("fused", "aihwkit"):
        converted = convert(digital, Analog("pcm", engine=engine))
        calibrate(converted, x)
        with torch.no_grad():
            noise[engine] = float((program(converted, chips=20).at(0)(x) - digital(x)).std())
    # about 4,000 devices a side: a few per cent
    assert 0.7 < noise["fused"] / noise["aihwkit"] < 1.4


def test_other_classes_named_conv1d_are_left_alone():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 4))

        def forward(self, x):
            return x * self.weight

    Other.__name__ = "Conv1D"
    assert convert(nn.Sequential(Other(), nn.Linear(4, 4)), "pcm").layers[0].became == "digital"


# ----------------------------------------------------------------------------------------------------- recurrent layers

LAYERS = [
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu", "bias": False}),
    (nn.LSTM, {}),
    (nn.LSTM, {"proj_size": 3}),
    (nn.LSTM, {"proj_size": 3, "bias": False}),
    (nn.GRU, {}),
    (nn.GRU, {"bias": False}),
]


def exact(model):
    """Ideal converters: what is left is the order of the sums."""
    for crossbar in crossbars(model).values():
        crossbar.dac_qmax = crossbar.adc_qmax = None
    return model.eval()


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("shape", [{}, {"num_layers": 3}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_recurrent_layers_compute_what_torch_computes(card_file, kind, options, shape, batch_first):
    """torch's own layers are the oracle."""
    torch.manual_seed(0)
    digital = kind(5, 4, batch_first=batch_first, **options, **shape)
    converted = convert(digital, Analog(card_file(model="none"), **FINE))
    analog = exact(converted.network)
    assert converted.layers[0].became == f"Analog{kind.__name__}"
    ways = shape.get("num_layers", 1) * (1 + shape.get("bidirectional", False))
    assert converted.layers[0].tiles == ways * (3 if "proj_size" in options else 2)
    x = torch.randn(6, 7, 5)
    batch = 6 if batch_first else 7
    h = torch.randn(ways, batch, options.get("proj_size", 4))
    state = (h, torch.randn(ways, batch, 4)) if kind is nn.LSTM else h
    for hx in (None, state):
        expected, got = digital(x, hx), analog(x, hx)
        for a, b in zip(flat(expected), flat(got), strict=True):
            assert a.shape == b.shape
            assert torch.allclose(a, b, atol=1e-5)


def flat(result):
    y, state = result
    return [y, *state] if isinstance(state, tuple) else [y, state]


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_sequences_without_a_batch(card_file, kind):
    torch.manual_seed(0)
    digital = kind(5, 4, 2)
    analog = exact(convert(digital, Analog(card_file(model="none"), **FINE)).network)
    for a, b in zip(flat(digital(torch.ones(6, 5))), flat(analog(torch.ones(6, 5))), strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_cells_compute_what_torch_computes(card_file, kind):
    torch.manual_seed(0)
    digital = kind(5, 4)
    analog = exact(convert(digital, Analog(card_file(model="none"), **FINE)).network)
    x, h = torch.randn(6, 5), torch.randn(6, 4)
    state = (h, torch.randn(6, 4)) if kind is nn.LSTMCell else h
    for hx in (None, state):
        expected, got = digital(x, hx), analog(x, hx)
        for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (expected, got)), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    with pytest.raises(HpmlError, match="must be \\(batch, features\\)"):
        analog(x[0])


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_gradients_through_time_are_right(kind):
    """Against finite differences in float64, with ideal converters."""
    torch.manual_seed(0)
    digital = kind(3, 2, 2, batch_first=True, bidirectional=True).double()
    analog = exact(convert(digital, Analog("pcm", **FINE)).network)
    x = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: flat(analog(x))[0], (x,))
    y, expected = flat(analog(x))[0], flat(digital(x))[0]
    assert torch.allclose(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    found = {p.shape: [] for p in analog.parameters()}
    for p in analog.parameters():
        assert p.grad is not None
        found[p.shape].append(p.grad)
    for p in digital.parameters():
        assert any(torch.allclose(p.grad, g) for g in found[p.shape])


class Reader(nn.Module):
    """Batch first outside, whatever the layer wants inside."""

    def __init__(self, batch_first):
        super().__init__()
        self.layer = nn.LSTM(5, 4, 2, batch_first=batch_first, bidirectional=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        self.layer.flatten_parameters()
        y, _ = self.layer(x if self.layer.batch_first else x.transpose(0, 1))
        return self.head(y[:, -1] if self.layer.batch_first else y[-1])


@pytest.mark.parametrize("batch_first", [True, False])
def test_chips_keep_apart_whichever_dimension_the_batch_has(card_file, batch_first):
    torch.manual_seed(0)
    digital = Reader(batch_first)
    x = torch.randn(6, 7, 5)
    with torch.no_grad():
        expected = digital(x)
    ideal = program(exact(convert(digital, Analog(card_file(model="none"), **FINE))), chips=3).at(0)(x)
    assert torch.allclose(ideal, expected.expand(3, 6, 3), atol=1e-5)
    model = convert(digital, "pcm")
    calibrate(model, x)
    few, many = (program(model, chips=n, seed=0).at("1 day")(x) for n in (2, 4))
    assert torch.equal(few, many[:2])
    assert not torch.equal(many[0], many[1])


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences(card_file, kind, enforce_sorted):
    torch.manual_seed(0)
    digital = kind(5, 4, 2, bidirectional=True)
    lengths = (6, 4, 4, 1) if enforce_sorted else (4, 1, 6, 4)
    packed = pack_sequence([torch.randn(n, 5) for n in lengths], enforce_sorted=enforce_sorted)
    start = torch.randn(4, 4, 4)
    start = (start, 0.5 * start) if kind is nn.LSTM else start
    model = exact(convert(digital, Analog(card_file(model="none"), **FINE)))
    for hx in (None, start):
        with torch.no_grad():
            want, got = digital(packed, hx), model(packed, hx)
        chips = program(model, chips=3).at(0)(packed, hx)
        assert chips[0].data.shape == (3, 15, 8)
        for found in (got, (chips[0]._replace(data=chips[0].data[2]), tree_map(lambda h: h[2], chips[1]))):
            torch.testing.assert_close(found[0].data, want[0].data, atol=1e-4, rtol=0)
            assert torch.equal(found[0].batch_sizes, want[0].batch_sizes)
            torch.testing.assert_close(found[1], want[1], atol=1e-4, rtol=0)


def test_steps_may_lie_in_the_first_dimension():
    torch.manual_seed(0)
    layer = nn.GRU(5, 4)  # torch's default, (steps, batch, features)
    model = convert(layer, "pcm")
    for x in (torch.rand(7, 21, 5), torch.rand(21, 7, 5), torch.rand(7, 5)):  # 21 is 3 chips x 7
        chips, alone = (program(model, chips=n).at(0)(x) for n in (3, 1))
        assert [tuple(part.shape) for part in chips] == [(3, *part.shape) for part in layer(x)]
        assert all(torch.allclose(some[0], one[0], atol=1e-6) for some, one in zip(chips, alone, strict=True))


def test_training_draws_the_devices_once_a_sequence(card_file):
    target = Analog(card_file(model="none"), **{**FINE, "training_noise": 0.1})
    torch.manual_seed(0)
    layer = analog_nn.AnalogRNN(2, 3, batch_first=True, card=target)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            p.zero_() if "bias" in name else p.fill_(1e-9 if "hidden" in name else 0.5)
    # a state that hardly acts: every step sees the same input and the same devices
    y, _ = layer.train()(torch.full((1, 5, 2), 0.7))
    assert torch.allclose(y, y[:, :1].expand_as(y), atol=1e-3)
    again, _ = layer(torch.full((1, 5, 2), 0.7))
    assert not torch.allclose(y, again, atol=1e-3)


def test_a_recurrent_network_learns_on_crossbars():
    """The sum of a sequence's signs: a readout of the last state must do far better than chance (0.5)."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 6, 2, generator=generator)
    label = (x[..., 0].sum(1) > 0).long()
    model = convert(Reader(True), Analog("pcm"), only=["layer"])
    model.network.layer = analog_nn.AnalogGRU(2, 8, batch_first=True, card="pcm")
    model.network.layer.bidirectional = False
    model.network.head = analog_nn.AnalogLinear(8, 2, card="pcm")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.train()
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), label).backward()
        optimizer.step()
    y = program(model, chips=3, seed=0).at("1 h")(x)
    assert float((y.argmax(-1) == label).double().mean()) > 0.8


def test_what_is_not_mapped_says_so():
    class Doubled(nn.LSTM):
        def forward(self, input, hx=None):  # noqa: A002
            y, state = super().forward(input, hx)
            return 2 * y, state

    assert convert(nn.Sequential(Doubled(4, 4), nn.Linear(4, 4)), "pcm").layers[0].why == "overrides LSTM.forward"
    broken = nn.LSTM(4, 4)
    with torch.no_grad():
        broken.weight_hh_l0[0, 0] = float("nan")
    with pytest.raises(ConversionError, match="weight_hh_l0 has NaN"):
        convert(broken, "pcm")
    layer = convert(nn.LSTM(4, 4), "pcm").network
    with pytest.raises(HpmlError, match=r"input must be \(batch, steps, 4\)"):
        layer(torch.rand(2, 3, 5))
    recurrent = convert(nn.LSTM(4, 4, batch_first=True), Analog("pcm", engine="aihwkit"))
    calibrate(recurrent.network, torch.rand(3, 2, 4))
    with pytest.raises(ConversionError, match="aihwkit cannot convert LSTM layers"):
        program(recurrent, chips=1)
