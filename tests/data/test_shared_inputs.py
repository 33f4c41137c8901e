"""Inputs that all samples share, such as a graph's edges; the oracle is the network with them as a buffer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hpml_sim as hs

NODES = 5
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
ADJACENCY = torch.zeros(NODES, NODES).index_put((EDGES[1], EDGES[0]), torch.tensor(1.0))


class Graph(nn.Module):
    """Two layers of message passing on one graph; values of its nodes are the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x, edges):
        if edges.is_floating_point():
            h = edges @ torch.relu(self.a(x))
        else:
            h = torch.relu(self.a(x))
            h = torch.zeros_like(h).index_add(1, edges[1], h[:, edges[0]])
        return self.b(h).mean(1)


class Holds(Graph):
    """The same with the edges in a buffer."""

    def __init__(self, edges) -> None:
        super().__init__()
        self.register_buffer("edges", edges)

    def forward(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(x, self.edges)


def made(edges, n: int = 20):
    torch.manual_seed(0)
    x, y = torch.rand(n, NODES, 4), torch.randint(0, 3, (n,))
    shared = hs.Shared(edges)
    with_edges = [((x[i], shared), int(y[i])) for i in range(n)]
    net = Graph()
    holds = Holds(edges)
    holds.load_state_dict({**net.state_dict(), "edges": edges})
    return net, with_edges, holds, torch.utils.data.TensorDataset(x, y)


@pytest.mark.parametrize("edges", [EDGES, ADJACENCY], ids=["edges", "adjacency"])
@pytest.mark.parametrize("batches", [False, True])
def test_fit_and_evaluate_are_those_of_a_network_that_holds_the_edges(edges, batches):
    net, shared, holds, plain = made(edges)
    if batches:
        loader = [
            ((torch.stack([x for (x, _), _ in part]), part[0][0][1]), torch.tensor([y for _, y in part]))
            for part in (shared[:8], shared[8:16], shared[16:])
        ]
        own = [
            (torch.stack([x for (x, _), _ in part]), torch.tensor([y for _, y in part]))
            for part in (shared[:8], shared[8:16], shared[16:])
        ]
        for network, data in ((net, loader), (holds, own)):
            hs.fit(network, data, epochs=2, seed=3, show_progress=False)
    else:
        for network, data in ((net, shared), (holds, plain)):
            hs.fit(network, data, epochs=2, seed=3, batch_size=8, show_progress=False)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, holds.state_dict()[name]), name
    assert hs.evaluate(net, shared, batch_size=7).mean == hs.evaluate(holds, plain, batch_size=7).mean
    for network, data in ((net, shared), (holds, plain)):
        analog = hs.convert(network, "pcm-hermes")
        hs.fit(analog, data, epochs=1, seed=1, batch_size=8, show_progress=False)
        chips = hs.program(analog, chips=2, seed=0)
        network.found = hs.evaluate(chips.at("1 day"), data).values
    assert list(net.found) == list(holds.found)


def test_compare_trains_estimates_and_measures_with_them():
    net, shared, holds, plain = made(EDGES)
    rows = [
        hs.compare(copy.deepcopy(one), (data, data), ["pcm-hermes"], epochs=1, seeds=1, chips=2).table()
        for one, data in ((net, shared), (holds, plain))
    ]
    for column in ("accuracy_mean", "energy_j_nominal", "latency_s_nominal"):
        assert list(rows[0][column]) == list(rows[1][column])


def test_what_is_shared_must_be_one_tensor():
    with pytest.raises(hs.HpmlError, match="Shared: tensor=3: must be a tensor"):
        hs.Shared(3)
    different = [((torch.rand(NODES, 4), hs.Shared(EDGES + i)), 0) for i in range(4)]
    with pytest.raises(hs.HpmlError, match=r"hs\.Shared of item 0 and others differ"):
        hs.fit(Graph(), different, epochs=1, show_progress=False)
