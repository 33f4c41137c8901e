"""Recurrent neurons against the one-to-one kernel; against snnTorch and numpy in tests/spiking."""

from __future__ import annotations

import pytest
import torch

from hpml_sim.errors import HpmlError
from hpml_sim.kernels.neurons import multistep
from hpml_sim.kernels.recurrent import recurrent


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_a_factor_a_neuron_is_the_one_to_one_kernel(reset):
    """Two implementations of the same neuron: spikes and membranes to the last bit, gradients to their rounding."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (0.6 * torch.randn(12, 3, 5, generator=generator) + 0.2 for _ in range(2))
    results = []
    for connected in (True, False):
        drive = x.clone().requires_grad_()
        factor = torch.tensor(0.4, requires_grad=True)
        if connected:
            spikes, membrane = recurrent(drive, torch.mul, (factor,), 0.9, 0.8, reset=reset)
        else:
            p = {"beta": 0.9, "threshold": 0.8, "subtracts": reset == "subtract", "clears": reset == "zero"}
            spikes, states = multistep("recurrent", drive, {**p, "V": factor})
            membrane = states[0]
        torch.autograd.backward([spikes, membrane], [grad, grad.flip(0)])
        results.append((spikes.detach(), membrane.detach(), drive.grad, factor.grad))
    assert 0 < results[0][0].sum() < x.numel()
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0][3], results[1][3], rtol=1e-4, atol=1e-4)


def test_bad_input_is_named():
    x = torch.zeros(3, 2)
    with pytest.raises(HpmlError, match="int64; it must be floating point"):
        recurrent(x.long(), torch.mul, (torch.ones(2),), 0.9, 1.0)
    with pytest.raises(HpmlError, match="no time step at dimension 2"):
        recurrent(x, torch.mul, (torch.ones(2),), 0.9, 1.0, time_dim=2)
    with pytest.raises(HpmlError, match=r"does not take the spikes of \(2,\) .*its weights are \[\(3,\)\]"):
        recurrent(x, torch.mul, (torch.ones(3),), 0.9, 1.0)
