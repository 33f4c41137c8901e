"""Sizes of language models: parameters as published, caches and experts by hand, modules that agree."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hpml_sim.counting import workload
from hpml_sim.errors import HpmlError
from hpml_sim.networks.architectures import ARCHITECTURES, shape
from hpml_sim.networks.language import LANGUAGE_MODELS, Experts, language_model
from hpml_sim.networks.language.modules import build

RELEASED = {
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "gpt2": 124_439_808,
    "phi-2": 2_779_683_840,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "codellama-34b": 33_743_970_304,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "smollm2-135m": 134_515_008,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "qwen-2.5-7b": 7_615_616_512,
    "qwen-2.5-72b": 72_706_203_648,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "gemma-3-1b": 999_885_952,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
}
"""Elements of the released weights (metadata of the safetensors files on Hugging Face)."""
PUBLISHED = {  # name -> parameters, active parameters, in billions: the models' cards and papers
    "qwen3-30b-a3b": (30.5, 3.3),
    "qwen3-235b-a22b": (235, 22),
    "mixtral-8x7b": (46.7, 12.9),
    "deepseek-v3": (671, 37),
    "llama-4-scout": (109, 17),
    "llama-4-maverick": (400, 17),
    "gpt-oss-120b": (116.8, 5.1),
    "gemma-3-27b": (27, 27),
}


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_are_those_of_the_released_weights(name: str) -> None:
    # gpt-oss has a learned sink for each head of attention, which costs nothing: within one in a million
    assert LANGUAGE_MODELS[name].parameters == pytest.approx(RELEASED[name], rel=2e-7)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_active_ones_are_as_published(name: str) -> None:
    total, active = PUBLISHED[name]
    sizes = LANGUAGE_MODELS[name]
    assert sizes.parameters / 1e9 == pytest.approx(total, rel=0.015)
    assert sizes.active_parameters / 1e9 == pytest.approx(
        active, rel=0.13
    )  # papers differ on whether the embedding counts


def test_every_recorded_name_is_known() -> None:
    names = {
        "Qwen__Qwen3-235B-A22B-Instruct-2507-FP8": "qwen3-235b-a22b",
        "Qwen/Qwen3-30B-A3B-Instruct-2507": "qwen3-30b-a3b",
        "google__gemma-3-12b-it": "gemma-3-12b",
        "meta-llama__Llama-3.1-8B-Instruct": "llama-3.1-8b",
        "meta-llama/Llama-3.3-70B-Instruct": "llama-3.3-70b",
        "meta-llama__Llama-4-Scout-17B-16E-Instruct": "llama-4-scout",
        "Meta-Llama-3-70B": "llama-3-70b",
        "Llama-2-7b-hf": "llama-2-7b",
        "phi-2": "phi-2",
        "Qwen/Qwen3-14B": "qwen3-14b",
        "openai/gpt-oss-120b": "gpt-oss-120b",
    }
    for published, ours in names.items():
        found = language_model(published)
        assert found is not None, published
        assert found.name == ours
    assert language_model("Qwen/Qwen9-1000B") is None


def test_the_cache_by_hand() -> None:
    """Llama-3 8B: 32 layers x 8 heads x 128 x (key and value); Gemma's windows keep no more than they see."""
    assert LANGUAGE_MODELS["llama-3-8b"].cached(1000) == 32 * 8 * 128 * 2 * 1000
    gemma = LANGUAGE_MODELS["gemma-3-12b"]
    assert gemma.cached(4096) == 8 * 256 * 2 * (8 * 4096 + 40 * 1024)
    deepseek = LANGUAGE_MODELS["deepseek-v3"]
    assert deepseek.cached(1) == 61 * 576


def test_experts_with_work_against_a_draw() -> None:
    """Tokens draw experts by themselves, with popularities of a gamma distribution: means of 400 layers, 3 sigma."""
    experts = Experts(64, 4, 1, unevenness=1.2)
    rng = np.random.default_rng(0)
    for tokens in (1, 8, 64):
        counts = []
        for _ in range(400):
            popularity = rng.gamma(1 / 1.2**2, 1.2**2, 64)
            counts.append((rng.poisson(popularity * tokens * 4 / 64) > 0).sum())
        error = 3 * np.std(counts) / math.sqrt(len(counts))
        assert experts.touched(tokens) == pytest.approx(np.mean(counts), abs=error)
    assert Experts(4, 4, 1).touched(1) == 4
    assert Experts(64, 4, 1, unevenness=1e-3).touched(8) == pytest.approx(64 * (1 - math.exp(-0.5)), rel=1e-3)


@pytest.mark.parametrize("name", ["bert-large", "phi-2", "gemma-3-1b", "qwen3-30b-a3b", "gpt-oss-20b", "deepseek-v3"])
def test_modules_have_the_parameters_and_the_cache_of_their_sizes(name: str) -> None:
    sizes = replace(LANGUAGE_MODELS[name], layers=6)
    with torch.device("meta"):
        module = build(sizes, 10)
        tokens = torch.empty(1, 5, dtype=torch.long)
    counts = workload(module.to(torch.bfloat16).eval(), data=(tokens,))
    assert sum(p.numel() for p in module.parameters()) == counts.total("weight_count") == sizes.parameters
    assert counts.not_counted == ()
    if sizes.decodes:
        assert counts.extra["kv_cache_elements"] == sizes.cached(15)


def test_decode_reads_the_weights_that_are_active() -> None:
    """One token against an empty cache: every active weight once, and no other."""
    sizes = replace(LANGUAGE_MODELS["qwen3-30b-a3b"], layers=2, experts=Experts(128, 8, 768, unevenness=1e-3))
    with torch.device("meta"):
        module, tokens = build(sizes, 0), torch.empty(1, 1, dtype=torch.long)
    counts = workload(module.eval(), data=(tokens,))
    norms = 2 * (2 * 2048 + 2 * 128) + 2048
    attention = 2 * 2 * 32 * 128  # scores and sums with the token itself
    expected = sizes.active_parameters - sizes.vocabulary * sizes.width - norms + attention
    assert counts.total("macs") == expected


def test_a_window_sees_no_further() -> None:
    name = "mistral-7b"
    sizes = LANGUAGE_MODELS[name]
    assert sizes.window == 4096
    short, long = (shape(name, phase="decode", context=n) for n in (4095, 20000))
    assert workload(short.module, data=short.example).total("macs") == workload(long.module, data=long.example).total(
        "macs"
    )


def test_every_language_model_is_an_architecture() -> None:
    for name, sizes in LANGUAGE_MODELS.items():
        known = ARCHITECTURES[name]
        assert known.language is sizes
        assert known.longest == sizes.longest
        assert known.source


def test_impossible_sizes_are_refused() -> None:
    sizes = LANGUAGE_MODELS["llama-3-8b"]
    with pytest.raises(HpmlError, match="kv_heads=5: must divide the 32 heads"):
        replace(sizes, kv_heads=5)
    with pytest.raises(HpmlError, match="layers=0: must be a whole number >= 1"):
        replace(sizes, layers=0)
    with pytest.raises(HpmlError, match="9 active experts: must be between 1 and the 8"):
        replace(sizes, experts=Experts(8, 9, 1024))
