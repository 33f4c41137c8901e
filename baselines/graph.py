"""A network as a CUDA graph: its launches are recorded once and then sent to the GPU in one call.

Small networks at batch 1 are bound by launches, not by the GPU: 45 us for an eager three-layer MLP on an H200, 7 us as
a graph. What is recorded are addresses: input and output have a place of their own, weights may change in place but not
move, and each shape of input has its graph.

Source: NVIDIA, "CUDA C++ Programming Guide", section "CUDA Graphs"; torch.cuda.CUDAGraph.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.errors import HpmlError

MAX_GRAPHS = 16
"""Graphs kept of one network; each holds its activations on the GPU."""
_WARM_UP = 3  # libraries choose their algorithms and allocate in the first calls, which a graph must not record


class Graphs:
    """The recorded forward passes of one network, by the shape of the input.

    Args:
        network: runs without leaving the GPU and without decisions on values; in evaluation mode.
    """

    def __init__(self, network: nn.Module):
        self._network = network
        self._recorded: OrderedDict[tuple[Any, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = OrderedDict()

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """The network's output for x, in a tensor of its own.

        Raises:
            HpmlError: x is not on a GPU, or the network does something that a graph cannot record.
        """
        if not x.is_cuda:
            raise HpmlError(
                f"Digital(engine='cuda-graph'): the input is on {x.device}; graphs exist on NVIDIA GPUs. Move model "
                "and input there (.to('cuda')), or take engine='torch' or 'torch-compile'"
            )
        state = (t.data_ptr() for t in (*self._network.parameters(), *self._network.buffers()))
        key = (x.shape, x.dtype, x.stride(), x.device, *state)
        found = self._recorded.get(key)
        if found is None:
            found = self._recorded[key] = self._record(x)
            if len(self._recorded) > MAX_GRAPHS:
                self._recorded.popitem(last=False)
        graph, given, result = found
        given.copy_(x)
        graph.replay()
        return result.clone()  # the next call writes over it

    def _record(self, x: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = x.clone()
        side = torch.cuda.Stream(x.device)
        side.wait_stream(torch.cuda.current_stream(x.device))
        waits = torch.cuda.get_sync_debug_mode()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    self._network(given)
                # A recording that fails leaves torch's random numbers unusable, so that what would fail is found here.
                torch.cuda.set_sync_debug_mode("error")
                self._network(given)
            torch.cuda.set_sync_debug_mode(waits)
            torch.cuda.current_stream(x.device).wait_stream(side)
            with torch.cuda.graph(graph):
                result = self._network(given)
        except RuntimeError as error:
            torch.cuda.set_sync_debug_mode(waits)
            first = str(error).splitlines()[0]
            raise HpmlError(
                f"Digital(engine='cuda-graph'): the network cannot be recorded ({first}). A forward pass must not "
                "copy to the CPU or decide by values (.item(), .cpu(), if x.max() > 0); take engine='torch-compile'"
            ) from error
        return graph, given, result
