from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from snntorch import spikegen

from hpml_sim.errors import HpmlError
from hpml_sim.spiking import (
    DeltaEncoder,
    DirectEncoder,
    FramesEncoder,
    LatencyEncoder,
    PopulationEncoder,
    RateEncoder,
)


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
    with pytest.raises(HpmlError, match=r"codes values in \[0, 1\]; scale the data"):
        RateEncoder(steps=2)(x)


def test_rate_refuses_integers_and_takes_no_samples():
    with pytest.raises(HpmlError, match="uint8; it must be floating point"):
        RateEncoder(steps=2)(torch.zeros(2, 4, dtype=torch.uint8))
    assert RateEncoder(steps=2)(torch.zeros(0, 4)).shape == (0, 4)
    assert DirectEncoder(steps=2)(torch.zeros(0, 4)).shape == (0, 4)


def test_latency_equals_snntorchs():
    x = torch.cat([images(3), torch.tensor([0.0, 0.005, 0.01, 1.0]).reshape(1, 1, 1, 4).expand(1, 1, 4, 4)])
    spikes = LatencyEncoder(steps=9)(x).reshape(9, 4, 1, 4, 4)
    want = spikegen.latency(x.clamp(min=0), num_steps=9, threshold=1e-7, tau=1, linear=True, normalize=True)
    assert want is not None
    want = want * (x >= 0.01)  # its clip= needs a threshold, which also shifts its time axis
    assert torch.equal(spikes, want)
    assert torch.equal(spikes.sum(0), (x >= 0.01).float())
    assert spikes[0, 3, 0, 0, 3] == 1
    two = LatencyEncoder(steps=9, chips=2)(torch.cat([x, x]))
    assert torch.equal(two, torch.cat([spikes.flatten(0, 1)] * 2))


def test_delta_equals_snntorchs_and_frames_are_as_they_are():
    x = torch.rand(6, 7, 3, generator=torch.Generator().manual_seed(0))  # (chips x batch, steps, values)
    spikes = DeltaEncoder(7, 2, threshold=0.2)(x).reshape(2, 7, 3, 3)
    for c in range(2):
        for b in range(3):
            want = spikegen.delta(x[3 * c + b], threshold=0.2, padding=False, off_spike=True)
            assert torch.equal(spikes[c, :, b], want)
    assert (DeltaEncoder(7, 2, threshold=0.2, falling=False)(x) >= 0).all()
    assert torch.equal(FramesEncoder(7, 2)(x).reshape(2, 7, 3, 3)[1, 4, 2], x[5, 4])
    with pytest.raises(HpmlError, match=r"expected \(batch, steps, ...\) with 5 steps"):
        FramesEncoder(5)(x)


def test_population_rates_are_the_tuning_curves():
    x = torch.tensor([[0.0, 0.3], [0.5, 1.0]])
    encoder = PopulationEncoder(steps=4000, fields=5).eval()
    rate = encoder(x).reshape(4000, 2, 5, 2).mean(0)
    centers, width = np.linspace(0, 1, 5).reshape(1, 5, 1), 1 / 6
    want = np.exp(-((x.numpy()[:, None, :] - centers) ** 2) / (2 * width**2))
    # 20 rates, 4.5 standard errors: a false alarm in about 7,000 seeds; the seed is fixed
    assert np.abs(rate.numpy() - want).max() < 4.5 * 0.5 / 4000**0.5
    assert torch.equal(encoder(x[1:]).reshape(4000, 1, 10), encoder(x).reshape(4000, 2, 10)[:, 1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LatencyEncoder(4)(torch.full((2, 3), 1.5)), r"codes values in \[0, 1\]"),
        (lambda: LatencyEncoder(4)(torch.zeros(2, 3, dtype=torch.long)), "must be floating point"),
        (lambda: LatencyEncoder(4, smallest=0.0), "smallest=0.0"),
        (lambda: PopulationEncoder(4, fields=1), "fields=1: must be a whole number >= 2"),
        (lambda: PopulationEncoder(4, width=0.0), "width=0.0: must be a finite number > 0"),
        (lambda: PopulationEncoder(4)(torch.zeros(3)), r"expected \(batch, channels, ...\)"),
        (lambda: DeltaEncoder(4, threshold=0.0), "threshold=0.0: must be a finite number > 0"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(HpmlError, match=message):
        make()
