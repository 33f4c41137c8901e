"""Which engine runs, and what is said where one cannot."""

from __future__ import annotations

import pytest
import torch

from hpml_sim.errors import HpmlError, UnknownNameError
from hpml_sim.kernels.common import engines
from hpml_sim.kernels.common.engines import choose_engine


def test_auto_takes_what_the_tensor_can_have():
    assert choose_engine("leaky", torch.zeros(1), "auto") == "numba"
    assert choose_engine("leaky", torch.zeros(1, dtype=torch.bfloat16), "auto") == "torch"
    assert choose_engine("leaky", torch.zeros(1, device="meta"), "auto") == "torch"


def test_compiled_networks_hold_torchs_operators_only(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert choose_engine("leaky", torch.zeros(1), "auto") == "torch"
    assert choose_engine("leaky", torch.zeros(1), "numba") == "numba"


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_an_engine_that_fits_is_taken(engine):
    assert choose_engine("leaky", torch.zeros(1, dtype=torch.float64), engine) == engine


def test_what_does_not_fit_is_named(monkeypatch):
    with pytest.raises(UnknownNameError, match=r"unknown engine 'cudaa'"):
        choose_engine("leaky", torch.zeros(1), "cudaa")  # type: ignore[arg-type]
    with pytest.raises(HpmlError, match=r"^leaky: engine='numba' does not take torch\.float16; .*\(x\.float\(\)\)"):
        choose_engine("leaky", torch.zeros(1).half(), "numba")
    with pytest.raises(HpmlError, match=r"engine='numba' runs on the CPU, the input lies on meta; .*x\.cpu\(\)"):
        choose_engine("leaky", torch.zeros(1, device="meta"), "numba")
    monkeypatch.setattr(engines, "_simulated", lambda: False)
    with pytest.raises(HpmlError, match=r"needs a CUDA tensor, the input lies on cpu; .*NUMBA_ENABLE_CUDASIM=1"):
        choose_engine("leaky", torch.zeros(1), "numba-cuda")
