from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import snntorch as snn
import torch
from torch import nn

from hpml_sim.conversion import convert
from hpml_sim.spiking import fuse, snntorch_convention
from hpml_sim.spiking import snntorch_reset as convention
from hpml_sim.targets import Spiking


@pytest.fixture
def fresh():
    convention.warn_if_changed.cache_clear()
    yield
    convention.warn_if_changed.cache_clear()


def test_the_installed_version_is_the_expected_one(fresh):
    ok, detail = snntorch_convention()
    assert ok, detail
    assert "snntorch 1.0" in detail
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convention.warn_if_changed()


def test_a_changed_reset_is_said_once(fresh, monkeypatch):
    def subtract_before_the_leak(self, input_):
        return self.beta.clamp(0, 1) * (self.mem - self.reset * self.threshold) + input_

    monkeypatch.setattr(snn.Leaky, "_base_sub", subtract_before_the_leak)
    ok, detail = snntorch_convention()
    assert not ok
    assert "differs from 1.0 in subtract" in detail
    assert "beta * theta" in detail
    assert "pip install" in detail
    with pytest.warns(RuntimeWarning, match="keep the convention of 1.0"):
        convention.warn_if_changed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convention.warn_if_changed()


@pytest.mark.parametrize("use", [
    lambda: fuse(snn.Leaky(0.9, init_hidden=True)),
    lambda: convert(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), Spiking("loihi", steps=2)),
])  # fmt: skip
def test_whatever_spikes_first_says_it(fresh, monkeypatch, use):
    monkeypatch.setattr(snn.Leaky, "_base_sub", lambda self, x: self.beta * (self.mem - self.reset) + x)
    with pytest.warns(RuntimeWarning, match="differs from 1.0 in subtract"):
        use()


def test_importing_costs_no_snntorch():
    """The probe waits for the first spiking network: snnTorch takes longer to import than everything else."""
    code = "import sys, hpml_sim; sys.exit('snntorch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_zero_that_drops_the_input(monkeypatch):
    def zero(self, input_):
        return (self.beta.clamp(0, 1) * self.mem + input_) * (1 - self.reset)

    monkeypatch.setattr(snn.Leaky, "_base_zero", zero)
    ok, detail = snntorch_convention()
    assert not ok
    assert "'zero' now drops the input" in detail


def test_a_neuron_that_raises_is_a_finding(monkeypatch):
    def broken(self, input_, mem=None):
        raise TypeError("no such argument")

    monkeypatch.setattr(snn.Leaky, "forward", broken)
    ok, detail = snntorch_convention()
    assert not ok
    assert "TypeError: no such argument" in detail


def test_missing_snntorch_names_the_command(fresh, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "snntorch", None)
    ok, detail = snntorch_convention()
    assert not ok
    assert "pip install 'snntorch==1.0.*'" in detail
    convention.warn_if_changed()  # nothing installed, nothing to warn about
    # the fused neurons need no snnTorch
    from hpml_sim.spiking import LeakyNeurons

    assert LeakyNeurons(0.9, steps=2)(torch.ones(4, 2)).shape == (4, 2)
