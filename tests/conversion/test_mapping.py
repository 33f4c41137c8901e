"""The mapping that convert makes: tiles counted by hand, what stays digital, and that it survives JSON."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.conversion import Mapping
from hpml_sim.conversion.tiling import Piece, Tiling


@pytest.mark.parametrize(
    ("tiling", "tiles", "pieces"),
    [
        (Tiling(1, 40, 9, 16, 4), 9, [Piece(4, 14, 4), Piece(2, 14, 1), Piece(2, 12, 4), Piece(1, 12, 1)]),
        (Tiling(1, 32, 4, 16, 4), 2, [Piece(2, 16, 4)]),
        (Tiling(32, 9, 1, 100, 100), 3, [Piece(2, 99, 11), Piece(1, 90, 10)]),
        (Tiling(4, 200, 10, 100, 100), 8, [Piece(8, 100, 10)]),
        (Tiling(2, 60, 10, 100, 100), 2, [Piece(2, 60, 10)]),
        (Tiling(2, 9, 3, 100, 100), 1, [Piece(1, 18, 6)]),
    ],
)
def test_pieces_by_hand(tiling, tiles, pieces):
    assert tiling.tiles == tiles
    assert sorted(tiling.pieces, key=repr) == sorted(pieces, key=repr)
    assert sum(piece.count for piece in tiling.pieces) == tiles
    cells = sum(piece.count * piece.rows * piece.cols for piece in tiling.pieces)
    together = tiling.groups_per_tile
    assert cells >= tiling.groups * tiling.rows * tiling.cols
    assert (cells == tiling.groups * tiling.rows * tiling.cols) == (together == 1)


def test_a_mapping_says_everything_of_a_product():
    net = nn.Sequential(nn.Conv2d(3, 16, 3, groups=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Linear(4, 4))
    analog = hs.convert(net, hs.Analog("reram-neurram", adc_bits=6, levels=4, slices=2), skip="3")
    first, second = analog.mapping.products.values()
    assert (first.name, first.tiling.rows, first.tiling.cols, first.tiling.groups) == ("0", 27, 16, 1)
    assert (second.tiling.rows, second.tiling.cols, second.tiling.groups) == (9, 1, 16)
    assert (first.slices, first.adc_bits, first.copies) == (2, 6, 1)
    assert first.target == analog.target
    assert first.tiling == analog.network[0].crossbar.tiling
    assert second.tiling == analog.network[2].crossbar.tiling
    assert second.tiling.tiles == 2  # 14 groups of 9 rows on the diagonal of a tile of 128 rows
    digital = [(layer.layer, layer.why) for layer in analog.mapping.layers if not layer.products]
    assert digital == [("1", "no weight matrix"), ("3", "left out by only= or skip=")]
    assert tuple(analog.layers) == analog.mapping.reports()
    table = analog.mapping.table()
    assert list(table["layer"]) == ["0", "1", "2", "3"]
    assert int(table["tiles"].sum()) == analog.mapping.tiles == int(analog.report["tiles"].sum())


def test_layers_inside_of_layers_are_products_of_their_own():
    analog = hs.convert(nn.LSTM(5, 7, 2, batch_first=True), "pcm-hermes")
    assert list(analog.mapping.products) == [f"cells.{cell}.{part}" for cell in (0, 1) for part in ("input", "hidden")]
    assert analog.mapping.tiles == 4 == int(analog.report["tiles"].sum())


@pytest.mark.parametrize("target", ["cpu", hs.Spiking("loihi", steps=2)])
def test_machines_without_crossbars_have_no_mapping(target):
    assert hs.convert(hs.models.mlp(64, 16, 10), target).mapping is None


def test_spiking_synapses_on_crossbars_are_mapped():
    net = hs.convert(hs.models.mlp(64, 16, 10), hs.Spiking("loihi", steps=2, synapses=hs.Analog("pcm-hermes")))
    assert net.mapping.tiles == 2


def test_it_survives_copies_pickles_and_json():
    analog = hs.convert(hs.models.mlp(64, 16, 10), {"1": hs.Analog("pcm", levels=4, slices=2), "3": "pcm-hermes"})
    analog(torch.rand(3, 64))
    for other in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        assert other.mapping == analog.mapping
        assert other.last_input == analog.last_input
    assert Mapping.from_dict(json.loads(json.dumps(analog.mapping.to_dict()))) == analog.mapping
