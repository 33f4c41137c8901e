"""Spiking networks on crossbars: the neurons of all chips run in one pass, each chip as it would alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpml_sim as hs

N_CHIPS = 3
NEURONS = {
    "leaky": lambda: hs.spiking.LeakyNeurons(0.9),
    "leaky, reset at once": lambda: hs.spiking.LeakyNeurons(0.9, reset_delay=False),
    "synaptic": lambda: hs.spiking.SynapticNeurons(0.9, 0.8),
    "recurrent, one to one": lambda: hs.spiking.RecurrentNeurons(0.5, 0.9),
    "recurrent, a matrix": lambda: hs.spiking.RecurrentNeurons(torch.rand(9), 0.9, reset_delay=False),
    "recurrent behind a current": lambda: hs.spiking.RecurrentSynapticNeurons(0.5, 0.7, 0.9),
}


def programmed(model: nn.Module, n_chips: int) -> Any:
    return hs.program(model, chips=n_chips, seed=1).at("1 day")


# one step of a converter can tip a spike over: here it tips enough of them that calibrate says so
@pytest.mark.filterwarnings("ignore:calibrate. the converters alone:RuntimeWarning")
@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("keep_state", [False, True])
def test_neurons_of_all_chips_in_one_pass(name: str, keep_state: bool) -> None:
    torch.manual_seed(0)
    layers = (nn.Linear(6, 9), NEURONS[name](), nn.Linear(9, 3), hs.spiking.LeakyNeurons(0.9))
    net = hs.spiking.FusedNetwork(nn.Sequential(*layers))
    model = hs.convert(net, "pcm-hermes")
    x = 3 * torch.rand(12, 5, 6)
    hs.calibrate(model, x)
    network: Any = model.network
    network.keep_state = keep_state
    chips, one = programmed(model, N_CHIPS), programmed(model, 1)
    for part in x.split(6):
        spikes, alone = chips(part), one(part)
        assert spikes.shape == (N_CHIPS, 6, 5, 3)
        assert float((spikes[:1] != alone).float().mean()) < 0.01
    assert chips.chip_by_chip is None
    if keep_state:
        states: dict[str, tuple[Tensor, ...]] = chips.network.network.state
        assert {len(state) for parts in states.values() for state in parts} == {N_CHIPS}
        assert not torch.equal(states["network.1"][0][0], states["network.1"][0][1])


@pytest.mark.parametrize("encoder", ["direct", "rate", "latency"])
def test_encoders_and_counts_of_spikes(encoder: Any) -> None:
    torch.manual_seed(0)
    target = hs.Spiking("loihi", steps=8, encoder=encoder, synapses=hs.Analog("pcm-hermes"))
    model = hs.convert(hs.models.mlp(8, 16, 3), target)
    x = torch.rand(20, 8)
    hs.calibrate(model, x)
    chips, ones = programmed(model, N_CHIPS), programmed(model, 1)
    logits, alone = chips(x), ones(x)
    assert chips.chip_by_chip is None
    assert logits.shape == (N_CHIPS, 20, 3)
    torch.testing.assert_close(logits[:1], alone)
    for (_, layer), (_, one) in zip(chips.network.neurons(), ones.network.neurons(), strict=True):
        assert (layer.samples, one.samples) == (N_CHIPS * 20, 20)
        assert layer.spike_count >= one.spike_count
    assert next(iter(chips.network.neurons()))[1].spike_count > 0
