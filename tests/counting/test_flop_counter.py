"""The workload against torch's flop counter."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hpml_sim.counting import workload
from hpml_sim.networks.architectures import ARCHITECTURES, shape
from tests.counting.networks import NETWORKS, encoder, flop_counter_macs


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_equal_the_flop_counter(name: str) -> None:
    build, size = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build(), torch.randn(size)
    expected = flop_counter_macs(model, x)
    assert expected > 0
    for counts in (
        workload(model, data=x),
        workload(model, data=x, batch_size=3),
        workload(model, input_shape=size[1:]),
        workload(copy.deepcopy(model).to("meta"), input_shape=size[1:]),
    ):
        assert counts.total("macs") * size[0] == expected
        assert counts.not_counted == ()
        assert counts.total("weight_count") == sum(p.numel() for p in model.parameters())


_LANGUAGE = {"bert-base", "gpt2", "llama-3-8b", "gemma-3-1b"}  # the others are larger, or send tokens to experts
_COUNTED = sorted(name for name, known in ARCHITECTURES.items() if known.language is None or name in _LANGUAGE)


@pytest.mark.parametrize("name", _COUNTED)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_macs_of_known_networks_equal_the_flop_counter(name: str, phase: str) -> None:
    if phase == "decode" and not ARCHITECTURES[name].decodes:
        return
    module, example = shape(name, phase=phase)
    assert workload(module, data=example).total("macs") == flop_counter_macs(module, *example)


def test_encoder_and_decoder_with_two_inputs() -> None:
    model = nn.Transformer(8, 2, 2, 2, 16, batch_first=True)
    source, target = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    counts = workload(model, data=(source, target))
    assert counts.total("macs") * 3 == flop_counter_macs(model, source, target)
    assert counts.total("weight_count") == sum(p.numel() for p in model.parameters())


def test_the_fast_path_hides_nothing() -> None:
    model = encoder().eval()
    x = torch.randn(2, 5, 16)
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():  # the setting in which torch takes its fused kernels
        counts = workload(model, data=x)
    assert counts.total("macs") * 2 == flop_counter_macs(model, x)
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_a_subclass_that_pads_on_its_own() -> None:
    class Same(nn.Conv1d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - nn.Conv1d's name
            return F.conv1d(F.pad(input, (1, 1)), self.weight, self.bias)

    model, x = Same(2, 3, 3), torch.ones(1, 2, 5)
    (count,) = workload(model, data=x).layers
    assert count.macs == flop_counter_macs(model, x)
    assert count.sops == count.macs  # its borders are not known: padding counts as input
