"""The kernels of a step: operations and bytes by hand, and what several GPUs share."""

from __future__ import annotations

import pytest

from hpml_sim.cost.serving.operations import Operation, Split, Step, StepWork, Widths
from hpml_sim.networks.language import LANGUAGE_MODELS

LLAMA, MIXED = LANGUAGE_MODELS["llama-3-8b"], LANGUAGE_MODELS["qwen3-30b-a3b"]


def _sum(work: StepWork, field: str, *kinds: str) -> float:
    return sum(y.count * getattr(y, field) for y in work.operations() if not kinds or y.kind in kinds)


def test_a_decode_by_hand() -> None:
    """Two operations a weight and token; attention two for scores and two for sums; each cache read once."""
    work = StepWork(LLAMA, Step(decodes=3, context=1000))
    matrices = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336) + 4096 * 128256
    assert _sum(work, "operations", "product") == 2 * 3 * matrices
    assert _sum(work, "weights_bytes", "product") == 2 * matrices
    assert _sum(work, "operations", "attention") == 32 * 4 * 3 * 1001 * 4096
    cache = 32 * 3 * 1001 * 2 * 1024 * 2
    queries = 32 * 3 * 2 * 4096 * 2
    assert _sum(work, "moved_bytes", "attention") == cache + queries


def test_a_prompt_by_hand() -> None:
    """A token attends to half of the prompt on average; the head sees the last one alone."""
    work = StepWork(LLAMA, Step(prompts=512, before=256, finished=1))
    assert _sum(work, "operations", "prefill") == 32 * 4 * 512 * 256 * 4096
    assert next(y for y in work.operations() if y.name == "head").rows == 1


def test_gpus_share_what_can_be_shared() -> None:
    one, four = (StepWork(LLAMA, Step(decodes=8, context=500), Split(tensor=n)) for n in (1, 4))
    assert _sum(four, "weights_bytes") == pytest.approx(_sum(one, "weights_bytes") / 4)
    assert _sum(four, "operations") == pytest.approx(_sum(one, "operations") / 4)
    exchanged = [y for y in four.operations() if y.kind == "all-reduce"]
    assert sum(y.count for y in exchanged) == 2 * 32
    assert exchanged[0].sent_bytes == 8 * 4096 * 2
    assert not [y for y in one.operations() if y.sent_bytes]


def test_experts_read_their_own_weights_alone() -> None:
    """One token takes 8 of 128 experts; many tokens take all, on the GPU that has its share of them."""
    one = StepWork(MIXED, Step(decodes=1, context=10))
    expert = 48 * 3 * 2048 * 768 * 2
    touched = MIXED.experts.touched(1) if MIXED.experts else 0
    assert _sum(one, "weights_bytes", "experts") == pytest.approx(touched * expert)
    many = StepWork(MIXED, Step(decodes=100_000, context=10), Split(expert=4))
    assert _sum(many, "weights_bytes", "experts") == pytest.approx(32 * expert, rel=0.02)


def test_windows_and_fewer_bits() -> None:
    gemma = LANGUAGE_MODELS["gemma-3-12b"]
    near, far = (StepWork(gemma, Step(decodes=1, context=n)) for n in (1024, 100_000))
    local = [next(y for y in work.operations() if y.kind == "attention").moved_bytes for work in (near, far)]
    assert local[0] == local[1]  # the first layers see 1,024 tokens and no more
    narrow = StepWork(LLAMA, Step(decodes=1, context=10), widths=Widths(weight=0.5))
    head = 4096 * 128256
    matrices = LLAMA.parameters - 2 * head - 65 * 4096
    assert _sum(narrow, "weights_bytes") == pytest.approx(0.5 * matrices + 2 * head)


def test_an_encoder_has_no_logits() -> None:
    names = [
        y.name for y in StepWork(LANGUAGE_MODELS["bert-large"], Step(prompts=128, before=64, finished=1)).operations()
    ]
    assert "pooler" in names
    assert "head" not in names
    assert "sampling" not in names


@pytest.mark.parametrize(("tokens", "block"), [(8, 16), (128, 16), (256, 16), (512, 64), (1024, 64), (1536, 128)])
def test_experts_of_one_gpu_take_the_tiles_of_tuned_tables(tokens: int, block: int) -> None:
    """vLLM's tables for 128 experts of width 768, 8 of them for a token: rows of a tile on a B200, by tokens."""
    experts = _experts(tokens, Split())
    rows = tokens * 8 / _touched(tokens)
    assert experts.rows == pytest.approx(max(block, rows + block / 2))


def test_a_share_of_the_experts_and_8_bits_take_the_default_tiles() -> None:
    """vLLM's get_default_config: 16 rows up to as many tokens as experts, 64 beyond, and 64 in 8 bits."""
    for tokens, ways, width, block in ((32, 2, 2.0, 16), (65, 2, 2.0, 64), (8, 1, 1.0, 64), (8, 2, 1.0, 64)):
        experts = _experts(tokens, Split(expert=ways), width)
        assert experts.rows >= block
        assert experts.rows < 2.5 * block


def _experts(tokens: int, split: Split, width: float = 2.0) -> Operation:
    step = Step(decodes=tokens, context=100)
    return next(
        y
        for y in StepWork(MIXED, step, split, Widths(width, values_rounded=width == 1)).operations()
        if y.name == "experts in"
    )


def _touched(tokens: int) -> float:
    """Experts with work, by the negative binomial distribution written out."""
    spread = 1.779**2
    return 128 * (1 - (1 + spread * tokens * 8 / 128) ** (-1 / spread))
