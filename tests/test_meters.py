import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from hpml_sim.errors import HpmlError
from hpml_sim.meters import measure
from hpml_sim.meters.energy import Availability, Nvml, Rapl


def powercap(folder, energies, limit=1_000_000):
    for i, energy in enumerate(energies):
        package = folder / f"intel-rapl:{i}"
        package.mkdir(exist_ok=True)
        (package / "energy_uj").write_text(str(energy))
        (package / "max_energy_range_uj").write_text(str(limit))
        (folder / f"intel-rapl:{i}:0").mkdir(exist_ok=True)  # a sub-domain: already inside its package


class Counter:
    """A meter that gives one joule more at each reading."""

    name = "counter"

    def __init__(self):
        self.joules = 0.0

    def available(self):
        return Availability(True)

    def energy_j(self):
        self.joules += 1.0
        return self.joules


def test_without_a_meter_energy_is_none_with_a_reason_never_zero(tmp_path):
    m = measure(nn.Linear(4, 2), torch.rand(3, 4), min_window_s=0.02, warmup_s=0.0, meter=Rapl(tmp_path))
    assert m.energy_j is None
    assert m.energy_how is None
    assert "no RAPL counter" in m.energy_reason


def test_time_is_positive_and_throughput_counts_samples():
    m = measure(nn.Linear(4, 2), torch.rand(3, 4), min_window_s=0.05, warmup_s=0.0)
    assert m.batch == 3
    assert m.calls == len(m.samples_s) >= 3
    assert 0 < m.latency_p10_s <= m.latency_s <= m.latency_p90_s
    assert m.latency_s == pytest.approx(np.median(m.samples_s))
    assert m.throughput_hz == pytest.approx(3 / m.latency_s)
    assert m.window_s >= 0.04


def test_a_meters_joules_are_shared_by_the_samples_of_the_window():
    m = measure(nn.Linear(4, 2), torch.rand(5, 4), min_window_s=0.01, warmup_s=0.0, meter=Counter())
    assert m.energy_j == pytest.approx(1.0 / (5 * m.calls))
    assert m.energy_how == "measured:counter"


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


@pytest.mark.parametrize(("shape", "window"), [((0, 4), 1.0), ((1, 4), 0.0)])
def test_an_empty_batch_or_window_is_refused(shape, window):
    with pytest.raises(HpmlError, match="must both be > 0"):
        measure(nn.Linear(4, 2), torch.rand(*shape), min_window_s=window)
