"""SpikingJelly's LIFNode: a second, independent implementation of leaky neurons that reset to zero."""

from __future__ import annotations

import pytest
import torch

from hpml_sim.spiking import LeakyNeurons


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("beta", [0.5, 0.9, 0.95])
def test_leaky_zero_equals_their_node(beta, late):
    """Their decay is v - v / tau, ours beta v: equal in exact arithmetic, so float64 is taken."""
    from spikingjelly.activation_based import neuron, surrogate

    x = 0.4 * torch.randn(60, 8, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.2
    theirs = neuron.LIFNode(
        tau=1 / (1 - beta),
        decay_input=False,
        v_reset=0.0,
        detach_reset=late,
        surrogate_function=surrogate.ATan(2.0),
        step_mode="m",
    )
    ours = LeakyNeurons(
        torch.tensor(beta, dtype=torch.float64), reset="zero", reset_delay=late, surrogate="atan", steps=60
    )
    drive, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    want = theirs(other)
    got = ours(drive.flatten(0, 1)).unflatten(0, (60, 8))
    assert 0.02 < float(want.detach().mean()) < 0.9
    assert torch.equal(got, want)
    weight = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).reshape(x.shape)
    (want * weight).sum().backward()
    (got * weight).sum().backward()
    torch.testing.assert_close(drive.grad, other.grad, rtol=1e-9, atol=1e-12)
