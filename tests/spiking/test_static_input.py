"""A constant input: what stands before the first neurons runs once, and nothing else changes."""

from __future__ import annotations

import pytest
import snntorch as snn
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.spiking import fuse
from hpml_sim.spiking.state import run_with_state

STEPS = 6


def neuron(kind=snn.Leaky, **options):
    return kind(beta=0.9, threshold=0.4, init_hidden=True, **options)


def network(kind=snn.Leaky, **options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 20), neuron(kind, **options), nn.Linear(20, 4), neuron())


def rows_seen(layer):
    seen = []
    layer.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape[0]))
    return seen


def trained(fast, x):
    """Spikes and the gradients of all weights."""
    fast.zero_grad()
    spikes = fast(x)
    (spikes * torch.linspace(-1, 1, spikes.numel()).reshape(spikes.shape)).sum().backward()
    return spikes.detach(), [part.grad.clone() for part in fast.parameters()]


@pytest.mark.parametrize("made", ["leaky", "learned", "synaptic", "recurrent"])
def test_a_fused_network_runs_its_first_layers_once(made):
    net = {
        "leaky": network,
        "learned": lambda: network(learn_beta=True, learn_threshold=True),
        "synaptic": lambda: network(snn.Synaptic, alpha=0.8),
        "recurrent": lambda: network(snn.RLeaky, all_to_all=True, linear_features=20),
    }[made]()
    fast = fuse(net)
    x = torch.rand(3, 3, 4)
    seen = rows_seen(fast.network[1])
    want = trained(fast, x.repeat(STEPS, 1, 1, 1))
    got = trained(fast, x.expand(STEPS, 3, 3, 4))
    assert seen == [STEPS * 3, 3]
    assert 0 < got[0].sum() < got[0].numel()
    assert torch.equal(got[0], want[0])
    for a, b in zip(got[1], want[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_states_go_on_and_gradients_reach_the_input():
    fast = fuse(network())
    x = torch.rand(3, 3, 4)
    whole = fast(x.repeat(2 * STEPS, 1, 1, 1))
    first, state = run_with_state(fast, x.expand(STEPS, 3, 3, 4))
    second, _ = run_with_state(fast, x.expand(STEPS, 3, 3, 4), state)
    assert torch.equal(torch.cat([first, second]), whole)
    x.requires_grad_()
    fast(x.expand(STEPS, 3, 3, 4)).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_network_that_is_no_sequence_or_is_watched_sees_every_step():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.neuron = nn.Linear(5, 5), neuron()

        def forward(self, x):
            return self.neuron(self.first(x)) + x

    torch.manual_seed(0)
    x = torch.rand(2, 5)
    fast = fuse(Residual())
    assert torch.equal(fast(x.expand(STEPS, 2, 5)), fast(x.repeat(STEPS, 1, 1)))
    fast = fuse(nn.Sequential(nn.Linear(5, 5), neuron()))
    seen = rows_seen(fast.network)
    fast(x.expand(STEPS, 2, 5))
    assert seen == [STEPS * 2]


def test_a_converted_network_trains_the_same():
    torch.manual_seed(0)
    spiking = hs.convert(hs.models.mlp(12, 20, 4), hs.Spiking("loihi", steps=STEPS, encoder="direct"))
    layer = next(module for module in spiking.modules() if isinstance(module, nn.Linear))
    seen, x = rows_seen(layer), torch.rand(3, 12)
    spiking.eval()
    want = trained(spiking, x)
    spiking.train()
    got = trained(spiking, x)
    assert seen == [STEPS * 3, 3]
    assert torch.equal(got[0], want[0])
    for a, b in zip(got[1], want[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
