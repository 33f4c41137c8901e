"""Quantized networks: the grids, GPTQ and AWQ against their papers, training on the grid, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import hpml_sim as hs


def _mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))


def _nearest(w: np.ndarray, grid: np.ndarray, largest: float, group: int) -> np.ndarray:
    """Each weight's nearest point of its group's grid, one group after another, in float64."""
    found = np.empty_like(w)
    for start in range(0, w.shape[1], group):
        part = w[:, start : start + group]
        scale = np.abs(part).max(1, keepdims=True) / largest
        points = grid[None, None] * scale[..., None]
        best = np.abs(part[..., None] - points).argmin(-1)
        found[:, start : start + group] = np.take_along_axis(np.broadcast_to(points, (*part.shape, len(grid))), best[..., None], -1)[..., 0]  # fmt: skip  # noqa: E501
    return found


_FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
GRIDS = {
    "int8-weights": (np.arange(-127.0, 128), 127, 64),
    "int4": (np.arange(-7.0, 8), 7, 32),
    "fp4": (np.unique([s * v for s in (-1, 1) for v in _FP4]), 6, 32),
}


@pytest.mark.parametrize("scheme", GRIDS)
def test_weights_are_the_nearest_points_of_the_grid(scheme):
    grid, largest, group = GRIDS[scheme]
    layer = nn.Linear(64, 10).double()
    small = hs.quantize(layer, scheme, group=group)
    exact = _nearest(layer.weight.detach().numpy(), grid, largest, group)
    np.testing.assert_allclose(small.weight.detach().numpy(), exact, atol=1e-12)
    assert torch.equal(small.bias, layer.bias)


def test_ternary_weights_are_three_numbers_a_group():
    small = hs.quantize(nn.Linear(64, 10), "ternary", group=64)
    for row in small.weight.detach():
        assert len(row.abs().unique()) == 2  # 0 and the scale


def test_fp8_is_torchs_own():
    layer = nn.Linear(64, 10)
    small = hs.quantize(layer, "fp8")
    scale = layer.weight.detach().abs().amax(1, keepdim=True) / 448
    exact = (layer.weight.detach() / scale).to(torch.float8_e4m3fn).float() * scale
    assert torch.equal(small.weight, exact)


def test_int8_rounds_the_inputs_too():
    layer, x = nn.Linear(64, 10), torch.randn(5, 64)
    small = hs.quantize(layer, "int8")
    scale = x.abs().amax(1, keepdim=True) / 127
    exact = (x / scale).round() * scale @ small.weight.detach().T + layer.bias.detach()
    assert torch.allclose(small(x), exact, atol=1e-6)


def _gptq(w: np.ndarray, x: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Algorithm 1 of the paper without blocks, by the inverse of what is left of H, one scale an output."""
    h = x.T @ x / len(x)
    h += 0.01 * h.diagonal().mean() * np.eye(len(h))
    scale = np.abs(w).max(1) / 7
    w, found, left = w.copy(), np.empty_like(w), list(order)
    while left:
        inverse = np.linalg.inv(h[np.ix_(left, left)])
        i = left[0]
        found[:, i] = np.clip(np.round(w[:, i] / scale), -7, 7) * scale
        w[:, left] -= np.outer((w[:, i] - found[:, i]) / inverse[0, 0], inverse[0])
        left = left[1:]
    return found


def test_gptq_is_optimal_brain_quantization():
    torch.manual_seed(1)
    layer, x = nn.Linear(24, 7).double(), torch.randn(200, 24).double() @ torch.randn(24, 24).double()
    small = hs.quantize(layer, "int4", data=x, group=24)
    second = x.numpy().T @ x.numpy()
    order = np.argsort(-second.diagonal(), kind="stable")
    exact = _gptq(layer.weight.detach().numpy(), x.numpy(), order)
    np.testing.assert_allclose(small.weight.detach().numpy(), exact, atol=1e-9)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_what_looks_at_data_changes_the_outputs_less(method):
    torch.manual_seed(0)
    layer = nn.Linear(128, 64)
    x = torch.randn(400, 32) @ torch.randn(32, 128)  # inputs that depend on each other, a few of them far larger
    x[:, ::32] *= 30
    near, looked = hs.quantize(layer, "int4"), hs.quantize(layer, "int4", method=method, data=x)
    with torch.no_grad():
        lost = [float((net(x) - layer(x)).square().mean()) for net in (near, looked)]
    assert lost[1] < 0.7 * lost[0]


def test_recurrent_layers_are_calibrated_as_well():
    torch.manual_seed(0)
    net, x = nn.GRU(16, 32, batch_first=True), torch.randn(20, 12, 16)
    near, looked = hs.quantize(net, "int4", group=16), hs.quantize(net, "int4", data=x, group=16)
    for name in ("weight_ih_l0", "weight_hh_l0"):
        assert not torch.equal(getattr(near, name), getattr(looked, name)), name


def test_training_stays_on_the_grid_and_moves():
    small = hs.quantize(_mlp(), "int4", group=32)
    before = small[1].weight.detach().clone()
    first, last = hs.fit(small, "digits", epochs=4, lr=5e-3, show_progress=False).loss[::3]
    assert last < 0.7 * first
    assert not torch.equal(small[1].weight, before)
    groups = small[1].weight.detach().unflatten(1, (-1, 32))
    steps = groups / (groups.abs().amax(2, keepdim=True) / 7)
    assert float((steps - steps.round()).abs().max()) < 1e-4


def test_pruned_and_quantized_keep_zeros_and_grid():
    both = hs.quantize(hs.prune(_mlp(), "2:4"), "int4", data="digits", group=32)
    hs.fit(both, "digits", epochs=1, show_progress=False)
    row = hs.workload(both, input_shape=(1, 8, 8)).layers[0]
    assert (row.zero_pattern, row.stored_bits) == ("2:4", 4.5)


BAD = {
    "scheme": (lambda: hs.quantize(_mlp(), "int5"), "did you mean"),
    "no data": (lambda: hs.quantize(_mlp(), "int4", method="gptq"), "give data="),
    "data for nothing": (lambda: hs.quantize(_mlp(), "int4", method="nearest", data="digits"), "leave one of them out"),
    "group": (lambda: hs.quantize(_mlp(), "int4", group=1), "group=1"),
    "twice": (lambda: hs.quantize(hs.quantize(_mlp()), "int4"), "quantized already"),
    "nothing": (lambda: hs.quantize(nn.ReLU()), "no layer with a weight matrix"),
    "wrong data": (lambda: hs.quantize(_mlp(), "int4", data=torch.rand(3, 5)), "failed on an input"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_a_next_step(case):
    call, says = BAD[case]
    with pytest.raises(hs.HpmlError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
