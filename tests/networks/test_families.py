"""Networks of all families on crossbars, checked against the digital network, each chip alone, and products by hand."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpml_sim as hs
from hpml_sim.analog.chip_pass import ChipPass, running
from hpml_sim.analog.output_structure import take_apart

from .families import relations, sequences, vision
from .families.case import named

# random weights: the next point that the pointer visits hangs on the last bits
pytestmark = pytest.mark.filterwarnings("ignore:calibrate. the converters alone")
CASES = vision.CASES | sequences.CASES | relations.CASES
N_CHIPS = 3


@cache
def prepared(name: str) -> tuple[nn.Module, tuple[Any, ...], Any]:
    """The network, its arguments, and the calibrated network on crossbars."""
    net, args = CASES[name].made()
    analog: Any = hs.convert(net, "pcm-hermes").eval()
    if name != "a vmap of its own":  # calibration looks at values, which a vmap hides
        hs.calibrate(analog, [named(net, args)])
        for key, buffer in net.named_buffers():  # a queue has moved on
            analog.network.get_buffer(key).copy_(buffer)
    return net, args, analog


def tensors_of(network: nn.Module, args: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad():
        return take_apart(network(*args))[0]


def assert_equal(got: Tensor, want: Tensor, outliers: float = 0.0) -> None:
    """Equal to 1e-5 of the largest value, but for a share of outliers."""
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    if not got.is_floating_point():
        assert torch.equal(got, want)
    else:
        different = (got - want).abs() > 1e-5 * want.abs().max()
        assert int(different.sum()) <= outliers * want.numel()


@pytest.mark.parametrize("name", CASES)
def test_ideal_crossbars_are_the_digital_network(name: str) -> None:
    net, args = CASES[name].made()
    ideal = hs.convert(net, hs.Analog("pcm-hermes", dac_bits="ideal", adc_bits="ideal")).eval()
    for got, want in zip(tensors_of(ideal, args), tensors_of(copy.deepcopy(net), args), strict=True):
        assert_equal(got, want)


@pytest.mark.parametrize("name", CASES)
def test_chips_together_are_each_chip_alone(name: str) -> None:
    net, args, analog = prepared(name)
    together = CASES[name].together
    programmed = hs.program(analog, chips=N_CHIPS, seed=1)
    chips = programmed.at("1 day")
    tensors, _ = take_apart(chips(*args))
    assert (chips.chip_by_chip is None) == together, chips.chip_by_chip
    assert chips.n_passes == (1 if together else N_CHIPS)
    digital = tensors_of(copy.deepcopy(net), args)
    assert [tensor.shape for tensor in tensors] == [(N_CHIPS, *tensor.shape) for tensor in digital]
    for chip in range(N_CHIPS):
        with running(ChipPass(chip)):
            alone = tensors_of(programmed.at("1 day").network, args)
        for got, want in zip(tensors, alone, strict=True):
            if together:
                assert_equal(got[chip], want, outliers=1e-3)
            else:
                assert torch.equal(got[chip], want)
    one, _ = take_apart(hs.program(analog, chips=1, seed=1).at("1 day")(*args))
    for got, want in zip(tensors, one, strict=True):
        assert_equal(got[0], want[0], outliers=1e-3)
    assert any(not torch.equal(tensor[0], tensor[1]) for tensor in tensors)


@pytest.mark.parametrize("name", CASES)
def test_products_are_those_counted_by_hand(name: str) -> None:
    net, args, analog = prepared(name)
    case = CASES[name]
    for network in (net, analog):
        counts = hs.workload(copy.deepcopy(network), data=args, batch_dim=case.batch_dim)
        assert counts.total("macs") == pytest.approx(case.macs, rel=1e-6)
        assert len(counts.not_counted) == case.unseen, counts.not_counted


@pytest.mark.parametrize("name", CASES)
def test_every_way_of_asking_gives_one_figure(name: str) -> None:
    net, args, analog = prepared(name)
    found = hs.estimate(copy.deepcopy(analog), data=args)
    assert found.mapping["tiles"] == analog.report["tiles"].fillna(0).sum() == analog.mapping.tiles
    for other in (
        hs.estimate(hs.workload(copy.deepcopy(analog), data=args)),
        hs.estimate(copy.deepcopy(net), analog.target, data=args),
    ):
        assert (other.energy_j, other.latency_s, other.terms) == (found.energy_j, found.latency_s, found.terms)


def test_most_run_in_one_pass() -> None:
    assert len(CASES) >= 40
    assert sum(case.together for case in CASES.values()) >= 30
