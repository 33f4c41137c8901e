"""Counts from inside fused layers; SpikingJelly's counter is a second opinion (NeuroBench: tests/workload)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.counting import workload
from hpml_sim.errors import UnknownNameError
from hpml_sim.networks import models
from hpml_sim.spiking import FusedNetwork, LeakyIntegrators, LeakyNeurons, RecurrentNeurons, calibrated, firing_rates
from hpml_sim.targets import Leaky, Spiking


def spikingjellys_count(model: nn.Module, x: torch.Tensor) -> float:
    """Synaptic operations a sample; of layers whose input is 0 or 1, zero weights included."""
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        model.eval()(x)
    return counter.get_total() / len(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:spikingjelly.*")
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_synaptic_operations_equal_spikingjellys(kind):
    """Both count zero weights; the convolution has no padding, about which the two differ."""
    torch.manual_seed(0)
    if kind == "mlp":
        net = models.mlp(64, 32, 10)
    else:
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10)
        )
    model = convert(net, Spiking("loihi", steps=6, encoder="rate", neuron=Leaky(beta=0.9)))
    with torch.no_grad():
        model.network[-1].weight[:, ::2] = 0
    x = torch.rand(5, 1, 8, 8)
    counts = workload(model, data=x)
    ours = counts.synaptic_operations()
    assert ours.effective_macs == 0
    assert ours.effective_acs == pytest.approx(spikingjellys_count(model, x))
    assert counts.synaptic_operations("neurobench").effective_acs < ours.effective_acs  # without zero weights
    assert ours.effective_acs > 0


def test_the_first_layer_once_or_every_step():
    model = convert(models.mlp(64, 32, 10), Spiking("loihi", steps=6, encoder="direct"))
    x = torch.rand(5, 1, 8, 8)
    x[:, :, :4] = 0
    counts = workload(model, data=x)
    every, once = counts.synaptic_operations(), counts.synaptic_operations(first_layer="once")
    assert every.effective_macs == 6 * 32 * 32
    assert once.effective_macs == 32 * 32
    assert once.effective_acs == every.effective_acs == sum(y.sops for y in counts.layers if y.binary_input)
    assert (every.dense, once.dense) == (6 * (64 * 32 + 320), 64 * 32 + 6 * 320)
    assert (every.first_layer, once.first_layer) == ("every step", "once")
    theirs = counts.synaptic_operations("neurobench", first_layer="once")
    assert theirs.effective_macs == once.effective_macs  # no weight is zero
    with pytest.raises(UnknownNameError, match="first_layer"):
        counts.synaptic_operations(first_layer="twice")  # type: ignore[arg-type]


def test_spikes_updates_and_sparsity_from_fused_layers():
    model = convert(models.mlp(64, 32, 10), Spiking("loihi", steps=6, encoder="direct", neuron=Leaky(beta=0.9))).eval()
    x = 3 * torch.rand(5, 1, 8, 8)
    counts = workload(model, data=x)
    neurons = [layer for layer in counts.layers if layer.op == "neuron"]
    assert [layer.updates for layer in neurons] == [6 * 32, 6 * 10]
    rates = firing_rates(model, x)
    assert [layer.spikes / layer.updates for layer in neurons] == pytest.approx(list(rates.values()))
    assert neurons[1].spikes == int(model.spikes(x).sum()) / 5
    total = sum(layer.spikes for layer in neurons)
    assert counts.activation_sparsity == pytest.approx(1 - total / (6 * 42))
    assert total > 0


def test_other_layers_in_time_are_counted():
    net = FusedNetwork(
        nn.Sequential(
            nn.Linear(6, 5), LeakyNeurons(0.9, 0.3), RecurrentNeurons(nn.Linear(5, 5), 0.9, 0.3), LeakyIntegrators(0.9)
        )
    ).eval()
    counts = workload(net, data=torch.rand(8, 3, 6), batch_dim=1)
    assert counts.not_counted == ()
    neurons = [layer for layer in counts.layers if layer.op == "neuron"]
    assert [layer.updates for layer in neurons] == [8 * 5] * 3
    assert neurons[0].spikes > 0
    back = next(layer for layer in counts.layers if layer.name.endswith("recurrent"))
    assert (back.op, back.rows, back.cols, back.vectors, back.weight_count) == ("linear", 5, 5, 8, 30)
    assert back.binary_input
    assert 0 < back.sops <= 5 * neurons[1].spikes  # the spikes of the last step come back no more
    assert neurons[2].spikes == 0  # integrators never fire
    pooled = calibrated(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)), torch.rand(4, 1, 6, 6))
    counts = workload(pooled, data=torch.rand(2, 1, 6, 6))
    assert counts.not_counted == ()
    assert [layer.op for layer in counts.layers if layer.module == "TimeFoldedMaxPool"] == ["pool"]
