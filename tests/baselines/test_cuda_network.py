"""Whole networks on the kernels: conversion, training by autograd, training without it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpml_sim.baselines  # noqa: F401 - registers Digital
from hpml_sim.baselines.cuda_network import KernelLinear
from hpml_sim.baselines.cuda_trainer import MlpTrainer
from hpml_sim.conversion import convert
from hpml_sim.data import load_data
from hpml_sim.data.batches import first
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.networks.models import cnn, mlp
from hpml_sim.targets import Digital
from hpml_sim.training.evaluation import evaluate

ON_KERNELS = Digital(engine="numba-cuda")


def seeded(model: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    return model


def digits(samples: int, device: str, *, shrink: bool = True) -> tuple[Tensor, Tensor]:
    """The first samples of the digits, as 4 x 4 pixels for the simulator."""
    x, y = first(load_data("digits").train, 10_000)
    x = F.avg_pool2d(x, 2) if shrink else x
    return x[:samples].to(device), y[:samples].to(device)


def test_mlp_on_kernels_equals_torch_and_reports_every_layer(device, draw):
    net = seeded(mlp(6, 5, 3)).to(device)
    kernels = convert(net, ON_KERNELS)
    x = draw(4, 2, 3)
    assert torch.allclose(kernels(x), net(x), rtol=0, atol=1e-6)
    assert [(row.layer, row.was, row.became) for row in kernels.layers] == [
        ("0", "Flatten", "digital"),
        ("1", "Linear", "KernelLinear"),
        ("2", "ReLU", "KernelLinear"),
        ("3", "Linear", "KernelLinear"),
    ]
    assert kernels.layers[2].why == "fused into 1"
    assert list(kernels.network.state_dict()) == list(net.state_dict())
    assert type(net[1]) is nn.Linear  # type: ignore[index]


def test_cnn_on_kernels_trains_like_torch(device, draw):
    net = seeded(cnn((1, 4, 4), 3, width=1)).to(device)
    kernels = convert(net, ON_KERNELS)
    x, labels = draw(2, 1, 4, 4), torch.tensor([0, 2], device=device)
    F.cross_entropy(kernels(x), labels).backward()
    F.cross_entropy(net(x), labels).backward()
    for (name, ours), theirs in zip(kernels.network.named_parameters(), net.parameters(), strict=True):
        assert ours.grad is not None, name
        assert theirs.grad is not None, name
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6), name


def test_layers_left_out_run_in_torch(device, draw):
    net = seeded(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 2))).to(device)
    with pytest.raises(ConversionError, match=r"no kernel for 2 \(Tanh\).*skip=\['2'\]"):
        convert(net, ON_KERNELS)
    kernels = convert(net, ON_KERNELS, skip=["2"])
    x = draw(3, 4)
    assert torch.allclose(kernels(x), net(x), rtol=0, atol=1e-6)
    assert [row.became for row in kernels.layers] == ["KernelLinear", "KernelLinear", "digital", "KernelLinear"]


def test_a_layer_used_twice_is_not_fused(device, draw):
    shared = nn.Linear(4, 4)
    net = seeded(nn.Sequential(shared, nn.ReLU(), shared)).to(device)
    x = draw(3, 4)
    kernels = convert(net, ON_KERNELS)
    assert torch.allclose(kernels(x), net(x), rtol=0, atol=1e-6)
    assert kernels.network[0] is kernels.network[2]  # type: ignore[index]


def test_a_single_layer_is_a_network_too(device, draw):
    layer = seeded(nn.Linear(3, 2)).to(device)
    kernels = convert(layer, ON_KERNELS)
    assert isinstance(kernels.network, KernelLinear)
    x = draw(2, 3)
    assert torch.allclose(kernels(x), layer(x), rtol=0, atol=1e-6)


class OwnWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


class OddLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) + 1


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (OwnWeights(), "has weights of its own"),
        (OddLinear(2, 2), "computes something else"),
        (nn.Conv2d(2, 2, 3, groups=2), "neither groups nor dilation"),
        (nn.Conv2d(2, 2, 3, padding="same"), "pads with a number of zeros only"),
        (nn.AvgPool2d(2, stride=1), "lie side by side"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "weights of its own|computed in every call"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_a_kernel_would_get_wrong_is_refused_by_name(layer, why):
    with pytest.raises(ConversionError, match=why):
        convert(nn.Sequential(nn.Linear(2, 2), layer), ON_KERNELS)


def test_refuses_other_precisions_and_empty_choices():
    with pytest.raises(HpmlError, match="its kernels compute in float32"):
        Digital(engine="numba-cuda", precision="bf16")
    with pytest.raises(ConversionError, match="no layer to put on kernels"):
        convert(mlp(2, 2), ON_KERNELS, skip=["1"])


def test_digits_mlp_trained_by_autograd_on_kernels_equals_torch(device):
    x, labels = digits(8, device)
    net = seeded(mlp(16, 6, 10)).to(device)
    kernels = convert(net, ON_KERNELS)
    losses: dict[str, list[float]] = {"kernels": [], "torch": []}
    for name, model in (("kernels", kernels), ("torch", net)):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(3):
            loss = F.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[name].append(float(loss.detach()))
    assert losses["kernels"] == pytest.approx(losses["torch"], rel=1e-5)
    assert losses["kernels"][-1] < losses["kernels"][0]


def test_digits_mlp_trained_wholly_by_kernels_equals_torch_and_learns(device):
    x, labels = digits(12, device)
    model = seeded(mlp(16, 6, 10)).to(device)
    twin = copy.deepcopy(model)
    assert isinstance(model, nn.Sequential)
    trainer = MlpTrainer(model, lr=0.3, momentum=0.9)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.3, momentum=0.9)
    batches = [slice(0, 6), slice(6, 12)] * 8
    losses, expected = [], []
    for batch in batches:
        losses.append(float(trainer.step(x[batch], labels[batch])))
        loss = F.cross_entropy(twin(x[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(float(loss.detach()))
    assert losses == pytest.approx(expected, rel=2e-3)  # rounding grows from step to step
    assert losses[0] == pytest.approx(expected[0], rel=1e-6)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=2e-3)
    right = (twin(x).argmax(dim=1) == labels).float().mean()
    assert trainer.accuracy(x, labels) == pytest.approx(float(right), abs=1e-6)
    assert float(right) > 0.5  # it did learn


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), "a ReLU between each two"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "a ReLU between each two"),
        (nn.Sequential(nn.Linear(2, 2, bias=False)), "with bias"),
    ],
    ids=["tanh", "ends in relu", "no bias"],
)
def test_trainer_refuses_other_networks(model, why):
    with pytest.raises(HpmlError, match=why):
        MlpTrainer(model)


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": float("nan")}, {"momentum": 1.0}])
def test_trainer_refuses_arguments_out_of_range(bad):
    with pytest.raises(HpmlError, match="MlpTrainer"):
        MlpTrainer(mlp(2, 2), **bad)


@pytest.mark.gpu
def test_digits_mlp_trained_wholly_by_kernels_reaches_torchs_accuracy_on_the_gpu(device):
    x, labels = digits(10_000, device, shrink=False)
    model = seeded(mlp(64, 128, 10)).to(device)
    twin = copy.deepcopy(model)
    assert isinstance(model, nn.Sequential)
    trainer = MlpTrainer(model, lr=0.05, momentum=0.9)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(0)
    for _ in range(30):
        for batch in torch.randperm(len(x), generator=order).to(device).split(64):
            trainer.step(x[batch], labels[batch])
            optimizer.zero_grad()
            F.cross_entropy(twin(x[batch]), labels[batch]).backward()
            optimizer.step()
    ours, theirs = evaluate(model, "digits").mean, evaluate(twin, "digits").mean
    assert theirs > 0.95
    assert abs(ours - theirs) <= 0.005
