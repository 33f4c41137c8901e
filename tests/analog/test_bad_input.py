"""What a user may get wrong: each time one clear error that names what is wrong, and a model as it was before."""

import random

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import hpml_sim as hs
from hpml_sim.analog.chip_files import KIND
from hpml_sim.errors import ConversionError, HpmlError, UnsupportedTimeError
from hpml_sim.errors.files import read_tensors, write_tensors


def converted(card="pcm", **options):
    torch.manual_seed(0)
    return hs.convert(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), hs.Analog(card, **options))


def contents(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def unchanged():
    """Gives a function that takes a model; at the end of the test it must be what it was."""
    taken = []

    def take(model):
        taken.append((model, contents(model), model.training))
        return model

    yield take
    for model, before, training in taken:
        assert model.training is training
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]) or (value.isnan() == before[name].isnan()).all()


def test_times_before_programming(unchanged):
    chips = hs.program(unchanged(converted()), chips=2)
    want = chips.at("1 h")(torch.ones(2, 6))
    for time in (-1.0, -1e-9, "-1 day", float("nan"), float("-inf")):
        with pytest.raises(HpmlError, match="time"):
            chips.at(time)
    assert torch.equal(chips.at("1 h")(torch.ones(2, 6)), want)


def test_times_that_no_one_measured(unchanged):
    chips = hs.program(unchanged(converted("reram-neurram")), chips=2)
    with pytest.raises(UnsupportedTimeError, match=r"has data at 1 s, 1 day, 2 days only, and is not extrapolated"):
        chips.at("1 year")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(unchanged, value):
    model = converted()
    with torch.no_grad():
        model.network[2].weight[1, 2] = value
    unchanged(model)
    with pytest.raises(HpmlError, match=r"layer 'network\.2': weights are NaN or infinite; nothing was programmed"):
        hs.program(model, chips=2)
    digital = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad():
        digital[0].bias[0] = value
    unchanged(digital)
    with pytest.raises(ConversionError, match=r"layer '0': bias has NaN or infinite values"):
        hs.convert(digital, "pcm")


@pytest.mark.parametrize("card", ["pcm", "pcm-hermes", "reram-neurram"])
@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_layers_whose_weights_are_all_alike_are_no_error(unchanged, card, value):
    """aihwkit divides 0 by 0 here; the right answer exists, so it is given: the sum of the inputs times the weight."""
    layer = nn.Linear(8, 4)
    with torch.no_grad():
        layer.weight.fill_(value)
    model = unchanged(hs.convert(nn.Sequential(layer), hs.Analog(card, output_noise=0.0, adc_bits=12)))
    x = torch.rand(5, 8)
    y = hs.program(model, chips=200).at(1)(x)
    expected = (x.sum(1, keepdim=True) * value + layer.bias).detach()
    assert torch.isfinite(y).all()
    assert (y.mean(0) - expected).abs().max() < 0.01 + 0.02 * abs(value) * 8


@pytest.mark.parametrize("name", ["dac_bits", "adc_bits"])
@pytest.mark.parametrize("bits", [1, 0, -3, 17, 7.5])
def test_bits_that_no_converter_has(name, bits):
    with pytest.raises(ValueError, match=name):
        hs.Analog("pcm", **{name: bits})


@pytest.mark.parametrize("options", [{"ir_drop": -1}, {"read_noise": 2}, {"drop_connect": 1.0}, {"weight_clip": 0.0}])
def test_options_out_of_their_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        hs.Analog("pcm", **options)


def test_chips_of_another_version(unchanged, tmp_path):
    model = unchanged(converted())
    path = tmp_path / "chips.safetensors"
    hs.save_chips(hs.program(model, chips=2), path)
    tensors, content = read_tensors(path, KIND)
    # the same format, but a library that draws other devices from the seed
    made = {**content, "seed": content["seed"] + 1, "made_with": "hpml_sim 0.0.1, torch 2.0"}
    write_tensors(path, KIND, tensors, made)
    with pytest.raises(HpmlError, match=r"was saved by hpml_sim 0.0.1, torch 2.0; .* draws other devices"):
        hs.load_chips(path, model)


class Odd(nn.Linear):
    def forward(self, input):  # noqa: A002
        return super().forward(input).cumsum(-1)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (Odd(4, 4), "overrides Linear.forward"),
        (parametrizations.weight_norm(nn.Linear(4, 4)), "computed from other parameters"),
        (nn.Bilinear(4, 4, 4), "product of two inputs"),
        (nn.Linear(4, 4, dtype=torch.complex64), "must be real numbers"),
        (nn.LazyLinear(4), "has no size yet"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_too_odd_to_map(layer, why):
    before = type(layer)
    with pytest.raises(ConversionError, match=why):
        hs.convert(layer, "pcm")
    assert type(layer) is before


def test_inputs_that_do_not_fit(unchanged):
    model = unchanged(converted())
    chips = hs.program(model, chips=2).at(0)
    for run in (model.eval(), chips):
        with pytest.raises(HpmlError, match="must have 6 values in dimension -1"):
            run(torch.ones(3, 7))
    model.train()
    with pytest.raises(HpmlError, match=r"input \[1.0, 2.0\]: must be a tensor with 6 values"):
        chips([1.0, 2.0])


def test_learning_rates_and_epochs(unchanged):
    model = unchanged(converted())
    x = torch.utils.data.TensorDataset(torch.rand(8, 6), torch.zeros(8, dtype=torch.long))
    for options in ({"lr": 0.0}, {"lr": -1.0}, {"epochs": -1}, {"batch_size": 0}, {"optimizer": "none"}):
        with pytest.raises(HpmlError, match=next(iter(options))):
            hs.fit(model, (x, x), **options)


SLIPS = {
    "chips(x)": (lambda model, chips: chips(torch.ones(2, 6)), r"call chips\.at\('1 day'\)"),
    "at(None)": (lambda model, chips: chips.at(None), "time None: give seconds"),
    "at(True)": (lambda model, chips: chips.at(True), "time True: give seconds"),
    "at(inf)": (lambda model, chips: chips.at(float("inf")), "time inf: must be finite"),
    "at('1 dya')": (lambda model, chips: chips.at("1 dya"), "time '1 dya': not understood"),
    "at(tensor)": (lambda model, chips: chips.at(torch.ones(3, 3)), "time <Tensor>: give seconds"),
    "chips=True": (lambda model, chips: hs.program(model, chips=True), "chips=True: must be a whole number >= 1"),
    "chips='3'": (lambda model, chips: hs.program(model, chips="3"), "chips='3': must be a whole number >= 1"),
    "seed=inf": (lambda model, chips: hs.program(model, seed=float("inf")), r"seed=inf: .* from 0 to 2\^63 - 1"),
    "program(name)": (lambda model, chips: hs.program("mlp"), "program: model='mlp': must be a network"),
    "program(chips)": (lambda model, chips: hs.program(chips), "program: these are programmed chips"),
    "program(net)": (
        lambda model, chips: hs.program(nn.Linear(2, 2)),
        r"model Linear has no analog layers.*hs\.convert",
    ),
    "calibrate(net)": (
        lambda model, chips: hs.calibrate(nn.Linear(2, 2), torch.ones(1, 2)),
        "calibrate: model Linear has",
    ),
    "calibrate(chips)": (lambda model, chips: hs.calibrate(chips, torch.ones(1, 6)), "calibrate: these are programmed"),
    "inputs=5": (lambda model, chips: hs.calibrate(model, 5), "inputs=5: must be a tensor"),
    "inputs=[1]": (lambda model, chips: hs.calibrate(model, [1]), "inputs= holds a batch 1: must be a tensor"),
    "inputs=[]": (lambda model, chips: hs.calibrate(model, []), "held no samples"),
    "inputs=nan": (lambda model, chips: hs.calibrate(model, torch.full((2, 6), float("nan"))), "NaN or infinite"),
    "save(model)": (
        lambda model, chips: hs.save_chips(chips.at(0), "chips.safetensors"),
        "chips=<ProgrammedModel>: must be what",
    ),
    "save(None)": (lambda model, chips: hs.save_chips(chips, None), "path=None: must be the path of a file"),
    "save(folder)": (lambda model, chips: hs.save_chips(chips, "."), r"'\.' is a folder; name a file in it"),
    "no folder": (lambda model, chips: hs.save_chips(chips, "none/x.pt"), "its folder does not exist"),
    "load(folder)": (lambda model, chips: hs.load_chips(".", model), r"'\.' is a folder"),
    "load(model)": (
        lambda model, chips: hs.load_chips(model, "chips.safetensors"),
        "path=<AnalogModel>: must be the path",
    ),
    "layer(text)": (lambda model, chips: model.network[0]("x"), "input 'x': must be a tensor"),
    "another target": (lambda model, chips: hs.nn.AnalogLinear(2, 2, card=hs.Digital("cpu")), "card=<Digital>"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_get_one_line_and_change_nothing(unchanged, slip):
    model = unchanged(converted())
    chips = hs.program(model, chips=2)
    want = chips.at("1 h")(torch.ones(2, 6))
    act, message = SLIPS[slip]
    with pytest.raises(HpmlError, match=message) as caught:
        act(model, chips)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert torch.equal(chips.at("1 h")(torch.ones(2, 6)), want)


def test_no_flipped_bit_of_a_file_of_chips_loads(tmp_path):
    """Each is found; what a bit changed that means nothing, such as a blank, loads the same chips."""
    model, path = converted(), tmp_path / "chips.safetensors"
    chips = hs.program(model, chips=2)
    hs.save_chips(chips, path)
    good, x, draw = path.read_bytes(), torch.ones(2, 6), random.Random(0)
    want, found = chips.at("1 h")(x), 0
    for _ in range(120):
        place = draw.randrange(len(good))
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << draw.randrange(8)]) + good[place + 1 :])
        try:
            loaded = hs.load_chips(path, model)
        except HpmlError as error:
            found += "chips.safetensors" in str(error) and "program the chips again" in str(error)
        else:
            assert torch.equal(loaded.at("1 h")(x), want)
            found += 1
    assert found == 120


def test_what_chips_show_of_themselves():
    chips = hs.program(converted(), chips=2, seed=7)
    for text in (repr(chips), repr(chips.at("1 day"))):
        lines = text.splitlines()
        assert 3 < len(lines) < 8
        assert max(map(len, lines)) <= 80
    assert repr(chips).startswith("2 programmed chips")
    assert "pcm" in repr(chips)
    assert "chips.at('1 day')" in repr(chips)
    assert repr(chips.at("1 day")).startswith("Programmed chips at 1 day: (batch, ...) -> (2, batch, ...)")
    for shown in (chips, chips.at(0)):
        assert shown._repr_html_().startswith("<div><strong>")
        assert "<td" in shown._repr_html_()
    assert len(chips) == chips.n_chips == 2
    assert chips.seed == chips.at(0).seed == 7
