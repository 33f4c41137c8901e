"""Chips are made on the CPU in float32, whatever torch's defaults are: the same bits on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def cpu_float32() -> Iterator[None]:
    """Within the block, new tensors lie on the CPU in float32 where nothing else is said."""
    dtype = torch.get_default_dtype()
    if dtype == torch.float32 and torch.get_default_device().type == "cpu":
        yield  # the usual case: a device as a context would look at every operation
        return
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
