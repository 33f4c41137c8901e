from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hpml_sim.spiking import fold_batch_norms


def used(norm: nn.Module) -> nn.Module:
    """As after training: statistics, weights and biases that are not the ones it starts with."""
    generator = torch.Generator().manual_seed(1)
    for value in (norm.running_mean, norm.weight, norm.bias):
        if value is not None:
            value.data.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    return norm


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3)], (6, 5)),
        ([nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU()], (2, 2, 7)),
        ([nn.Conv2d(2, 4, 3, groups=2, bias=False), nn.BatchNorm2d(4, affine=False), nn.ReLU()], (2, 2, 6, 6)),
        ([nn.ConvTranspose2d(2, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())], (2, 2, 4, 4)),
    ],
)
def test_the_folded_network_computes_the_same(layers, shape):
    torch.manual_seed(0)
    net = nn.Sequential(*copy.deepcopy(layers)).eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            used(module)
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(shape)
    folded, pairs = fold_batch_norms(net, x)
    torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    assert len(pairs) == sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


class Mixed(nn.Module):
    """Norms that cannot be folded: at the input, behind a sum, and one that two layers share."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.entry, self.shared, self.last = (used(nn.BatchNorm1d(4)) for _ in range(3))
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.norm = used(nn.BatchNorm1d(4))

    def forward(self, x):
        x = self.entry(x)
        y = self.shared(self.first(x)) + self.shared(self.second(x))
        return self.norm(self.third(self.last(y).relu()))


def test_what_cannot_be_folded_stays():
    net, x = Mixed().eval(), torch.randn(3, 4)
    folded, pairs = fold_batch_norms(net, x)
    assert pairs == {"third": "norm"}
    torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-5)
    assert isinstance(folded.norm, nn.Identity)
    assert isinstance(folded.last, nn.BatchNorm1d)
