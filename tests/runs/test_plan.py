import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from hpml_sim import models
from hpml_sim.data import Data, load_data
from hpml_sim.errors import HpmlError
from hpml_sim.runs.plan import Point, labelled_targets, make_plan, resolve_model
from hpml_sim.runs.settings import Setup, checked
from hpml_sim.targets import Analog, Spiking


def plan(network=None, task=None, on=("cpu",), **changes):
    network = network or models.build("mlp", (1, 8, 8), 10)
    points = [Point(label, target) for label, target in labelled_targets(list(on)).items()]
    setup = checked(Setup, {"times": ["1 s"], **changes})
    return make_plan(setup, network, task or load_data("digits"), points)


def test_the_same_question_has_the_same_hash():
    assert plan().hash == plan().hash
    assert plan(times=["1 h", "1 s", 3600]).hash == plan(times=["1 s", "1 h"]).hash


@pytest.mark.parametrize(
    "changes",
    [
        {"chips": 24},
        {"times": ["2 s"]},
        {"epochs": 3},
        {"tune_epochs": 3},
        {"lr": 1e-3},
        {"seeds": 2},
        {"on": ("h200",)},
        {"on": (Analog(adc_bits=6),)},
        {"network": models.build("mlp", (1, 8, 8), 10, seed=1)},
        {"network": nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10).half())},
    ],
    ids=str,
)
def test_whatever_changes_the_rows_changes_the_hash(changes):
    assert plan(**changes).hash != plan().hash


def test_other_data_of_the_same_name_changes_the_hash():
    def task(shift):
        split = TensorDataset(torch.arange(8.0).reshape(4, 2) + shift, torch.tensor([0, 1, 0, 1]))
        return Data("custom", split, split, (2,), 2)

    network = models.mlp(2, 2)
    assert plan(network, task(0.0)).hash == plan(network, task(0.0)).hash
    assert plan(network, task(0.0)).hash != plan(network, task(1.0)).hash


def test_a_new_card_version_changes_the_hash():
    first = plan()
    assert dataclasses.replace(first, card_versions={"cpu": 99}).hash != first.hash


def test_the_card_of_the_synapses_is_covered_too():
    hybrid = plan(on=(Spiking("loihi", synapses=Analog("pcm-hermes")),))
    assert set(hybrid.card_versions) == {"loihi", "pcm-hermes"}


def test_labels_name_the_synapses_and_may_be_ones_own():
    targets = labelled_targets([Spiking("loihi", synapses=Analog("pcm-hermes")), "pcm-hermes"])
    assert list(targets) == ["loihi+pcm-hermes", "pcm-hermes"]
    assert list(labelled_targets({"mine": "cpu"})) == ["mine"]


def test_each_seed_draws_its_own_weights_but_a_given_network_keeps_its_own():
    digits = load_data("digits")
    first, again, other = (resolve_model("mlp", digits, seed=s)[0][1].weight for s in (0, 0, 1))  # type: ignore[index]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    network = models.mlp(64, 10)
    copied, name = resolve_model(network, digits, seed=5)
    assert name == "Sequential"
    assert copied is not network
    assert torch.equal(copied[1].weight, network[1].weight)  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": float("inf")}, "lr=inf"),
        ({"times": "1 s"}, "must be a list"),
        ({"seeds": [1, 1]}, "twice"),
        ({"times": []}, "list of at least one time"),
    ],
)
def test_what_cannot_be_run_is_named(changes, said):
    with pytest.raises(HpmlError, match=said):
        plan(**changes)
