import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.errors import ConversionError, UnknownNameError

ALL = ["cpu", "pcm-hermes", "reram-neurram", "loihi", hs.Spiking("loihi", steps=4, synapses=hs.Analog("pcm-hermes"))]


def net():
    return hs.models.build("mlp", (1, 8, 8), 10)


@pytest.mark.parametrize("target", ALL, ids=str)
def test_every_target_gives_a_new_model_of_the_same_shape_and_leaves_the_old_one(target):
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    converted = hs.convert(model, target)
    assert converted(torch.rand(5, 1, 8, 8)).shape == (5, 10)
    with torch.no_grad():
        for parameter in converted.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert [type(layer) for layer in model.children()] == [type(layer) for layer in net().children()]


@pytest.mark.parametrize("target", ALL, ids=str)
def test_every_report_has_a_row_for_each_layer(target):
    report = hs.convert(net(), target).report
    assert {"1", "2", "3"} <= set(report["layer"])
    left = report[report["became"] == "digital"]
    assert "" not in set(left["why"])


def test_only_and_skip_choose_layers_by_name_and_by_predicate():
    def analog(**choice):
        report = hs.convert(net(), "pcm-hermes", **choice).report
        return set(report[report["tiles"].notna()]["layer"])

    assert analog() == {"1", "3"}
    assert analog(only=["1"]) == {"1"}
    assert analog(skip="1") == {"3"}
    assert analog(only=lambda name, module: isinstance(module, nn.Linear) and module.out_features == 10) == {"3"}


def test_a_layer_name_that_does_not_exist():
    with pytest.raises(UnknownNameError, match="layer in skip="):
        hs.convert(net(), "pcm-hermes", skip=["head"])


def test_a_converted_model_is_not_converted_again():
    with pytest.raises(ConversionError, match="original network"):
        hs.convert(hs.convert(net(), "pcm-hermes"), "loihi")
