"""Data that goes through the GPU in pieces comes back whole."""

from __future__ import annotations

import pytest
import torch

from hpml_sim.baselines.cuda_streams import relu_of_host_data
from hpml_sim.errors import HpmlError


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (5, 3), (4, 0)], ids=str)
@pytest.mark.parametrize(("pieces", "streams"), [(1, 1), (3, 2), (8, 3)])
def test_pieces_on_streams_equal_torch(shape, pieces, streams):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(relu_of_host_data(x, pieces=pieces, streams=streams), torch.relu(x))


def test_a_view_is_taken_as_it_is():
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).t()
    assert torch.equal(relu_of_host_data(x), torch.relu(x))


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (torch.ones(3, dtype=torch.float64), {}, "x is torch.float64"),
        (torch.ones(3, device="meta"), {}, "on meta"),
        (torch.ones(3), {"pieces": 0}, "pieces=0"),
        (torch.ones(3), {"streams": 0}, "streams=0"),
    ],
)
def test_bad_input_is_named(x, options, said):
    with pytest.raises(HpmlError, match=said):
        relu_of_host_data(x, **options)


@pytest.mark.gpu
def test_millions_of_pinned_numbers_come_back_right():
    x = torch.randn(1 << 23).pin_memory()
    for streams in (1, 2, 4):
        assert torch.equal(relu_of_host_data(x, pieces=16, streams=streams), torch.relu(x))
