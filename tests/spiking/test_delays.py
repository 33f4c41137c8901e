"""Delays as layers: in one pass, step by step and in pieces, learned, and refused where nothing would arrive."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.cards import load_card
from hpml_sim.cost.neuromorphic import Population, cores_for, populations
from hpml_sim.errors import HpmlError
from hpml_sim.spiking import AxonalDelays, DelayedLinear, FusedNetwork, LeakyNeurons, run_with_state


def linear_by_loops(layer: DelayedLinear, x: np.ndarray) -> np.ndarray:
    """(steps, batch, inputs) -> (steps, batch, outputs), every connection by itself, delays rounded."""
    weight, late = layer.weight.detach().double().numpy(), layer.delay.detach().double().numpy()
    out = np.zeros((*x.shape[:2], weight.shape[0])) + layer.bias.detach().double().numpy()
    for o, i in np.ndindex(*weight.shape):
        k = int(np.round(late[o, i]))
        out[k:, :, o] += weight[o, i] * x[: len(x) - k, :, i]
    return out


def test_each_connection_has_its_delay():
    torch.manual_seed(0)
    layer = DelayedLinear(5, 3, max_delay=6, seed=1, steps=9).eval()
    x = torch.randn(9, 2, 5)
    found = layer(x.flatten(0, 1)).unflatten(0, (9, 2))
    np.testing.assert_allclose(found.detach(), linear_by_loops(layer, x.double().numpy()), atol=1e-6)


def test_a_delay_between_two_steps_divides_a_spike_in_training_alone():
    late = AxonalDelays(1, max_delay=3, delay=1.25, steps=5)
    spike = torch.tensor([1.0, 0, 0, 0, 0])[:, None]
    assert late(spike).flatten().tolist() == [0, 0.75, 0.25, 0, 0]
    assert late.eval()(spike).flatten().tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("kind", ["axonal", "synaptic"])
def test_gradients_of_delays_are_differences(kind):
    torch.manual_seed(0)
    x = torch.randn(12, 4, dtype=torch.float64)
    layer: nn.Module
    if kind == "axonal":
        layer = AxonalDelays(4, max_delay=4, delay=torch.tensor([0.3, 1.6, 2.2, 3.1]), steps=12).double()
    else:
        delay = torch.tensor([[0.3, 1.6, 2.2, 3.1], [3.4, 0.1, 1.3, 2.7]])
        layer = DelayedLinear(4, 2, max_delay=4, delay=delay, steps=12).double()
    weight = torch.randn_like(layer(x))
    (layer(x) * weight).sum().backward()
    want = torch.zeros_like(layer.delay)
    with torch.no_grad():
        before = (layer(x) * weight).sum()
        for entry in np.ndindex(*layer.delay.shape):
            layer.delay[entry] += 0.125
            want[entry] = ((layer(x) * weight).sum() - before) / 0.125
            layer.delay[entry] -= 0.125
    torch.testing.assert_close(layer.delay.grad, want, rtol=1e-5, atol=1e-5)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8),
        LeakyNeurons(0.8, 0.3),
        AxonalDelays(8, max_delay=3),
        DelayedLinear(8, 4, max_delay=2),
        LeakyNeurons(0.8, 0.3),
    ).eval()


@torch.no_grad()
def test_pieces_of_a_sequence_are_the_whole():
    model = FusedNetwork(network())
    x = torch.randn(10, 3, 6)
    whole = model(x)
    assert whole.any()
    first, state = run_with_state(model, x[:6])
    second, _ = run_with_state(model, x[6:], state)
    assert torch.equal(torch.cat([first, second]), whole)


def test_a_pattern_in_time_is_learned_by_delays_alone():
    """Two inputs whose order is the class; the weights are fixed, so that only their delays can tell.

    A delay learns from what arrives within a step of it, so that they begin near enough to meet.
    """
    torch.manual_seed(0)
    x, y = torch.zeros(8, 2, 2), torch.tensor([0, 1])
    x[1, 0, 0] = x[5, 0, 1] = 1.0  # class 0: the first, then, 4 steps later, the second
    x[5, 1, 0] = x[1, 1, 1] = 1.0
    late = AxonalDelays(2, max_delay=6, delay=torch.tensor([4.5, 1.2]), steps=8)
    rate = torch.optim.Adam(late.parameters(), lr=0.1)
    for _ in range(100):
        together = late(x.flatten(0, 1)).unflatten(0, (8, 2)).sum(2)
        logits = torch.stack([together.square().sum(0), torch.full((2,), 2.5)], 1)
        rate.zero_grad()
        nn.functional.cross_entropy(4 * logits, y).backward()
        rate.step()
    assert (late.delay[0] - late.delay[1]).item() == pytest.approx(4, abs=0.25)


def test_what_a_delay_costs_is_counted():
    """Of each synapse behind a delay of up to 3 and 2 steps, 3 bits more (5 steps), and nothing of the first layer."""
    counts = hs.workload(FusedNetwork(network()), data=torch.rand(10, 2, 6))
    rows = {row.name: row for row in counts.layers}
    late = [row.delay_steps for row in counts.layers if row.delay_steps]
    assert late == [3, 2]
    assert [row.op for row in rows.values()] == ["linear", "neuron", "copy", "linear", "neuron"]
    groups = populations(counts)
    assert [group.delay_bits for group in groups] == [0, 3]
    cost = hs.estimate(counts, "loihi")
    assert any("delays of up to 5 steps take 3 bits more" in said for said in cost.assumptions)


def test_delays_take_synapse_memory():
    card = load_card("loihi")
    many = Population("layer", 10, 2000, 131072 * 8 // 8, 0.0, 0.0, 0.0, 1)
    late = replace(many, delay_steps=62)
    memory = card.core.synapse_memory.si * 8
    assert cores_for(many, card) == math.ceil(many.synapses * 8 / memory)
    assert cores_for(late, card) == math.ceil(many.synapses * (8 + 6) / memory)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AxonalDelays(3, max_delay=4, steps=4)(torch.ones(8, 3)), "max_delay=4 with 4 steps"),
        (lambda: DelayedLinear(3, 2, max_delay=9, steps=4)(torch.ones(8, 3)), "max_delay=9 with 4 steps"),
        (lambda: AxonalDelays(3, max_delay=0), "max_delay=0: must be a whole number >= 1"),
        (lambda: AxonalDelays(3, max_delay=2, delay=3.0), r"delay=3\.0: must lie in \[0, max_delay=2\]"),
        (lambda: AxonalDelays(3, max_delay=2, delay=float("nan")), "delay=nan: must be finite"),
        (lambda: AxonalDelays(3, max_delay=2, delay=torch.ones(2)), r"delay of shape \(2,\) does not fit \(3,\)"),
        (lambda: AxonalDelays(3, max_delay=2, steps=4)(torch.ones(8, 5)), r"do not fit samples of \(5,\)"),
        (lambda: AxonalDelays(0, max_delay=2), "shape=0"),
        (lambda: DelayedLinear(3, 2, max_delay=2, steps=4)(torch.ones(8, 5)), "expected .*3"),
        (lambda: DelayedLinear(3, 2, max_dely=2), "max_dely"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(HpmlError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_copy_has_its_own_delays():
    late = AxonalDelays(3, max_delay=4, steps=6)
    other = copy.deepcopy(late)
    with torch.no_grad():
        other.delay.add_(1)
    assert not torch.equal(late.delay, other.delay)
    assert AxonalDelays(3, max_delay=4, learn=False).state_dict()["delay"].shape == (3,)


@pytest.mark.parametrize("made", [lambda: AxonalDelays(3, max_delay=2), lambda: DelayedLinear(3, 3, max_delay=2)])
def test_bad_delays_train_nothing(made):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = FusedNetwork(nn.Sequential(made(), LeakyNeurons(0.9)))

        def forward(self, x):
            return self.network(x.transpose(0, 1)).sum(0)

    net = Net()
    before = [weight.detach().clone() for weight in net.parameters()]
    for steps, said in ((2, "max_delay=2 with 2 steps"), (4, "hold NaN; they came so")):
        if steps == 4:
            with torch.no_grad():
                before[0][0] = net.network.network[0].delay[0] = torch.nan
            with pytest.raises(hs.HpmlError, match="a delay is NaN; train anew"):
                net(torch.rand(6, 4, 3))
        given = TensorDataset(torch.rand(6, steps, 3), torch.zeros(6).long())
        with pytest.raises(hs.HpmlError, match=said):
            hs.fit(net, given, epochs=1, show_progress=False)
        for weight, was in zip(net.parameters(), before, strict=True):
            assert torch.equal(weight.nan_to_num(-1), was.nan_to_num(-1))
