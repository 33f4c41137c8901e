"""Networks as people write them, through the converter and back."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hpml_sim.conversion import convert
from hpml_sim.data import load_data
from hpml_sim.errors import ConversionError
from hpml_sim.spiking import LeakyNeurons, TimeFoldedDropout, TimeFoldedMaxPool, calibrated
from hpml_sim.targets import Analog, Spiking
from hpml_sim.training import fit
from hpml_sim.training.evaluation import evaluate


class LeNet(nn.Module):
    """PyTorch's MNIST example: everything a function."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 12, 3, padding=1)
        self.conv2_drop = nn.Dropout2d(0.1)
        self.fc1, self.fc2 = nn.Linear(48, 32), nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = x.view(x.size(0), -1)
        x = self.fc1(x).relu()
        return self.fc2(F.dropout(x, 0.1, training=self.training))


class Block(nn.Module):
    """torchvision's BasicBlock: one ReLU module for both, in place, and a sum."""

    def __init__(self, fan_in, fan_out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(fan_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(fan_out, fan_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(fan_out)
        self.downsample = None
        if stride != 1 or fan_in != fan_out:
            self.downsample = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, stride, bias=False), nn.BatchNorm2d(fan_out))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 16, 2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.layer1(self.stem(x))), 1))


def mobile():
    """Depthwise convolutions and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 1),
        nn.ReLU6(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETWORKS = {"lenet": (LeNet, 4), "resnet": (ResNet, 4), "mobile": (mobile, 4)}


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_converted_and_trained_on(name):
    make, layers = NETWORKS[name]
    torch.manual_seed(0)
    net, digits = make(), load_data("digits")
    fit(net, digits, epochs=3, lr=1e-2, show_progress=False)
    before = copy.deepcopy(net.state_dict())
    model = convert(net, Spiking("loihi", steps=6, encoder="direct"))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert list(model.report.became).count("LeakyNeurons") == layers
    fit(model, digits, epochs=2, lr=5e-3, show_progress=False)
    assert evaluate(model, digits).mean > 0.4  # chance is 0.1; after 8 epochs from nothing 0.88 to 0.96
    x = digits.test[:5][0]
    want = model.eval()(x)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), want)
    other = convert(make(), Spiking("loihi", steps=6, encoder="direct")).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), want)


@pytest.mark.parametrize("name", NETWORKS)
def test_on_crossbars(name):
    model = convert(NETWORKS[name][0](), Spiking("loihi", steps=3, synapses=Analog("pcm-hermes")))
    assert list(model.report.became).count("AnalogConv2d") >= 2
    assert model.eval()(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_residual_network_without_training():
    """All layers share one scale there, so it takes more steps than a chain."""
    digits = load_data("digits")
    torch.manual_seed(0)
    net = ResNet()
    fit(net, digits, epochs=5, lr=1e-2, show_progress=False)
    model = calibrated(net, digits)
    model.steps = 128
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert evaluate(model, digits).mean >= evaluate(net, digits).mean - 0.02


def test_functions_without_training():
    """Max pools called as functions pass on the largest count, too."""
    digits = load_data("digits")
    torch.manual_seed(0)
    net = LeNet()
    fit(net, digits, epochs=6, lr=5e-3, show_progress=False)
    model = calibrated(net, digits)
    assert [type(m) for m in model.modules()].count(TimeFoldedMaxPool) == 2
    assert evaluate(model, digits).mean >= evaluate(net, digits).mean - 0.01


def test_functions_become_modules():
    model = convert(LeNet(), Spiking("loihi", steps=3))
    rows = model.report.set_index("layer")
    assert rows.became[["relu", "relu_1", "relu_2"]].tolist() == ["LeakyNeurons"] * 3
    assert rows.became[["conv2_drop", "dropout"]].tolist() == ["TimeFoldedDropout"] * 2
    kept = [module for module in model.modules() if isinstance(module, (LeakyNeurons, TimeFoldedDropout))]
    assert len(kept) == 6
    assert kept[-1] is model.output
    drop = model.network.dropout
    x = torch.ones(3 * 40, 20)
    assert (model.train() and drop(x) != x).any()
    assert (model.eval() and drop(x) == x).all()


class Called(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.act, self.function = nn.Linear(4, 4), nn.ReLU(), function

    def forward(self, x):
        return self.function(self, self.act(self.layer(x)))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda net, x: F.gelu(net.layer(x)), r"Called: forward\(\) calls gelu, which has no spiking counterpart"),
        (lambda net, x: net.layer(x).tanh(), "calls tanh"),
        (lambda net, x: F.log_softmax(net.layer(x), dim=1), "calls log_softmax.*the loss applies that"),
        (lambda net, x: F.relu(x) if net.training else x, "takes other ways in training"),
    ],
)
def test_functions_that_cannot_spike_are_named(function, message):
    with pytest.raises(ConversionError, match=message):
        convert(Called(function), "loihi")


def test_a_forward_that_cannot_be_traced_still_converts():
    net = Called(lambda net, x: net.layer(x) if x.sum() > 0 else x)
    model = convert(net, Spiking("loihi", steps=3))
    assert isinstance(model.network.act, LeakyNeurons)
    assert isinstance(model.network, Called)
