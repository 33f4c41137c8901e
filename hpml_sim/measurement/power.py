"""Power meters. Each says first whether it can be read here; a meter that cannot is never read as zero."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import torch

POWERCAP = Path("/sys/class/powercap")


class Availability(NamedTuple):
    """Whether a meter can be read, and why not."""

    ok: bool
    reason: str = ""


class Meter(Protocol):
    """A counter of joules since some moment in the past."""

    name: str

    def available(self) -> Availability:
        """Whether the counter can be read here, and why not."""
        ...

    def energy_j(self) -> float:
        """Joules since an arbitrary moment."""
        ...


class Rapl:
    """Energy of the processor packages, from Linux's powercap interface (RAPL).

    Args:
        folder: where the kernel shows the counters.
    """

    name = "rapl"

    def __init__(self, folder: Path = POWERCAP):
        self._packages = [p for p in sorted(folder.glob("intel-rapl:*")) if p.name.count(":") == 1]
        self._last = [0.0] * len(self._packages)
        self._wraps = [0.0] * len(self._packages)

    def available(self) -> Availability:
        """Whether there is a counter and it may be read (since 2020 Linux lets only root read it)."""
        if not self._packages:
            return Availability(False, "no RAPL counter on this machine (/sys/class/powercap has no intel-rapl)")
        try:
            self.energy_j()
        except PermissionError as error:
            return Availability(False, f"RAPL counter not readable: sudo chmod a+r {error.filename}")
        return Availability(True)

    def energy_j(self) -> float:
        """Joules since an arbitrary moment, summed over the packages; survives one wrap of the counter a reading."""
        total = 0.0
        for i, package in enumerate(self._packages):
            now = float((package / "energy_uj").read_text())
            if now < self._last[i]:
                self._wraps[i] += float((package / "max_energy_range_uj").read_text())
            self._last[i] = now
            total += now + self._wraps[i]
        return total * 1e-6


class Nvml:
    """Energy of one NVIDIA GPU's board, from NVML's total-energy counter (Volta and later).

    Args:
        index: the GPU's index in NVML.
    """

    name = "nvml"

    def __init__(self, index: int = 0):
        self._index = index

    def available(self) -> Availability:
        """Whether the driver answers and has the counter."""
        try:
            import pynvml
        except ImportError:
            return Availability(False, "NVML's Python package is not installed: pip install nvidia-ml-py")
        try:
            self.energy_j()
        except pynvml.NVMLError as error:
            return Availability(False, f"NVML cannot read the energy of GPU {self._index}: {error}")
        return Availability(True)

    def energy_j(self) -> float:
        """Joules since the driver was loaded."""
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(self._index)
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3


def meter_for(device: torch.device) -> Meter:
    """The meter that would see work done on `device`; ask its `available()` before reading it."""
    return Nvml(device.index or 0) if device.type == "cuda" else Rapl()
