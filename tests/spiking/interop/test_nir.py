from __future__ import annotations

import contextlib
import copy
import io
import warnings

import nir
import numpy as np
import pytest
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.networks import models
from hpml_sim.spiking import (
    AlphaNeurons,
    FusedNetwork,
    LeakyIntegrators,
    LeakyNeurons,
    RecurrentNeurons,
    RecurrentSynapticNeurons,
    SynapticNeurons,
    from_nir,
    to_nir,
)
from hpml_sim.targets import Leaky, Spiking


def network(**options):
    torch.manual_seed(0)
    options = {"reset": "zero", "surrogate": "fast_sigmoid", **options}
    return nn.Sequential(
        nn.Linear(6, 9),
        LeakyNeurons(torch.linspace(0.3, 0.95, 9), **options),
        nn.Linear(9, 4),
        LeakyNeurons(0.8, 0.3, **options),
    )


def drive(*shape):
    return 6 * torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_round_trip_through_a_file_changes_no_spike(tmp_path):
    x = drive(40, 3, 6)
    report = to_nir(network(), x, tmp_path / "net.nir")
    assert report.mismatch == 0
    assert report.spikes > 20
    text = repr(report)
    assert text == str(report)
    assert text.startswith("NIR: ")
    assert f"0 % of output spikes differ after import ({report.spikes} spikes in {report.steps} steps)" in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(note.split()[0] in text for note in report.notes)
    assert report._repr_html_().count("<tr>") == len(report.notes)
    again = from_nir(tmp_path / "net.nir")
    assert torch.equal(again(x), from_nir(report.graph)(x))
    lif = nir.read(tmp_path / "net.nir").nodes["3"]
    assert lif.tau.shape == lif.v_threshold.shape == (4,)  # scalars are expanded
    np.testing.assert_allclose(lif.tau, 1e-4 / (1 - np.float32(0.8)), rtol=1e-6)
    metadata = report.graph.metadata
    assert metadata["dt"] == 1e-4
    assert metadata["reset"] == "zero"
    assert "fast_sigmoid(slope=25)" in metadata["neurons"]


def in_sixteenths(net):
    """Weights whose sums are exact, so that the order in which another system adds them changes no bit."""
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                for parameter in layer.parameters():
                    parameter.copy_((parameter * 64).round() / 16)
    return net


def whole(*shape):
    """Inputs in eighths."""
    return (8 * drive(*shape) / 6).round() / 8


def spikes_of_snntorch(graph, x):
    """The graph in snnTorch's importer, whose network nirtorch runs step by step.

    Sample by sample: it flattens the batch as well.
    """
    from snntorch.import_nir import import_from_nir

    samples = []
    for sample in x.split(1, dim=1):
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of nirtorch and snnTorch
            theirs = import_from_nir(copy.deepcopy(graph))
            state, spikes = None, []
            for current in sample:
                spike, state = theirs(current, state)
                spikes.append(spike.reshape(1, -1))
        samples.append(torch.stack(spikes))
    return torch.cat(samples, dim=1)


class Euler(nn.Module):
    """A neuron of NIR from its equations, in float64: what any consumer should make of the node."""

    def __init__(self, node, dt=1e-4):
        super().__init__()
        self.node, self.dt = node, dt
        self.v = self.i = 0.0

    def forward(self, x):
        node, dt, x = self.node, self.dt, x.double()
        tau = torch.as_tensor(getattr(node, "tau", getattr(node, "tau_mem", np.inf)))
        if isinstance(node, nir.CubaLIF):
            tau_syn = torch.as_tensor(node.tau_syn)
            x = self.i = self.i + dt / tau_syn * (torch.as_tensor(node.w_in) * x - self.i)
        share = dt if isinstance(node, (nir.I, nir.IF)) else dt / tau
        leak = 0.0 if isinstance(node, (nir.I, nir.IF)) else torch.as_tensor(node.v_leak) - self.v
        v = self.v + share * (leak + torch.as_tensor(node.r) * x)
        if isinstance(node, (nir.I, nir.LI)):
            self.v = v
            return v
        spikes = v > torch.as_tensor(node.v_threshold)
        self.v = torch.where(spikes, torch.as_tensor(node.v_reset), v)
        return spikes.double()


def spikes_of_nirtorch(graph, x):
    """The graph run by nirtorch, its layers nirtorch's own and its neurons `Euler`'s."""
    import nirtorch

    def affine(node):
        layer = nn.Linear(node.weight.shape[1], node.weight.shape[0], bias=isinstance(node, nir.Affine)).double()
        layer.weight.data = torch.as_tensor(node.weight).double()
        if isinstance(node, nir.Affine):  # nirtorch's own map loses the bias
            layer.bias.data = torch.as_tensor(node.bias).double()
        return layer

    kinds = (nir.LIF, nir.IF, nir.CubaLIF, nir.LI, nir.I)
    node_map = {**dict.fromkeys(kinds, Euler), nir.Affine: affine, nir.Linear: affine}
    # nirtorch counts the batch as a dimension, NIR does not
    node_map[nir.Flatten] = lambda node: nn.Flatten(node.start_dim + 1, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = nirtorch.nir_to_torch(graph, node_map).double()
        state, spikes = None, []
        for current in x.double():
            spike, state = theirs(current) if state is None else theirs(current, state)
            spikes.append(spike)
    return torch.stack(spikes)


class Residual(nn.Module):
    """A sum of two ways, batch norms, the same neurons at two places."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 8, bias=False), nn.Linear(8, 8), nn.Linear(8, 4)
        self.norm = nn.BatchNorm1d(8)
        self.act = LeakyNeurons(0.75, 0.5, reset="zero")
        self.last = LeakyNeurons(0.5, 0.5, reset="zero")

    def forward(self, x):
        y = self.act(self.norm(self.first(x)))
        y = self.act(self.second(y) + y)
        return self.last(self.third(torch.flatten(y, 1)))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        LeakyNeurons(0.75, 0.5, reset="zero"),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 5),
        LeakyNeurons(0.5, 0.5, reset="zero"),
    )


def synaptic():
    neurons = SynapticNeurons(0.5, torch.tensor([0.75] * 9), 1.5, reset="zero", reset_delay=False)
    return nn.Sequential(nn.Linear(6, 9), neurons, nn.Linear(9, 4), LeakyNeurons(0.5, 0.5, reset="zero"))


def recurrent(connection, kind=RecurrentNeurons):
    options = {"beta": 0.75, "threshold": 0.75, "reset": "zero", "reset_delay": False}
    options |= {} if kind is RecurrentNeurons else {"alpha": 0.5}
    return nn.Sequential(nn.Linear(6, 9), kind(recurrent=connection, **options), nn.Linear(9, 4), last())


def last():
    return LeakyNeurons(0.5, 0.5, reset="zero")


@pytest.mark.parametrize(
    ("make", "shape", "consumers"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 9), last(), nn.Linear(9, 4), last()), (6,), "both"),
        (convolutional, (1, 6, 6), "both"),
        (synaptic, (6,), "both"),
        (lambda: recurrent(nn.Linear(9, 9)), (6,), "both"),
        (lambda: recurrent(torch.linspace(-1, 1, 9)), (6,), "both"),
        (lambda: recurrent(nn.Linear(9, 9), RecurrentSynapticNeurons), (6,), "nirtorch"),  # snnTorch raises
        (Residual, (6,), "both"),
        (lambda: nn.Sequential(nn.Linear(6, 4), LeakyNeurons(1.0, 2.0, reset="zero")), (6,), "nirtorch"),
        (lambda: nn.Sequential(nn.Linear(6, 4), LeakyIntegrators(0.75)), (6,), "nirtorch"),
        (lambda: nn.Sequential(nn.Linear(6, 4), LeakyIntegrators(1.0)), (6,), "nirtorch"),
    ],
)
def test_other_consumers_give_the_same_spikes(make, shape, consumers):
    torch.manual_seed(0)
    net, x = in_sixteenths(make()).eval(), whole(40, 3, *shape)
    report = to_nir(net, x)
    assert report.mismatch == 0
    ours = from_nir(report.graph)(x)
    assert torch.equal(ours, FusedNetwork(net)(x))
    assert report.spikes > 20
    torch.testing.assert_close(spikes_of_nirtorch(report.graph, x).float(), ours, rtol=1e-5, atol=1e-5)
    if consumers == "both":
        assert torch.equal(spikes_of_snntorch(report.graph, x).float(), ours)


def test_a_graph_inside_a_file_comes_back(tmp_path):
    torch.manual_seed(0)
    net, x = recurrent(nn.Linear(9, 9)).eval(), drive(20, 2, 6)
    report = to_nir(net, x, tmp_path / "net.nir")
    assert isinstance(report.graph.nodes["1"], nir.NIRGraph)
    assert torch.equal(from_nir(tmp_path / "net.nir")(x), FusedNetwork(net)(x))
    assert "layer '1': the bias of its recurrent weights is part of '0', before it" in report.notes
    again = to_nir(from_nir(tmp_path / "net.nir"), x)  # what was imported can be exported
    assert again.spikes == report.spikes > 0


def test_batch_norms_are_folded_and_said():
    torch.manual_seed(0)
    net = Residual()
    for _ in range(5):
        net.norm(torch.randn(20, 8))  # running statistics
    report = to_nir(net.eval(), drive(20, 2, 6))
    assert report.mismatch == 0
    assert "layer 'norm': batch norm, folded into 'first'" in report.notes
    assert set(report.graph.nodes) == {
        "input", "first", "act", "second", "act_again", "third", "flatten", "last", "output"
    }  # fmt: skip
    assert {("second", "act_again"), ("act", "act_again")} <= set(report.graph.edges)


def test_neurons_with_another_gain_and_a_leak():
    """Norse and others write r = 1: an input of 1 then adds dt / tau."""
    shape = np.ones(3)
    lif = nir.LIF(tau=4e-4 * shape, r=shape, v_leak=0.1 * shape, v_threshold=0.4 * shape, v_reset=0 * shape)
    x = drive(30, 2, 3) / 6
    net = from_nir(nir.NIRGraph.from_list(lif), dt=1e-4)
    want, v = [], np.zeros((2, 3))
    for current in x.double().numpy():
        v = v + 0.25 * (0.1 - v + current)
        want.append(v > 0.4)
        v = np.where(want[-1], 0.0, v)
    np.testing.assert_array_equal(net(x), np.array(want))
    cuba = nir.CubaLIF(
        tau_syn=2e-4 * shape, tau_mem=4e-4 * shape, r=shape, v_leak=0 * shape, v_threshold=0.2 * shape, w_in=shape,
        v_reset=0 * shape,
    )  # fmt: skip
    graph = nir.NIRGraph.from_list(nir.Scale(np.array([1.0, 2.0, 0.5])), cuba, nir.Threshold(0.5 * shape))
    got = from_nir(graph, dt=1e-4)(x)
    want = spikes_of_nirtorch_like(cuba, x.double() * torch.tensor([1.0, 2.0, 0.5]))
    assert torch.equal(got.double(), want)
    assert want.sum() > 10


def spikes_of_nirtorch_like(node, x):
    neuron = Euler(node)
    return torch.stack([neuron(current) for current in x])


def test_sums_of_pooled_windows():
    torch.manual_seed(0)
    pool = nn.AvgPool2d(2, divisor_override=1)
    net = nn.Sequential(pool, nn.Conv2d(2, 2, 1, groups=2), nn.Flatten(), last())
    report = to_nir(net, drive(10, 2, 2, 4, 4))
    assert isinstance(report.graph.nodes["0"], nir.SumPool2d)
    assert report.mismatch == 0
    one = nn.Sequential(nn.Conv1d(2, 3, 3, stride=2, padding=1), last())
    report = to_nir(one, drive(10, 2, 2, 9))
    assert isinstance(report.graph.nodes["0"], nir.Conv1d)
    assert report.mismatch == 0


def test_convolutions_and_integrators():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, stride=2, bias=False),
        LeakyNeurons(1.0, 0.7, reset="zero", reset_delay=False),
        nn.AvgPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 5), LeakyNeurons(0.0, 0.1, reset="zero")),
    ).eval()
    report = to_nir(net, 3 * drive(12, 2, 1, 8, 8))
    assert report.mismatch == 0
    assert report.spikes > 0
    assert isinstance(report.graph.nodes["1"], nir.IF)
    assert any("Dropout does nothing" in note for note in report.notes)


def test_a_converted_network():
    model = convert(
        models.build("mlp", (1, 8, 8), 10), Spiking("loihi", steps=12, neuron=Leaky(reset="zero"), encoder="direct")
    )
    x = model.eval().encoder(torch.rand(4, 1, 8, 8)).unflatten(0, (12, -1))
    report = to_nir(model, x)
    assert report.mismatch == 0
    assert any("DirectEncoder is not in the graph" in note for note in report.notes)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([LeakyNeurons(0.9)], r"reset='subtract': NIR resets to a value"),
        ([LeakyNeurons(0.9, reset="none")], "reset='none'"),
        ([LeakyNeurons(0.9, reset="zero", initial=0.5)], "initial=0.5: NIR's neurons start at 0"),
        ([SynapticNeurons(0.9, 0.8, reset="zero")], "reset_delay=True: the step after a spike loses its current"),
        ([SynapticNeurons(1.0, 0.8, reset="zero", reset_delay=False)], "alpha = 1"),
        ([RecurrentNeurons(0.5, 1.0, reset="zero", reset_delay=False)], "beta = 1"),
        ([RecurrentNeurons(nn.Linear(6, 6), 0.9, reset="zero", reset_delay=False)], "no Linear of its own"),
        ([AlphaNeurons(0.9, 0.8)], "layer '0': AlphaNeurons: no NIR neuron spikes as these do"),
        ([LeakyNeurons(torch.tensor([0.5] * 5 + [1.0]), reset="zero")], r"beta = 1 \(for some neurons\)"),
        ([nn.BatchNorm1d(6), LeakyNeurons(0.9, reset="zero")], "BatchNorm1d has no NIR node"),
        ([nn.Sigmoid()], "layer '0': Sigmoid has no NIR node"),
        ([nn.Flatten(0)], "would flatten time and batch"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(layers, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        to_nir(nn.Sequential(*layers), drive(4, 2, 6), tmp_path / "net.nir")
    assert not list(tmp_path.iterdir())


class Own(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.layer, self.act, self.run = nn.Linear(6, 6), last(), run

    def forward(self, x):
        return self.run(self, x)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda net, x: net.act(net.layer(x)) if x.sum() > 0 else x, r"forward\(\) of Own cannot be traced"),
        (lambda net, x: net.act(torch.relu(net.layer(x))), "operation 'relu' in forward.*only layers and sums"),
        (lambda net, x: net.act(net.layer(x) + 1), "only sums of two values of one shape"),
        (lambda net, x: net.act(net.layer(x) + x[:1]), "operation 'getitem'"),
        (lambda net, x: net.act(x + x), "'act' takes the same value twice"),
        (lambda net, x: (net.act(x), x), "more than one output"),
    ],
)
def test_a_forward_that_cannot_be_drawn_is_refused(run, message):
    with pytest.raises(ConversionError, match=message):
        to_nir(Own(run), drive(4, 2, 6))


def test_import_refuses_what_it_would_change(tmp_path):
    graph = to_nir(network(), drive(8, 2, 6)).graph
    with pytest.raises(HpmlError, match=r"made for steps of 0\.0001 s"):
        from_nir(graph, dt=5e-5)
    with pytest.raises(HpmlError, match=r"dt=-1\.0: must be a finite number > 0"):
        from_nir(graph, dt=-1.0)
    with pytest.raises(HpmlError, match="no file"):
        from_nir(tmp_path / "none.nir")
    graph.nodes["3"].v_reset = graph.nodes["3"].v_reset + 0.1
    with pytest.raises(ConversionError, match="node '3': LIF: a v_reset other than 0"):
        from_nir(graph)
    loop = to_nir(network(), drive(8, 2, 6)).graph
    loop.edges.append(("3", "0"))
    with pytest.raises(ConversionError, match="are in a loop"):
        from_nir(loop)
    silent = to_nir(network(), drive(8, 2, 6)).graph
    silent.metadata = {}
    with pytest.raises(HpmlError, match="how long a step is"):
        from_nir(silent)
    with pytest.raises(ConversionError, match="at least dt"):
        from_nir(silent, dt=1e-2)
    cut = to_nir(network(), drive(8, 2, 6)).graph
    cut.edges.remove(("0", "1"))
    with pytest.raises(ConversionError, match="nothing reaches node '1'"):
        from_nir(cut)
    delayed = to_nir(network(), drive(8, 2, 6)).graph
    delayed.nodes["1"] = nir.Delay(np.ones(9))
    with pytest.raises(ConversionError, match="Delay cannot be run here"):
        from_nir(delayed)


def test_bad_examples_are_named():
    with pytest.raises(HpmlError, match=r"expected \(steps, batch, ...\)"):
        to_nir(network(), drive(4, 6))
    with pytest.raises(HpmlError, match=r"dt=0: must be a finite number > 0"):
        to_nir(network(), drive(4, 2, 6), dt=0)
