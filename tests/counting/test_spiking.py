"""Spiking networks and networks on crossbars."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hpml_sim.counting import workload
from hpml_sim.networks import models
from tests.counting.networks import random_snn_input, rows


def test_spiking_neurons() -> None:
    import snntorch

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(6, 5), snntorch.Leaky(0.9)
            self.fc2, self.lif2 = nn.Linear(5, 3), snntorch.RLeaky(0.9, linear_features=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mem, (spk2, mem2), out = self.lif1.reset_mem(), self.lif2.init_rleaky(), []
            for step in x:
                spk, mem = self.lif1(self.fc1(step), mem)
                spk2, mem2 = self.lif2(self.fc2(spk), spk2, mem2)
                out.append(spk)
            return torch.stack(out)

    torch.manual_seed(0)
    net, x = Net(), random_snn_input((7, 4, 6))
    counts = workload(net, data=x, batch_dim=1)
    layers = rows(counts)
    lif = layers["lif1", "neuron"]
    assert (lif.neurons, lif.steps, lif.updates, lif.calls) == (5, 7, 35, 7)
    assert lif.spikes == float(torch.count_nonzero(net(x))) / 4 > 0
    assert lif.zero_outputs == 35 - lif.spikes
    fc2 = layers["fc2", "linear"]
    assert fc2.binary_input
    assert (fc2.vectors, fc2.macs, fc2.steps) == (7, 7 * 15, 7)
    assert fc2.sops == pytest.approx(3 * lif.spikes)
    # of its inputs in all steps together, as many are active as spikes came: the steps divide nothing once more
    assert fc2.active_fraction == pytest.approx(lif.spikes / fc2.input_elements)
    assert fc2.input_elements == 7 * 5
    assert layers["lif2.recurrent", "linear"].macs == 7 * 9  # the neuron speaks for itself, not for the layer inside
    assert not layers["fc1", "linear"].binary_input
    assert counts.not_counted == ()


@pytest.mark.parametrize("encoder", ["direct", "rate"])
@pytest.mark.parametrize("on_crossbars", [False, True])
def test_converted_networks(encoder: str, on_crossbars: bool) -> None:
    import hpml_sim.analog
    import hpml_sim.spiking  # noqa: F401 - registers the converter
    from hpml_sim.conversion import convert
    from hpml_sim.targets import Analog, Spiking

    torch.manual_seed(0)
    net = models.mlp(64, 32, 10)
    synapses = Analog("pcm-hermes") if on_crossbars else None
    converted = convert(net, Spiking("loihi", steps=6, encoder=encoder, synapses=synapses))
    x = torch.rand(5, 1, 8, 8)
    digital, spiking = workload(net, data=x), workload(converted, data=x)
    assert spiking.not_counted == ()
    assert spiking.total("macs") == 6 * digital.total("macs")
    assert spiking.total("weight_count") == digital.total("weight_count")
    matrices = [layer for layer in spiking.layers if layer.rows]
    assert [layer.steps for layer in matrices] == [6, 6]
    assert matrices[0].binary_input is (encoder == "rate")
    assert matrices[1].binary_input
    neurons = [layer for layer in spiking.layers if layer.op == "neuron"]
    assert [layer.neurons for layer in neurons] == [32, 10]
    assert matrices[1].sops == pytest.approx(10 * neurons[0].spikes)


def test_analog_layers_count_as_the_layers_they_replace() -> None:
    import hpml_sim.analog  # noqa: F401 - registers the converter
    from hpml_sim.conversion import convert
    from hpml_sim.targets import Analog

    torch.manual_seed(0)
    net, x = models.cnn((1, 8, 8), 10), torch.rand(3, 1, 8, 8)
    analog = convert(net, Analog("pcm-hermes"))
    one, other = workload(net, data=x), workload(analog, data=x)
    assert other.not_counted == ()
    names = ("op", "rows", "cols", "groups", "vectors", "macs", "weight_count", "input_elements", "output_elements")
    as_tuples = [[tuple(getattr(layer, name) for name in names) for layer in c.layers] for c in (one, other)]
    assert as_tuples[0] == as_tuples[1]
