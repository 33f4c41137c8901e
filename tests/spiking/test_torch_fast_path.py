"""torch's fused transformer kernels never run past neurons or analog layers: with and without gradients alike."""

from __future__ import annotations

import copy
import io

import pytest
import snntorch as snn
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.errors import HpmlError
from hpml_sim.spiking import LeakyNeurons, fuse
from hpml_sim.spiking.model import firing_rates
from hpml_sim.targets import Analog, Leaky, Spiking


def layer(**options):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation=nn.ReLU(), dropout=0.0, **options)


class Attended(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.act, self.head = nn.ReLU(), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.act(self.attention(x, x, x, need_weights=False)[0]))


class Padded(nn.Module):
    """Padding that is found in the input, which torch packs into nested tensors."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(layer(), 2)

    def forward(self, x):
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[:, 6:] = True
        return self.encoder(x, src_key_padding_mask=padding)


NETWORKS = {
    "layer": layer,
    "norm first": lambda: layer(norm_first=True),
    "encoder": lambda: nn.TransformerEncoder(layer(), 2),
    "inside": lambda: nn.Sequential(nn.Linear(16, 16), nn.TransformerEncoder(layer(), 2), nn.Linear(16, 4)),
    "padded": Padded,
    "attention": Attended,
}


def both(model, x):
    with torch.no_grad():
        without = model(x)
    return without, model(x).detach()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", [Spiking("loihi", steps=6, encoder="direct"), Analog("pcm-hermes")], ids=type)
def test_outputs_are_the_same_with_and_without_gradients(name, target):
    model = convert(NETWORKS[name](), target).eval()
    without, with_gradients = both(model, torch.rand(5, 8, 16))
    assert torch.equal(without, with_gradients)


def test_neurons_of_every_layer_ran_in_evaluation():
    spiking = convert(
        NETWORKS["padded"](), Spiking("loihi", neuron=Leaky(threshold=0.1), steps=6, encoder="direct")
    ).eval()
    rates = firing_rates(spiking, torch.rand(5, 8, 16))
    assert len(rates) == 3
    assert all(rate > 0 for rate in rates.values())


def test_copies_and_files_keep_it():
    spiking = convert(layer(), Spiking("loihi", steps=4, encoder="direct")).eval()
    x = torch.rand(5, 8, 16)
    file = io.BytesIO()
    torch.save(spiking, file)
    file.seek(0)
    for model in (copy.deepcopy(spiking), torch.load(file, weights_only=False)):
        without, with_gradients = both(model, x)
        assert torch.equal(without, with_gradients)
        assert torch.equal(without, spiking(x).detach())


def test_fused_networks():
    net = layer()
    net.activation = snn.Leaky(0.9, threshold=0.1, init_hidden=True)
    net.activation_relu_or_gelu = 1  # as a layer has it whose nn.ReLU was replaced
    fused = fuse(net).eval()
    without, with_gradients = both(fused, torch.rand(6, 5, 8, 16))
    assert torch.equal(without, with_gradients)
    neurons = next(module for module in fused.modules() if isinstance(module, LeakyNeurons))
    assert neurons.spike_count


def test_torchs_switch_is_left_as_it_was():
    spiking = convert(Attended(), Spiking("loihi", steps=4, encoder="direct")).eval()
    for enabled in (True, False):
        torch.backends.mha.set_fastpath_enabled(enabled)
        try:
            spiking(torch.rand(5, 8, 16))
            with pytest.raises(HpmlError, match="failed on an input of shape"):
                spiking(torch.rand(5, 8, 15))
            assert torch.backends.mha.get_fastpath_enabled() is enabled
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
