"""Training on several processes: `fit` under `torchrun` shares out every batch and averages the gradients.

    torchrun --nproc-per-node 4 train.py

Each process runs the same script. Batches are those of a single process, cut into as many parts, so that the gradients
are the same (up to the order of additions) and `batch_size` and `lr` keep their meaning: strong scaling. Layers that
draw noise (hardware-aware training, dropout) draw their own on each process. What a layer learns from the inputs it
sees (a crossbar's input range, batch normalization's averages) it learns from process 0's part.

A model that the caller has spread over the processes with FSDP2 (`torch.distributed.fsdp.fully_shard`) stays so: each
holds a part of the weights, of the gradients and of the optimizer's state.

Source: S. Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 13(12):3005, 2020.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpml_sim.errors import HpmlError


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one network together.

    Attributes:
        rank: which of them this is, 0 .. size - 1.
        size: how many there are; 1 is an ordinary training.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: torch.device) -> ProcessGroup:
        """The processes that `torchrun` started, or that the caller's own process group holds; else this one alone.

        Args:
            device: where the model is: NCCL joins GPUs, gloo CPUs.

        Raises:
            HpmlError: several processes on one machine would share a GPU although there are others.
        """
        if not dist.is_available():
            return cls()
        if not dist.is_initialized():
            if not dist.is_torchelastic_launched():
                return cls()
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(_leave)
        group = cls(dist.get_rank(), dist.get_world_size())
        local = int(os.environ.get("LOCAL_RANK", 0))
        if group.size > 1 and device.type == "cuda" and torch.cuda.device_count() > 1 and device.index != local:
            raise HpmlError(
                f"fit: process {group.rank} of {group.size} has its model on {device}, its own GPU is cuda:{local}; "
                "begin the script with torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) and use model.cuda()"
            )
        return group

    def wrap(self, model: nn.Module) -> nn.Module:
        """The `model` as training must call it: process 0's weights everywhere, gradients averaged in backward."""
        if self.size == 1:
            return model
        if is_sharded(model):
            return _SameBuffers(model, self)
        device = next(p.device for p in model.parameters() if p.requires_grad)
        devices = [device] if device.type == "cuda" else None
        # a range that is still being observed, or an expert that no sample chose, has no gradient in this step
        return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=True)

    def shard(self, batch: Tensor) -> tuple[Tensor, float]:
        """This process' part of a `batch`, and the weight of its mean loss in the average of gradients.

        Parts may differ in size by one sample, and DDP averages over processes: each weighs its mean by its share. A
        process with nothing to do still has to take part in the exchange; it takes a sample with weight 0.
        """
        if self.size == 1:
            return batch, 1.0
        part = batch.tensor_split(self.size)[self.rank]
        return (part, len(part) * self.size / len(batch)) if len(part) else (batch[:1], 0.0)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give every process' `model` the buffers of process 0's (in training, DDP does so at the start of a step)."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def of_first(self, value: Any) -> Any:
        """Process 0's `value` everywhere, so that all processes decide alike: tensors, or what can be pickled."""
        if self.size == 1:
            return value
        sent = [value]
        dist.broadcast_object_list(sent, 0)
        return sent[0]

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sums of `values` over all processes, of the same shape; every process gets them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


def is_sharded(model: nn.Module) -> bool:
    """Whether the caller spread the parameters over processes, with `torch.distributed.fsdp.fully_shard`.

    Args:
        model: any network.
    """
    if not dist.is_available() or not dist.is_initialized():
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in model.modules())


class _SameBuffers(nn.Module):
    """A model whose gradients average by themselves; its buffers are process 0's at the start of a step, as DDP's."""

    def __init__(self, model: nn.Module, group: ProcessGroup):
        super().__init__()
        self._model, self._group = [model], group  # in a list: it is no child, whose names would change

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        (model,) = self._model
        if model.training:
            self._group.broadcast_buffers(model)
        return model(*args, **kwargs)


def _leave() -> None:
    """At the end of the process: NCCL complains of groups that are left open."""
    if dist.is_initialized():
        dist.destroy_process_group()
