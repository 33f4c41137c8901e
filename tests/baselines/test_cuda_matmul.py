"""The three matrix products against float64, over shapes, strides and tilings."""

from __future__ import annotations

import pytest
import torch

from hpml_sim.baselines.cuda_elementwise import bias_relu
from hpml_sim.baselines.cuda_linear import linear_forward, linear_forward_unfused
from hpml_sim.baselines.cuda_matmul import (
    GPU_LARGE,
    GPU_SMALL,
    MATMUL,
    Tiling,
    fused_product,
    matmul_register_tiled,
)
from hpml_sim.errors import HpmlError

ARCHITECTURES = [
    (1, 1, 1),
    (1, 9, 3),
    (5, 1, 2),
    (8, 4, 8),
    (9, 5, 17),
    (3, 13, 6),
]  # (M, K, N): exact tiles and odd edges


@pytest.mark.parametrize("kernel", list(MATMUL))
@pytest.mark.parametrize("shape", ARCHITECTURES, ids=str)
def test_product_equals_float64_within_the_proven_bound(kernel, shape, draw, equals_product):
    m, k, n = shape
    a, b = draw(m, k), draw(k, n)
    equals_product(MATMUL[kernel](a, b), a, b)


@pytest.mark.parametrize("kernel", list(MATMUL))
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)], ids=str)
def test_empty_product_is_what_torch_says(kernel, shape, device):
    m, k, n = shape
    a, b = torch.ones(m, k, device=device), torch.ones(k, n, device=device)
    assert torch.equal(MATMUL[kernel](a, b), a @ b)


@pytest.mark.parametrize("kernel", list(MATMUL))
@pytest.mark.parametrize(
    "view", ["transposed a", "transposed b", "every second row", "every second column", "expanded"]
)
def test_views_need_no_copy_by_the_caller(kernel, view, draw, equals_product):
    a, b = draw(6, 5), draw(5, 7)
    if view == "transposed a":
        a = draw(5, 6).t()
    elif view == "transposed b":
        b = draw(7, 5).t()
    elif view == "every second row":
        a = draw(12, 5)[::2]
    elif view == "every second column":
        b = draw(5, 14)[:, ::2]
    else:
        a = draw(1, 5).expand(6, 5)
    before = a.clone(), b.clone()
    equals_product(MATMUL[kernel](a, b), a, b)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@pytest.mark.parametrize("kernel", list(MATMUL))
def test_nan_and_infinity_come_through(kernel, device):
    a = torch.tensor([[1.0, float("nan")], [2.0, 3.0], [float("inf"), 1.0]], device=device)
    b = torch.ones(2, 3, device=device)
    assert torch.equal(torch.nan_to_num(MATMUL[kernel](a, b), nan=-7.0), torch.nan_to_num(a @ b, nan=-7.0))


@pytest.mark.parametrize("rows_first", [True, False])
@pytest.mark.parametrize("columns_first", [True, False])
def test_tilings_of_a_gpu_give_the_same(rows_first, columns_first, draw, equals_product):
    a = draw(33, 9) if rows_first else draw(9, 33).t()
    b = draw(9, 5) if columns_first else draw(5, 9).t()
    equals_product(matmul_register_tiled(a, b, tiling=GPU_SMALL), a, b)


@pytest.mark.slow
def test_large_tiling_of_a_gpu_gives_the_same(draw, equals_product):
    a, b = draw(129, 9), draw(9, 128)
    equals_product(matmul_register_tiled(a, b, tiling=GPU_LARGE), a, b)


def test_same_input_gives_the_same_bits(draw):
    a, b = draw(9, 13), draw(13, 10)
    assert torch.equal(matmul_register_tiled(a, b), matmul_register_tiled(a, b))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_fused_bias_and_relu(relu, bias, draw, equals_product):
    a, b, c = draw(9, 6), draw(6, 5), draw(5) if bias else None
    equals_product(fused_product(a, b, bias=c, relu=relu), a, b, c, relu=relu)


def test_fused_layer_equals_the_kernels_in_a_row_to_the_bit(draw):
    x, weight, bias = draw(9, 6), draw(5, 6), draw(5)
    assert torch.equal(linear_forward(x, weight, bias, relu=True), linear_forward_unfused(x, weight, bias))


def test_bias_relu_refuses_other_shapes(draw):
    with pytest.raises(HpmlError, match=r"x \(2, 3\) and bias \(2,\)"):
        bias_relu(draw(2, 3), draw(2))


@pytest.mark.parametrize("kernel", list(MATMUL))
def test_refuses_what_it_would_misread(kernel, draw, device):
    product = MATMUL[kernel]
    with pytest.raises(HpmlError, match=r"a \(2, 3\) and b \(4, 5\); needs \(M, K\) and \(K, N\)"):
        product(draw(2, 3), draw(4, 5))
    with pytest.raises(HpmlError, match=r"a is torch.float64; this kernel takes torch.float32"):
        product(draw(2, 3).double(), draw(3, 5))
    with pytest.raises(HpmlError, match=r"b is a ndarray; it must be a torch tensor"):
        product(draw(2, 3), draw(3, 5).cpu().numpy())
    elsewhere = torch.empty(3, 5, device="meta")
    with pytest.raises(HpmlError, match=rf"b is on meta; kernels run .* \(b.to\('{device}'\)\)"):
        product(draw(2, 3), elsewhere)


def test_a_shape_past_the_grid_is_refused(device):
    # Strides of 0: the shape is enormous, the memory is not. The result is, so it is asked for where none is made.
    from hpml_sim.baselines.cuda_launch import launch
    from hpml_sim.baselines.cuda_matmul import naive_kernel

    x = torch.ones(1, 1, device=device)
    with pytest.raises(HpmlError, match=r"naive_kernel: the shape needs a grid of 1 x 65536 blocks"):
        launch(naive_kernel, (1, 65536), (4, 4), x, x, x)


@pytest.mark.parametrize("bad", [{"rows": 100}, {"side": 2}, {"depth": 1}, {"rows": 512, "columns": 512}])
def test_impossible_tilings_are_refused(bad):
    with pytest.raises(HpmlError, match="Tiling"):
        Tiling(**bad)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", list(MATMUL))
@pytest.mark.parametrize("shape", [(1000, 777, 1023), (4096, 64, 4096), (1, 4096, 4096)], ids=str)
def test_large_products_on_the_gpu(kernel, shape, draw, equals_product):
    m, k, n = shape
    a, b = draw(m, k), draw(k, n)
    equals_product(MATMUL[kernel](a, b), a, b)


@pytest.mark.gpu
def test_keeps_to_the_current_stream(draw, equals_product):
    a, b = draw(2000, 2000), draw(2000, 2000)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # a kernel on another stream would read `late` before it is written
        late = a * 2
        c = matmul_register_tiled(late, b)
    stream.synchronize()
    equals_product(c, 2 * a, b)
