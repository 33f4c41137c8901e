"""Our launch hands a kernel what numba-cuda's own would, without a GPU; on one, it keeps to torch's streams."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

# In a process without the simulator, which has no such calling convention. `Array` stands in for numba's device array.
_SAME_ARGUMENTS = """
from types import SimpleNamespace
import numpy as np, torch
from numba import typeof
from numba.cuda import dispatcher
from hpml_sim.kernels.common.cuda_arithmetic import SIMULATED
from hpml_sim.kernels.common.cuda_launch import _flatten

assert not SIMULATED
dispatcher.wrap_arg = lambda array: SimpleNamespace(to_device=lambda *_: array)  # it is on the device already

def stand_in(x):
    array = x.numpy()
    whole = SimpleNamespace(strides_in_bytes=array.strides)
    return SimpleNamespace(
        size=array.size, dtype=array.dtype, ptr=array.ctypes.data, shape=array.shape, _layout=whole
    )

def plain(values):
    return [(type(v), v.value) if hasattr(v, "value") else v for v in values]

x = torch.rand(6, 4, 5)
for argument in (x, x[0].t(), x[:, 1:3, ::2], x.double(), x.int(), 3, -(2**40), True, np.float32(0.1), 0.1):
    ours, theirs = [], []
    kind = _flatten(argument, ours)
    array = isinstance(argument, torch.Tensor)
    numba_type = typeof(argument.numpy() if array else argument)
    if array:
        assert kind[1:] == (numba_type.ndim, numba_type.layout), (kind, numba_type)
    value = stand_in(argument) if array else argument
    dispatcher._Kernel._prepare_args(SimpleNamespace(extensions=[]), numba_type, value, 0, [], theirs)
    assert plain(ours) == plain(theirs), (argument, ours, theirs)
print("ok")
"""


# In the simulator, whose table of shared arrays answers slowly: all threads ask before the first has made its array.
_ONE_SHARED_ARRAY = """
import time, numpy as np, torch
from numba import cuda, float32
from numba.cuda.simulator.kernelapi import FakeCUDAShared
from hpml_sim.kernels.common.cuda_launch import launch

class Slow(dict):
    def get(self, key):
        found = super().get(key)
        time.sleep(0.02)
        return found

make = FakeCUDAShared.__init__
def make_slow(self, size):
    make(self, size)
    self._allocations = Slow()
FakeCUDAShared.__init__ = make_slow

@cuda.jit
def sums(result):
    first, second = cuda.shared.array(8, float32), cuda.shared.array(8, float32)  # numba tells lines apart, we places
    thread = cuda.threadIdx.x
    first[thread], second[thread] = 1, 10
    cuda.syncthreads()
    if thread == 0:
        result[cuda.blockIdx.x] = first.sum() + second.sum()

result = torch.zeros(2)
launch(sums, (2,), (8,), result)
assert result.tolist() == [88, 88], result
print("ok")
"""


def _run(repository, script: str, *, simulator: bool) -> None:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": str(int(simulator)), "PYTHONPATH": str(repository)}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "ok", ran.stderr


def test_arguments_are_those_of_numbas_own_launch(repository):
    _run(repository, _SAME_ARGUMENTS, simulator=False)


def test_threads_of_a_simulated_block_share_one_array(repository):
    _run(repository, _ONE_SHARED_ARRAY, simulator=True)


@pytest.mark.gpu
def test_kernels_wait_for_the_stream_they_are_on_and_can_be_captured():
    from hpml_sim.baselines.cuda_elementwise import copy

    x = torch.zeros(1 << 24, device="cuda")
    copy(x)  # compiled
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # the fill below comes late; a kernel on another stream would read zeros
        x.fill_(7.0)
        y = copy(x)
    side.synchronize()
    assert bool((y == 7.0).all())

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        z = copy(x)
    x.fill_(3.0)
    graph.replay()
    torch.cuda.synchronize()
    assert bool((z == 3.0).all())
