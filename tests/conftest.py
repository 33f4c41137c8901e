"""For all tests: no display, no progress bars, the CUDA simulator where there is no GPU, and what may be skipped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import hypothesis
import pytest
import torch

from hpml_sim.measurement.diagnosis import find_browser

HAS_GPU = torch.cuda.is_available()

# Before anything imports matplotlib or numba, and inherited by every process that a test starts.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HPML_SIM_QUIET", "1")
if not HAS_GPU:
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of what a shell runs in the background; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores; more threads than cores only wait for each other

# The first example compiles kernels or fills caches, so time says nothing; the same examples in every run.
hypothesis.settings.register_profile("hpml_sim", deadline=None, derandomize=True)
hypothesis.settings.load_profile("hpml_sim")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU or a browser where there is none; nothing else may be skipped."""
    browser = find_browser()
    for item in items:
        if item.get_closest_marker("gpu") and not HAS_GPU:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        if item.get_closest_marker("browser") and browser is None:
            item.add_marker(pytest.mark.skip(reason="needs a Chromium: apt-get install chromium"))


class Clock:
    """Nothing takes time on it but sleeping, and a little for every look; so it says the same under any load."""

    def __init__(self) -> None:
        self.now_s, self.look_s = 0.0, 1e-6

    def look(self) -> float:
        self.sleep(self.look_s)
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In the place of `time.perf_counter` and `time.sleep`."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock.look)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the clone that is tested."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser for tests marked `browser`."""
    browser = find_browser()
    assert browser is not None, "mark the test with pytest.mark.browser"
    return browser
