"""Distillation into pruned and quantized students: gradients of Hinton's loss at the weights that the student has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import hpml_sim as hs

TEMPERATURE = 2.0


def _net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))


def _data() -> TensorDataset:
    """Four clouds of points."""
    torch.manual_seed(0)
    labels = torch.arange(200) % 4
    return TensorDataset(3 * torch.eye(8)[labels] + 0.3 * torch.randn(200, 8), labels)


def _rounded(w: np.ndarray) -> np.ndarray:
    """The nearest of 15 numbers, one scale an output."""
    scale = np.abs(w).max(1, keepdims=True) / 7
    return np.clip(np.round(w / scale), -7, 7) * scale


def _gradient(w: np.ndarray, b: np.ndarray, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Of T^2 KL(target || softmax(logits / T)), the mean over samples, with respect to the weights."""
    logits = (x @ w.T + b) / TEMPERATURE
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return TEMPERATURE * (p - target).T @ x / len(x)


@pytest.mark.parametrize("kind", ["int4", "2:4"])
def test_steps_are_those_of_hintons_loss_at_the_students_own_weights(kind):
    torch.manual_seed(0)
    teacher, x, lr = nn.Linear(8, 4), torch.randn(40, 8), 0.3
    layer = nn.Linear(8, 4)
    student = hs.quantize(layer, "int4", group=8) if kind == "int4" else hs.prune(layer, "2:4")
    w, b = (p.detach().double().numpy().copy() for p in (student.weight, student.bias))
    kept = w != 0
    with torch.no_grad():
        target = torch.softmax(teacher(x).double() / TEMPERATURE, 1).numpy()
    points = x.double().numpy()

    def own(free: np.ndarray) -> np.ndarray:
        return _rounded(free) if kind == "int4" else free * kept

    free = w.copy()
    for _ in range(3):
        logits = (points @ own(free).T + b) / TEMPERATURE
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        free, b = free - lr * _gradient(own(free), b, points, target), b - lr * TEMPERATURE * (p - target).mean(0)
    hs.fit(
        student, TensorDataset(x, torch.zeros(40, dtype=torch.long)), epochs=3, batch_size=40, optimizer="sgd", lr=lr,
        schedule="constant", teacher=teacher, temperature=TEMPERATURE, alpha=1.0, show_progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(student.weight.detach().numpy(), own(free), atol=2e-5)
    np.testing.assert_allclose(student.bias.detach().numpy(), b, atol=2e-5)


STUDENTS = {
    "2:4": lambda: hs.prune(_net(1), "2:4"),
    "channels": lambda: hs.prune(_net(1), "channels", data=torch.rand(2, 8)),
    "int4": lambda: hs.quantize(_net(1), "int4", group=8),
    "int8, its own inputs": lambda: hs.quantize(_net(1), "int8"),
    "2:4 and int4": lambda: hs.quantize(hs.prune(_net(1), "2:4"), "int4", group=8),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_says_what_its_teacher_says_and_not_what_labels_say(name):
    data, teacher = _data(), _net(0)
    hs.fit(teacher, data, epochs=15, lr=1e-2, show_progress=False)
    with torch.no_grad():  # wrong everywhere
        teacher[2].weight.copy_(teacher[2].weight.roll(1, 0))
        teacher[2].bias.copy_(teacher[2].bias.roll(1, 0))
    student = STUDENTS[name]()
    before = [weight.detach().clone() for weight in student.parameters() if weight.dim() == 2]
    hs.fit(student, data, epochs=15, lr=1e-2, teacher=teacher, alpha=1.0, show_progress=False)
    x, labels = data.tensors
    said = student.eval()(x).argmax(1)
    assert float((said == teacher(x).argmax(1)).double().mean()) > 0.95
    assert float((said == labels).double().mean()) < 0.05
    for was, now in zip(before, [weight for weight in student.parameters() if weight.dim() == 2], strict=True):
        assert not torch.equal(was, now)
        if "2:4" in name:
            assert torch.equal(now == 0, was == 0) or "int4" in name  # few bits add zeros of their own
            assert bool((now[was == 0] == 0).all())
        if "int4" in name:
            groups = now.detach().unflatten(1, (-1, 8))
            steps = groups / (groups.abs().amax(2, keepdim=True) / 7).clamp(min=1e-12)
            assert float((steps - steps.round()).abs().max()) < 1e-3
