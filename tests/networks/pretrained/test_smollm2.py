"""SmolLM2 from its file; the perplexities were measured once with code of their own."""

from __future__ import annotations

from importlib import resources

import pytest
import torch
from torch.nn import functional as F

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.networks.pretrained.language_model import KeyValueCache, LanguageModel, LlamaSizes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ids(smollm2):
    text = (resources.files("hpml_sim.data") / "texts" / "gpl-3.txt").read_text(encoding="utf-8")
    return torch.tensor([smollm2.tokenizer.encode(text)])


def test_parameters_and_shared_head(smollm2):
    assert sum(p.numel() for p in smollm2.parameters()) == 134_515_008
    assert smollm2.head.weight is smollm2.words.weight
    assert not smollm2.training


@torch.no_grad()
def test_perplexity_on_the_gpl(smollm2, ids):
    assert ids.shape == (1, 7639)
    logits = smollm2(ids[:, :512])[0]
    for targets, expected in ((128, 28.0), (512, 18.7)):
        found = F.cross_entropy(logits[:targets], ids[0, 1 : targets + 1]).exp().item()
        assert found == pytest.approx(expected, rel=0.01)


@torch.no_grad()
def test_with_a_cache_each_token_is_read_once_and_the_logits_are_the_same(smollm2, ids):
    whole = smollm2(ids[:, :24])
    cache = KeyValueCache()
    parts = torch.cat([smollm2(ids[:, a:b], cache) for a, b in ((0, 10), (10, 11), (11, 24))], dim=1)
    assert cache.tokens == 24
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-3)


def test_greedy_continuation_knows_the_capital_of_france(smollm2):
    made = smollm2.generate("The capital of France is", tokens=3)
    assert "Paris" in smollm2.tokenizer.decode(made[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2+2=4, isn't it?",
        "naïve Größe 日本語 🙂",
        "  two  spaces\n\n\tand a tab ",
        "<|im_start|>user\nHi<|im_end|>",
    ],
)
def test_text_comes_back(smollm2, text):
    assert smollm2.tokenizer.decode(smollm2.tokenizer.encode(text)) == text


def test_digits_are_tokens_of_their_own_and_names_of_special_tokens_are_one(smollm2):
    encode = smollm2.tokenizer.encode
    assert len(encode("2026")) == 4
    assert encode("<|im_end|>") == [2]


def test_every_product_is_counted(smollm2):
    """By hand: 30 blocks of 4 attention and 3 feed-forward products, the head, and two attention products a head."""
    tokens, width, kv, hidden, vocabulary = 5, 576, 192, 1536, 49_152
    block = 2 * width * width + 2 * width * kv + 3 * width * hidden + 2 * tokens * width
    counts = hs.workload(smollm2, data=torch.arange(tokens)[None])
    assert counts.total("macs") == tokens * (30 * block + width * vocabulary)


def test_every_product_is_converted_and_it_still_knows_the_capital_of_france(smollm2):
    analog = hs.convert(smollm2, "pcm-hermes")
    became = analog.report.groupby(["was", "became"]).size().to_dict()
    assert became == {
        ("Linear", "AnalogLinear"): 7 * 30 + 1,
        ("Embedding", "digital"): 1,
        ("RMSNorm", "digital"): 2 * 30 + 1,
        ("attention", "digital"): 30,
    }
    made = analog.network.generate("The capital of France is", tokens=2)
    assert "Paris" in analog.network.tokenizer.decode(made[0])


def small(**changes) -> LanguageModel:
    sizes = {"vocabulary": 40, "width": 24, "depth": 2, "heads": 6, "kv_heads": 2, "hidden": 32, "longest": 16}
    torch.manual_seed(0)
    return LanguageModel(LlamaSizes(**{**sizes, **changes}, rotary_base=1e4, eps=1e-5)).eval()


def test_generated_tokens_are_those_without_a_cache():
    model, ids = small(), torch.tensor([[3, 1, 4], [1, 5, 9]])
    made = model.generate(ids, tokens=6)
    for _ in range(6):
        ids = torch.cat([ids, model(ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(made, ids[:, 3:])


def test_drawn_tokens_follow_the_seed_alone():
    model, ids = small(), torch.tensor([[3, 1, 4]])
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    a, b, c = (model.generate(ids, tokens=8, temperature=100.0, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_generation_ends_where_it_is_told_to():
    model, ids = small(), torch.tensor([[3, 1, 4]])
    made = model.generate(ids, tokens=8)
    first = made[0, 2].item()
    stopped = model.generate(ids, tokens=8, stop=[first])
    assert stopped.tolist()[0] == made[0, : made[0].tolist().index(first) + 1].tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate("text"), "no tokenizer"),
        (lambda m: m.generate(torch.zeros(1, 0, dtype=torch.long)), r"prompt=\(1, 0\), torch.int64: must be text"),
        (lambda m: m.generate(torch.arange(3)), r"prompt=\(3,\), torch.int64: must be text"),
        (lambda m: m.generate(torch.arange(3)[None], tokens=0), "tokens=0: must be a whole number >= 1"),
        (lambda m: m.generate(torch.arange(3)[None], tokens=14), "at most 16"),
        (lambda m: m.generate(torch.arange(3)[None], temperature=-1), "temperature=-1: must be a finite number >= 0"),
        (lambda m: m(torch.arange(17)[None]), "17 tokens; it was made for at most 16"),
        (lambda m: m(torch.rand(1, 3)), "torch.float32: must be whole numbers"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(HpmlError, match=message):
        call(small())


def test_bad_ids_are_one_line(smollm2):
    for ids in ([49_152], [-1], ["a"], torch.arange(4)[None]):
        with pytest.raises(HpmlError, match=r"tokenizer\.decode: id .*: must be a whole number from 0 to 49151"):
            smollm2.tokenizer.decode(ids)
    with pytest.raises(HpmlError, match="must be text; call it once for each of a list"):
        smollm2.tokenizer.encode(["a"])
