"""Networks of all families on crossbars, checked against the digital network, each chip alone, and products by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpml_sim as hs
from hpml_sim.analog.chip_pass import ChipPass, running
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.output_structure import take_apart

from .families import brought, relations, sequences, vision
from .families.case import named

# random weights: the next point that the pointer visits hangs on the last bits
pytestmark = pytest.mark.filterwarnings("ignore:calibrate. the converters alone")
CASES = vision.CASES | sequences.CASES | relations.CASES | brought.CASES
N_CHIPS = 3


@cache
def prepared(name: str) -> tuple[nn.Module, tuple[Any, ...], Any]:
    """The network, its arguments, and the calibrated network on crossbars."""
    net, args = CASES[name].made()
    analog: Any = hs.convert(net, "pcm-hermes").eval()
    if name == "a vmap of its own":  # calibration looks at values, which a vmap hides
        with pytest.raises(hs.HpmlError, match=r"under a torch\.vmap of the network's own"):
            hs.calibrate(analog, [named(net, args)])
    else:
        hs.calibrate(analog, [named(net, args)])
        for key, buffer in net.named_buffers():  # queues and counters were put back
            assert torch.equal(analog.network.get_buffer(key).to_dense(), buffer.to_dense()), key
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
    for got, want in zip(tensors_of(ideal, args), tensors_of(clone(net), args), strict=True):
        assert_equal(got, want)


@pytest.mark.parametrize("name", CASES)
def test_ideal_crossbars_learn_as_the_digital_network(name: str) -> None:
    net, args = CASES[name].made()
    exact = {"dac_bits": "ideal", "adc_bits": "ideal", "output_noise": 0, "training_noise": 0, "weight_clip": None}
    gradients = []
    if name == "a vmap of its own":
        with pytest.raises(hs.HpmlError, match=r"under a torch\.vmap of the network's own"):
            hs.convert(net, "pcm-hermes").train()(*args)
        return
    for network in (hs.convert(net, hs.Analog("pcm-hermes", **exact)), clone(net)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            outputs = [y for y in take_apart(network.train()(*args))[0] if y.requires_grad]
            sum((y * torch.randn(y.shape, dtype=y.dtype)).abs().square().mean() for y in outputs).backward()
        gradients.append({key.removeprefix("network."): w.grad for key, w in network.named_parameters()})
    analog, digital = gradients
    largest = max(float(gradient.abs().max()) for gradient in digital.values() if gradient is not None)
    for key, want in digital.items():
        if key in analog:  # layers with several matrices hold them under other names
            got = analog[key]
            assert (got is None) == (want is None), key
            if got is not None and want is not None:
                scale = max(float(want.abs().max()), 1e-3 * largest)
                assert float((got - want).abs().max()) <= 1e-3 * scale, key


@pytest.mark.parametrize("name", CASES)
def test_to_digital_gives_the_network_back(name: str) -> None:
    net, args = CASES[name].made()
    back = hs.to_digital(hs.convert(net, "pcm-hermes")).eval()
    assert type(back) is type(net)
    assert list(back.state_dict()) == list(net.state_dict())
    for got, want in zip(tensors_of(back, args), tensors_of(clone(net), args), strict=True):
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
    digital = tensors_of(clone(net), args)
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
        counts = hs.workload(clone(network), data=args, batch_dim=case.batch_dim)
        assert counts.total("macs") == pytest.approx(case.macs, rel=1e-6)
        assert len(counts.not_counted) == case.unseen, counts.not_counted


@pytest.mark.parametrize("name", CASES)
def test_every_way_of_asking_gives_one_figure(name: str) -> None:
    net, args, analog = prepared(name)
    found = hs.estimate(clone(analog), data=args)
    assert found.mapping["tiles"] == analog.report["tiles"].fillna(0).sum() == analog.mapping.tiles
    for other in (
        hs.estimate(hs.workload(clone(analog), data=args)),
        hs.estimate(clone(net), analog.target, data=args),
    ):
        assert (other.energy_j, other.latency_s, other.terms) == (found.energy_j, found.latency_s, found.terms)


def test_most_run_in_one_pass() -> None:
    assert len(CASES) >= 40
    assert sum(case.together for case in CASES.values()) >= 30
