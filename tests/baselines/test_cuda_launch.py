"""Where kernels can run, and what is said where they cannot."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from hpml_sim.baselines import cuda_launch
from hpml_sim.baselines.cuda_elementwise import copy
from hpml_sim.errors import HpmlError


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A numba.cuda that finds a GPU."""

    def to_device() -> None: ...

    to_device.__module__ = "numba.cuda.api"
    cuda = SimpleNamespace(to_device=to_device, is_available=lambda: True, cuda_error=lambda: None)
    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(cuda_launch, "_try_a_kernel", lambda: None)
    return cuda


def backend() -> str:
    return cuda_launch.cuda_backend.__wrapped__()


def test_a_gpu_on_which_a_kernel_runs(found):
    assert backend() == "gpu"


def test_a_driver_that_is_too_old_says_what_to_do_and_what_still_works(found, monkeypatch):
    def fails() -> None:
        raise RuntimeError(
            "CUDA_ERROR_UNSUPPORTED_PTX_VERSION\nthe provided PTX was compiled with an unsupported toolchain"
        )

    monkeypatch.setattr(cuda_launch, "_try_a_kernel", fails)
    with pytest.raises(HpmlError) as caught:
        backend()
    said = str(caught.value)
    for part in ("Some GPU", "UNSUPPORTED_PTX_VERSION", "a driver older than", "numba-cuda[cu12]", "engine='torch'"):
        assert part in said
    assert "\n" not in said


def test_a_driver_that_numba_refuses_gives_its_reason(found):
    found.is_available = lambda: False
    found.cuda_error = lambda: "driver version 10.2 is too old"
    with pytest.raises(HpmlError, match=r"no GPU that it can use \(driver version 10\.2 is too old\).*hpml-sim doctor"):
        backend()


def test_a_torch_without_cuda_is_told_apart(found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HpmlError, match=r"numba finds a GPU, but torch .* does not"):
        backend()


def test_a_tensor_on_the_wrong_device_is_refused(device):
    with pytest.raises(HpmlError, match=r"copy: x is on meta; kernels run .* here \(x\.to\('"):
        copy(torch.empty(3, device="meta"))


def test_a_grid_past_cudas_limits_is_refused(device):
    kernel = SimpleNamespace(py_func=SimpleNamespace(__name__="some_kernel"))
    with pytest.raises(
        HpmlError, match=r"some_kernel: the shape needs a grid of 1 x 65536 blocks, CUDA allows .* split"
    ):
        cuda_launch.launch(kernel, (1, 65536), 32, torch.ones(1, device=device))
