from __future__ import annotations

import copy
import gc
import pickle

import pytest
import snntorch as snn
import torch

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.spiking import LeakyNeurons, TimeFoldedDropout


def currents(*shape, seed=0):
    return 0.6 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.2


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_engines_agree_to_the_last_bit(reset, surrogate, dtype):
    x = currents(2 * 6 * 3, 5).to(dtype)
    weight = torch.linspace(-1, 1, x.numel()).reshape(x.shape)
    results = []
    for engine in ("fused", "snntorch"):
        neurons = LeakyNeurons(0.9, 1.0, reset=reset, surrogate=surrogate, steps=6, chips=2, engine=engine)
        drive = x.clone().requires_grad_()
        spikes = neurons(drive)
        (spikes * weight).sum().backward()
        results.append((spikes.detach(), drive.grad))
    assert 0 < results[0][0].mean() < 1
    for fused, theirs in zip(*results, strict=True):
        assert fused.dtype == theirs.dtype == dtype
        assert torch.equal(fused, theirs)


def test_chips_steps_and_samples_do_not_mix():
    chips, steps, batch = 2, 5, 3
    x = currents(chips, steps, batch, 4)
    neurons = LeakyNeurons(0.9, steps=steps, chips=chips)
    together = neurons(x.flatten(0, 2)).reshape(x.shape)
    alone = LeakyNeurons(0.9, steps=steps)
    for c in range(chips):
        for b in range(batch):
            assert torch.equal(together[c, :, b], alone(x[c, :, b]))


def test_two_calls_are_independent_and_the_batch_may_change():
    neurons = LeakyNeurons(0.95, steps=4)
    first = neurons(currents(4 * 8, 3))
    neurons(currents(4 * 2, 7, seed=1))
    assert torch.equal(neurons(currents(4 * 8, 3)), first)


def test_two_backwards_and_two_layers_side_by_side():
    one, other = LeakyNeurons(0.9, steps=4), LeakyNeurons(0.5, steps=4)
    x = currents(8, 3).requires_grad_()
    a, b = one(x), other(x)
    a.sum().backward()
    b.sum().backward()
    one(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_copies_pickle_and_state_dict():
    neurons = LeakyNeurons(torch.linspace(0.1, 0.9, 3), 0.8, reset="zero", steps=4, learn_beta=True)
    x = currents(8, 3)
    want = neurons(x)
    assert torch.equal(copy.deepcopy(neurons)(x), want)
    assert torch.equal(pickle.loads(pickle.dumps(neurons))(x), want)
    other = LeakyNeurons(torch.full((3,), 0.5), 0.3, reset="zero", steps=4, learn_beta=True)
    other.load_state_dict(neurons.state_dict())
    assert torch.equal(other(x), want)
    assert [name for name, _ in neurons.named_parameters()] == ["beta"]


def test_snntorchs_list_of_neurons_does_not_grow():
    before = len(snn.SpikingNeuron.instances)
    for _ in range(3):
        LeakyNeurons(0.9, steps=2, engine="snntorch")(currents(4, 3))
    gc.collect()
    assert len(snn.SpikingNeuron.instances) == before


def test_counts_in_evaluation_mode():
    neurons = LeakyNeurons(0.9, steps=5, chips=2)
    x = currents(2 * 5 * 3, 4, 2)
    neurons.train()(x)
    assert neurons.spike_count is None
    spikes = neurons.eval()(x)
    assert neurons.spike_count == int(spikes.sum())
    assert (neurons.neurons, neurons.steps, neurons.samples) == (8, 5, 6)


def test_no_samples():
    assert LeakyNeurons(0.9, steps=5).eval()(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": 1.5}, r"beta=1.5 must lie in \[0, 1\]"),
        ({"beta": -0.1}, "beta=-0.1"),
        ({"beta": float("nan")}, "beta=nan"),
        ({"beta": torch.tensor([0.5, 1.1])}, "beta="),
        ({"threshold": 0.0}, "threshold=0.0 must be > 0"),
        ({"threshold": -1.0}, "threshold=-1.0"),
        ({"steps": 0}, "steps=0: must be a whole number >= 1"),
        ({"chips": 0}, "chips=0: must be a whole number >= 1"),
        ({"reset": "none "}, "Did you mean 'none'"),
        ({"surrogate": "atn"}, "Did you mean 'atan'"),
        ({"engine": "fuse"}, "Did you mean 'fused'"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises((HpmlError, UnknownNameError), match=message):
        LeakyNeurons(**arguments)


def test_a_batch_that_holds_no_whole_steps():
    with pytest.raises(HpmlError, match=r"\(7, 3\) does not hold 5 steps of 1 chip"):
        LeakyNeurons(0.9, steps=5)(torch.zeros(7, 3))


def test_dropout_keeps_one_mask_for_all_steps():
    torch.manual_seed(0)
    dropout = TimeFoldedDropout(0.5, steps=6, chips=2)
    x = torch.ones(2 * 6 * 3, 40)
    by_step = dropout(x).reshape(2, 6, 3, 40)
    assert torch.equal(by_step, by_step[:, :1].expand_as(by_step))
    assert set(by_step.unique().tolist()) == {0.0, 2.0}
    masks = by_step[:, 0].reshape(6, 40)
    assert len(torch.unique(masks, dim=0)) == 6  # each sample on each chip has its own
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_of_channels():
    torch.manual_seed(0)
    y = TimeFoldedDropout(0.5, channels=True, steps=2)(torch.ones(2 * 3, 8, 5, 5))
    per_channel = y.flatten(2)
    assert torch.equal(per_channel, per_channel[..., :1].expand_as(per_channel))
    assert 0 < (per_channel == 0).float().mean() < 1
