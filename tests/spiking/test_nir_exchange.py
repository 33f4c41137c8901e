from __future__ import annotations

import contextlib
import io
import warnings

import nir
import numpy as np
import pytest
import torch
from torch import nn

from hpml_sim import models
from hpml_sim.convert import convert
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking import LeakyNeurons, SynapticNeurons, from_nir, to_nir
from hpml_sim.targets import Spiking


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
    assert "0 % of output spikes differ" in str(report)
    again = from_nir(tmp_path / "net.nir")
    assert torch.equal(again(x), from_nir(report.graph)(x))
    lif = nir.read(tmp_path / "net.nir").nodes["3"]
    assert lif.tau.shape == lif.v_threshold.shape == (4,)  # scalars are expanded
    np.testing.assert_allclose(lif.tau, 1e-4 / (1 - np.float32(0.8)), rtol=1e-6)
    metadata = report.graph.metadata
    assert metadata["dt"] == 1e-4
    assert metadata["reset"] == "zero"
    assert "fast_sigmoid(slope=25)" in metadata["neurons"]


def test_another_consumer_gives_the_same_spikes():
    """snnTorch's importer, whose graph nirtorch runs."""
    from snntorch.import_nir import import_from_nir

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 9), LeakyNeurons(0.9, reset="zero"), nn.Linear(9, 4), LeakyNeurons(0.8, 0.3, reset="zero")
    )
    x = drive(40, 3, 6)
    report = to_nir(net, x)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of nirtorch and snnTorch
        theirs = import_from_nir(report.graph)
        state, spikes = None, []
        for current in x:
            spike, state = theirs(current, state)
            spikes.append(spike)
    ours = from_nir(report.graph)(x)
    assert ours.sum() > 20
    # their matrix products are of one step, ours of all: the last bit of a sum may differ
    assert (torch.stack(spikes) != ours).double().mean() < 0.005


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
    model = convert(models.build("mlp", (1, 8, 8), 10), Spiking("loihi", steps=12, reset="zero", encoder="direct"))
    x = model.eval().encoder(torch.rand(4, 1, 8, 8)).unflatten(0, (12, -1))
    report = to_nir(model, x)
    assert report.mismatch == 0
    assert any("DirectEncoder is not in the graph" in note for note in report.notes)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([LeakyNeurons(0.9)], r"reset='subtract': NIR resets to a value"),
        ([LeakyNeurons(0.9, reset="none")], "reset='none'"),
        ([SynapticNeurons(0.9, 0.8, reset="zero")], "only LeakyNeurons"),
        ([LeakyNeurons(torch.tensor([0.5] * 5 + [1.0]), reset="zero")], "beta = 1 for some neurons"),
        ([nn.BatchNorm1d(6), LeakyNeurons(0.9, reset="zero")], "BatchNorm1d has no NIR node.*fold it"),
        ([nn.Sigmoid()], "Sigmoid has no NIR node"),
        ([nn.Flatten(0)], "would flatten time and batch"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(layers, message, tmp_path):
    with pytest.raises(ConversionError, match=message):
        to_nir(nn.Sequential(*layers), drive(4, 2, 6), tmp_path / "net.nir")
    assert not list(tmp_path.iterdir())


def test_a_forward_that_cannot_be_read_is_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(x) + x

    with pytest.raises(ConversionError, match=r"Own is no nn.Sequential"):
        to_nir(Own(), drive(4, 2, 6))


def test_import_refuses_what_it_would_change():
    graph = to_nir(network(), drive(8, 2, 6)).graph
    with pytest.raises(ConversionError, match="is dt right"):
        from_nir(graph, dt=5e-5)
    with pytest.raises(ConversionError, match="at least dt"):
        from_nir(graph, dt=1e-2)
    with pytest.raises(HpmlError, match=r"dt=-1.0 must be > 0"):
        from_nir(graph, dt=-1.0)
    graph.nodes["3"].v_reset = graph.nodes["3"].v_reset + 0.1
    with pytest.raises(ConversionError, match="v_leak and v_reset"):
        from_nir(graph)
    loop = to_nir(network(), drive(8, 2, 6)).graph
    loop.edges.append(("3", "2"))
    with pytest.raises(ConversionError, match="only chains"):
        from_nir(loop)
    silent = to_nir(network(), drive(8, 2, 6)).graph
    silent.metadata = {}
    with pytest.raises(HpmlError, match="how long a step is"):
        from_nir(silent)


def test_bad_examples_are_named():
    with pytest.raises(HpmlError, match=r"expected \(steps, batch, ...\)"):
        to_nir(network(), drive(4, 6))
    with pytest.raises(HpmlError, match=r"dt=0 must be > 0"):
        to_nir(network(), drive(4, 2, 6), dt=0)
