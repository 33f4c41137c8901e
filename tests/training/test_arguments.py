"""Slips in calls of `fit`, `evaluate` and `load_data`: one line of ours, before anything changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.errors import HpmlError

INF, NAN = float("inf"), float("nan")
X, Y = torch.rand(20, 8), torch.arange(20) % 2
PAIR = (TensorDataset(X, Y), TensorDataset(X, Y))


def refusal(call) -> str:
    """What the refusal says; neither the network nor the caller's random numbers have changed."""
    torch.manual_seed(0)
    net = hs.models.mlp(8, 2)
    before = net[1].weight.detach().clone()
    state = torch.get_rng_state()
    with pytest.raises(HpmlError) as caught:
        call(net)
    assert torch.equal(net[1].weight, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 400
    return said


WHOLE_OR_NOT = ["3", 3.0, True, None, [3], INF, NAN, np.float64(3), torch.tensor(3)]


@pytest.mark.parametrize("value", [*WHOLE_OR_NOT, -1])
def test_epochs(value):
    assert "fit: epochs=" in (said := refusal(lambda net: hs.fit(net, PAIR, epochs=value)))
    assert said.endswith("must be a whole number >= 0")


@pytest.mark.parametrize("value", [*(v for v in WHOLE_OR_NOT if v is not None), 0, -1])
def test_batch_sizes(value):
    assert "fit: batch_size=" in (said := refusal(lambda net: hs.fit(net, PAIR, batch_size=value)))
    assert "must be a whole number >= 1; None takes 64" in said
    assert "evaluate: batch_size=" in refusal(lambda net: hs.evaluate(net, PAIR, batch_size=value))


@pytest.mark.parametrize("value", [0, -1, INF, -INF, NAN, True, "0.1", [0.1], 1j, 0.0])
def test_learning_rates(value):
    assert "fit: lr=" in (said := refusal(lambda net: hs.fit(net, PAIR, lr=value)))
    assert said.endswith("must be a finite number > 0; try 2e-3")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": "0"}, "fit: seed='0': must be a whole number from 0 to"),
        ({"seed": -1}, "fit: seed=-1: must be a whole number"),
        ({"seed": 1.5}, "fit: seed=1.5: must be a whole number"),
        ({"alpha": 1.5}, "fit: alpha=1.5: must be a finite number from 0 to 1; try 0.5"),
        ({"alpha": "0.5"}, "fit: alpha='0.5': must be"),
        ({"alpha": NAN}, "fit: alpha=nan: must be"),
        ({"temperature": 0}, "fit: temperature=0: must be a finite number > 0; try 4"),
        ({"temperature": INF}, "fit: temperature=inf: must be"),
        ({"teacher": "net"}, "fit: teacher='net': must be a network (torch.nn.Module)"),
        ({"teacher": nn.ReLU}, "this is its class: call it, ReLU(...)"),
        ({"optimizer": 3}, "fit: optimizer=3: must be a name or class of torch.optim"),
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm'. Did you mean 'Adam'?"),
        ({"show_progress": 1}, "fit: show_progress=1: must be True or False"),
    ],
)
def test_options_of_fit(options, said):
    assert said in refusal(lambda net: hs.fit(net, PAIR, **options))


def test_numpys_numbers_are_numbers():
    history = hs.fit(hs.models.mlp(8, 2), PAIR, epochs=np.int64(1), lr=np.float32(0.01), batch_size=np.int32(5))
    assert len(history.loss) == 1


@pytest.mark.parametrize("model", ["mlp", None, 3, nn.ReLU, torch.zeros(2)])
def test_what_is_no_network(model):
    assert "fit: model=" in (said := refusal(lambda _: hs.fit(model, PAIR)))
    assert "must be a network (torch.nn.Module)" in said
    assert "evaluate: model=" in refusal(lambda _: hs.evaluate(model, PAIR))


def test_chips_are_evaluated_at_a_time():
    chips = hs.program(hs.convert(hs.models.mlp(8, 2), "pcm-hermes"), chips=2, seed=0)
    said = refusal(lambda _: hs.evaluate(chips, PAIR))
    assert said == (
        "evaluate: model=<Chips>: must be a network (torch.nn.Module); give the chips at a time, chips.at('1 day')"
    )
    assert hs.evaluate(chips.at("1 day"), PAIR).n == 2


BARE = [(X, Y), [X, Y], X, (X,), (X.numpy(), Y.numpy()), (X, PAIR[1])]


@pytest.mark.parametrize("data", BARE, ids=["pair", "list", "tensor", "one", "arrays", "mixed"])
def test_inputs_and_labels_that_nobody_put_together(data):
    for call in (lambda net: hs.fit(net, data), lambda net: hs.evaluate(net, data), lambda _: hs.load_data(data)):
        said = refusal(call)
        alone = isinstance(data, torch.Tensor) or len(data) == 1
        assert ("inputs without labels" if alone else "a pair is (train, test), each a dataset of (input,") in said
        assert said.endswith("torch.utils.data.TensorDataset(x, y)")


@pytest.mark.parametrize("data", [3, None, 2.5, b"digits", {"train": 1}, object()])
def test_what_is_no_data(data):
    for call in (lambda net: hs.fit(net, data), lambda net: hs.evaluate(net, data)):
        assert "neither a name, a Data, a (train, test) pair" in refusal(call)
    said = refusal(lambda _: hs.load_data(data))
    assert "must be a (train, test) pair of datasets or a Data; names of data sets are cifar10, digits, " in said


def test_a_misspelt_data_set():
    for call in (
        lambda net: hs.fit(net, "digts"),
        lambda net: hs.evaluate(net, "digts"),
        lambda _: hs.load_data("digts"),
    ):
        assert refusal(call).startswith("unknown data 'digts'. Did you mean 'digits'?")
    assert refusal(lambda _: hs.load_data("x" * 5000)).startswith("unknown data 'xxx")
    assert "`hpml-sim data` lists all" in refusal(lambda _: hs.load_data("zzzz"))


@pytest.mark.parametrize("name", ["x", 3, None])
def test_what_cannot_be_downloaded(name):
    assert refusal(lambda _: hs.download_data(name)).startswith(f"unknown data {name!r}")
