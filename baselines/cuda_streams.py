"""Step 9: streams. While one piece of the data is computed on, the next comes in and the one before goes out.

A stream is a queue: what is in one runs in order, what is in two may run at the same time. A GPU has copy engines of
its own for each direction beside its multiprocessors, so three pieces can be on their way at once. For a kernel as
light as ReLU the bus decides: PCIe 5.0 x16 brings 64 GB/s each way, the kernel moves 4,800. Without overlap a call
takes bytes in + kernel + bytes out; with it, the longer of in and out: half the time, at best.

Three things make or break it. Host memory must be pinned (page-locked): from pageable memory the driver copies through
a buffer of its own, and the call waits. Each piece's memory must not be handed out again while another stream uses it
(`record_stream`). And the last line waits for all streams, or the caller would read what is not there yet.

Source: NVIDIA, "CUDA C++ Programming Guide", section "Asynchronous Concurrent Execution"; PCI-SIG, PCIe 5.0.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from hpml_sim.baselines.cuda_elementwise import relu_forward
from hpml_sim.baselines.cuda_launch import cuda_backend
from hpml_sim.errors import HpmlError


def relu_of_host_data(x: Tensor, *, pieces: int = 4, streams: int = 2) -> Tensor:
    """max(x, 0) for data in the host's memory, by a kernel on the GPU: float32 of any shape -> the same shape, there.

    In numba's simulator, which has no streams, the pieces follow each other.

    Args:
        x: on the CPU. Pinned (`x.pin_memory()`) its copies overlap; other memory is right, too, and slower.
        pieces: how many the data is cut into, >= 1: more overlap, and more launches.
        streams: how many pieces are on their way at once, >= 1.

    Raises:
        HpmlError: x is not float32 on the CPU, or a count < 1.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        raise HpmlError(
            f"relu_of_host_data: x is {x.dtype} on {x.device}; it must be float32 on the CPU (x.float().cpu())"
        )
    if pieces < 1 or streams < 1:
        raise HpmlError(f"relu_of_host_data: pieces={pieces!r} and streams={streams!r} must be >= 1")
    gpu = cuda_backend() == "gpu"
    source = x.detach().reshape(-1)
    result = torch.empty(source.shape, pin_memory=gpu and source.numel() > 0)
    queues = [torch.cuda.Stream() for _ in range(streams)] if gpu else [None]
    for i, (piece, target) in enumerate(zip(source.tensor_split(pieces), result.tensor_split(pieces), strict=True)):
        queue = queues[i % len(queues)]
        if queue is not None and i < len(queues):  # what fills x may still be on its way, on the caller's stream
            queue.wait_stream(torch.cuda.current_stream())
        with nullcontext() if queue is None else torch.cuda.stream(queue):
            there = piece.to("cuda" if gpu else "cpu", non_blocking=True)  # allocated by this stream: kept for it
            target.copy_(relu_forward(there), non_blocking=True)  # our kernels go to torch's current stream
    for queue in queues:
        if queue is not None:
            queue.synchronize()
    return result.reshape(x.shape)
