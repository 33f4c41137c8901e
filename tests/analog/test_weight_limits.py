"""The largest mapped weight belongs to the weights that it was computed from."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from hpml_sim.analog import calibrate
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion import convert
from hpml_sim.targets import Analog

EXACT = {"dac_bits": 16, "adc_bits": 16, "output_noise": 0.0, "input_range": {"name": "percentile", "share": 1.0}}


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5)), torch.randn(200, 20)


def trained(net, x):
    """A few steps of hardware-aware training that clip hard."""
    model = convert(net, Analog("pcm-hermes", weight_clip=1.0, **EXACT)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    assert all(torch.isfinite(crossbar.weight_limit) for crossbar in crossbars(model).values())
    return model.eval()


def error(model, net, x):
    calibrate(model.eval(), x)
    with torch.no_grad():
        want = net(x)
        return float((model(x) - want).norm() / want.norm())


LOADS = {
    "load_state_dict": lambda model, net: model.network.load_state_dict(net.state_dict(), strict=False),
    "by the whole model": lambda model, net: model.load_state_dict(
        {f"network.{name}": value for name, value in net.state_dict().items()}, strict=False
    ),
    "assign": lambda model, net: model.network.load_state_dict(net.state_dict(), strict=False, assign=True),
}


@pytest.mark.parametrize("evaluated", [False, True])
@pytest.mark.parametrize("way", LOADS)
def test_loaded_weights_are_not_clipped(way, evaluated):
    net, x = small()
    model = trained(net, x)
    if evaluated:
        assert error(model, net, x) > 0.1  # clipped as trained
    LOADS[way](model, net)
    assert error(model, net, x) < 2e-3


@pytest.mark.parametrize("evaluated", [False, True])
def test_weights_written_in_place_are_not_clipped(evaluated):
    net, x = small()
    model = trained(net, x)
    other = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    if evaluated:
        model(x)
    with torch.no_grad():
        for own, new in zip(model.parameters(), other.parameters(), strict=True):
            own.copy_(new)
    assert error(model, other, x) < 2e-3


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_batch_norm_folded_into_trained_weights_is_not_clipped(evaluated):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 4))
    x = torch.randn(32, 3, 8, 8)
    model = trained(
        net,
        x,
    )
    layers = model.get_submodule("network")
    conv, norm = layers.get_submodule("0"), layers.get_submodule("1")
    norm.get_buffer("running_var").mul_(torch.rand(8) + 0.05)
    if evaluated:
        model(x)
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = weight, bias
    layers.register_module("1", nn.Identity())
    digital = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    digital.load_state_dict({"0.weight": weight, "0.bias": bias})
    model.eval()
    calibrate(model, x)
    first = nn.Sequential(conv, nn.Flatten())
    torch.testing.assert_close(first(x), digital(x), atol=5e-3, rtol=0)


def test_trained_weights_stay_clipped():
    net, x = small()
    model = trained(net, x)
    limits = [float(crossbar.weight_limit) for crossbar in crossbars(model).values()]
    model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = convert(net, Analog("pcm-hermes", weight_clip=1.0, **EXACT)).eval()
    loaded(x)
    loaded.load_state_dict(model.state_dict())
    into_itself = copy.deepcopy(model)
    into_itself.load_state_dict(model.state_dict())
    for same in (model, copy.deepcopy(model), torch.load(file, weights_only=False), loaded, into_itself):
        same(x)
        assert [float(crossbar.weight_limit) for crossbar in crossbars(same).values()] == limits
    half = copy.deepcopy(model).to(torch.bfloat16)
    half(x.bfloat16())
    assert all(torch.isfinite(crossbar.weight_limit) for crossbar in crossbars(half).values())


def test_loading_another_layer_forgets_no_limit():
    net, x = small()
    model = trained(net, x)
    model.network.load_state_dict({f"2.{name}": value for name, value in net[2].state_dict().items()}, strict=False)
    first, last = crossbars(model).values()
    assert torch.isfinite(first.weight_limit)
    assert not torch.isfinite(last.weight_limit)


def test_training_goes_on_with_a_limit_of_its_own():
    net, x = small()
    model = trained(net, x)
    model.network.load_state_dict(net.state_dict(), strict=False)
    model.train()(x)
    for name, crossbar in crossbars(model).items():
        weight = model.get_parameter(f"{name}.weight").detach()
        assert float(crossbar.weight_limit) == pytest.approx(float(weight.std(correction=0)), rel=1e-3)
