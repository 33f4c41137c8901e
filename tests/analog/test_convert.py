import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import hpml_sim.analog.nn as analog_nn
from hpml_sim.analog import has_analog_layers, program
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError, UnknownNameError
from hpml_sim.targets import Analog


def row(report, layer):
    return report[report["layer"] == layer].iloc[0]


def test_report_names_tiles_and_reasons(card_file):
    model = nn.Sequential(nn.Conv2d(4, 30, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(30 * 36, 10), nn.Dropout())
    converted = convert(model, card_file(rows=16, cols=8))
    report = converted.report
    assert list(report["layer"]) == ["0", "1", "2", "3", "4"]
    conv = row(report, "0")
    # 2 groups of 18 rows x 15 columns on tiles of 16 x 8: 2 x (2 x 2)
    assert (conv["was"], conv["became"], conv["tiles"]) == ("Conv2d", "AnalogConv2d", 8)
    assert conv["utilization"] == pytest.approx(2 * 18 * 15 / (8 * 16 * 8))
    assert "2 row tiles" in conv["why"]
    assert row(report, "3")["tiles"] == 68 * 2
    assert (row(report, "1")["became"], row(report, "1")["why"]) == ("digital", "no weight matrix")
    assert converted(torch.rand(2, 4, 8, 8)).shape == (2, 10)


def test_subclasses_are_mapped_unless_they_compute_something_else():
    class Named(nn.Linear):
        pass

    class Doubled(nn.Linear):
        def forward(self, input):  # noqa: A002
            return 2 * super().forward(input)

    report = convert(nn.Sequential(Named(4, 4), Doubled(4, 4)), "pcm").report
    assert row(report, "0")["became"] == "AnalogLinear"
    assert row(report, "1")["why"] == "overrides Linear.forward"


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Embedding(5, 4), "look-up"),
        (parametrizations.weight_norm(nn.GRUCell(4, 4), "weight_hh"), "computed from other parameters"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), "add_bias_kv"),
        (parametrizations.weight_norm(nn.Linear(4, 4)), "computed from other parameters"),
        (nn.LayerNorm(4), "scales value by value"),
        (nn.BatchNorm1d(4), "scales value by value"),
        (analog_nn.AnalogLinear(4, 4), "already"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_every_layer_left_digital_has_its_reason(layer, reason):
    report = convert(nn.Sequential(layer, nn.Linear(4, 4)), "pcm").report
    assert list(report["layer"]) == ["0", "1"]
    assert row(report, "0")["became"] == "digital"
    assert reason in row(report, "0")["why"]


def test_choice_of_layers():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    assert row(convert(model, "pcm", skip=["2"]).report, "2")["why"] == "left out by only= or skip="
    assert type(convert(model, "pcm", only=["2"]).network[0]) is nn.Linear
    with pytest.raises(UnknownNameError, match="layer in skip="):
        convert(model, "pcm", skip=["9"])


def test_different_targets_for_different_layers():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6)), nn.Linear(6, 5), nn.LSTM(5, 3, batch_first=True)
    )
    fine = Analog("pcm", adc_bits=12)
    converted = convert(model, {"0": "pcm-hermes", "0.2": fine, "2": Analog("reram-neurram")})
    assert [row.why for row in converted.layers if row.became == "digital"] == [
        "no weight matrix",
        "no target for this layer",
    ]
    targets = {name: crossbar.target for name, crossbar in crossbars(converted.network).items()}
    assert {name: target.card for name, target in targets.items()} == {
        "0.0": "pcm-hermes",
        "0.2": "pcm",
        "2.cells.0.input": "reram-neurram",
        "2.cells.0.hidden": "reram-neurram",
    }
    assert targets["0.2"] is not None
    assert targets["0.2"].adc_bits == 12
    model = nn.Sequential(*list(model)[:2])
    chips = program(convert(model, {"0": "pcm-hermes", "1": fine}), chips=2)
    assert chips.at("1 day")(torch.rand(3, 4)).shape == (2, 3, 5)
    everything = convert(model, {"": "pcm"})
    assert {c.target.card for c in crossbars(everything.network).values()} == {"pcm"}
    with pytest.raises(UnknownNameError, match="layer in target="):
        convert(model, {"9": "pcm"})
    with pytest.raises(ConversionError, match="only crossbars can be chosen layer by layer"):
        convert(model, {"0": "loihi"})
    with pytest.raises(ConversionError, match="no target for this layer"):
        convert(model, {"0.1": "pcm"})


def test_a_single_layer_and_a_layer_used_twice_are_mapped():
    assert isinstance(convert(nn.Linear(4, 3), "pcm").network, analog_nn.AnalogLinear)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    converted = convert(model, "pcm")
    assert converted.network[0] is converted.network[2]
    assert program(converted, chips=2).at(0)(torch.rand(3, 4)).shape == (2, 3, 4)
    assert program(convert(nn.Linear(4, 3), "pcm"), chips=2).at(0)(torch.rand(5, 4)).shape == (2, 5, 3)


def test_tied_weights_stay_tied_and_hooks_stay():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    converted = convert(model, "pcm")
    assert converted.network[0].weight is converted.network[1].weight
    assert converted.network[0].weight is not model[0].weight
    converted(torch.rand(2, 4))
    assert calls == [1]


def test_mode_and_frozen_parameters_are_kept():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    model[0].weight.requires_grad_(False)
    converted = convert(model, "pcm").network
    assert not converted[0].training
    assert not converted[0].crossbar.training
    assert not converted[0].weight.requires_grad
    assert converted[1].weight.requires_grad


def test_what_cannot_be_mapped_is_refused_before_anything_changes():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    with pytest.raises(ConversionError, match="layer '1': weight has NaN or infinite values"):
        convert(model, "pcm")
    assert type(model[0]) is nn.Linear
    with pytest.raises(ConversionError, match="run one batch"):
        convert(nn.Sequential(nn.LazyLinear(4)), "pcm")
    with pytest.raises(ConversionError, match="no layer can be put onto crossbars"):
        convert(nn.Sequential(nn.ReLU()), "pcm")
    with pytest.raises(ConversionError, match="left out"):
        convert(model, "pcm", skip=["0", "1"])
    with pytest.raises(ConversionError, match="real numbers"):
        convert(nn.Linear(4, 4, dtype=torch.complex64), "pcm")


def test_bits_and_other_options_out_of_range_are_refused():
    for options in ({"dac_bits": 1}, {"adc_bits": 17}, {"output_noise": -0.1}, {"weight_clip": 0.5}, {"bits": 8}):
        with pytest.raises((ValueError, TypeError)):
            Analog("pcm", **options)


def test_all_zero_and_constant_layers_are_programmed():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight.zero_()
        model[1].weight.fill_(0.3)
    for card, time in (("pcm", 3600), ("pcm-hermes", 0), ("reram-neurram", 1)):
        chips = program(convert(model, card), chips=2)
        assert torch.isfinite(chips.at(time)(torch.rand(3, 4))).all()


def test_models_on_the_meta_device_are_converted_for_their_shapes():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10))
    converted = convert(model, "pcm")
    assert has_analog_layers(converted)
    assert row(converted.report, "0")["tiles"] == 256


# --------------------------------------------------------------------------------------------------------- attention

FINE = {"dac_bits": 16, "adc_bits": 16, "output_noise": 0.0}


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 10}, {"batch_first": True}])
def test_attention_equals_the_digital_one(card_file, options):
    torch.manual_seed(0)
    digital = nn.MultiheadAttention(8, 2, **options).eval()
    attention = convert(digital, Analog(card_file(rows=5), **FINE)).network.eval()
    query = torch.randn(4, 5, 8)
    key, value = torch.randn(4, 5, options.get("kdim", 8)), torch.randn(4, 5, options.get("vdim", 8))
    batch, length = (4, 5) if options.get("batch_first") else (5, 4)
    pad = torch.zeros(batch, length, dtype=torch.bool)
    pad[0, 1] = True
    causal = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
    for masks in ({}, {"key_padding_mask": pad}, {"attn_mask": causal}, {"attn_mask": torch.randn(length, length)}):
        for expected, got in zip(
            digital(query, key, value, **masks), attention(query, key, value, **masks), strict=True
        ):
            assert torch.allclose(expected, got, atol=3e-3)
    assert attention(query, key, value, need_weights=False)[1] is None
    each = attention(query, key, value, average_attn_weights=False)[1]
    assert torch.allclose(each, digital(query, key, value, average_attn_weights=False)[1], atol=3e-3)


@pytest.mark.parametrize("options", [{}, {"kdim": 4, "vdim": 2, "bias": False}])
def test_gradients_of_attention_are_exact(card_file, options):
    """Against finite differences in float64, with ideal converters, of inputs and of all parameters."""
    torch.manual_seed(0)
    digital = nn.MultiheadAttention(6, 2, batch_first=True, dtype=torch.float64, **options)
    attention = convert(digital, Analog(card_file(rows=4), **FINE)).network.eval()
    for crossbar in crossbars(attention).values():
        crossbar.dac_qmax = crossbar.adc_qmax = None
    sizes = (6, options.get("kdim", 6), options.get("vdim", 6))
    inputs = [torch.randn(2, 3, n, dtype=torch.float64, requires_grad=True) for n in sizes]
    names, parameters = zip(*attention.named_parameters(), strict=True)

    def call(query, key, value, *parameters):
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(attention, given, (query, key, value))

    assert torch.autograd.gradcheck(call, (*inputs, *parameters))


def test_transformer_layers_run_on_chips(card_file):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    digital = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    target = Analog(card_file(model="none"), **FINE)
    converted = convert(digital, target)
    rows = converted.report.set_index("layer")
    assert rows.loc["layers.0.self_attn", "became"] == "AnalogMultiheadAttention"
    assert rows.loc["layers.0.self_attn", "tiles"] == 4
    assert rows.loc["layers.1.linear2", "became"] == "AnalogLinear"
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        expected = digital(x)
        assert torch.allclose(converted(x), expected, atol=0.02)
    y = program(converted, chips=2).at(0)(x)
    assert torch.allclose(y, expected.expand(2, 3, 5, 8), atol=0.02)


class Translator(nn.Module):
    """Encoder and decoder with torch's default, (length, batch, width), in a network that takes the batch first."""

    def __init__(self):
        super().__init__()
        self.both = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = x.transpose(0, 1)
        return self.head(self.both(x, x[:2]).transpose(0, 1))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformers_with_the_length_first_run_on_chips(card_file):
    torch.manual_seed(0)
    digital = Translator().eval()
    converted = convert(digital, Analog(card_file(model="none"), **FINE))
    assert not [row for row in converted.layers if row.was == "Linear" and row.became == "digital"]
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        expected = digital(x)
        assert torch.allclose(converted(x), expected, atol=0.02)
    y = program(converted, chips=4).at(0)(x)
    assert torch.allclose(y, expected.expand(4, 3, 2, 3), atol=0.02)
    few, many = (program(convert(digital, "pcm"), chips=n, seed=0).at("1 day")(x) for n in (2, 4))
    assert torch.allclose(few, many[:2], atol=1e-5)  # the attention itself runs on all chips at once
    assert not torch.allclose(many[0], many[1], atol=1e-3)


def test_the_fast_path_of_transformers_never_bypasses_an_analog_layer(card_file):
    torch.manual_seed(0)
    digital = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    converted = convert(digital, Analog(card_file(), dac_bits=2), skip=["self_attn"])
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        assert (converted(x) - digital(x)).abs().max() > 0.01  # two bits must be seen
