"""How many threads a numba kernel may start."""

from __future__ import annotations

import threading

import numba
import torch
from numba import config

_WORTH_THREADS = 1 << 19
"""Elements below which starting threads costs more than it saves; on a busy machine waiting for them costs far more."""


def allow_threads(elements: int) -> int:
    """Tell numba how many threads the next kernel gets: at most torch's number.

    Args:
        elements: how much work there is, in elements of a plain pass over memory.

    Returns:
        The number of threads; at 1 the caller takes its serial kernel.
    """
    threads = min(torch.get_num_threads(), int(getattr(config, "NUMBA_NUM_THREADS", 1)))
    # numba's simplest threading layer ends the process when two threads start work at once: only the main one may
    if elements < _WORTH_THREADS or threads < 2 or threading.current_thread() is not threading.main_thread():
        return 1
    numba.set_num_threads(threads)
    return threads
