import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hpml_sim.errors import HpmlError
from hpml_sim.measurement import measure, measure_batches, measure_in_own_process
from hpml_sim.measurement.power import Availability, Nvml, Rapl
from hpml_sim.networks import models


def powercap(folder, energies, limit=1_000_000):
    for i, energy in enumerate(energies):
        package = folder / f"intel-rapl:{i}"
        package.mkdir(exist_ok=True)
        (package / "energy_uj").write_text(str(energy))
        (package / "max_energy_range_uj").write_text(str(limit))
        (folder / f"intel-rapl:{i}:0").mkdir(exist_ok=True)  # a sub-domain: already inside its package


class Steady:
    """A meter of 10 W, and of 30 W while the model runs, that refreshes every 20 ms."""

    name = "steady"

    def __init__(self, model=None):
        self.busy_s, self.started, self.since = 0.0, time.perf_counter(), 0.0
        if model is not None:
            model.register_forward_pre_hook(lambda *_: setattr(self, "since", time.perf_counter()))
            model.register_forward_hook(self.stop)

    def stop(self, *_):
        self.busy_s += time.perf_counter() - self.since

    def available(self):
        return Availability(True)

    def energy_j(self):
        exact = 10.0 * (time.perf_counter() - self.started) + 20.0 * self.busy_s
        return exact // 0.3 * 0.3


class Slow(nn.Linear):
    def forward(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        time.sleep(0.002)
        return super().forward(x)


def test_without_a_meter_energy_is_none_with_a_reason_never_zero(tmp_path):
    m = measure(nn.Linear(4, 2), torch.rand(3, 4), min_window_s=0.02, warmup_s=0.0, meter=Rapl(tmp_path))
    assert m.energy_j is None
    assert m.energy_provenance is None
    assert "no RAPL counter" in m.energy_reason


def test_time_is_positive_and_throughput_counts_samples():
    m = measure(nn.Linear(4, 2), torch.rand(3, 4), min_window_s=0.05, warmup_s=0.0)
    assert m.batch == 3
    assert m.calls == len(m.samples_s) >= 3
    assert 0 < m.latency_p10_s <= m.latency_s <= m.latency_p90_s
    assert m.latency_s == pytest.approx(np.median(m.samples_s))
    assert m.throughput_hz == pytest.approx(3 / m.latency_s)
    assert m.window_s >= 0.04


@pytest.mark.usefixtures("clock")
def test_a_meters_joules_are_shared_by_the_samples_and_idle_is_measured_apart():
    model = Slow(4, 2)
    m = measure(model, torch.rand(5, 4), min_window_s=0.3, warmup_s=0.0, meter=Steady(model))
    assert m.energy_provenance == "measured:steady"
    assert len(m.windows) == 3
    assert sum(w.calls for w in m.windows) <= m.calls == len(m.samples_s)  # calls between the windows are timed, too
    # a call takes 2 ms, at 30 W for 5 samples; a window may end a call after the meter's step, 0.06 J of its 9 J
    assert m.latency_s == pytest.approx(2e-3, rel=1e-2)
    assert m.energy_j == pytest.approx(30 * 2e-3 / 5, rel=0.02)
    assert m.idle_power_w == pytest.approx(10, rel=0.02)
    assert m.energy_without_idle_j == pytest.approx(20 * 2e-3 / 5, rel=0.02)
    for window in m.windows:
        assert window.seconds >= 0.3
        assert window.joules == pytest.approx(30 * window.seconds, rel=0.02)


def test_a_counter_that_stands_still_is_not_waited_for_forever():
    meter = Steady()
    meter.energy_j = lambda: 7.0
    m = measure(nn.Linear(4, 2), torch.rand(1, 4), min_window_s=0.01, warmup_s=0.0, windows=1, meter=meter)
    assert m.energy_j == 0.0
    assert m.calls > 0


class Reports(nn.Module):
    """Writes down who runs it, where, and with what."""

    def __init__(self, file):
        super().__init__()
        self.file = str(file)

    def forward(self, x):
        told = {"pid": os.getpid(), "threads": torch.get_num_threads(), "cores": sorted(os.sched_getaffinity(0))}
        Path(self.file).write_text(json.dumps(told | {"batch": len(x)}))
        return x


def test_a_process_of_its_own_has_the_same_threads_and_cores(tmp_path):
    class Local(Reports):  # known to nobody but this test
        pass

    file, threads, cores = tmp_path / "told.json", torch.get_num_threads(), os.sched_getaffinity(0)
    model, examples = Local(file), [torch.rand(1, 4), torch.rand(3, 4)]
    torch.set_num_threads(3)
    os.sched_setaffinity(0, {min(cores)})
    try:
        one, three = measure_in_own_process(model, examples, min_window_s=0.02, windows=2, warmup_s=0.0)
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, cores)
    told = json.loads(file.read_text())
    assert told.pop("pid") != os.getpid()
    assert told == {"threads": 3, "cores": [min(cores)], "batch": 3}
    assert (one.batch, three.batch, len(three.windows)) == (1, 3, 2)
    assert three.latency_s == pytest.approx(np.median(three.samples_s))


def test_what_another_process_cannot_get_or_run_is_said():
    stuck = nn.Linear(4, 2)
    stuck.lock = threading.Lock()
    with pytest.raises(HpmlError, match=r"cannot be sent there .*TypeError.*hs.measure\(model, example\)"):
        measure(stuck, torch.rand(1, 4), own_process=True)
    with pytest.raises(HpmlError, match=r"RuntimeError: mat1 and mat2"):
        measure(nn.Linear(4, 2), torch.rand(1, 5), own_process=True)


class Killed(nn.Module):
    """Ends the process that runs it, like a lack of memory would."""

    def forward(self, x):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_measuring_process_that_is_killed_is_said():
    with pytest.raises(HpmlError, match="ended by SIGKILL"):
        measure_in_own_process(Killed(), [torch.rand(1, 4)])


_ASKS = """
import sys
import torch
from hpml_sim.measurement import measure_in_own_process
from test_clocks_and_meters import Reports, Sleeps

measure_in_own_process(Sleeps(sys.argv[1]), [torch.rand(1, 4)])
"""


class Sleeps(Reports):
    """Writes down who runs it, and then takes forever."""

    def forward(self, x):
        super().forward(x)
        time.sleep(600)


@pytest.mark.parametrize("provenance", [signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_no_measuring_process_is_left_behind(provenance, tmp_path, repository):
    """Ctrl-C to this process alone, and an end that it cannot react to."""
    file = tmp_path / "told.json"
    path = os.pathsep.join([str(repository), str(repository / "tests" / "measurement")])
    asks = subprocess.Popen(
        [sys.executable, "-c", _ASKS, str(file)], env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE
    )
    with asks:
        try:
            _until(lambda: file.exists() and file.read_text().endswith("}"))
            child = json.loads(file.read_text())["pid"]
            assert child != asks.pid
            asks.send_signal(provenance)
            asks.wait(20)
        finally:
            asks.kill()
    _until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2])


def _until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_network_from_a_file_finds_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_it.py").write_text("from torch import nn\n\n\nclass Scaled(nn.Linear):\n    scale = 2.0\n")
    (tmp_path / "own_net.py").write_text(
        "import beside_it\n\n\nclass Own(beside_it.Scaled):\n"
        "    def forward(self, x):\n        return self.scale * super().forward(x)\n\n\n"
        "def net():\n    return Own(4, 2)\n"
    )
    net = models.imported(f"{tmp_path / 'own_net.py'}:net")
    assert str(tmp_path) not in sys.path
    assert measure(net, torch.rand(3, 4), own_process=True, min_window_s=0.01, windows=1, warmup_s=0.0).batch == 3
    del sys.modules["beside_it"]


class Costs(nn.Module):
    """A call takes `fixed` seconds and `each` more for every sample."""

    def __init__(self, fixed, each):
        super().__init__()
        self.fixed, self.each = fixed, each

    def forward(self, x):
        time.sleep(self.fixed + self.each * len(x))
        return x


@pytest.mark.usefixtures("clock")
def test_the_best_batch_is_the_smallest_that_saturates():
    # samples a second: 1 / 21, 16 / 36, 512 / 532 and 1024 / 1044 of 4000; 512 has 98 % of the last
    sweep = measure_batches(
        Costs(5e-3, 0.25e-3), torch.rand(2), batches=(1, 16, 512, 1024), min_window_s=0.02, windows=1
    )
    assert sweep.one.batch == 1
    assert sweep.best.batch == 512
    assert sweep.stopped == "the largest batch of the list"


def test_a_sweep_stops_where_the_memory_or_the_patience_ends():
    class Greedy(nn.Module):
        def forward(self, x):
            if len(x) > 16:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x

    sweep = measure_batches(Greedy(), torch.rand(2), batches=(1, 16, 64), min_window_s=0.01, windows=1)
    assert [m.batch for m in sweep.measurements] == [1, 16]
    assert sweep.stopped == "batch 64 does not fit the memory of cpu"
    slow = measure_batches(Costs(0.02, 0), torch.rand(2), min_window_s=0.01, windows=1, max_call_s=0.01)
    assert [m.batch for m in slow.measurements] == [1]


@pytest.mark.parametrize("batches", [(), (2, 4), (1, 4, 4), 4, "14", (1, 2.5), None])
def test_batches_must_begin_with_one_and_grow(batches):
    with pytest.raises(HpmlError, match="must begin with 1 and grow"):
        measure_batches(nn.Linear(2, 2), torch.rand(2), batches=batches)


def test_rapl_sums_packages_in_joules_and_survives_a_wrap(tmp_path):
    powercap(tmp_path, [900_000, 50_000])
    meter = Rapl(tmp_path)
    assert meter.available().ok
    before = meter.energy_j()
    assert before == pytest.approx(0.95)
    powercap(tmp_path, [100_000, 60_000])  # the first counter has wrapped at one joule
    assert meter.energy_j() - before == pytest.approx(0.2 + 0.01)


def test_rapl_without_permission_says_what_to_do(tmp_path, monkeypatch):
    powercap(tmp_path, [1])
    file = tmp_path / "intel-rapl:0" / "energy_uj"

    def refused(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(file))

    meter = Rapl(tmp_path)
    monkeypatch.setattr("pathlib.Path.read_text", refused)
    ok, reason = meter.available()
    assert not ok
    assert f"sudo chmod a+r {file}" in reason


def fake_pynvml(energy_mj=None, error="Not Supported"):
    module = types.ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def read(handle):
        if energy_mj is None:
            raise NVMLError(error)
        return energy_mj

    module.NVMLError = NVMLError
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetTotalEnergyConsumption = read
    return module


def test_nvml_counts_millijoules(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(2_500))
    assert Nvml().available() == Availability(True)
    assert Nvml().energy_j() == pytest.approx(2.5)


def test_nvml_without_permission_gives_the_drivers_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(error="Insufficient Permissions"))
    ok, reason = Nvml(1).available()
    assert not ok
    assert "GPU 1" in reason
    assert "Insufficient Permissions" in reason


@pytest.mark.parametrize(
    ("model", "example", "options", "named"),
    [
        (nn.Linear(4, 2), torch.rand(0, 4), {}, r"example=a tensor of shape \(0, 4\): must be a tensor"),
        (nn.Linear(4, 2), torch.tensor(1.0), {}, r"example=a tensor of shape \(\)"),
        (nn.Linear(4, 2), "digits", {}, r"example='digits': must be a tensor \(batch, ...\)"),
        (nn.Linear, torch.rand(1, 4), {}, r"model=<type>: must be a network .* call it, Linear\(...\)"),
        ("mlp", torch.rand(1, 4), {}, r"model='mlp': must be a network"),
        (nn.Linear(4, 2), torch.rand(1, 4), {"min_window_s": 0.0}, r"min_window_s=0.0: must be .* > 0"),
        (nn.Linear(4, 2), torch.rand(1, 4), {"min_window_s": "1 s"}, r"min_window_s='1 s': must be"),
        (nn.Linear(4, 2), torch.rand(1, 4), {"min_window_s": float("nan")}, r"min_window_s=nan: must be"),
        (nn.Linear(4, 2), torch.rand(1, 4), {"windows": 0}, r"windows=0: must be a whole number >= 1"),
        (nn.Linear(4, 2), torch.rand(1, 4), {"windows": True}, r"windows=True: must be"),
        (nn.Linear(4, 2), torch.rand(1, 4), {"warmup_s": -1.0}, r"warmup_s=-1.0: must be"),
    ],
)
@pytest.mark.parametrize("own_process", [False, True])
def test_what_cannot_be_measured_is_refused_in_one_line(model, example, options, named, own_process):
    with pytest.raises(HpmlError, match=rf"^measure: {named}") as refused:
        measure(model, example, own_process=own_process, **options)
    assert "\n" not in str(refused.value)
