"""The workload against NeuroBench."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpml_sim.counting import Workload, workload
from hpml_sim.networks import models
from tests.counting.networks import random_snn_input


def neurobench(net: nn.Module, x: torch.Tensor, *, spiking: bool) -> dict[str, object]:
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import SNNTorchModel, TorchModel
    from torch.utils.data import DataLoader, TensorDataset

    data = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=len(x))
    wrapped = SNNTorchModel(net) if spiking else TorchModel(net)
    metrics = [[ConnectionSparsity, ParameterCount], [ActivationSparsity, SynapticOperations]]
    return Benchmark(wrapped, data, [], [], metrics).run(quiet=True)


def step_by_step(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """(batch, steps, features), as NeuroBench feeds it."""
    from snntorch import utils

    utils.reset(net)
    return torch.stack([net(step)[0] for step in x.unbind(1)])


def snn(seed: int = 0) -> nn.Sequential:
    """The 16-12-4 network of leaky neurons, four weights zero."""
    import snntorch

    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(16, 12),
        snntorch.Leaky(0.9, init_hidden=True),
        nn.Linear(12, 4),
        snntorch.Leaky(0.9, init_hidden=True, output=True),
    )
    with torch.no_grad():
        net[0].weight[:2, :2] = 0
    return net


def assert_as_neurobench(counts: Workload, theirs: dict[str, object]) -> None:
    ours = counts.synaptic_operations("neurobench")
    expected = theirs["SynapticOperations"]
    figures = {"Effective_MACs": ours.effective_macs, "Effective_ACs": ours.effective_acs, "Dense": ours.dense}
    assert figures == pytest.approx(expected, rel=1e-14)  # they divide one sum, we add up quotients
    assert counts.activation_sparsity == pytest.approx(theirs["ActivationSparsity"], rel=1e-12)
    assert counts.connection_sparsity is not None
    assert round(counts.connection_sparsity, 4) == theirs["ConnectionSparsity"]
    assert counts.extra["parameters"] == theirs["ParameterCount"]


@pytest.mark.parametrize("spikes", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_neurobench_on_a_spiking_network(spikes: bool, seed: int) -> None:
    net, x = snn(seed), random_snn_input((24, 5, 16), seed)
    if spikes:
        x = (x > 2).float()
    counts = workload(net, data=x, forward=step_by_step)
    assert_as_neurobench(counts, neurobench(net, x, spiking=True))
    dense = 5 * (16 * 12 + 12 * 4)
    assert counts.synaptic_operations("neurobench").dense == dense == 1200
    ours = counts.synaptic_operations()
    assert ours.effective_macs + ours.effective_acs == counts.total("sops")
    # zero weights: ours counts them, theirs does not
    first = counts.layers[0]
    assert first.sops > first.effective_macs + first.effective_acs
    assert first.binary_input is spikes
    assert (counts.kind, counts.steps, counts.samples) == ("spiking", 5, 24)


def test_fused_neurons_give_what_neurobench_sees_step_by_step() -> None:
    """Time folded into the batch, our neurons: the same network, the same figures."""
    from hpml_sim.spiking import LeakyNeurons

    net, x = snn(), random_snn_input((24, 5, 16))
    fused = nn.Sequential(net[0], LeakyNeurons(0.9, steps=5), net[2], LeakyNeurons(0.9, steps=5))
    counts = workload(fused, data=x, forward=lambda m, x: m(x.transpose(0, 1).flatten(0, 1)))
    assert_as_neurobench(counts, neurobench(net, x, spiking=True))
    stepped = workload(net, data=x, forward=step_by_step)
    for one, other in zip(
        [y for y in counts.layers if y.op != "elementwise"],
        [y for y in stepped.layers if y.op != "elementwise"],
        strict=True,
    ):
        for name in ("op", "rows", "cols", "vectors", "macs", "sops", "neurons", "updates", "spikes", "steps"):
            assert getattr(one, name) == pytest.approx(getattr(other, name)), name


def test_equals_neurobench_on_a_convolutional_network() -> None:
    torch.manual_seed(0)
    net = models.cnn((1, 8, 8), 10)
    with torch.no_grad():
        net[3].weight[net[3].weight.abs() < 0.02] = 0
    x = torch.rand(6, 1, 8, 8)
    assert_as_neurobench(workload(net, data=x), neurobench(net, x, spiking=False))
