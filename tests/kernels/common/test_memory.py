from __future__ import annotations

import copy
import gc
import pickle
import threading

import pytest
import torch

from hpml_sim.kernels.common.memory import Blocks
from hpml_sim.kernels.lif import leaky

MEGABYTE = (1 << 18,)  # float32


def test_a_block_comes_back_when_its_last_tensor_is_gone():
    blocks = Blocks()
    first = blocks.empty(MEGABYTE, torch.zeros(1))
    at, part = first.data_ptr(), first[5:]
    first.fill_(1)
    del first
    gc.collect()
    assert blocks.free_bytes == 0  # a view still uses it
    del part
    gc.collect()
    assert blocks.free_bytes == 1 << 20
    again = blocks.empty((512, 512), torch.zeros(1))
    assert again.data_ptr() == at
    assert again.shape == (512, 512)
    assert blocks.free_bytes == 0
    assert blocks.empty(MEGABYTE, torch.zeros(1)).data_ptr() != at  # in use
    blocks.clear()
    assert blocks.free_bytes == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_type_and_shape_are_as_asked(dtype):
    like = torch.zeros(1, dtype=dtype)
    made = Blocks().empty((1024, 1024), like)
    assert made.dtype == dtype
    assert made.is_contiguous()
    made.fill_(3)
    assert torch.equal(copy.deepcopy(made), made)
    assert torch.equal(pickle.loads(pickle.dumps(made[:2])), made[:2])
    assert Blocks().empty((0, 4), like).shape == (0, 4)
    assert Blocks().empty((3,), like.to("meta")).is_meta


def test_what_lies_unused_is_bounded():
    blocks = Blocks(max_free=3 << 20)
    tensors = [blocks.empty(MEGABYTE, torch.zeros(1)) for _ in range(8)]
    del tensors
    gc.collect()
    assert 0 < blocks.free_bytes <= 3 << 20


def test_results_of_earlier_calls_stay():
    """The danger of memory that is used again: an earlier result overwritten by a later call."""
    generator = torch.Generator().manual_seed(0)
    kept, copies = [], []
    for _ in range(6):
        x = torch.randn(20, 64, 257, generator=generator).requires_grad_()
        spikes, membrane = leaky(x, 0.9, 1.0)
        spikes.sum().backward()
        kept += [spikes.detach(), membrane.detach(), x.grad]
        copies += [part.clone() for part in kept[-3:]]
        del x, spikes, membrane
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_many_threads():
    blocks = Blocks(max_free=2 << 20)
    wrong = []

    def work(value):
        for _ in range(50):
            made = blocks.empty(MEGABYTE, torch.zeros(1)).fill_(value)
            if not bool((made == value).all()):
                wrong.append(value)

    workers = [threading.Thread(target=work, args=(float(value),)) for value in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
