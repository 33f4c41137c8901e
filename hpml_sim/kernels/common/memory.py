"""Memory that is used again: large results of a step that repeats should not pay for fresh pages each time.

The operating system takes large blocks back as soon as they are freed and hands out zeroed pages anew, which costs more
than the kernels that fill them. Blocks given out here come back when the last tensor that uses them is gone, and serve
the next request of their size.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 20
"""Bytes below which the allocator keeps its pages anyway."""
_ALIGNMENT = 64
"""Bytes of a cache line: a vector that lies across two of them costs two accesses."""
_MAX_FREE = 1 << 29
"""Bytes that may lie unused; beyond, the oldest blocks go back to the system."""


class Blocks:
    """Blocks of memory by size; safe to use from several threads.

    Args:
        max_free: bytes that may lie unused; beyond, the oldest blocks go back to the system.
    """

    def __init__(self, max_free: int = _MAX_FREE):
        self._free: deque[np.ndarray] = deque()
        self._max_free = max_free
        self._lock = threading.RLock()  # a finalizer may run while this thread holds it

    @property
    def free_bytes(self) -> int:
        """Bytes that wait to be used again."""
        with self._lock:
            return sum(block.nbytes for block in self._free)

    def empty(self, shape: tuple[int, ...] | torch.Size, like: Tensor) -> Tensor:
        """A tensor of unspecified content.

        Args:
            shape: of the result.
            like: a tensor of the type and device that the result gets.
        """
        size = like.element_size() * math.prod(shape)
        if like.device.type != "cpu" or size < _SMALLEST:
            return like.new_empty(shape)
        block = self._take(size)
        # The view is what the tensor holds on to: when it goes, the block is free.
        view = block[:]
        weakref.finalize(view, self._give, block).atexit = False
        return torch.from_numpy(view).view(like.dtype).view(shape)

    def clear(self) -> None:
        """Give everything unused back to the system."""
        with self._lock:
            self._free.clear()

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            for index in range(len(self._free) - 1, -1, -1):  # the last one freed is the warmest
                if self._free[index].nbytes == size:
                    block = self._free[index]
                    del self._free[index]
                    return block
        whole = np.empty(size + _ALIGNMENT, np.uint8)
        first = -whole.ctypes.data % _ALIGNMENT
        return whole[first : first + size]

    def _give(self, block: np.ndarray) -> None:
        with self._lock:
            self._free.append(block)
            total = sum(other.nbytes for other in self._free)
            while total > self._max_free and self._free:
                total -= self._free.popleft().nbytes


BLOCKS = Blocks()
