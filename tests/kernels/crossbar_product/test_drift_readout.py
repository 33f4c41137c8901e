"""The drift read-out against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpml_sim.kernels.crossbar_product import readout
from hpml_sim.kernels.random import fill_normal


@pytest.mark.parametrize("qmax", [0, 20])
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_codes_are_summed_over_the_rows_in_use(qmax, sigma):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 2, 3, 9, generator=generator)
    noise = torch.empty_like(weight)
    fill_normal(noise, 5)
    codes = readout(weight, 5, sigma=sigma, gain=12.0, qmax=qmax, used=[9, 4])
    read = (weight.numpy() + noise.numpy() * np.float32(sigma)) * np.float32(12)
    if qmax:
        read = np.clip(np.rint(read), -qmax, qmax)
        assert (np.abs(read) == qmax).any()
    want = np.stack([np.abs(read[:, 0]).sum(-1), np.abs(read[:, 1, :, :4]).sum(-1)], 1)
    np.testing.assert_allclose(codes, want, rtol=1e-6 if qmax == 0 else 0)
    assert codes.shape == (2, 2, 3)
