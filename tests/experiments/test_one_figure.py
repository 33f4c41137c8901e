"""One network on one target has one figure, to the last digit, by every way of asking: that of the report's tiles."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.conversion.mapping import ACTIVATION_PRODUCT

HERMES, NEURRAM = hs.Analog("pcm-hermes"), hs.Analog("reram-neurram")


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer, self.out = kind(8, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x):
        return self.out(self.layer(x.flatten(1).unflatten(1, (8, 8)))[0][:, -1])


class CellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(8, 16), nn.Linear(16, 10)

    def forward(self, x):
        h = None
        for step in x.flatten(1).unflatten(1, (8, 8)).unbind(1):
            h = self.cell(step, h)
        return self.out(h)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0)
        self.embed, self.out = nn.Linear(8, 16), nn.Linear(16, 10)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.out(self.blocks(self.embed(x.flatten(1).unflatten(1, (8, 8)))).mean(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(64, 10)

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(1).unflatten(1, (8, 8))).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None]).flatten(1))


class Shared(nn.Module):
    """One layer called twice, and a second one with the weights of the first."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.out(self.b(self.a(self.a(x.flatten(1)))))


class OwnProduct(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.out = nn.Parameter(torch.rand(64, 64)), nn.Linear(64, 10)

    def forward(self, x):
        return self.out(x.flatten(1) @ self.weight)


def conv(ins, outs, groups=1):
    return nn.Conv2d(ins, outs, 3, padding=1, groups=groups)


def mlp():
    return hs.models.mlp(64, 300, 10)


def convolutions(*layers, width):
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 10))


COMPARED = {
    "mlp": (mlp, HERMES),
    "cnn": (lambda: hs.models.cnn((1, 8, 8), 10), NEURRAM),
    "depthwise": (lambda: convolutions(conv(1, 16), conv(16, 16, 16), width=1024), HERMES),
    "grouped": (lambda: convolutions(conv(1, 64), conv(64, 64, 2), width=4096), NEURRAM),
    "groups larger than a tile": (lambda: convolutions(conv(1, 80), conv(80, 80, 2), width=5120), HERMES),
    "transposed convolution": (
        lambda: convolutions(conv(1, 8), nn.ConvTranspose2d(8, 8, 2, stride=2), width=2048),
        NEURRAM,
    ),
    "conv1d": (lambda: convolutions(nn.Flatten(), nn.Unflatten(1, (4, 16)), nn.Conv1d(4, 8, 3), width=112), HERMES),
    "conv3d": (lambda: convolutions(nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 4, (1, 3, 3)), width=144), HERMES),
    "transformer": (Transformer, NEURRAM),
    "attention by a function": (Attention, HERMES),
    "LSTM": (lambda: Recurrent(nn.LSTM), HERMES),
    "GRU": (lambda: Recurrent(nn.GRU), NEURRAM),
    "cells in a loop": (CellLoop, NEURRAM),
    "shared and tied layers": (Shared, HERMES),
    "a product of its own": (OwnProduct, NEURRAM),
    "slices": (mlp, hs.Analog("pcm-hermes", adc_bits=4, levels=4, slices=3)),
    "bits": (mlp, hs.Analog("reram-neurram", adc_bits=6, dac_bits=4)),
    "many cells a weight": (mlp, hs.Analog("isaac")),
    "spikes on crossbars": (lambda: hs.models.mlp(64, 32, 10), hs.Spiking("loihi", steps=4, synapses=HERMES)),
}
CONVERTED = {
    "skip": (mlp, HERMES, {"skip": "3"}),
    "only": (mlp, HERMES, {"only": lambda name, _: name == "1"}),
    "by layer": (mlp, {"1": hs.Analog("pcm-hermes", adc_bits=6), "3": "pcm-hermes"}, {}),
    "by layer, the rest digital": (mlp, {"1": hs.Analog("pcm-hermes", levels=4, slices=2)}, {}),
    "by layer, on two cards": (mlp, {"1": "pcm-hermes", "3": "reram-neurram"}, {}),
}


def figures(found):
    return found.energy_j, found.latency_s, found.throughput_hz, found.area_mm2, found.terms


def by_every_way(analog, x):
    """The estimate on data; asserts that all other ways of asking for it, and the report, agree."""
    found = hs.estimate(analog, data=x)
    tiles = analog.report["tiles"].fillna(0).sum()
    assert found.mapping["tiles"] == tiles == analog.mapping.tiles
    counts = hs.workload(analog, data=x)
    again = type(counts).from_dict(json.loads(json.dumps(counts.to_dict())))
    for other in (hs.estimate(counts), hs.estimate(counts, analog.target), hs.estimate(again)):
        assert figures(other) == figures(found)
    analog.eval()(x[:3])
    assert figures(hs.estimate(analog)) == figures(hs.estimate(analog, input_shape=x.shape[1:]))
    return found


@pytest.mark.parametrize("name", COMPARED)
def test_compare_estimate_and_report_agree(name):
    torch.manual_seed(0)
    make, target = COMPARED[name]
    net, x = make(), torch.rand(8, 1, 8, 8)
    found = by_every_way(hs.convert(net, target), x)
    assert figures(hs.estimate(net, target, data=x)) == figures(found)
    data = TensorDataset(x, torch.randint(0, 10, (8,)))
    result = hs.compare(net, (data, data), {"it": target}, chips=1, epochs=0, times=["1 s"])
    (estimate,) = result.rows[0].estimates
    assert figures(estimate) == figures(found)
    assert result.table()["energy_j_nominal"].iloc[0] == found.energy_j.nominal
    assert [layer["tiles"] for layer in result.rows[0].layers] == [row.tiles for row in hs.convert(net, target).layers]


@pytest.mark.parametrize("name", CONVERTED)
def test_options_of_convert_reach_the_estimate(name):
    torch.manual_seed(0)
    make, target, options = CONVERTED[name]
    net, x = make(), torch.rand(8, 1, 8, 8)
    found = by_every_way(hs.convert(net, target, **options), x)
    if not options:
        assert figures(hs.estimate(net, target, data=x)) == figures(found)


def test_layers_by_themselves_add_up_to_layers_on_two_cards():
    torch.manual_seed(0)
    net, x = mlp(), torch.rand(8, 1, 8, 8)
    both = hs.estimate(net, {"1": "pcm-hermes", "3": "reram-neurram"}, data=x)
    apart = [hs.estimate(net, {name: card}, data=x) for name, card in (("1", "pcm-hermes"), ("3", "reram-neurram"))]
    assert both.card == "pcm-hermes+reram-neurram"
    assert both.mapping["tiles"] == sum(one.mapping["tiles"] for one in apart)
    assert both.energy_j.nominal == pytest.approx(sum(one.energy_j.nominal for one in apart))
    assert both.latency_s.nominal == pytest.approx(sum(one.latency_s.nominal for one in apart))
    assert both.throughput_hz.nominal == pytest.approx(min(one.throughput_hz.nominal for one in apart))
    assert set(both.sources) == {f"{one.card}:{key}" for one in apart for key in one.sources}


def test_products_of_two_activations_have_a_row():
    for net, places in ((Attention(), ["forward"]), (Transformer(), ["blocks.layers.0.self_attn.forward"] * 2)):
        report = hs.convert(net, "pcm-hermes").report
        rows = report[report["why"] == ACTIVATION_PRODUCT]
        assert [name.replace("layers.1", "layers.0") for name in rows["layer"]] == places
        assert set(rows["became"]) == {"digital"}
    assert ACTIVATION_PRODUCT not in set(hs.convert(OwnProduct(), "pcm-hermes").report["why"])


def test_the_command_line_gives_compare_s_figure(tmp_path, monkeypatch, capsys):
    from hpml_sim.cli.estimates import estimates
    from hpml_sim.cost.named import Asked

    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n    layer = nn.TransformerEncoderLayer(64, 2, 32, batch_first=True)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Unflatten(1, (1, 64)), layer, nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    asked = {"data": None, "input_shape": (8, 8), "asked": Asked()}
    (found,) = estimates("net.py:make", ["pcm-hermes"], **asked, batch=1, precision=None, engine=None)
    from hpml_sim.networks import models

    analog = hs.convert(models.imported("net.py:make", seed=0), "pcm-hermes")
    assert figures(found) == figures(hs.estimate(analog, input_shape=(8, 8)))
    assert found.mapping["tiles"] == analog.mapping.tiles


BY_LAYER = {"1": {"card": "pcm-hermes", "adc_bits": 6}, "3": "pcm-hermes"}


@pytest.mark.parametrize(
    "target", [BY_LAYER, {"1": "pcm-hermes", "3": hs.Analog("reram-neurram")}, {"1": hs.Analog("pcm-hermes")}]
)
def test_compare_takes_targets_by_layer(target, tmp_path):
    torch.manual_seed(0)
    net, x = mlp(), torch.rand(8, 1, 8, 8)
    data = TensorDataset(x, torch.randint(0, 10, (8,)))
    result = hs.compare(
        net, (data, data), {"mixed": target, "cpu": "cpu"}, chips=2, epochs=0, times=["1 s"], out=tmp_path
    )
    row = result.rows[0]
    own = {name: hs.Analog(**value) if isinstance(value, dict) else value for name, value in target.items()}
    assert figures(row.estimates[0]) == figures(hs.estimate(net, own, data=x))
    assert row.score.n == 2
    assert row.config["target"] == "PerLayer"
    assert [layer["tiles"] for layer in row.layers] == [layer.tiles for layer in hs.convert(net, own).layers]
    again = hs.load_results(tmp_path)
    assert figures(again.rows[0].estimates[0]) == figures(row.estimates[0])
    assert row.card.name == row.estimates[0].card
    assert "mixed" in str(result)
    result.report(tmp_path / "page.html")


def test_a_run_file_keeps_targets_by_layer(tmp_path):
    from hpml_sim.experiments.target_list import as_tables, labeled_targets

    targets = labeled_targets({"mixed": BY_LAYER, "cpu": "cpu"})
    assert labeled_targets(as_tables(targets)) == targets
    assert list(labeled_targets([targets["mixed"]])) == ["pcm-hermes by layer"]
    assert list(labeled_targets([{"a": "pcm", "b.c": "pcm-hermes"}])) == ["pcm+pcm-hermes by layer"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"9": "pcm-hermes"}, "unknown layer in target= '9'"),
        ({"adc_bits": 6}, "has no card; add it"),
        ({"engine": "fused"}, "has no card; add it"),
    ],
)
def test_targets_by_layer_that_cannot_be(target, said):
    data = TensorDataset(torch.rand(8, 1, 8, 8), torch.randint(0, 10, (8,)))
    with pytest.raises(hs.HpmlError, match=said):
        hs.compare(mlp(), (data, data), {"mixed": target}, chips=1, epochs=0)
