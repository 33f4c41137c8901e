"""Where the kernels run here (tests/conftest.py switches numba's simulator on where there is no GPU), and oracles."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hpml_sim.baselines import cuda_backend

UNIT = 2.0**-24  # half a unit in the last place of float32, relative


@pytest.fixture(scope="session")
def device() -> str:
    """The device that the kernels' tensors must be on."""
    return "cuda" if cuda_backend() == "gpu" else "cpu"


@pytest.fixture
def draw(device: str) -> Callable[..., Tensor]:
    """Reproducible standard normal float32 tensors on the kernels' device."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator).to(device)


@pytest.fixture(scope="session")
def equals_product() -> Callable[..., None]:
    """Checks a product of float32 matrices against float64.

    |computed - exact| <= gamma |A| |B| element by element, gamma = n u / (1 - n u), whatever the order of the additions
    and with or without fused multiply-add (N. Higham, Accuracy and Stability of Numerical Algorithms, 2002, eq. 3.13).
    n counts the additions; two more are allowed for a bias and the rounding of the bound itself.
    """

    def check(computed: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> None:
        exact = a.double() @ b.double()
        size = a.double().abs() @ b.double().abs()
        if bias is not None:
            exact, size = exact + bias.double(), size + bias.double().abs()
        if relu:
            exact = exact.clamp(min=0)
        n = a.shape[1] + 2
        assert computed.dtype == torch.float32
        assert computed.shape == exact.shape
        assert bool(((computed.double() - exact).abs() <= n * UNIT / (1 - n * UNIT) * size).all())

    return check
