"""The machine at hand, and the versions of what computes on it."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import lru_cache
from importlib import metadata
from pathlib import Path


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of this package and of what computes under it."""
    found = {}
    for package in ("hpml_sim", "torch", "aihwkit", "snntorch", "numba", "numba-cuda", "numpy", "torchao"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    found["python"] = platform.python_version()
    return found


def machine() -> dict[str, str]:
    """The machine at hand: processor, cores, threads that torch computes with at this moment, GPU if any."""
    import torch

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"cpu": cpu_name(), "cores": str(os.cpu_count()), "threads": str(torch.get_num_threads()), "cuda": cuda}


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
