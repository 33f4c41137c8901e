"""Operations under vmap with the rules of the library, against one slice after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hpml_sim.analog.vmap_rules import VmapRules
from hpml_sim.kernels.common.vmapping import level_of

CHIPS = 3


def under_vmap(module: nn.Module, x: Tensor, dim: int) -> Tensor:
    def one(part: Tensor) -> Tensor:
        with VmapRules(widen=False, level=level_of(part), length=CHIPS):
            return module(part)

    return torch.vmap(one, in_dims=dim)(x.movedim(0, dim))


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (nn.BatchNorm1d, (5, 4)),
        (nn.BatchNorm1d, (5, 4, 7)),
        (nn.BatchNorm2d, (5, 4, 6, 3)),
        (nn.BatchNorm3d, (2, 4, 2, 3, 3)),
    ],
)
def test_batch_norm_with_kept_statistics(kind: type[nn.Module], shape: tuple[int, ...], affine: bool, dim: int) -> None:
    torch.manual_seed(0)
    norm = kind(4, affine=affine).eval()
    for name, value in norm.named_buffers():
        if value.is_floating_point():
            value.uniform_(0.5 if "var" in name else -1, 2)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(CHIPS, *shape)
    with torch.no_grad():
        torch.testing.assert_close(under_vmap(norm, x, dim), torch.stack([norm(part) for part in x]))


def test_batch_norm_of_the_batch_keeps_chips_apart() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    x = torch.randn(CHIPS, 5, 4, 6, 3) * torch.tensor([1.0, 10.0, 100.0]).view(-1, 1, 1, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(under_vmap(norm, x, 0), torch.stack([norm(part) for part in x]))
