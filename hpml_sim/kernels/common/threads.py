"""How many threads a numba kernel may start."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

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


def in_threads(run: Callable[[int, int], None], count: int, elements: int) -> None:
    """Run a compiled function that lets other threads run (`nogil`) over the parts of a range, at once.

    Args:
        run: (first, last): does the work of these numbers; the result must not depend on how the range is cut.
        count: how many numbers there are; they begin with 0.
        elements: how much work there is in all, in elements of a plain pass over memory.
    """
    threads = 1 if elements < _WORTH_THREADS else max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        run(0, count)
        return
    cuts = [count * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run, first, last) for first, last in pairwise(cuts)]:
            done.result()
