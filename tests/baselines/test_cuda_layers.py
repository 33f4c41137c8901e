"""Linear, cross-entropy, convolution and pooling, forward and backward, against torch in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hpml_sim.baselines.cuda_conv import avg_pool2d, conv2d
from hpml_sim.baselines.cuda_linear import linear
from hpml_sim.baselines.cuda_softmax import cross_entropy
from hpml_sim.errors import HpmlError

TOLERANCE = 2e-6
"""Of values around 1 summed over at most 30 terms: 30 x 2^-24 = 1.8e-6, relative to the sum of the terms' sizes."""


def agree(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Same values and same gradients of every input, for a random gradient of the output; theirs is in float64."""
    mine = [x.detach().clone().requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    y, expected = ours(*mine), theirs(*exact)
    assert y.shape == expected.shape
    assert y.dtype == torch.float32
    scale = 1 + max((float(t.detach().abs().max()) for t in (expected, *exact) if t.numel()), default=0.0) ** 2
    assert torch.allclose(y.double(), expected, rtol=0, atol=TOLERANCE * scale)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).to(y.device)
    gradients = torch.autograd.grad(y, mine, grad)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    for name, got, want in zip("xwb", gradients, wanted, strict=False):
        assert torch.allclose(got.double(), want, rtol=0, atol=TOLERANCE * scale), name


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (9, 4, 8), (0, 3, 2), (3, 2, 0)], ids=str)
def test_linear(shape, relu, draw):
    batch, fan_in, fan_out = shape

    def reference(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.relu(F.linear(x, w, b)) if relu else F.linear(x, w, b)

    inputs = draw(batch, fan_in), draw(fan_out, fan_in), draw(fan_out)
    agree(lambda x, w, b: linear(x, w, b, relu=relu), reference, *inputs)


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_linear_takes_any_leading_dimensions_and_no_bias(batch, draw):
    agree(linear, F.linear, draw(*batch, 5), draw(4, 5))


def test_linear_of_views(draw):
    agree(lambda x, w: linear(x.t(), w[:, ::2]), lambda x, w: F.linear(x.t(), w[:, ::2]), draw(5, 6), draw(4, 10))


def test_only_the_wanted_gradients_are_computed(draw):
    x, weight = draw(3, 4), draw(2, 4).requires_grad_()
    linear(x, weight).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_linear_refuses(draw):
    with pytest.raises(HpmlError, match=r"x \(2, 3\) and weight \(4, 5\); needs \(..., in\) and \(out, in\)"):
        linear(draw(2, 3), draw(4, 5))
    with pytest.raises(HpmlError, match=r"bias \(3,\) for 4 outputs"):
        linear(draw(2, 5), draw(4, 5), draw(3))
    with pytest.raises(HpmlError, match=r"x is torch.bfloat16"):
        linear(draw(2, 5).bfloat16(), draw(4, 5))


@pytest.mark.parametrize("shape", [(1, 1), (1, 10), (5, 3), (3, 8), (2, 9), (4, 17)], ids=str)
def test_cross_entropy(shape, draw, device):
    labels = (torch.arange(shape[0], device=device) * 7 + 1) % shape[1]
    agree(lambda x: cross_entropy(x, labels), lambda x: F.cross_entropy(x, labels), draw(*shape))


def test_cross_entropy_of_logits_that_would_overflow(device):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-300.0, -301.0, -302.0]], device=device)
    labels = torch.tensor([0, 2], device=device)
    agree(lambda x: cross_entropy(x / 1e4, labels), lambda x: F.cross_entropy(x / 1e4, labels), logits)
    assert torch.allclose(cross_entropy(logits, labels), F.cross_entropy(logits, labels), rtol=1e-6)


def test_cross_entropy_of_nothing_and_of_a_class_that_is_none_is_nan(device):
    nothing = torch.empty(0, 3, device=device, requires_grad=True)
    loss = cross_entropy(nothing, torch.empty(0, dtype=torch.int64, device=device))
    assert loss.isnan()
    loss.backward()
    assert nothing.grad is not None
    for label in (3, -1):
        assert cross_entropy(torch.ones(2, 3, device=device), torch.tensor([0, label], device=device)).isnan()


def test_cross_entropy_refuses(draw, device):
    labels = torch.zeros(2, dtype=torch.int64, device=device)
    with pytest.raises(HpmlError, match=r"labels is torch.int32"):
        cross_entropy(draw(2, 3), labels.int())
    with pytest.raises(HpmlError, match=r"logits \(2, 0\) and labels \(2,\)"):
        cross_entropy(draw(2, 0), labels)
    with pytest.raises(HpmlError, match=r"logits \(3, 4\) and labels \(2,\)"):
        cross_entropy(draw(3, 4), labels)


@pytest.mark.parametrize(
    ("x", "weight", "stride", "padding"),
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0),
        ((2, 2, 5, 4), (3, 2, 3, 3), 1, 1),
        ((1, 2, 5, 6), (2, 2, 3, 2), 2, 1),
        ((1, 1, 4, 7), (1, 1, 2, 3), (1, 2), (0, 2)),
        ((0, 1, 3, 3), (2, 1, 2, 2), 1, 0),
    ],
    ids=str,
)
def test_conv2d(x, weight, stride, padding, draw):
    def ours(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return conv2d(x, w, b, stride=stride, padding=padding)

    agree(ours, lambda x, w, b: F.conv2d(x, w, b, stride, padding), draw(*x), draw(*weight), draw(weight[0]))


def test_conv2d_with_relu_without_bias_and_channels_last(draw):
    def ours(x: Tensor, w: Tensor) -> Tensor:
        return conv2d(x.to(memory_format=torch.channels_last), w, padding=1, relu=True)

    agree(ours, lambda x, w: torch.relu(F.conv2d(x, w, padding=1)), draw(1, 2, 4, 4), draw(2, 2, 3, 3))


def test_conv2d_refuses(draw):
    with pytest.raises(HpmlError, match=r"needs \(N, C, H, W\), \(O, C, kH, kW\)"):
        conv2d(draw(1, 4, 3, 3), draw(2, 2, 3, 3))
    with pytest.raises(HpmlError, match=r"a kernel of \(5, 5\) does not fit an image of \(3, 3\)"):
        conv2d(draw(1, 1, 3, 3), draw(1, 1, 5, 5))
    with pytest.raises(HpmlError, match=r"stride=0 must be >= 1"):
        conv2d(draw(1, 1, 3, 3), draw(1, 1, 1, 1), stride=0)
    with pytest.raises(HpmlError, match=r"bias \(3,\) for 1 outputs"):
        conv2d(draw(1, 1, 3, 3), draw(1, 1, 1, 1), draw(3))


@pytest.mark.parametrize(
    ("shape", "window"), [((1, 1, 1, 1), 1), ((2, 3, 4, 6), 2), ((1, 2, 3, 4), (3, 2)), ((0, 1, 2, 2), 2)]
)
def test_avg_pool2d(shape, window, draw):
    agree(lambda x: avg_pool2d(x, window), lambda x: F.avg_pool2d(x, window), draw(*shape))


def test_avg_pool2d_refuses_windows_that_leave_a_rest(draw):
    with pytest.raises(HpmlError, match=r"x \(1, 1, 3, 4\) and window \(2, 2\)"):
        avg_pool2d(draw(1, 1, 3, 4), 2)


@pytest.mark.gpu
def test_real_sizes_on_the_gpu(draw, device):
    def close(ours: Tensor, theirs: Tensor) -> bool:
        return torch.allclose(ours.double(), theirs, rtol=0, atol=1e-3)

    x, w, b = draw(257, 301), draw(129, 301), draw(129)
    assert close(linear(x, w, b, relu=True), torch.relu(F.linear(x.double(), w.double(), b.double())))
    labels = torch.arange(257, device=device) % 129
    assert close(cross_entropy(x[:, :129], labels), F.cross_entropy(x[:, :129].double(), labels))
    image, kernel = draw(8, 16, 33, 31), draw(24, 16, 3, 3)
    assert close(conv2d(image, kernel, padding=1), F.conv2d(image.double(), kernel.double(), padding=1))
