"""A sequence in pieces is the sequence: states passed in and out, or kept by the model."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.cost import estimate
from hpml_sim.counting import workload
from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.measurement import measure
from hpml_sim.measurement.profiling import profile
from hpml_sim.spiking import (
    AdaptiveNeurons,
    AlphaNeurons,
    FixedPointNeurons,
    FusedNetwork,
    IzhikevichNeurons,
    LapicqueNeurons,
    LeakyNeurons,
    RecurrentNeurons,
    RecurrentSynapticNeurons,
    SynapticNeurons,
    TimeFoldedMaxPool,
    detached,
    firing_rates,
    reset,
    run_with_state,
)
from hpml_sim.targets import Leaky, Spiking
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate

WIDTH = 6


def dense():
    torch.manual_seed(3)
    return nn.Linear(WIDTH, WIDTH)


NEURONS = {
    "leaky-subtract": lambda: LeakyNeurons(0.9, 0.6, learn_beta=True, learn_threshold=True),
    "leaky-zero": lambda: LeakyNeurons(torch.linspace(0.5, 1, WIDTH), 0.6, reset="zero", learn_threshold=True),
    "leaky-initial": lambda: LeakyNeurons(0.9, 0.6, initial=0.5, learn_threshold=True),
    "leaky-none": lambda: LeakyNeurons(0.7, 0.6, reset="none", surrogate="fast_sigmoid"),
    "leaky-snntorch": lambda: LeakyNeurons(0.9, 0.6, engine="snntorch"),
    "leaky-at-once": lambda: LeakyNeurons(0.9, 0.6, reset_delay=False, learn_beta=True),
    "leaky-bfloat16": lambda: LeakyNeurons(torch.tensor(0.9, dtype=torch.bfloat16), 0.6),
    "synaptic": lambda: SynapticNeurons(0.7, 0.8, 0.6, learn_alpha=True, learn_threshold=True),
    "synaptic-at-once": lambda: SynapticNeurons(0.7, 0.8, 0.6, reset="zero", reset_delay=False, learn_alpha=True),
    "alpha": lambda: AlphaNeurons(0.9, 0.7, 0.1, reset="subtract"),
    "lapicque": lambda: LapicqueNeurons(2.0, 3.0, 0.9, 0.2),
    "one-to-one": lambda: RecurrentNeurons(0.3, 0.9, 0.6, learn_threshold=True, learn_beta=True),
    "one-to-one-at-once": lambda: RecurrentNeurons(0.3, 0.9, 0.6, reset_delay=False),
    "all-to-all": lambda: RecurrentNeurons(dense(), 0.9, 0.6, learn_threshold=True),
    "all-to-all-at-once": lambda: RecurrentNeurons(dense(), 0.9, 0.6, reset="zero", reset_delay=False),
    "recurrent-synaptic": lambda: RecurrentSynapticNeurons(0.5, dense(), 0.8, 0.6, learn_alpha=True),
    "adaptive": lambda: AdaptiveNeurons(0.9, 0.6, adaptation=0.3, learn_threshold=True),
    "izhikevich": lambda: IzhikevichNeurons(),
}


def drive(name, steps=14, batch=3, seed=0):
    x = 0.8 * torch.randn(steps, batch, WIDTH, generator=torch.Generator().manual_seed(seed)) + 0.2
    x = 40 * x if name == "izhikevich" else x
    return x.bfloat16() if name.endswith("bfloat16") else x


@pytest.mark.parametrize("name", NEURONS)
def test_pieces_equal_the_whole_forward_and_backward(name):
    net, x = FusedNetwork(NEURONS[name]()), drive(name)
    weight = torch.linspace(-1, 1, x.numel()).reshape(x.shape).to(x.dtype)
    whole, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    want = net(whole)
    (want * weight).sum().backward()
    wanted = {key: p.grad.clone() for key, p in net.named_parameters()}
    net.zero_grad()
    state, pieces = None, []
    for piece in ours.split([5, 1, 8]):
        out, state = run_with_state(net, piece, state)
        pieces.append(out)
    got = torch.cat(pieces)
    assert 0 < want.sum() < want.numel()
    assert torch.equal(got, want)
    (got * weight).sum().backward()
    torch.testing.assert_close(ours.grad, whole.grad, rtol=1e-4, atol=1e-5)
    for key, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[key], rtol=1e-4, atol=1e-4)


def test_integers_go_on_exactly():
    net = FusedNetwork(FixedPointNeurons(LeakyNeurons(0.9, 0.7, reset="subtract"), 4096)).eval()
    x = drive("leaky")
    first, state = run_with_state(net, x[:5])
    assert torch.equal(torch.cat([first, run_with_state(net, x[5:], state)[0]]), net(x))


class Twice(nn.Module):
    """One neuron module in two places: each place has a state of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.act = LeakyNeurons(0.9, 0.3)

    def forward(self, x):
        y = self.act(self.first(x))
        return self.act(self.second(y) + y)


def kept(net=None):
    model = FusedNetwork(Twice() if net is None else net)
    model.keep_state = True
    return model


def test_a_module_used_twice_has_two_states():
    net, x = FusedNetwork(Twice()), drive("twice")
    first, state = run_with_state(net, x[:6])
    assert set(state) == {"network.act", "network.act[1]"}
    second, _ = run_with_state(net, x[6:], state)
    assert torch.equal(torch.cat([first, second]), net(x))
    assert (run_with_state(net, x[6:])[0] != second).any()  # the state mattered


def test_state_kept_in_the_model_and_reset():
    model, x = kept(), drive("kept")
    want = FusedNetwork(model.network)(x)
    assert torch.equal(torch.cat([model(piece) for piece in x.split(5)]), want)
    reset(model)
    assert model.state is None
    assert torch.equal(model(x), want)
    model.keep_state = False
    assert torch.equal(model(x), want)  # a model that keeps nothing starts at rest, whatever lay there


def test_reset_is_scoped_and_recursive():
    x = drive("scoped")
    one, other = kept(), kept()
    outer = nn.ModuleDict({"deep": nn.ModuleList([nn.Sequential(one)])})
    one(x)
    other(x)
    reset(outer)
    assert one.state is None
    assert other.state is not None


def test_two_networks_side_by_side_and_two_backwards():
    x = drive("side")
    one, other = kept(), kept()
    with torch.no_grad():
        other.network.first.weight.mul_(0.5)
    wanted = [FusedNetwork(model.network)(x) for model in (one, other)]
    got = [[], []]
    for piece in x.split(4):
        for outs, model in zip(got, (one, other), strict=True):
            outs.append(model(piece))
            outs[-1].sum().backward()  # the kept state holds no graph: never "backward a second time"
    for outs, want in zip(got, wanted, strict=True):
        assert torch.equal(torch.cat(outs), want)


def test_copies_pickles_and_files_go_on_alike():
    model, x = kept(), drive("copies")
    model(x[:7])
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)]
    want = model(x[7:])
    assert (want != FusedNetwork(model.network)(x[7:])).any()
    for other in others:
        assert torch.equal(other(x[7:]), want)


def test_state_dict_has_no_state_and_loads_after_any_batch():
    model = kept()
    keys = set(model.state_dict())
    model(drive("dict", batch=5))
    assert set(model.state_dict()) == keys
    other = kept()
    other(drive("dict", batch=2))
    other.load_state_dict(model.state_dict())
    reset(other)
    x = drive("dict", batch=7)
    assert torch.equal(other(x), FusedNetwork(model.network)(x))


@pytest.mark.parametrize("keep", [False, True])
def test_a_state_of_another_batch_is_named_and_nothing_changes(keep):
    x = drive("batch")
    model = kept()
    if keep:
        model(x)
        before = {key: [t.clone() for t in value] for key, value in model.state.items()}
        with pytest.raises(
            HpmlError, match=r"layer 'network.act': \(1, 3, 6\).*its input is \(1, 2, 6\).*reset\(model"
        ):
            model(x[:, :2])
        assert all(torch.equal(a, b) for key, old in before.items() for a, b in zip(old, model.state[key], strict=True))
        reset(model)
        assert model(x[:, :2]).shape == (14, 2, 6)
    else:
        model.keep_state = False
        _, state = run_with_state(model, x)
        with pytest.raises(HpmlError, match=r"a state belongs to the batch it came from"):
            run_with_state(model, x[:, :2], state)
        with pytest.raises(HpmlError, match="float64"):
            run_with_state(model.double(), x.double(), state)


def test_a_state_of_another_model_is_named():
    x = drive("other")
    _, state = run_with_state(FusedNetwork(Twice()), x)
    with pytest.raises(UnknownNameError, match=r"'network'"):
        run_with_state(FusedNetwork(LeakyNeurons(0.9)), x, state)
    one_use = FusedNetwork(nn.ModuleDict({"act": LeakyNeurons(0.9)})["act"])
    with pytest.raises(UnknownNameError, match=r"'network\[1\]'"):
        run_with_state(one_use, x, {"network": state["network.act"], "network[1]": state["network.act"]})
    with pytest.raises(HpmlError, match="keeps its own state"):
        run_with_state(nn.Sequential(kept()), x)


def test_detached_state_cuts_the_gradient():
    net, x = FusedNetwork(Twice()), drive("cut").requires_grad_()
    _, state = run_with_state(net, x[:7])
    run_with_state(net, x[7:], detached(state))[0].sum().backward()
    assert x.grad[:7].abs().sum() == 0
    assert x.grad[7:].abs().sum() > 0


@pytest.mark.parametrize("encoder", ["frames", "delta"])
def test_a_converted_network_goes_on(encoder):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    model = convert(net, Spiking("loihi", steps=12, encoder=encoder, neuron=Leaky(beta=0.9))).eval()
    x = torch.rand(4, 12, 5, generator=torch.Generator().manual_seed(1))
    want = model.spikes(x)
    model.steps = 6
    model.keep_state = True
    got = torch.cat([model.spikes(x[:, :6]), model.spikes(x[:, 6:])], dim=1)
    assert torch.equal(got, want)
    assert want.sum() > 0
    reset(model)
    logits = model(x[:, :6]) + model(x[:, 6:])
    torch.testing.assert_close(logits, want.sum(1)[0] * 8 / 6)
    with pytest.raises(HpmlError, match=r"steps=0: must be a whole number >= 1"):
        model.steps = 0


def test_the_largest_count_goes_on():
    pool = TimeFoldedMaxPool(nn.MaxPool1d(2))
    net, x = FusedNetwork(pool), (drive("pool") > 0.5).float()
    first, state = run_with_state(net, x[:5])
    second, _ = run_with_state(net, x[5:], state)
    assert torch.equal(torch.cat([first, second]), net(x))


def test_no_step_of_a_sequence_is_indexed():
    """`x[t]` in a loop gives backward a tensor of all steps for each step: quadratic. The graph must not hold one."""
    for name, make in NEURONS.items():
        x = drive(name).requires_grad_()
        net = FusedNetwork(make())
        _, state = run_with_state(net, x[:3])
        out, _ = run_with_state(net, x[3:], state)
        seen, todo, selects = set(), [out.grad_fn], 0
        while todo:
            node = todo.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            selects += node.name().startswith(("SelectBackward", "IndexBackward"))
            todo += [following for following, _ in node.next_functions]
        assert selects <= 6, name  # the last states of the first piece, however many steps there are


def test_observers_and_training_leave_a_kept_state_alone():
    torch.manual_seed(0)
    model = convert(
        nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, 3)), Spiking("loihi", steps=4, encoder="direct")
    )
    x = torch.rand(5, WIDTH)
    samples = torch.utils.data.TensorDataset(x, torch.tensor([0, 1, 2, 0, 1]))
    at_rest = evaluate(model, samples, batch_size=2)
    model.keep_state = True
    model(x)
    kept = {name: tuple(t.clone() for t in states) for name, states in model.state.items()}
    counts = workload(model, data=x)

    def unchanged():
        assert model.keep_state
        assert model.state.keys() == kept.keys()
        return all(torch.equal(a, b) for name in kept for a, b in zip(model.state[name], kept[name], strict=True))

    assert unchanged()
    # batches of other sizes than the kept state's, and nothing depends on it
    assert evaluate(model, samples, batch_size=2) == at_rest
    estimate(workload(model, data=x[:2]), "loihi")
    measure(model, x[:1], min_window_s=0.01, windows=1, warmup_s=0.0)
    firing_rates(model, x[:3])
    profile(model, x[:1], calls=3)
    assert unchanged()
    reset(model)
    assert workload(model, data=x) == counts
    assert model.state is None
    model(x)
    fit(model, samples, epochs=1, batch_size=2)
    assert unchanged()
