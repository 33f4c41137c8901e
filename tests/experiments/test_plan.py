import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from hpml_sim.data import Data, load_data
from hpml_sim.errors import HpmlError
from hpml_sim.experiments.config import ExperimentConfig, RunConfig
from hpml_sim.experiments.experiment import Experiment
from hpml_sim.experiments.plan import _chips, network_name, own_network
from hpml_sim.experiments.target_list import labeled_targets
from hpml_sim.networks import models
from hpml_sim.targets import Analog, Spiking
from hpml_sim.targets.checking import checked


def plan(network=None, task=None, targets=("cpu",), **changes):
    network = network or models.build("mlp", (1, 8, 8), 10)
    setup = checked(ExperimentConfig, {"times": ["1 s"], "targets": targets, **changes})
    return Experiment(RunConfig(compare=setup), network, task or load_data("digits")).plan


class HalfScale(nn.Module):
    """Keeps its weights in half precision."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(10, dtype=torch.float16))

    def forward(self, x):
        return x * self.scale


def test_the_same_question_has_the_same_hash():
    assert plan().hash == plan().hash
    assert plan(times=["1 h", "1 s", 3600]).hash == plan(times=["1 s", "1 h"]).hash


@pytest.mark.parametrize(
    "changes",
    [
        {"chips": 24},
        {"times": ["2 s"]},
        {"epochs": 3},
        {"finetune_epochs": 3},
        {"lr": 1e-3},
        {"seeds": 2},
        {"targets": ("h200",)},
        {"targets": (Analog(adc_bits=6),)},
        {"network": models.build("mlp", (1, 8, 8), 10, seed=1)},
        {"network": nn.Sequential(nn.Flatten(), nn.Linear(64, 10), HalfScale())},
    ],
    ids=str,
)
def test_whatever_changes_the_rows_changes_the_hash(changes):
    assert plan(**changes).hash != plan().hash


def test_few_chips_stand_for_those_of_a_large_network():
    def of(width):
        with torch.device("meta"):
            return _chips(nn.Linear(width, 5_000, bias=False))

    assert (of(10_000), of(10_001)) == (25, 3)
    assert plan().chips == 25
    assert plan(chips=7).chips == 7


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
    hybrid = plan(targets=(Spiking("loihi", synapses=Analog("pcm-hermes")),))
    assert set(hybrid.card_versions) == {"loihi", "pcm-hermes", "hailo-8"}  # the last has the integer twin


def test_labels_name_the_synapses_and_may_be_ones_own():
    targets = labeled_targets([Spiking("loihi", synapses=Analog("pcm-hermes")), "pcm-hermes"])
    assert list(targets) == ["loihi+pcm-hermes", "pcm-hermes"]
    assert list(labeled_targets({"mine": "cpu"})) == ["mine"]


def test_each_seed_draws_its_own_weights_but_a_given_network_keeps_its_own():
    digits = load_data("digits")
    first, again, other = (own_network("mlp", digits, {}, seed=s)[1].weight for s in (0, 0, 1))  # type: ignore[index]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    network = models.mlp(64, 10)
    clone = own_network(network, digits, {}, seed=5)
    assert network_name(network) == "Sequential"
    assert clone is not network
    assert torch.equal(clone[1].weight, network[1].weight)  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.0}, "lr=0.0"),
        ({"lr": float("inf")}, "lr=inf"),
        ({"times": "1 s"}, "must be a list"),
        ({"seeds": [1, 1]}, "twice"),
        ({"times": []}, "give at least one time"),
    ],
)
def test_what_cannot_be_run_is_named(changes, said):
    with pytest.raises(HpmlError, match=said):
        plan(**changes)


class Shifted(nn.Module):
    """Takes 64 pixels, and changes with every call; that asking leaves no trace is what matters here."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.calls = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x):
        self.calls += 1
        return self.linear(x.flatten(1)) + torch.rand(1)


def test_whether_network_and_data_fit_is_asked_without_a_trace():
    network = Shifted().train()
    torch.manual_seed(0)
    plan(network)
    assert network.training
    assert float(network.calls) == 0
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), r"shape \(2, 1, 8, 8\), stops it with RuntimeError: mat1"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), r"shape \(2, 10\), .* a tensor of shape \(2, 9\)"),
        (nn.Sequential(nn.Linear(8, 10)), r"shape \(2, 10\), .* a tensor of shape \(2, 1, 8, 10\)"),
        (nn.Sequential(nn.Flatten(), nn.Flatten(0), nn.Linear(128, 10)), r"a tensor of shape \(10,\)"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_said_before_anything_runs(network, said):
    with pytest.raises(HpmlError, match=f"model '.*' on data 'digits': .*{said}"):
        plan(network)
