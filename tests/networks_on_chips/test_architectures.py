"""Networks whose rows meet: all chips together must give what each chip gives alone, noise and all."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpml_sim as hs
from hpml_sim.analog.output_structure import take_apart

from .architectures import CHIP_BY_CHIP, Calls, build

NETWORKS = build()
N_CHIPS = 3


def calibrated(network: nn.Module, args: tuple[Any, ...]) -> nn.Module:
    analog = hs.convert(copy.deepcopy(network).eval(), "pcm-hermes")
    if "vmap" in (network.function.__doc__ or "") if isinstance(network, Calls) else False:
        return analog  # calibration looks at values, which a vmap hides
    # several inputs: only an ordinary call shows the layers what they get
    from hpml_sim.analog.calibration import collecting

    with collecting(analog.eval()) as collection:
        analog(*args)
        collection.choose()
    return analog


def alone(analog: nn.Module, n_chips: int, chip: int, args: tuple[Any, ...]) -> list[Tensor]:
    """What one of several chips gives when it runs by itself, without vmap."""
    from hpml_sim.analog.chip_pass import ChipPass, running

    network = hs.program(analog, chips=n_chips, seed=1).at("1 day").network
    with torch.no_grad(), running(ChipPass(chip)):
        return take_apart(network(*args))[0]


def assert_close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if not got.is_floating_point():
        assert torch.equal(got, want)
        return
    different = (got - want).abs() > 1e-5 * want.abs().max()
    assert int(different.sum()) <= 1e-3 * want.numel()


@pytest.mark.parametrize("name", NETWORKS)
def test_chips_together_are_each_chip_alone(name: str) -> None:
    network, args = NETWORKS[name]
    analog = calibrated(network, args)
    chips = hs.program(analog, chips=N_CHIPS, seed=1).at("1 day")
    got = chips(*args)
    assert (chips.chip_by_chip is not None) == (name in CHIP_BY_CHIP), chips.chip_by_chip
    assert chips.n_passes == (N_CHIPS if name in CHIP_BY_CHIP else 1)
    digital, _ = take_apart(network.eval()(*args))
    tensors, _ = take_apart(got)
    assert [tensor.shape for tensor in tensors] == [(N_CHIPS, *tensor.shape) for tensor in digital]
    for chip in range(N_CHIPS):
        for together, one in zip(tensors, alone(analog, N_CHIPS, chip, args), strict=True):
            assert_close(together[chip], one)
    # chip 0 of one is chip 0 of three, and no two chips are alike
    for together, one in zip(
        tensors, take_apart(hs.program(analog, chips=1, seed=1).at("1 day")(*args))[0], strict=True
    ):
        assert_close(together[0], one[0])
    assert any(not torch.equal(tensor[0], tensor[1]) for tensor in tensors)


def test_most_run_in_one_pass() -> None:
    assert len(NETWORKS) >= 25
    assert len(CHIP_BY_CHIP) <= 1
