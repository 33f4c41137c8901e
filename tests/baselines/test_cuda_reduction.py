"""Elementwise kernels and reductions against torch and float64."""

from __future__ import annotations

import pytest
import torch

from hpml_sim.baselines.cuda_elementwise import copy, relu_backward, relu_forward, sgd_step
from hpml_sim.baselines.cuda_linear import relu
from hpml_sim.baselines.cuda_reduction import column_sum, total
from hpml_sim.errors import HpmlError

UNIT = 2.0**-24


@pytest.mark.parametrize("shape", [(), (1,), (0,), (7,), (3, 0, 2), (3, 5, 9)], ids=str)
def test_copy_and_relu_equal_torch_to_the_bit(shape, draw):
    x = draw(*shape)
    assert torch.equal(copy(x), x)
    assert torch.equal(relu_forward(x), torch.relu(x))


def test_copy_of_a_view_is_contiguous_and_new(draw):
    x = draw(6, 5).t()
    y = copy(x)
    assert y.is_contiguous()
    assert torch.equal(y, x)
    assert y.data_ptr() != x.data_ptr()


def test_relu_keeps_nan_and_has_torchs_gradient_at_zero(device):
    values = torch.tensor([-1.0, 0.0, float("nan"), 2.0, float("inf"), -float("inf")], device=device)
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    y, expected = relu(ours), torch.relu(theirs)
    assert torch.equal(y.nan_to_num(nan=-7.0), expected.nan_to_num(nan=-7.0))
    y.sum().backward()
    expected.sum().backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (9,), (100,), (5, 0), (4, 3, 5)], ids=str)
def test_total_equals_float64_within_the_bound(shape, draw):
    x = draw(*shape)
    exact, size = x.double().sum(), x.double().abs().sum()
    assert total(x).shape == ()
    # at most n - 1 additions lie on any path through the tree (Higham 2002, section 4.2)
    assert abs(total(x).double() - exact) <= max(x.numel(), 1) * UNIT * size
    assert abs(total(x, scale=0.25).double() - exact / 4) <= (x.numel() + 1) * UNIT * size


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (2, 9), (13, 4), (0, 3), (3, 0)], ids=str)
def test_column_sum_equals_float64_within_the_bound(shape, draw):
    x = draw(*shape)
    result = column_sum(x)
    assert result.shape == shape[1:]
    assert bool(((result.double() - x.double().sum(0)).abs() <= shape[0] * UNIT * x.double().abs().sum(0)).all())


def test_column_sum_of_a_view(draw):
    x = draw(4, 6).t()
    assert torch.allclose(column_sum(x), x.sum(0), rtol=0, atol=1e-6)


def test_sgd_step_equals_torch(draw):
    start, velocity = draw(3, 7), None
    ours, theirs = start.clone(), start.clone().requires_grad_()
    velocity = torch.zeros_like(ours)
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
    for _ in range(3):
        grad = draw(3, 7)
        sgd_step(ours, grad, velocity, lr=0.1, momentum=0.9)
        theirs.grad = grad.clone()
        optimizer.step()
    assert torch.allclose(ours, theirs, rtol=0, atol=3e-7)  # one fused operation rounds once, torch's two twice


def test_autograd_learns_of_a_step_that_changes_saved_values(draw):
    weight = draw(3).requires_grad_()
    loss = (weight * weight).sum()
    sgd_step(weight, torch.ones_like(weight), torch.zeros_like(weight), lr=0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_refuses_shapes_that_do_not_fit(draw):
    with pytest.raises(HpmlError, match=r"grad of shape \(2,\) for a result of shape \(3,\)"):
        relu_backward(draw(2), draw(3))
    with pytest.raises(HpmlError, match=r"x of shape \(2,\); needs \(rows, columns\)"):
        column_sum(draw(2))
    with pytest.raises(HpmlError, match="weight and velocity must be contiguous"):
        sgd_step(draw(3, 2).t(), draw(2, 3), draw(2, 3), lr=0.1)
    with pytest.raises(HpmlError, match=r"x is torch\.int64"):
        total(torch.arange(3))


@pytest.mark.gpu
def test_reductions_of_millions_on_the_gpu(draw):
    x = draw(3001, 1999)
    assert abs(total(x).double() - x.double().sum()) <= 1e-6 * x.double().abs().sum()
    assert torch.allclose(column_sum(x).double(), x.double().sum(0), rtol=0, atol=1e-3)
    assert torch.equal(copy(x), x)
