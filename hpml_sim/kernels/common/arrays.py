"""Tensors as numpy arrays, where `Tensor.numpy()` would do harm or memory would be copied for nothing."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from torch import Tensor


def array_of(tensor: Tensor) -> Any:
    """A view of a tensor whose memory its owner may free later: a parameter that FSDP shards.

    `Tensor.numpy()` fixes the size of the memory for good, and FSDP frees and fills it again in every step. The caller
    must hold the tensor as long as the view is used.

    Args:
        tensor: contiguous, on the CPU, float32 or float64.

    Returns:
        An array of the same shape and memory.
    """
    if not tensor.numel():
        return np.empty(tuple(tensor.shape), np.float32 if tensor.dtype == torch.float32 else np.float64)
    memory: Any = (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())
    kind = np.float32 if tensor.dtype == torch.float32 else np.float64
    return np.frombuffer(memory, kind).reshape(tuple(tensor.shape))


def expanded_parts(grad: Tensor, *, rows: bool = False) -> Tensor:
    """A gradient without the copies that an expanded one, as of `y.sum()`, would need: contiguous.

    Args:
        grad: any shape; in a dimension along which all is one number in memory, size 1 is left of it.
        rows: whether the last dimension keeps its size.
    """
    for dim in range(grad.dim() - rows):
        if grad.stride(dim) == 0 and grad.shape[dim] > 1:
            grad = grad.narrow(dim, 0, 1)
    return grad.contiguous()
