# ruff: noqa: NPY002 - networks draw from numpy's old generator too
"""What a network draws itself is the same for all chips, whatever generator it asks and however chips run."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim as hs

GLOBAL = np.random.default_rng(0)
DRAWS = {
    "torch": lambda net: float(torch.rand(())),
    "python": lambda net: random.random(),
    "numpy": lambda net: float(np.random.rand()),
    "own python": lambda net: net.python.random(),
    "own numpy": lambda net: float(net.numpy.random()),
    "own old numpy": lambda net: float(net.old.rand()),
    "own torch": lambda net: float(torch.rand((), generator=net.torch)),
    "global": lambda net: float(GLOBAL.random()),
}


class Draws(nn.Module):
    """Gives what it drew beside its product; `by_values`: its control flow makes chips run one by one."""

    def __init__(self, draw: str, by_values: bool) -> None:
        super().__init__()
        self.layer, self.draw, self.by_values = nn.Linear(4, 3), draw, by_values
        self.python, self.numpy, self.old = random.Random(1), np.random.default_rng(1), np.random.RandomState(1)
        if draw == "own torch":
            self.torch = torch.Generator().manual_seed(1)

    def forward(self, x):
        y = self.layer(x)
        if self.by_values:
            float(y.sum())
        drawn = float(GLOBAL.random()) if self.draw == "global" else DRAWS[self.draw](self)
        return y, torch.full((len(x),), drawn, dtype=torch.float64)


def drawn(draw: str, by_values: bool, only: int | None = None) -> list[torch.Tensor]:
    """What two calls drew, (chips,) each."""
    torch.manual_seed(0)
    GLOBAL.bit_generator.state = np.random.default_rng(0).bit_generator.state
    chips = hs.program(hs.convert(Draws(draw, by_values), "pcm-hermes"), chips=3, seed=0).at("1 day", only=only)
    found = [chips(torch.rand(2, 4))[1][:, 0] for _ in range(2)]
    assert (chips.chip_by_chip is not None) == (by_values and only is None)
    return found


@pytest.mark.parametrize("draw", DRAWS)
def test_all_chips_draw_alike_together_one_by_one_and_alone(draw):
    together, one_by_one = drawn(draw, by_values=False), drawn(draw, by_values=True)
    alone = drawn(draw, by_values=True, only=2)
    for call in range(2):
        assert len(set(together[call].tolist())) == 1
        assert torch.equal(together[call], one_by_one[call])
        assert torch.equal(together[call][2:], alone[call])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("by_values", [False, True])
def test_the_callers_generators_stay_where_they_are(by_values):
    random.seed(5)
    np.random.seed(5)
    want = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    drawn("python", by_values)
    drawn("numpy", by_values)
    assert (random.random(), np.random.rand()) == want
