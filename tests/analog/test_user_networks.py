"""Networks as users bring them: what they take and give, share and keep, and how they are watched and exported."""

import io
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from hpml_sim.analog import calibrate, convolution, program
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.cost import estimate
from hpml_sim.counting import workload
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.targets import Analog

EXACT = {
    "dac_bits": 16,
    "adc_bits": 16,
    "output_noise": 0.0,
    "compensation": "none",
    "training_noise": 0.0,
    "weight_clip": None,
    "input_range": {"name": "percentile", "share": 1.0},
}


def row(model, layer):
    return next(row for row in model.layers if row.layer == layer)


# ---------------------------------------------------------------------------------------- what goes in and comes out


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, left, parts, *, scale=1.0, absent=None):
        hidden = torch.relu(self.left(left) + self.right(parts["right"])) * scale
        return {"logits": self.out(hidden), "more": [hidden, absent], "scale": scale}


def towers():
    torch.manual_seed(0)
    return Towers(), torch.randn(5, 6), {"right": torch.randn(5, 4)}


def test_several_inputs_keywords_and_dicts_as_outputs(card_file):
    net, left, parts = towers()
    model = convert(net, Analog(card_file(model="none"), **EXACT))
    want = net(left, parts, scale=0.5)
    calibrate(model, [{"left": left, "parts": parts, "scale": 0.5}])
    assert all(crossbar.calibrated for crossbar in crossbars(model).values())
    chips = program(model, chips=3).at("1 h")
    got = chips(left, parts, scale=0.5)
    assert got["scale"] == 0.5
    assert got["more"][1] is None
    for found, expected in ((got["logits"], want["logits"]), (got["more"][0], want["more"][0])):
        assert found.shape == (3, *expected.shape)
        for chip in found:
            torch.testing.assert_close(chip, expected, atol=2e-3, rtol=0)
    one = {"right": parts["right"][:1]}  # the same for all samples
    assert torch.equal(chips(left, one)["logits"][1], program(model, chips=2).at("1 h")(left, one)["logits"][1])
    with pytest.raises(RuntimeError, match="must match"):  # what torch says of the network itself
        chips(left, {"right": torch.randn(4, 4)})
    with pytest.raises(HpmlError, match="input 'text': must be a tensor with 6 values"):
        chips("text", None)


def test_genuine_chips_take_several_inputs_too():
    net, left, parts = towers()
    model = convert(net, Analog("pcm", engine="aihwkit"))
    calibrate(model, {"left": left, "parts": parts})
    assert program(model, chips=2).at("1 h")(left, parts)["logits"].shape == (2, 5, 3)


def test_an_output_without_the_batch_in_front():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return torch.stack([self.layer(x)] * 7)

    assert program(convert(TimeFirst(), "pcm"), chips=2).at(0)(torch.rand(3, 4)).shape == (2, 7, 3, 2)


def test_inputs_that_do_not_fit_cost_no_calibration():
    model = convert(nn.Sequential(nn.Linear(4, 2)), "pcm")
    calibrate(model, torch.rand(8, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(HpmlError, match="must have 4 values"):
        calibrate(model, [torch.rand(8, 4), torch.rand(8, 5)])
    with pytest.raises(HpmlError, match="held no samples"):
        calibrate(model, iter([]))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# ---------------------------------------------------------------------------- products that forward() computes itself


class ByHand(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))
        self.gain = nn.Parameter(torch.ones(5))
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(F.linear(x, self.weight) * self.gain)


class Normed(ByHand):
    """The matrix of its product is made anew in each call."""

    def forward(self, x):
        return self.out(F.linear(x, F.normalize(self.weight)) * self.gain)


def test_matrices_of_forwards_own_are_mapped_where_they_are_multiplied_as_they_are():
    network = ByHand().eval()
    model = convert(network, "pcm-hermes")
    assert [(r.layer, r.became) for r in model.layers] == [("weight", "AnalogLinear"), ("out", "AnalogLinear")]
    counts = workload(model, data=torch.rand(2, 4))
    assert counts.mapping is not None
    assert list(counts.mapping.products) == ["network.weight_on_tiles", "network.out"]
    assert estimate(counts).mapping["digital_macs"] == 0
    x = torch.rand(3, 4)
    ideal = convert(network, Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal")).eval()
    assert torch.allclose(ideal(x), network(x), atol=1e-6)
    chips = program(model, chips=2, seed=0).at("1 day")(x)
    assert not torch.equal(chips[0], chips[1])
    left = convert(network, "pcm-hermes", skip="weight")
    assert row(left, "weight").why == "left out by only= or skip="
    model.train()(x).sum().backward()
    assert model.network.weight.grad is not None


def test_matrices_of_forwards_own_are_reported_and_count_as_digital():
    model = convert(Normed(), "pcm-hermes")
    assert [(r.layer, r.became) for r in model.layers] == [("weight", "digital"), ("out", "AnalogLinear")]
    assert "forward() of Normed itself" in row(model, "weight").why
    counts = workload(model, data=torch.rand(2, 4))
    assert [counted.name for counted in counts.layers if counted.rows] == ["network", "network.out"]
    assert counts.mapping is not None
    assert list(counts.mapping.products) == ["network.out"]
    assert estimate(counts).mapping["digital_macs"] == 4 * 5  # of "weight", which the workload takes for the module's


def test_the_bias_of_a_product_with_a_layer_without_one_is_added():
    class Borrowed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 3, bias=False)
            self.shift = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

        def forward(self, x):
            return F.linear(x, self.a.weight, self.shift)

    network = Borrowed()
    ideal = convert(network, Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal")).eval()
    x = torch.rand(5, 4)
    assert torch.allclose(ideal(x), network(x), atol=1e-6)


class Mirrored(nn.Module):
    def __init__(self, embed: bool):
        super().__init__()
        self.encode = nn.Embedding(6, 4) if embed else nn.Linear(6, 4)
        self.body = nn.Linear(4, 4)

    def forward(self, x):
        x = self.body(self.encode(x))
        weight = self.encode.weight
        return F.linear(x, weight if isinstance(self.encode, nn.Embedding) else weight.T)


@pytest.mark.parametrize("embed", [False, True])
def test_products_beside_the_crossbars_are_said_once(embed):
    chips = program(convert(Mirrored(embed), "pcm"), chips=2).at("1 h")
    x = torch.randint(6, (5,)) if embed else torch.rand(5, 6)
    with pytest.warns(RuntimeWarning, match=r"multiplies with the weights of 'encode' outside"):
        chips(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chips(x)


def test_tied_layers_are_no_products_beside():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.out = nn.Embedding(6, 4), nn.Linear(4, 6)
            self.out.weight = self.table.weight
            self.left = nn.Linear(6, 4)

        def forward(self, x):
            return self.left(self.out(self.table(x)))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for skip in ([], ["out"]):
            program(convert(Tied(), "pcm", skip=skip), chips=2).at(0)(torch.randint(6, (5,)))


# ----------------------------------------------------------------------------------------- layers used more than once


class Steps(nn.Module):
    """The input range of a recurrent layer grows from step to step."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = kind(1, 4, nonlinearity="relu", bias=False)
        with torch.no_grad():
            for name, value in self.rnn.named_parameters():
                value.copy_(torch.eye(4) if "hh" in name else torch.full((4, 1), 0.25))

    def forward(self, x):
        if isinstance(self.rnn, nn.Module) and type(self.rnn).__name__.endswith("Cell"):
            h = None
            for step in x.unbind(1):
                h = self.rnn(step, h)
            return h
        return self.rnn(x.transpose(0, 1))[0][-1]


@pytest.mark.parametrize("kind", [nn.RNN, nn.RNNCell])
@pytest.mark.parametrize("training", [True, False])
def test_the_range_of_a_sequence_is_that_of_its_widest_step(kind, training):
    """Eleven steps: ten with a state that is not zero, as many as lie between two observations of the schedule."""
    target = Analog(
        "pcm", training_noise=0.0, weight_clip=None, input_range={"name": "percentile", "share": 1.0}, output_noise=0.0
    )
    model = convert(Steps(kind), target)
    x = torch.ones(3, 11, 1)
    if training:
        model.train()
        for _ in range(200):
            model(x)
    else:
        calibrate(model, [x, x])
    (hidden,) = (crossbar for name, crossbar in crossbars(model).items() if name.endswith("hidden"))
    # what the last step sees; in training the first ranges, too narrow, still count
    assert float(hidden.input_range) == pytest.approx(0.25 * 10, rel=0.15 if training else 1e-6)
    assert int(hidden.observations) == (200 if training else 2)


def test_checkpointing_changes_nothing():
    class Net(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.body, self.again = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), again

        def forward(self, x):
            return checkpoint(self.body, x, use_reentrant=False) if self.again else self.body(x)

    torch.manual_seed(0)
    first = Net(again=True)
    second = Net(again=False)
    second.load_state_dict(first.state_dict())
    ends = []
    for net in (first, second):
        model = convert(net, Analog("pcm", input_range={"name": "learned", "batches": 50})).train()
        for seed in range(55):  # over the end of the warm-up
            torch.manual_seed(seed)
            model.zero_grad()
            model(torch.rand(4, 6) * (1 + seed / 50)).square().sum().backward()
        ends.append({**model.state_dict(), **{name: p.grad for name, p in model.named_parameters()}})
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


def test_a_percentile_of_one_cuts_nothing_off():
    model = convert(nn.Linear(100, 3), Analog("pcm", input_range={"name": "percentile", "share": 1.0}))
    x = torch.rand(200, 100)
    x[137, 71] = 9.0  # of 20,000 values, one
    assert float(calibrate(model, x)["network"]) >= 9.0


# --------------------------------------------------------------------------------------- hooks, copies, other wrappers


def test_hooks_of_all_kinds_stay_with_the_layer():
    net, seen = nn.Sequential(nn.Linear(4, 4)), []
    net[0].register_forward_pre_hook(lambda _m, _args, _kwargs: seen.append("before"), with_kwargs=True)
    net[0].register_forward_hook(lambda _m, _args, _kwargs, _out: seen.append("after"), with_kwargs=True)
    net[0].register_full_backward_hook(lambda *_: seen.append("backward"))
    convert(net, "pcm")(torch.rand(2, 4, requires_grad=True)).sum().backward()
    assert seen == ["before", "after", "backward"]


def test_values_that_were_computed_and_kept_are_copied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    prune.l1_unstructured(net[0], "weight", amount=0.5)
    net(torch.rand(2, 4))  # its weight is now part of a graph
    model = convert(net, "pcm")
    assert "computed from other parameters" in row(model, "0").why
    model(torch.rand(2, 4))
    assert program(model, chips=2).at(0)(torch.rand(3, 4)).shape == (2, 3, 2)


def test_what_cannot_be_copied_is_said():
    net = nn.Sequential(nn.Linear(4, 4))
    net.stream = io.TextIOWrapper(io.BytesIO())
    with pytest.raises(HpmlError, match=r"Sequential cannot be copied \(TypeError: cannot pickle"):
        convert(net, "pcm")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiled_and_scripted_networks():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert [r.layer for r in convert(torch.compile(net, backend="eager"), "pcm").layers] == ["0", "1"]
    with pytest.raises(ConversionError, match="scripted or traced network"):
        convert(torch.jit.script(net), "pcm")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_exporters_are_told_what_to_do():
    model, x = convert(nn.Linear(4, 4), "pcm"), torch.rand(2, 4)
    calibrate(model, x)
    for export in (torch.export.export, torch.jit.trace):
        with pytest.raises(HpmlError, match="Export the digital network"):
            export(model, (x,))


def test_programmed_chips_change_their_type_and_take_no_weights():
    net = convert(nn.Linear(4, 3), "pcm")
    calibrate(net, torch.rand(8, 4))
    x = torch.rand(2, 4)
    chips = program(net, chips=2)
    low, high = chips.at("1 h")(x), chips.at("1 h").double()(x.double())
    assert high.dtype == torch.float64
    assert (high - low).abs().max() < 0.2 * low.std()  # one step of the ADC where rounding differs
    with pytest.raises(HpmlError, match=r"program that; hs\.save_chips"):
        chips.at("1 h").load_state_dict(net.state_dict())


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_evaluation_of_convolutions_in_pieces_computes_the_same(monkeypatch, kind):
    torch.manual_seed(0)
    dims = int(kind.__name__[4])
    # IR drop differs from vector to vector, so the input vectors are all written down
    model = convert(kind(4, 6, 3, padding=1, groups=2), Analog("pcm", output_noise=0.0, ir_drop=1.0))
    x = torch.rand(7, 4, *(6,) * dims)
    calibrate(model, x)
    chips = program(model, chips=3)
    whole, again = chips.at("1 h")(x), chips.at("1 h")
    again(x)  # the first call also runs one chip alone
    monkeypatch.setattr(convolution, "_MAX_VALUES", 500)
    pieces = []
    patches = convolution._patches
    monkeypatch.setattr(convolution, "_patches", lambda part, *rest: pieces.append(len(part)) or patches(part, *rest))
    assert torch.equal(again(x), whole)
    assert len(pieces) > 1
    assert sum(pieces) == 7


def test_a_matrix_of_complex_numbers_stays_digital_with_the_reason():
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.w = nn.Linear(8, 8), nn.Parameter(torch.randn(5, 5, dtype=torch.cfloat))

        def forward(self, x):
            return torch.fft.irfft(torch.fft.rfft(self.layer(x)) @ self.w, 8)

    analog = convert(Spectral(), "pcm-hermes")
    rows = {row["layer"]: row for row in analog.report.to_dict("records")}
    assert rows["w"]["became"] == "digital"
    assert "complex" in rows["w"]["why"]
    assert rows["layer"]["became"] == "AnalogLinear"
    assert analog(torch.rand(3, 8)).shape == (3, 8)
