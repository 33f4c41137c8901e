"""What clipping and levels do to a network's weights is said before any work, by whoever could know."""

import copy
import warnings

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.analog.conversion_cost import cost_of_weights


@pytest.fixture(scope="module")
def net():
    """A trained network in which a few weights are large, and it hangs on them, as language models do."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    net[1].weight.data, net[1].bias.data = torch.eye(64), torch.zeros(64)
    net[1].requires_grad_(False)
    hs.fit(net, "digits", epochs=4, lr=1e-2, show_progress=False)
    net.requires_grad_(True)
    with torch.no_grad():  # every other pixel is multiplied by 50, and divided by it
        net[1].weight[::2] *= 50
        net[2].weight[:, ::2] /= 50
    assert hs.evaluate(net, "digits").mean > 0.9
    return net


def on(net, **options):
    return hs.convert(copy.deepcopy(net), hs.Analog("pcm-hermes", **options))


def trains(*_args, **_kwargs):
    raise AssertionError("it trained")


@pytest.mark.parametrize(("large", "score"), [(False, r"accuracy from 9\d\.\d % to"), (True, r"loss from 0\.\d+ to")])
@pytest.mark.parametrize("by", ["layer", "channel"])
def test_fit_says_before_it_trains_what_clipping_costs(net, by, large, score, monkeypatch):
    monkeypatch.setattr("hpml_sim.conversion.modules._LARGE", 100 if large else 10**9)
    monkeypatch.setattr("hpml_sim.training.fitting._epoch", trains)
    analog = on(net, weight_clip=1.0, weight_clip_by=by)
    before = {name: value.clone() for name, value in analog.state_dict().items()}
    line = rf"^fit: with weight_clip=1 by {by}, the mapped weights take {score} .*: '1' \(\d.*Next: weight_clip=None"
    with pytest.warns(RuntimeWarning, match=line), pytest.raises(AssertionError, match="it trained"):
        hs.fit(analog, "digits", epochs=1, show_progress=False)
    assert all(torch.equal(value, before[name]) for name, value in analog.state_dict().items())


def test_nothing_is_said_where_training_clips_nothing(net, monkeypatch):
    """Warnings are errors: of weights that are not clipped, do not learn, or are new."""
    monkeypatch.setattr("hpml_sim.training.fitting._epoch", trains)
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for analog in (on(net, weight_clip=None), hs.lora(on(net), rank=1), on(fresh)):
        with pytest.raises(AssertionError, match="it trained"):
            hs.fit(analog, "digits", epochs=1, show_progress=False)


def test_the_cost_is_that_of_the_clipped_network(net):
    """Against the same network clipped by hand."""
    x = torch.rand(50, 1, 8, 8)
    analog, clipped = on(net), copy.deepcopy(net)
    with torch.no_grad():
        for layer in (clipped[1], clipped[2], clipped[4]):
            layer.weight.clamp_(-(limit := 2.5 * float(layer.weight.std(correction=0))), limit)
        own, held = net(x), clipped(x)
    cost = cost_of_weights(analog, lambda: analog(x), in_training=True)
    assert cost is not None
    assert torch.allclose(cost.own, own, rtol=1e-4, atol=1e-4)
    assert torch.allclose(cost.held, held, rtol=1e-4, atol=1e-4)
    want = (held - own).double().square().mean() / own.double().var(correction=0)
    assert cost.lost == pytest.approx(float(want), rel=1e-3)
    with torch.no_grad():
        exact, change = net[1](x.flatten(1)), (net[1](x.flatten(1)) - clipped[1](x.flatten(1)))
    want = 10 * torch.log10(exact.square().sum() / change.square().sum())
    assert cost.layers["network.1"] == pytest.approx(float(want), abs=0.01)


def test_levels_are_said_by_calibrate_and_by_program_alone(net):
    x = torch.rand(64, 1, 8, 8)
    line = r"with levels=2, the mapped weights alone.*'2' \(.*Next: more levels= or slices="
    with pytest.warns(RuntimeWarning, match="^calibrate: " + line):
        hs.calibrate(analog := on(net, levels=2), x)
    hs.program(analog, chips=1)  # said once
    with pytest.warns(RuntimeWarning, match=r"^program: with levels=2, \d of 3 layers lose more than 10 % of"):
        hs.program(on(net, levels=2), chips=1)
    for fine in (on(net, levels=64), on(net)):
        hs.calibrate(fine, x)
        hs.program(fine, chips=1)


def test_weights_that_were_trained_at_levels_are_held_as_trained(net):
    analog = on(net, levels=2, weight_clip=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # before training they cost much
        hs.fit(analog, "digits", epochs=1, show_progress=False)
    hs.calibrate(analog, torch.rand(64, 1, 8, 8))
    hs.program(analog, chips=1)
