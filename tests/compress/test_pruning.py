"""Pruned networks: which weights go, what stays in training and conversion, and what each machine charges for it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim as hs


def _mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))


def _cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def test_magnitudes_decide():
    net = _mlp()
    pruned = hs.prune(net, share=0.3)
    for before, after in zip(net.parameters(), pruned.parameters(), strict=True):
        if before.dim() < 2:
            assert torch.equal(before, after)
            continue
        w = before.detach().numpy()
        largest = np.sort(np.abs(w), axis=None)[round(0.3 * w.size)]
        np.testing.assert_array_equal(after.detach().numpy(), np.where(np.abs(w) < largest, 0, w))


def test_of_the_whole_network():
    pruned = hs.prune(_mlp(), share=0.5, granularity="network")
    weights = [p.detach() for p in pruned.parameters() if p.dim() == 2]
    assert sum(int((w == 0).sum()) for w in weights) == (64 * 96 + 96 * 10) // 2
    assert weights[0].count_nonzero() != weights[0].numel() // 2  # the layers differ in scale


def test_wanda_by_hand():
    net, x = nn.Linear(6, 4), torch.rand(50, 6) * torch.tensor([1.0, 9, 1, 1, 0.1, 1])
    pruned = hs.prune(net, share=0.5, data=x, granularity="output")
    score = np.abs(net.weight.detach().double().numpy()) * np.sqrt((x.double().numpy() ** 2).sum(0))
    keep = np.argsort(np.argsort(score, axis=1), axis=1) >= 3
    np.testing.assert_array_equal(pruned.weight.detach().numpy() != 0, keep)


def test_two_of_four_along_inputs_and_channels():
    net = _cnn()
    pruned = hs.prune(net, "2:4")
    assert torch.equal(pruned[0].weight, net[0].weight)  # one channel: no four of them
    fours = pruned[4].weight.detach().movedim(1, -1).unflatten(-1, (-1, 4))
    assert bool((fours.count_nonzero(dim=-1) == 2).all())
    original = net[4].weight.detach().movedim(1, -1).unflatten(-1, (-1, 4)).abs()
    assert torch.equal((fours != 0), original >= original.sort(-1).values[..., 2:3])
    counts = {y.name: y for y in hs.workload(pruned, input_shape=(1, 8, 8)).layers}
    assert [counts[name].zero_pattern for name in ("0", "4", "7")] == ["", "2:4", "2:4"]


def test_zeros_survive_training_and_copies():
    pruned = hs.prune(_mlp(), share=0.6)
    zeros = pruned[1].weight == 0
    for network in (pruned, copy.deepcopy(pruned), pickle.loads(pickle.dumps(pruned))):
        hs.fit(network, "digits", epochs=1, optimizer="sgd", lr=0.1, show_progress=False)
        assert torch.equal(network[1].weight == 0, zeros)
        assert not torch.equal(network[1].weight, _mlp()[1].weight)
    assert list(pruned.state_dict()) == list(_mlp().state_dict())
    again = _mlp()
    again.load_state_dict(pruned.state_dict())
    again = hs.prune(again, "present")
    hs.fit(again, "digits", epochs=1, show_progress=False)
    assert torch.equal(again[1].weight == 0, zeros)


def test_zeros_survive_conversion_and_training_for_the_hardware():
    torch.manual_seed(0)
    net = nn.Linear(8, 4)
    pruned = hs.prune(net, share=0.6)
    analog = hs.convert(pruned, "pcm-hermes")
    data = torch.utils.data.TensorDataset(torch.rand(16, 8), torch.arange(16) % 4)
    hs.fit(analog, data, epochs=1, batch_size=16, lr=0.1, show_progress=False)
    assert torch.equal(analog.network.weight == 0, pruned.weight == 0)
    assert not torch.equal(analog.network.weight, pruned.weight)


def test_gradual_pruning_keeps_what_went_before():
    network = _mlp()
    zeros = torch.zeros(96, 64, dtype=torch.bool)
    for share in hs.compress.gradual_shares(0.8, 3):
        network = hs.prune(network, share=share)
        assert bool((network[1].weight == 0)[zeros].all())
        zeros = network[1].weight == 0
        assert zeros.float().mean().item() == pytest.approx(share, abs=1e-3)
        hs.fit(network, "digits", epochs=1, show_progress=False)


@pytest.mark.parametrize("pattern", ["rows", "columns", "tiles"])
def test_smaller_layers_give_what_zeros_would(pattern):
    card = {"card": "pcm-hermes"} if pattern == "tiles" else {}
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(700, 600), nn.ReLU(), nn.Linear(600, 300))
    pruned = hs.prune(net, pattern, 0.4, **card)
    whole = copy.deepcopy(net)
    for layer, part in zip(whole[::2], pruned[::2], strict=True):
        if isinstance(part, nn.Linear):
            continue
        eye = torch.eye(layer.in_features)
        with torch.no_grad():
            matrix = (part(eye) - part(torch.zeros_like(eye))).T
            assert torch.allclose(matrix[matrix != 0], layer.weight[matrix != 0], atol=1e-6)
            layer.weight.mul_(matrix != 0)
    x = torch.rand(5, 700)
    assert torch.allclose(pruned(x), whole(x), atol=1e-5)


def test_channels_go_with_all_that_depends_on_them():
    net = _cnn()
    smaller = hs.prune(net, "channels", data=torch.rand(2, 1, 8, 8))
    assert smaller[0].out_channels == smaller[1].num_features == smaller[4].in_channels == 4
    assert (smaller[4].out_channels, smaller[7].in_features, smaller[7].out_features) == (8, 128, 10)
    x = torch.rand(3, 1, 8, 8)
    norms = net[0].weight.detach().flatten(1).norm(dim=1)
    assert smaller(x).shape == (3, 10)
    assert any(torch.equal(smaller[0].weight[0], w) for w in net[0].weight[norms.argsort()])


def test_heads_and_blocks_of_a_language_model():
    from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes

    torch.manual_seed(0)
    sizes = LlamaSizes(
        vocabulary=50, width=32, depth=4, heads=4, kv_heads=2, hidden=48, longest=64, rotary_base=1e4, eps=1e-5
    )
    net, ids = LanguageModel(sizes), torch.arange(12).reshape(2, 6)
    fewer = hs.prune(net, "heads", data=ids)
    assert fewer.blocks[0].query.out_features == 16
    assert fewer.blocks[0].heads == 2
    assert fewer(ids).shape == net(ids).shape
    assert len(hs.prune(net, "blocks", data=ids).blocks) == 2


BAD = {
    "share": (lambda: hs.prune(_mlp(), share=1.0), "share=1.0: must be a finite number > 0 and < 1"),
    "text": (lambda: hs.prune(_mlp(), share="half"), "share='half'"),
    "pattern": (lambda: hs.prune(_mlp(), "2-4"), "did you mean '2:4'"),
    "fours": (lambda: hs.prune(nn.Linear(6, 4), "2:4"), "multiple of 4"),
    "own share": (lambda: hs.prune(_mlp(), "2:4", 0.7), "share of its own"),
    "no data": (lambda: hs.prune(_cnn(), "channels"), "give data="),
    "no card": (lambda: hs.prune(_mlp(), "tiles"), "give card="),
    "small": (lambda: hs.prune(_mlp(), "tiles", card="pcm-hermes"), "take pattern='rows'"),
    "card": (lambda: hs.prune(_mlp(), "tiles", card="h200"), "take a crossbar card"),
    "nothing": (lambda: hs.prune(nn.ReLU()), "no layer with a weight matrix"),
    "layer": (lambda: hs.prune(_mlp(), skip="head"), "unknown layer in skip= 'head'"),
    "no attention": (lambda: hs.prune(_mlp(), "heads", data=torch.rand(2, 64)), "take pattern='channels'"),
    "no blocks": (lambda: hs.prune(_mlp(), "blocks", data=torch.rand(2, 64)), "take a larger share"),
    "converted": (lambda: hs.prune(hs.convert(_mlp(), "pcm-hermes")), "prune the original"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_a_next_step(case):
    call, says = BAD[case]
    with pytest.raises(hs.HpmlError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
