"""Language models that were pruned or quantized, on GPUs: the bytes that are left decide what a token takes."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

import hpml_sim as hs
from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes

WIDTH, HIDDEN, DEPTH, WORDS = 512, 1536, 4, 1000
MATRICES = DEPTH * (WIDTH * (2 * WIDTH + 2 * WIDTH // 2) + 3 * WIDTH * HIDDEN)
"""Weights of the layers: queries and output, keys and values of half as many heads, three of the feed-forward part."""


@cache
def _network() -> LanguageModel:
    torch.manual_seed(0)
    sizes = LlamaSizes(
        vocabulary=WORDS, width=WIDTH, depth=DEPTH, heads=8, kv_heads=4, hidden=HIDDEN, longest=128, rotary_base=1e4,
        eps=1e-5,
    )  # fmt: skip
    return LanguageModel(sizes)


def _token(network: nn.Module, card: str = "jetson-orin", **options: object) -> hs.Estimate:
    return hs.estimate(network, card, phase="decode", context=64, **options)  # type: ignore[arg-type]


IDS = torch.arange(12).reshape(2, 6)
BYTES = {  # of a weight that the sizes say; 16 bits without compression
    "int8": (lambda: hs.quantize(_network(), "int8"), 1.0),
    "int4": (lambda: hs.quantize(_network(), "int4"), 4.25 / 8),
    "ternary": (lambda: hs.quantize(_network(), "ternary"), 2.25 / 8),
    "2:4": (lambda: hs.prune(_network(), "2:4"), 2 / 2 + 1 / 8),
    "2:4 + int4": (lambda: hs.quantize(hs.prune(_network(), "2:4"), "int4"), 4.25 / 16 + 1 / 8),
    "unstructured": (lambda: hs.prune(_network()), 2.0),
    "blocks": (lambda: hs.prune(_network(), "blocks", data=IDS), 2 / 2),
    "rows": (lambda: hs.prune(_network(), "rows"), 2 / 2),
}


@pytest.mark.parametrize("row", BYTES)
def test_the_bytes_are_those_of_the_weights_that_are_left(row):
    make, each = BYTES[row]
    dense, found = _token(_network(), precision="fp16"), _token(make())
    saved = dense.mapping["weights_bytes"] - found.mapping["weights_bytes"]
    assert saved == pytest.approx((2 - each) * MATRICES, rel=0.01, abs=0.01 * MATRICES)


def test_a_token_of_few_bits_takes_less_and_one_of_scattered_zeros_does_not():
    dense, zeros = _token(_network(), precision="fp16"), _token(hs.prune(_network()), precision="fp16")
    assert (zeros.energy_j, zeros.latency_s) == (dense.energy_j, dense.latency_s)
    order = [_token(BYTES[row][0]()) for row in ("2:4 + int4", "int4", "2:4")]
    joules = [found.energy_j.nominal for found in (*order, dense)]
    assert joules == sorted(joules)
    assert len(set(joules)) == 4
    assert any("4.25 bits" in sentence for sentence in order[1].assumptions)


def test_fewer_heads_blocks_and_channels_are_counted_and_run():
    fewer = hs.prune(hs.prune(_network(), "heads", data=IDS), "blocks", data=IDS)
    counts = _token(fewer, "cpu").mapping
    gpu = _token(fewer).mapping
    assert gpu["operations"] == pytest.approx(counts["operations"], rel=0.02)
    assert fewer.generate(IDS, tokens=3).shape == (2, 3)  # each block has a place of its own in the cache


def test_a_name_is_estimated_as_its_network_would_be():
    dense = hs.estimate("smollm2-135m", "jetson-orin", phase="decode", context=64)
    small = hs.estimate("smollm2-135m", "jetson-orin", phase="decode", context=64, quantize="int4", prune="2:4")
    matrices = 30 * (576 * (2 * 576 + 2 * 192) + 3 * 576 * 1536)
    assert dense.mapping["weights_bytes"] - small.mapping["weights_bytes"] == pytest.approx(
        (2 - 4.25 / 16 - 1 / 8) * matrices, rel=0.01
    )
    assert any("its score is not known" in sentence for sentence in small.assumptions)
    cpu = [hs.estimate("llama-3-8b", "cpu", phase="decode", context=64, quantize=q) for q in (None, "int4")]
    assert cpu[1].energy_j.nominal < 0.3 * cpu[0].energy_j.nominal  # 16 bits are computed in fp32 there


def test_keys_and_values_of_few_bits():
    short, long = ([_one(bits, context) for bits in (None, 8, 4)] for context in (16, 100_000))
    for found in (short, long):
        assert found[0].mapping["weights_bytes"] == found[2].mapping["weights_bytes"]
    assert long[2].energy_j.nominal < long[1].energy_j.nominal < 0.85 * long[0].energy_j.nominal
    assert short[2].energy_j.nominal == pytest.approx(short[0].energy_j.nominal, rel=1e-3)
    assert long[1].mapping["largest_batch"] >= 2 * long[0].mapping["largest_batch"]


def _one(bits: int | None, context: int) -> hs.Estimate:
    return hs.estimate("llama-3.1-8b", "h200", phase="decode", context=context, kv_bits=bits)


BAD = {
    "precision beside": (lambda: _token(hs.quantize(_network(), "int4"), precision="fp16"), "the network is quantized"),
    "weights beside": (lambda: _token(hs.quantize(_network(), "int4"), weights="int8"), "the network is quantized"),
    "pattern": (lambda: hs.estimate("llama-3-8b", "h200", prune="channels"), "give the network itself"),
    "scheme": (lambda: hs.estimate("llama-3-8b", "h200", quantize="int5"), "did you mean"),
    "network": (lambda: _token(_network(), quantize="int4"), "are for networks by name"),
    "kv bits": (lambda: hs.estimate("llama-3-8b", "h200", phase="decode", kv_bits=5), "must be one of 4, 8, 16"),
    "kv bits, CPU": (lambda: hs.estimate("llama-3-8b", "cpu", phase="decode", kv_bits=8), "language models on GPUs"),
    "kv bits, encoder": (lambda: hs.estimate("bert-base", "h200", kv_bits=8), "keeps no keys and values"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_a_next_step(case):
    call, says = BAD[case]
    with pytest.raises(hs.HpmlError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
