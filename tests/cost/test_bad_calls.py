"""Slips in calls of estimates, workloads and bands: one line that names the argument."""

from __future__ import annotations

import math
from typing import Any

import pytest

import hpml_sim as hs
from hpml_sim.errors import HpmlError

NET = hs.models.mlp(64, 16, 10)
COUNTS = hs.workload(NET, input_shape=(64,))
NO_NUMBER: Any = "x"
FOUND = hs.estimate(COUNTS, "pcm-hermes")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: hs.estimate(COUNTS, "pcm-hermes", replicate="no"), "estimate: replicate='no': must be True or False"),
        (lambda: hs.estimate(COUNTS, "pcm-hermes", batch=10**30), "estimate: batch=10"),
        (lambda: hs.estimate(COUNTS, "pcm-hermes", digital_layers=3), "estimate: digital_layers=3: must be names"),
        (lambda: hs.workload(NET, input_shape=(True, 64)), r"workload: input_shape=\(True, 64\): must be"),
        (lambda: hs.workload(NET, input_shape=(64,), extra=3), "workload: extra=3: must be figures by name"),
        (lambda: hs.workload(NET, input_shape=(64,), extra={"a": "b"}), r"workload: extra\['a'\]='b': must be"),
        (lambda: hs.workload(NET, input_shape=(64,), extra={"a": math.nan}), r"workload: extra\['a'\]=nan: must be"),
        (lambda: hs.rank(FOUND), "rank: estimates=<Estimate>: must be a list of estimates"),
        (lambda: hs.rank(None), "rank: estimates=None: must be a list of estimates"),
        (lambda: hs.energy_ratio(1, FOUND), "energy_ratio: a=1: must be an estimate"),
        (lambda: hs.energy_ratio(FOUND, 2), "energy_ratio: b=2: must be an estimate"),
        (lambda: hs.Workload(3), "Workload: layers=3: must be a tuple of layer counts"),
        (lambda: hs.Workload("abc"), "Workload: layers='abc': must be a tuple of layer counts"),
        (lambda: hs.Estimate(1, 2, 3, 4, 5, 6, 7, 8), r"Estimate\(1, .*: .*an Estimate is what hs.estimate"),
        (lambda: hs.Band(True, True, True), r"Band\(True, True, True\): bounds must be numbers"),
        (lambda: hs.Band(1, 2, 3) + NO_NUMBER, r"Band\(1, 2, 3\) \+ 'x': must be a band"),
        (lambda: hs.Band(1, 2, 3) * NO_NUMBER, "Band \\* factor: factor='x': must be a finite number >= 0"),
        (lambda: hs.Band(1, 2, 3) / 0, "Band / divisor: divisor=0: must be a finite number > 0"),
        (lambda: hs.Band(1, 2, 3) < 3, "bands have no order"),
        (lambda: hs.Band(1, 2, 3) >= hs.Band(1, 2, 3), "bands have no order"),
        (lambda: hs.spiking.Surrogate("x"), "Surrogate: name='x': must be one of"),
        (lambda: hs.spiking.Surrogate(3), "Surrogate: name=3: must be one of"),
        (lambda: hs.spiking.Surrogate("atan"), r"Surrogate: parameters=\(\): 'atan' has 1 \(alpha\)"),
        (lambda: hs.spiking.surrogate(None), "surrogate: kind=None: must be a name"),
        (lambda: hs.spiking.surrogate("atan", "2"), "surrogate 'atan': alpha='2': must be a finite number"),
    ],
)
def test_a_slip_is_named(call, said):
    with pytest.raises(HpmlError, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_what_one_step_reaches_is_one_line():
    gpu = hs.estimate(COUNTS, "h200")
    assert gpu.roof is not None
    shown = [FOUND, [FOUND, FOUND], FOUND.terms[0], COUNTS.layers[0], gpu.roof, gpu.roof.layers[0], FOUND.energy_j]
    for item in shown:
        assert "\n" not in repr(item)
    assert all(len(repr(item)) <= 120 for item in shown if not isinstance(item, list))
    assert "energy" in str(FOUND)
    assert repr(hs.Workload(())) == "Workload: 0 layers, 0 MACs, 0 parameters, shapes only"
