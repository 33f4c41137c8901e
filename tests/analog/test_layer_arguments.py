"""Slips in the constructors of the analog layers, in `calibrate` and in `program`: one line that names the argument."""

from __future__ import annotations

import pytest
import torch

import hpml_sim as hs
from hpml_sim.errors import HpmlError

SLIPS = [
    (lambda: hs.nn.AnalogLinear("3", 4), "AnalogLinear: in_features='3'"),  # type: ignore[arg-type]
    (lambda: hs.nn.AnalogLinear(0, 4), "AnalogLinear: in_features=0"),
    (lambda: hs.nn.AnalogLinear(3, 4, bias="no"), "AnalogLinear: bias='no'"),  # type: ignore[arg-type]
    (lambda: hs.nn.AnalogLinear(3, 4, "x"), "AnalogLinear: bias='x'"),  # type: ignore[arg-type]
    (lambda: hs.nn.AnalogLinear(3, 4, target="h200"), "card="),
    (lambda: hs.nn.AnalogLinear(3, 4, config="h200"), "card="),
    (lambda: hs.nn.AnalogLinear(3, 4, nosuch=1), "'nosuch'"),
    (lambda: hs.nn.AnalogConv2d(1, 2, "3"), "AnalogConv2d: kernel_size='3'"),
    (lambda: hs.nn.AnalogConv2d(1, 2, (3, -3)), "AnalogConv2d: kernel_size=-3"),
    (lambda: hs.nn.AnalogConv2d(3, 4, 3, groups=2), "AnalogConv2d: in_channels"),
    (lambda: hs.nn.AnalogConvTranspose2d(1, 2, "3"), "AnalogConvTranspose2d: kernel_size='3'"),
    (lambda: hs.nn.AnalogConvTranspose1d(1, 2, 3, 1, 0, 0, 1, "no"), "AnalogConvTranspose1d: bias='no'"),
    (lambda: hs.nn.AnalogConvTranspose3d(1, 2, 3, target="h200"), "give the card or the configuration as card="),
    (lambda: hs.nn.AnalogConv2d(1, 2, 3, padding="sam"), "'same'"),
    (lambda: hs.nn.AnalogConv1d(1, 2), "kernel_size"),
    (lambda: hs.nn.AnalogLSTM("3", 4), "AnalogLSTM: input_size='3'"),
    (lambda: hs.nn.AnalogLSTM(3, 4, num_layers=0), "AnalogLSTM: num_layers=0"),
    (lambda: hs.nn.AnalogLSTM(3, 4, target="pcm"), "card="),
    (lambda: hs.nn.AnalogGRU(3, 4, dropout=3), "AnalogGRU: dropout"),
    (lambda: hs.nn.AnalogRNN(3, 4, nonlinearity="x"), "'x'"),
]


@pytest.mark.parametrize(("call", "part"), SLIPS)
def test_a_slip_is_one_line(call, part):
    with pytest.raises(HpmlError) as caught:
        call()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", [torch.empty(0, 6), [torch.empty(0, 6)]])
def test_an_empty_batch_calibrates_nothing(inputs):
    analog = hs.convert(torch.nn.Linear(6, 3), "pcm-hermes")
    before = hs.calibrate(analog, torch.rand(9, 6))
    with pytest.raises(HpmlError, match="no samples"):
        hs.calibrate(analog, inputs)
    assert hs.calibrate(analog, [torch.empty(0, 6), torch.rand(9, 6)]).keys() == before.keys()


@pytest.mark.parametrize("chips", [10**9, 10**12])
def test_more_chips_than_the_memory_holds(chips):
    with pytest.raises(HpmlError, match=f"chips={chips} .*GiB"):
        hs.program(hs.convert(torch.nn.Linear(60, 30), "pcm-hermes"), chips=chips)


def test_a_network_larger_than_the_memory():
    with pytest.raises(HpmlError, match=r"1,000,000,000,000 weights.*GiB"):
        hs.models.mlp(10**6, 10**6)
    with torch.device("meta"):  # nothing is allocated there
        assert hs.models.mlp(10**6, 10**6)[1].weight.is_meta
