from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from hpml_sim.cost import Estimate, energy_ratio, estimate, rank
from hpml_sim.counting import Workload
from hpml_sim.errors import HpmlError, ScopeError
from hpml_sim.units.bands import ZERO

from .machines import crossbar, digital, mlp, neuromorphic, snn


def test_json_round_trip():
    for workload, card in ((mlp(64, 128, 10), crossbar()), (mlp(64, 10), digital()), (snn(64, 10), neuromorphic())):
        result = estimate(workload, card)
        assert Estimate.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_from_dict_refuses_other_versions():
    data = estimate(mlp(4, 4), digital()).to_dict()
    del data["terms"]
    with pytest.raises(HpmlError, match=r"missing.*terms"):
        Estimate.from_dict(data | {"color": 1})


@pytest.mark.parametrize("field", ["energy_j", "terms", "mapping", "sources", "roof", "reported_separately"])
@pytest.mark.parametrize("value", [3, "x", [1], {"low": 2, "nominal": 1, "high": 0}, {"layers": 1}])
def test_a_damaged_estimate_is_refused_on_one_line(field, value):
    data = estimate(mlp(4, 4), digital()).to_dict()
    try:
        Estimate.from_dict(data | {field: value})
    except HpmlError as refusal:
        assert "\n" not in str(refusal)  # noqa: PT017
        assert str(refusal).startswith("not an estimate")  # noqa: PT017
    with pytest.raises(HpmlError, match="not an estimate: missing"):
        Estimate.from_dict(value)


def test_ranking_within_a_scope():
    small, large = estimate(mlp(10, 10), crossbar()), estimate(mlp(500, 500), crossbar())
    assert rank([large, small]) == [small, large]
    assert energy_ratio(large, small) > 1


def test_ranking_across_scopes_raises_and_names_the_cards():
    chip, core = estimate(mlp(10, 10), crossbar()), estimate(mlp(10, 10), crossbar(scope="core"))
    with pytest.raises(ScopeError, match="chip: made-up; core: made-up"):
        rank([chip, core])
    with pytest.raises(ScopeError):
        energy_ratio(chip, core)


def test_sources_and_weak_figures_are_named():
    from .machines import q

    result = estimate(mlp(10, 10), digital(call_time=q(1, "us", "unverified")))
    assert result.sources == {"paper": "A paper"}
    assert any("call_time = 1 us (not verified" in sentence for sentence in result.assumptions)


def test_options_of_another_kind_of_card_are_refused():
    with pytest.raises(HpmlError, match="mode: not for card 'made-up' of kind 'digital'"):
        estimate(mlp(10, 10), digital(), mode="preset")
    with pytest.raises(HpmlError, match="precision: not for"):
        estimate(mlp(10, 10), crossbar(), precision="fp32")


@pytest.mark.parametrize("batch", [0, -1, 1.5, "most"])
def test_batch_must_be_a_number_or_best(batch):
    with pytest.raises(HpmlError, match="batch="):
        estimate(mlp(10, 10), digital(), batch=batch)


def test_empty_workload_is_refused():
    with pytest.raises(HpmlError, match="no layers"):
        estimate(Workload(()), digital())


def test_layers_unknown_to_the_workload_are_named():
    workload = Workload(mlp(10, 10).layers, not_counted=("weird (Foo)",))
    for card in (digital(), crossbar()):
        assert any("weird (Foo)" in sentence for sentence in estimate(workload, card).excluded)


def test_a_network_in_place_of_its_workload_is_said():
    with pytest.raises(HpmlError, match=r"a network says nothing of its input; give input_shape="):
        estimate(torch.nn.Linear(4, 4), digital())


def test_an_estimate_shows_itself_on_a_few_short_lines():
    for workload, card in ((mlp(64, 128, 10), crossbar()), (mlp(64, 10), digital()), (snn(64, 10), neuromorphic())):
        found = estimate(workload, card)
        lines = str(found).splitlines()
        assert repr([found]) == f"[{found!r}]"
        assert "made-up" in repr(found)
        assert len(repr(found).splitlines()) == 1
        assert 4 <= len(lines) <= 8
        assert max(map(len, lines)) <= 80
        assert "made-up" in lines[0]
        assert f"{len(found.excluded)} (.excluded)" in str(found)
    assert "energy      20.0 nJ (" in str(estimate(mlp(200, 100), crossbar()))  # two full tiles of 10 nJ


def test_an_estimate_in_a_notebook_is_escaped():
    found = replace(estimate(mlp(64, 10), crossbar()), card="<script>")
    assert "<script>" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()


def test_ratio_to_nothing_and_strangers_in_a_ranking_are_refused():
    found = estimate(mlp(10, 10), crossbar())
    with pytest.raises(HpmlError, match="energy of b, on card 'made-up', is 0"):
        energy_ratio(found, replace(found, energy_j=ZERO))
    with pytest.raises(HpmlError, match=r"^rank: estimates\[\d\]='.*': must be an estimate"):
        rank([found, "pcm-hermes"])
