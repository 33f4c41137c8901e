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
from hpml_sim.kernels._cuda import SIMULATED, _flatten

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


def test_arguments_are_those_of_numbas_own_launch(repository):
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0", "PYTHONPATH": str(repository)}
    ran = subprocess.run(
        [sys.executable, "-c", _SAME_ARGUMENTS], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == "ok", ran.stderr


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
