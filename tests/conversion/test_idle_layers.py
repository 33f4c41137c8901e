"""A layer that is called analog and computes nothing on its crossbar is named by the first call that could know."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hpml_sim.analog import calibrate, program
from hpml_sim.conversion import convert
from hpml_sim.conversion.idle_layers import IdleLayers
from hpml_sim.counting import workload
from hpml_sim.training import fit


class Partly(nn.Module):
    def __init__(self, idle=1):
        super().__init__()
        self.used = nn.Linear(8, 4)
        self.idle = nn.ModuleList([nn.Linear(8, 8) for _ in range(idle)])

    def forward(self, x):
        for layer in self.idle:
            x = F.linear(
                x, torch.mul(layer.get_parameter("weight"), 0.5)
            )  # computed from the weight: no product of the layer
        return self.used(x)


X, Y = torch.rand(80, 8), torch.randint(4, (80,))
FIRST = {
    "calibrate": lambda model: calibrate(model, X),
    "workload": lambda model: workload(model, data=X),
    "fit": lambda model: fit(model, torch.utils.data.TensorDataset(X, Y), epochs=1),
    "programmed chips": lambda model: program(model, chips=2).at("1 h")(X),
}


@pytest.mark.parametrize("first", FIRST)
def test_the_first_call_that_could_know_names_it_once(first):
    model = convert(Partly(), "pcm-hermes")
    with pytest.warns(RuntimeWarning, match=f"^{first}: 'idle.0': on crossbars, but no product.*skip=") as said:
        FIRST[first](model)
    assert len(said) == 1
    if first == "programmed chips":
        return  # they are a copy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for again in FIRST.values():
            again(model)


def test_many_are_named_by_the_first_five():
    with pytest.warns(RuntimeWarning, match=r"'idle.4' and 2 more: on"):
        calibrate(convert(Partly(7), "pcm-hermes"), X)


def test_a_layer_that_runs_in_some_batches_only_is_at_work():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.calls = nn.Linear(8, 8), nn.Linear(8, 4), 0

        def forward(self, x):
            self.calls += 1
            return self.b(self.a(x) if self.calls % 2 else x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibrate(convert(Sometimes(), "pcm-hermes"), list(X.split(40)))
        fit(convert(Sometimes(), "pcm-hermes"), torch.utils.data.TensorDataset(X, Y), epochs=1, batch_size=40)


def test_long_data_are_not_waited_for():
    watch = IdleLayers(convert(Partly(), "pcm-hermes"), "fit").over(range(1000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [next(watch) for _ in range(20)] == list(range(20))
    with pytest.warns(RuntimeWarning, match="^fit: "):
        next(watch)


def test_a_network_without_crossbars_and_one_all_at_work_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        workload(Partly(), data=X)
        calibrate(convert(nn.Linear(8, 4), "pcm-hermes"), X)
