"""Counts from inside fused layers; SpikingJelly's counter is a second opinion (NeuroBench: tests/workload)."""

from __future__ import annotations

import pytest
import snntorch
import torch
from snntorch import utils
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.cost import estimate
from hpml_sim.counting import workload
from hpml_sim.errors import UnknownNameError
from hpml_sim.networks import models
from hpml_sim.spiking import (
    FusedNetwork,
    LeakyIntegrators,
    LeakyNeurons,
    RecurrentNeurons,
    calibrated,
    firing_rates,
    fuse,
)
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


def time_loop(net):
    """A snnTorch network of one time step, called in a loop."""

    def forward(_model, x):
        utils.reset(net)
        return torch.stack([net(step) for step in x])

    return forward


def snn(conv=False):
    torch.manual_seed(0)
    lif = lambda: snntorch.Leaky(0.9, threshold=0.3, init_hidden=True)  # noqa: E731
    if conv:
        return nn.Sequential(nn.Conv2d(2, 4, 3), lif(), nn.Flatten(), nn.Linear(4 * 36, 10), lif())
    return nn.Sequential(nn.Linear(64, 32), lif(), nn.Linear(32, 10), lif())


@pytest.mark.parametrize(("steps", "batch"), [(25, 1), (25, 4), (1, 4), (3, 7)])
@pytest.mark.parametrize("conv", [False, True])
def test_steps_of_a_fused_network_are_steps(steps, batch, conv):
    net = snn(conv)
    x = (torch.rand(steps, batch, *((2, 8, 8) if conv else (64,))) < 0.3).float()
    counts = workload(fuse(net), data=x)
    loop = workload(net, data=x, batch_dim=1, forward=time_loop(net))
    weights = 2 * 4 * 9 * 36 + 1440 if conv else 64 * 32 + 320
    assert counts.total("macs") == loop.total("macs") == steps * weights
    assert counts.samples == loop.samples == batch
    assert counts.total("spikes") == pytest.approx(loop.total("spikes"))
    assert counts.synaptic_operations() == loop.synaptic_operations()
    assert counts.input_elements == x[:, 0].numel()


def test_the_energy_of_a_fused_network_does_not_depend_on_the_batch_of_equal_samples():
    x = (torch.rand(25, 1, 64) < 0.3).float()
    fused = fuse(snn())
    one, four = (estimate(workload(fused, data=x.expand(-1, n, -1)), "loihi") for n in (1, 4))
    net = snn()
    loop = estimate(workload(net, data=x, batch_dim=1, forward=time_loop(net)), "loihi")
    assert one.energy_j.nominal == pytest.approx(four.energy_j.nominal)
    assert one.energy_j.nominal == pytest.approx(loop.energy_j.nominal)


def test_shapes_alone_parts_and_crossbars_know_the_steps_as_well():
    fused = fuse(snn())
    x = (torch.rand(25, 4, 64) < 0.3).float()
    whole = workload(fused, data=x)
    assert workload(fused, input_shape=(25, 64)).total("macs") == whole.total("macs")
    assert workload(fused, data=x, batch_size=1).total("macs") == whole.total("macs")
    assert workload(convert(fused, "pcm-hermes"), data=x).total("macs") == whole.total("macs")
    neuron = fuse(snntorch.Leaky(0.9, init_hidden=True))
    assert workload(neuron, data=torch.rand(25, 4, 7)).layers[0].updates == 25 * 7


def test_networks_that_count_frames_have_their_samples_first():
    model = convert(models.mlp(64, 32, 10), Spiking("loihi", steps=6, encoder="frames"))
    counts = workload(model, data=torch.rand(5, 6, 1, 8, 8))
    assert counts.samples == 5
    assert counts.total("macs") == 6 * (64 * 32 + 320)
