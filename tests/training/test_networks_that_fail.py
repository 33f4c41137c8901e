"""What torch refuses in a step of training is one line with the next step; what only looks at a network is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hpml_sim as hs


class WithoutStatistics(nn.Module):
    """Batch norm that always takes statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.b = nn.Linear(8, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)

    def forward(self, x):
        return self.b(self.n(self.a(x)))


class InPlace(nn.Module):
    """Changes in place what the gradient of tanh needs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.a(x).tanh_()
        h += 1
        return self.b(h)


def samples(n: int) -> torch.utils.data.TensorDataset:
    torch.manual_seed(0)
    return torch.utils.data.TensorDataset(torch.rand(n, 8), torch.randint(0, 3, (n,)))


@pytest.mark.parametrize("card", [None, "pcm-hermes"])
def test_a_batch_of_one_sample_is_one_line_with_the_next_step(card):
    net = WithoutStatistics() if card is None else hs.convert(WithoutStatistics(), card)
    with pytest.raises(hs.HpmlError, match="one sample has none: let no batch hold a single sample") as refused:
        hs.fit(net, samples(9), epochs=1, batch_size=8, show_progress=False)
    assert "\n" not in str(refused.value)
    hs.fit(net, samples(16), epochs=1, batch_size=8, show_progress=False)


def test_such_a_network_is_counted_and_estimated_from_one_sample():
    net = WithoutStatistics()
    counted = hs.workload(net, input_shape=(8,))
    assert counted.total("macs") == 8 * 6 + 6 * 3
    analog = hs.convert(net, "pcm-hermes")
    assert hs.estimate(analog, input_shape=(8,)).energy_j.nominal > 0
    with pytest.raises(ValueError, match="more than 1 value"):  # torch's own check is back
        net.eval()(torch.rand(1, 8))


@pytest.mark.parametrize("card", [None, "pcm-hermes"])
@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_gradients_lost_in_place_are_one_line_with_the_next_step(card, batch_size):
    net = InPlace() if card is None else hs.convert(InPlace(), card)
    with pytest.raises(hs.HpmlError, match=r"changes in place what the gradient needs.*y = y \+ 1") as refused:
        hs.fit(net, samples(9), epochs=1, batch_size=batch_size, show_progress=False)
    assert "\n" not in str(refused.value)
