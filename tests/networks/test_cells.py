"""Networks of cells: the graph of a cell against sums by hand, which cells there are, and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch

import hpml_sim as hs
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.networks.cells import EDGES, OPERATIONS, Cell, reaches_output


def test_a_cell_is_the_sums_of_its_edges():
    torch.manual_seed(0)
    operations = ("conv3x3", "skip", "conv1x1", "pool3x3", "skip", "conv1x1")
    cell, x = Cell(operations, 4).eval(), torch.randn(2, 4, 6, 6)
    edge = cell.edges
    first = edge["0_1"](x)
    second = x + edge["1_2"](first)
    expected = torch.nn.functional.avg_pool2d(x, 3, 1, 1) + first + edge["2_3"](second)
    torch.testing.assert_close(cell(x), expected)


def test_nodes_that_nothing_reaches_bring_nothing():
    x = torch.randn(2, 4, 6, 6)
    cell = Cell(("none", "none", "conv3x3", "skip", "conv1x1", "conv1x1"), 4).eval()
    torch.testing.assert_close(cell(x), x)


def test_there_are_as_many_cells_as_nas_bench_201_has_and_those_without_a_path_are_known():
    cells = list(itertools.product(OPERATIONS, repeat=6))
    assert len(cells) == 15_625  # Dong and Yang, section 2.1
    x = torch.ones(1, 1, 2, 2)
    for operations in itertools.product(("none", "skip"), repeat=len(EDGES)):
        assert reaches_output(operations) == bool(Cell(operations, 1)(x).any())


def test_every_cell_runs_on_chips():
    net = hs.models.cells((1, 8, 8), 10, width=4, stages=2, edge_2="conv1x1", edge_5="pool3x3").eval()
    x = torch.rand(3, 1, 8, 8)
    analog = hs.convert(net, "pcm-hermes")
    hs.calibrate(analog, x)
    assert hs.program(analog, chips=2, seed=0).at("1 day")(x).shape == (2, 3, 10)


@pytest.mark.filterwarnings("ignore:.*the converters alone")  # of few channels after one epoch
def test_cells_are_searched_by_name():
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(x, (x.mean((1, 2, 3)) > 0.5).long())
    space = {"model.edge_1": ["skip", "conv3x3"], "model.width": [2, 4], "adc_bits": [4, 8]}
    found = hs.search("cells", (data, data), "pcm-hermes", space, trials=2, epochs=1, chips=1, times=["1 s"], jobs=1)
    assert set(found.trials.columns) >= {"model.edge_1", "model.width", "adc_bits", "energy_j"}
    assert len(found.trials) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"edge_1": "conv5x5"}, "edge_1='conv5x5': unknown; did you mean 'conv"),
        (
            {"edge_1": "none", "edge_2": "none", "edge_4": "none"},
            "no path leads from the input of a cell to its output",
        ),
        ({"depth": 0}, "depth=0: must be a whole number >= 1"),
        ({"width": "8"}, "width='8': must be a whole number >= 1"),
    ],
)
def test_cells_that_cannot_be(options, said):
    with pytest.raises(HpmlError, match=r"must be|unknown|no path") as refused:
        hs.models.cells((1, 8, 8), 10, **options)
    assert said in str(refused.value)


def test_an_option_that_the_space_does_not_have():
    with pytest.raises(UnknownNameError, match="Did you mean 'edge_6'"):
        hs.models.build("cells", (1, 8, 8), 10, edge_7="skip")
