"""Labels, inputs and teachers that do not fit the network: one line, and the network as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs
from hpml_sim.errors import HpmlError, NotFiniteError

X, Y = torch.rand(8, 6), torch.arange(8) % 3
VERBS = [hs.evaluate, hs.fit]
LABELS = {
    "too large": (Y + 100, "label 102, but the model has 3 outputs"),
    "negative": (Y - 100, "label -100"),
    "ignored by torch": (torch.full((8,), -100), "label -100"),
    "floating point": (Y.float(), "float32"),
    "truth values": (Y > 0, "bool"),
    "one-hot": (nn.functional.one_hot(Y).float(), "(8, 3)"),
}


@pytest.fixture
def net():
    """A network whose weights and random numbers must be what they were."""
    torch.manual_seed(0)
    made = hs.models.mlp(6, 5, 3)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    yield made
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def said(call) -> str:
    with pytest.raises(HpmlError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_no_outputs(net, verb, kind):
    labels, part = LABELS[kind]
    assert part in said(lambda: verb(net, TensorDataset(X, labels)))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_any_integer_type(verb, dtype):
    net = hs.models.mlp(6, 5, 3)
    assert verb(net, TensorDataset(X, Y.to(dtype))) is not None


@pytest.mark.parametrize("verb", VERBS)
def test_inputs_of_another_shape(net, verb):
    message = said(lambda: verb(net, TensorDataset(X[:, :3], Y)))
    assert "(8, 3)" in message
    assert "layer '1', Linear(in_features=6" in message


def test_a_data_set_that_the_network_does_not_take():
    assert "Linear(in_features=10" in said(lambda: hs.fit(hs.models.mlp(10, 3), "digits"))


@pytest.mark.parametrize("teacher", [nn.Linear(3, 3), nn.Linear(6, 2)])
def test_a_teacher_that_does_not_fit(net, teacher):
    assert "teacher" in said(lambda: hs.fit(net, TensorDataset(X, Y), teacher=teacher))


@pytest.mark.parametrize("options", [{"temperature": 3}, {"alpha": 0.1}])
def test_distillation_without_a_teacher(net, options):
    assert "teacher" in said(lambda: hs.fit(net, TensorDataset(X, Y), **options))


def test_the_network_is_no_teacher_of_itself(net):
    assert "teacher" in said(lambda: hs.fit(net, TensorDataset(X, Y), teacher=net))


@pytest.mark.parametrize("title", [3, None])
def test_title(net, title):
    assert f"title={title}" in said(lambda: hs.fit(net, TensorDataset(X, Y), title=title))


def test_weights_that_the_last_step_destroys():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))  # 1e30 x 1e30 is beyond float32
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(NotFiniteError, match="lr=1e\\+30"):
        hs.fit(net, TensorDataset(X, Y), lr=1e30, epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("data", [X, [X]])
@pytest.mark.parametrize("verb", VERBS)
def test_inputs_without_labels(net, verb, data):
    message = said(lambda: verb(net, data))
    assert "labels" in message
    assert "pair is (train, test)" not in message


@pytest.mark.parametrize("verb", VERBS)
def test_arguments_in_the_wrong_order(net, verb):
    assert "wrong order" in said(lambda: verb("digits", net))
