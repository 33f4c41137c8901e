"""Whatever lies between neurons, a spiking network gives what a loop over the steps gives."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.counting import workload
from hpml_sim.spiking import FusedNetwork, LeakyIntegrators, LeakyNeurons, firing_rates, fuse, run_with_state
from hpml_sim.targets import Analog, Leaky, Spiking


def lif(**options):
    return snn.Leaky(0.9, threshold=0.3, init_hidden=True, **options)


class SequenceFirst(nn.Module):
    """torch's default: attention over the first dimension, which the network calls the sequence."""

    def __init__(self):
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation=nn.Identity())
        self.inner.activation = lif()

    def forward(self, x):  # (length, batch, features)
        return self.inner(x)


class Mixing(nn.Module):
    """Something between two neurons that mixes the rows of a batch."""

    def __init__(self, between, width=16):
        super().__init__()
        self.first, self.act = nn.Linear(16, width), lif()
        self.between = between
        self.second, self.last = nn.Linear(width, 4), lif()

    def forward(self, x):
        return self.last(self.second(self.between(self.act(self.first(x)))))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Views(nn.Module):
    """Two views in one call, the second after the first along the batch."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), lif(), nn.Linear(16, 8), lif())

    def forward(self, x):
        both = self.encoder(torch.cat([x[:, :8], x[:, 8:]]))
        one, other = both.chunk(2)
        return one + other


class Counter(nn.Module):
    """A memory of the user's own: how often it was called."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * (1 + 0.1 * self.calls)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.second, self.last = nn.Linear(16, 16), lif(), nn.Linear(16, 16), lif()

    def forward(self, x):
        return self.last(self.second(self.act(self.first(x))) + x)


MIXING = {
    "attention over the first dimension": SequenceFirst,
    "centered": lambda: Mixing(Function(lambda x: x - x.mean(0))),
    "softmax over the batch": lambda: Mixing(Function(lambda x: x.softmax(0))),
    "sorted": lambda: Mixing(Function(lambda x: x.sort(0).values)),
    "rolled": lambda: Mixing(Function(lambda x: x.roll(1, 0))),
    "flattened with the batch": lambda: Mixing(
        nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 16)), Function(lambda x: x.flip(0)))
    ),
    "views": Views,
    "fixed batch": lambda: Mixing(Function(lambda x: x.reshape(5, 16))),
    "memory": lambda: Mixing(Counter()),
}
KEEPING = {
    "residual": Residual,
    "means over features": lambda: Mixing(Function(lambda x: x - x.mean(1, keepdim=True))),
    "layer norm": lambda: Mixing(nn.LayerNorm(16)),
    "norm of each step": lambda: Mixing(nn.BatchNorm1d(16, track_running_stats=False)),
}


def steps_of(net, x):
    utils.reset(net)
    return torch.stack([net(step) for step in x])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_rows_runs_step_by_step(name, training, caplog):
    torch.manual_seed(0)
    net = MIXING[name]().train(training)
    x = torch.rand(7, 5, 16) if name != "attention over the first dimension" else torch.rand(7, 6, 5, 16)
    fused = fuse(net)
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        got = fused(x)
        again = fused(x)
    assert torch.equal(torch.get_rng_state(), state)
    want = steps_of(copy.deepcopy(net), x)
    assert want.detach().abs().mean() > 0.02
    assert torch.equal(got, want)
    assert fused.why_step_by_step is not None
    assert len(caplog.records) == 1
    if name != "memory":
        assert torch.equal(again, got)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", KEEPING)
def test_what_keeps_rows_apart_runs_in_one_pass(name, training, caplog):
    torch.manual_seed(0)
    net = KEEPING[name]().train(training)
    x = torch.rand(7, 5, 16)
    fused = fuse(net)
    with caplog.at_level(logging.WARNING):
        got = fused(x)
    assert fused.why_step_by_step is None
    assert not caplog.records
    assert (got != steps_of(net, x)).float().mean() < 0.01


def test_norms_of_a_users_own_differ_in_training_alone():
    class Norm(nn.Module):
        def forward(self, x):
            return x - x.mean(0) if self.training else x - 0.1

    torch.manual_seed(0)
    net = Mixing(Norm())
    fused, x = fuse(net), torch.rand(7, 5, 16)
    fused.eval()(x)
    assert fused.why_step_by_step is None
    assert torch.equal(fused.train()(x), steps_of(net.train(), x))
    assert fused.why_step_by_step is not None


def test_gradients_states_and_counts_are_those_of_the_loop():
    torch.manual_seed(0)
    net = MIXING["centered"]()
    fused, x = fuse(net), torch.rand(8, 5, 16)
    fused(x).sum().backward()
    steps_of(net, x).sum().backward()
    torch.testing.assert_close(fused.network.first.weight.grad, net.first.weight.grad)

    with torch.no_grad():
        whole = fused.eval()(x)
        one, state = run_with_state(fused, x[:3])
        two, _ = run_with_state(fused, x[3:], state)
        assert torch.equal(torch.cat([one, two]), whole)
        fused.keep_state = True
        assert torch.equal(torch.cat([fused(x[:3]), fused(x[3:])]), whole)
    neurons = fused.network.last.neurons
    fused.keep_state = False
    with torch.no_grad():
        spikes = int(fused(x).sum())
    assert neurons.spike_count == spikes
    counts = workload(fused, data=x)
    assert counts.total("macs") == 8 * (16 * 16 + 16 * 4)
    assert counts.samples == 5


class Siamese(nn.Module):
    """Two halves of an image as two views in one call."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(32, 24), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        one, other = self.encoder(torch.cat([x[..., :4], x[..., 4:]])).chunk(2)
        return self.head(one + other)


class Looped(Siamese):
    def forward(self, x):
        return self.head(self.encoder(x[..., :4]) + self.encoder(x[..., 4:]))


@pytest.mark.parametrize("encoder", ["direct", "rate"])
def test_labels_of_two_views_in_one_call_equal_the_loops(encoder):
    torch.manual_seed(0)
    net, looped = Siamese(), Looped()
    looped.load_state_dict(net.state_dict())
    target = Spiking("loihi", steps=12, neuron=Leaky(beta=0.9, threshold=0.5), encoder=encoder)
    x = torch.rand(100, 1, 8, 8)
    with torch.no_grad():
        joined, separate = (convert(each, target).eval() for each in (net, looped))
        assert torch.equal(joined(x).argmax(1), separate(x).argmax(1))
        assert torch.allclose(joined(x), separate(x))
    report = joined.report.set_index("layer")
    assert report.became["(network)"] == "loop over steps"
    assert "rows" in report.why["(network)"]
    assert "(network)" not in set(separate.report.layer)
    assert firing_rates(joined, x)["network.encoder.2"] > 0


def test_dropout_keeps_one_mask_for_all_steps_of_a_loop():
    torch.manual_seed(0)
    model = convert(Siamese(), Spiking("loihi", steps=10, neuron=Leaky(threshold=1e-3), encoder="direct")).train()
    seen = []
    model.network.encoder[3].register_forward_hook(lambda _m, inputs, out: seen.append((inputs[0] != 0, out != 0)))
    model(torch.rand(20, 1, 8, 8) + 0.1)
    assert len(seen) == 10
    came, left = (torch.stack(part) for part in zip(*seen, strict=True))
    times = came.sum(0)
    kept = (came & left).sum(0)
    assert bool(((kept == 0) | (kept == times)).all())
    assert 0.2 < (kept[times > 1] == 0).float().mean() < 0.4  # p = 0.3


def test_converted_networks_with_batch_statistics():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.ReLU(), nn.Linear(16, 4))
    model = convert(net, Spiking("loihi", steps=6, encoder="rate")).eval()
    x = torch.rand(20, 16)
    encoded = model.encoder(x)
    got = model.spikes(x)
    for module in model.modules():
        if isinstance(module, LeakyNeurons):
            module.steps = 1
    state, found = None, []
    loop = nn.Sequential(model.network, model.output)
    for step in encoded.unflatten(0, (6, 20)):
        out, state = run_with_state(loop, step, state)
        found.append(out)
    assert torch.equal(got[0], torch.stack(found))


def test_a_model_that_runs_step_by_step_travels():
    torch.manual_seed(0)
    model = convert(Siamese(), Spiking("loihi", steps=6)).eval()
    x = torch.rand(5, 1, 8, 8)
    want = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), want)
        assert list(other.report.became).count("loop over steps") == 1


def test_hooks_see_only_the_calls_themselves():
    torch.manual_seed(0)
    calls = []
    net = Residual()
    net.first.register_forward_hook(lambda _module, _inputs, out: calls.append(out.shape))
    fused = fuse(net)
    fused(torch.rand(7, 5, 16))
    assert calls == [(35, 16)]


def test_networks_of_ours_with_other_layers_that_remember():
    class Readout(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.out = LeakyNeurons(0.9, 0.3), LeakyIntegrators(0.8)

        def forward(self, x):
            spikes = self.act(x)
            return self.out(spikes - spikes.mean(0))

    model, x = FusedNetwork(Readout()), torch.rand(6, 5, 3)
    got = model(x)
    state, found = None, []
    for step in x:
        out, state = run_with_state(model, step[None], state)
        found.append(out)
    assert torch.equal(got, torch.cat(found))


def test_networks_on_crossbars_are_proved_without_their_noise():
    torch.manual_seed(0)
    model = convert(Residual16(), Spiking("loihi", steps=6, encoder="direct", synapses=Analog("pcm-hermes")))
    x = torch.rand(5, 16)
    model.train()(x)
    model.eval()(x)
    assert "(network)" not in set(model.report.layer)


class Residual16(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)

    def forward(self, x):
        return self.second(self.act(self.first(x))) + x


def test_a_wrong_input_raises_what_it_raised_and_decides_nothing():
    fused = fuse(Residual())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fused(torch.rand(7, 5, 3))
    fused(torch.rand(7, 5, 16))
    assert fused.why_step_by_step is None


@pytest.mark.filterwarnings("ignore")  # dynamo warns of what it does itself
def test_compiled():
    for build in (Residual, Views):
        torch.manual_seed(0)
        fused, x = fuse(build()), torch.rand(5, 3, 16)
        want = copy.deepcopy(fused)(x)
        torch._dynamo.reset()
        assert torch.equal(torch.compile(fused, backend="eager")(x), want)
