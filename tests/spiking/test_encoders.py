from __future__ import annotations

import copy
import pickle

import pytest
import torch

from hpml_sim.errors import HpmlError
from hpml_sim.spiking import DirectEncoder, RateEncoder


def images(n, seed=0):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_direct_repeats_and_passes_the_gradient():
    x = images(6).requires_grad_()
    y = DirectEncoder(steps=3, chips=2)(x)
    assert y.shape == (18, 1, 4, 4)
    by_step = y.reshape(2, 3, 3, 1, 4, 4)
    for t in range(3):
        assert torch.equal(by_step[:, t].flatten(0, 1), x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3))


def test_rate_in_evaluation_depends_on_the_sample_alone():
    encoder = RateEncoder(steps=9).eval()
    x = images(5)
    together = encoder(x).reshape(9, 5, 1, 4, 4)
    assert set(together.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(encoder(x).reshape(together.shape), together)
    order = torch.tensor([3, 1, 4])
    assert torch.equal(encoder(x[order]).reshape(9, 3, 1, 4, 4), together[:, order])
    assert torch.equal(copy.deepcopy(encoder)(x[2:3]).reshape(9, 1, 4, 4), together[:, 2])
    assert torch.equal(pickle.loads(pickle.dumps(encoder))(x[2:3]).reshape(9, 1, 4, 4), together[:, 2])
    assert not torch.equal(RateEncoder(steps=9, seed=1).eval()(x).reshape(together.shape), together)


def test_rate_gives_all_chips_the_same_spikes():
    x = images(3)
    one = RateEncoder(steps=4).eval()(x)
    four = RateEncoder(steps=4, chips=4).eval()(x.repeat(4, 1, 1, 1))
    assert torch.equal(four.reshape(4, *one.shape), one.expand(4, *one.shape))


def test_rate_in_training_draws_anew_and_torchs_seed_rules():
    encoder = RateEncoder(steps=9).train()
    x = images(2)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first, second = encoder(x), encoder(x)
        torch.manual_seed(5)
        again = encoder(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_rate_mean_is_the_value():
    x = images(4)
    mean = RateEncoder(steps=4000).eval()(x).reshape(4000, 4, 1, 4, 4).mean(0)
    # 64 values, 4.5 standard errors: a false alarm in about 2,300 seeds; the seed is fixed
    assert (mean - x).abs().max() < 4.5 * 0.5 / 4000**0.5


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf")])
def test_rate_refuses_what_is_no_probability(value):
    x = images(2)
    x[1, 0, 2, 2] = value
    with pytest.raises(HpmlError, match=r"lies in \[0, 1\]; scale the data"):
        RateEncoder(steps=2)(x)


def test_rate_refuses_integers_and_takes_no_samples():
    with pytest.raises(HpmlError, match="uint8; it must be floating point"):
        RateEncoder(steps=2)(torch.zeros(2, 4, dtype=torch.uint8))
    assert RateEncoder(steps=2)(torch.zeros(0, 4)).shape == (0, 4)
    assert DirectEncoder(steps=2)(torch.zeros(0, 4)).shape == (0, 4)
