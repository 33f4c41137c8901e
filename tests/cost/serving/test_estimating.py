"""Language models on GPUs by name: published speeds inside the band, splits, serving, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

import hpml_sim as hs
from hpml_sim.cards import DigitalCard, load_card
from hpml_sim.cost.serving.estimating import estimate_language
from hpml_sim.cost.serving.operations import Split
from hpml_sim.cost.serving.request import Request
from hpml_sim.cost.serving.splits import chosen, possible
from hpml_sim.networks.language import LANGUAGE_MODELS

GPT_FAST = [  # network, weights, GPUs -> tokens a second of A100s: PyTorch's gpt-fast, README
    ("llama-2-7b", None, 1, 104.9),
    ("llama-2-7b", "int8", 1, 155.6),
    ("llama-2-70b", "int8", 1, 19.1),
    ("llama-2-70b", None, 2, 21.3),
    ("llama-2-70b", None, 8, 62.5),
]


def _a100() -> DigitalCard:
    card = load_card("a100")
    assert isinstance(card, DigitalCard)
    return card


@pytest.mark.parametrize(("name", "weights", "devices", "published"), GPT_FAST)
def test_gpt_fast_within_a_fifth(name: str, weights: str | None, devices: int, published: float) -> None:
    """No figure of the A100's card comes from these: products from its own records, kernels and links of an H100."""
    found = estimate_language(
        LANGUAGE_MODELS[name], _a100(), Request("decode", context=200), weights=weights, devices=devices
    )
    assert found.throughput_hz.low < published < found.throughput_hz.high
    assert found.throughput_hz.nominal == pytest.approx(published, rel=0.2)


def test_a_name_a_published_name_and_a_file_are_the_same(tmp_path: Any) -> None:
    import json

    config = {
        "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
        "num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = [hs.estimate(name, "h100", phase="decode") for name in ("qwen3-8b", "Qwen/Qwen3-8B", str(tmp_path))]
    assert len({y.latency_s.nominal for y in found}) == 1
    assert "an inference is a token of one sequence, with 2,048 in the cache" in found[0].assumptions


def test_more_gpus_are_faster_and_take_more_energy() -> None:
    one, two, eight = (hs.estimate("llama-3-8b", "h100", phase="decode", devices=n) for n in (1, 2, 8))
    assert one.latency_s.nominal > two.latency_s.nominal > eight.latency_s.nominal
    assert one.energy_j.nominal < two.energy_j.nominal < eight.energy_j.nominal
    assert [y.mapping["devices"] for y in (one, two, eight)] == [1, 2, 8]


def test_the_best_split_is_the_fastest_of_all() -> None:
    shape = LANGUAGE_MODELS["qwen3-30b-a3b"]
    asked: dict[str, Any] = {"phase": "decode", "devices": 4, "batch": 64}
    best = hs.estimate("qwen3-30b-a3b", "h100", parallel="best", **asked)
    rates = {
        str(split): hs.estimate("qwen3-30b-a3b", "h100", parallel=vars(split), **asked).throughput_hz.nominal
        for split in possible(shape, 4)
    }
    assert best.throughput_hz.nominal == max(rates.values())
    assert any("splits over 4 devices" in sentence and "least energy" in sentence for sentence in best.assumptions)


def test_copies_and_stages_add_up() -> None:
    """Two copies make twice the tokens at the energy of one; a filled pipeline is no slower a token than one GPU."""
    one = hs.estimate("llama-3-8b", "h100", phase="decode", batch=16)
    copies = hs.estimate("llama-3-8b", "h100", phase="decode", batch=32, devices=2, parallel={"data": 2})
    assert copies.throughput_hz.nominal == pytest.approx(2 * one.throughput_hz.nominal)
    assert copies.energy_j.nominal == pytest.approx(one.energy_j.nominal)
    stages = hs.estimate("llama-3-8b", "h100", phase="decode", batch=32, devices=2, parallel={"pipeline": 2})
    assert stages.throughput_hz.nominal > 1.8 * one.throughput_hz.nominal


def test_serving_by_hand() -> None:
    """Tokens a second are sequences over steps; the median step is shorter, as few of them read a prompt."""
    found = hs.estimate("llama-3.1-8b", "h100", phase="serve", batch=64, sequence=257, output=395)
    apart = found.reported_separately
    assert found.throughput_hz.nominal == pytest.approx(64 / apart["step_s"].nominal)
    assert apart["time_between_tokens_s"].nominal < apart["step_s"].nominal < apart["time_to_first_token_s"].nominal
    assert found.mapping["mean_power_w"] < 700
    # measured by the ML.ENERGY leaderboard: 5,147 tokens/s, 0.1186 J a token
    assert found.throughput_hz.low < 5147.2 < found.throughput_hz.high
    assert found.energy_j.low < 0.11858 < found.energy_j.high


def test_prefix_caching_and_drafts_save() -> None:
    asked: dict[str, Any] = {"phase": "serve", "batch": 64, "sequence": 2000, "output": 200}
    plain = hs.estimate("llama-3.1-8b", "h100", **asked)
    cached = hs.estimate("llama-3.1-8b", "h100", prefix_cached=0.9, **asked)
    assert cached.energy_j.nominal < 0.8 * plain.energy_j.nominal
    one = hs.estimate("llama-3.1-8b", "h100", phase="decode")
    drafted = hs.estimate("llama-3.1-8b", "h100", phase="decode", draft_tokens=3, draft_accepted=0.8)
    right = 1 + 0.8 + 0.8**2 + 0.8**3  # tokens a step: the new one, and those before the first that is wrong
    assert drafted.throughput_hz.nominal == pytest.approx(right * one.throughput_hz.nominal, rel=0.15)


def test_bands_hold_the_physical_roof() -> None:
    """Not under what weights take from memory, nor above the boards' limits."""
    found = hs.estimate("llama-3-8b", "h100", phase="decode")
    assert found.latency_s.low > (8.03e9 - 128256 * 4096) * 2 / 3.35e12
    assert found.energy_j.high <= 700 * found.latency_s.high * (1 + 1e-9)
    assert sum(term.energy_j.nominal for term in found.terms) == pytest.approx(found.energy_j.nominal)


def test_an_eager_framework_waits_for_its_host() -> None:
    eager, graph = (hs.estimate("llama-3-8b", "h100", phase="decode", engine=e) for e in ("torch", "cuda-graph"))
    assert eager.latency_s.nominal > 1.2 * graph.latency_s.nominal
    assert hs.estimate("llama-3-8b", "h100", phase="decode").latency_s == graph.latency_s


def test_a_cpu_computes_in_what_the_network_is_stored_in() -> None:
    """A card without a model of its kernels counts the network: weights of 16 bits where the card computes in them."""
    card = load_card("h100").model_copy(update={"kernels": None})
    wide, stored = (hs.estimate("llama-3.2-1b", card, phase="decode", context=9, precision=p) for p in ("fp32", None))
    assert stored.mapping["weights_bytes"] == wide.mapping["weights_bytes"] / 2


def test_as_few_gpus_as_hold_it() -> None:
    found = {n: hs.estimate(n, "h100", phase="decode").mapping["devices"] for n in ("llama-3-8b", "llama-3-70b")}
    assert found == {"llama-3-8b": 1, "llama-3-70b": 2}
    split = hs.estimate("llama-3-8b", "h100", phase="decode", parallel={"tensor": 2, "pipeline": 2})
    assert split.mapping["devices"] == 4


def test_other_networks_run_in_copies() -> None:
    one, two = hs.estimate("resnet50", "h200", batch=4), hs.estimate("resnet50", "h200", batch=8, devices=2)
    assert two.throughput_hz.nominal == pytest.approx(2 * one.throughput_hz.nominal)
    assert two.energy_j.nominal == pytest.approx(one.energy_j.nominal)
    assert two.mapping["devices"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 2, "parallel": {"tensor": 3}}, r"they multiply to 3, and devices=2; possible over 2: data=2, "),
        ({"devices": 3, "parallel": {"tensor": 3}}, "3 GPUs cannot share its 32 heads of attention evenly"),
        ({"devices": 2, "parallel": {"expert": 2}}, "it has no experts"),
        ({"devices": 2, "parallel": {"tensors": 2}}, "tensors"),
        ({"devices": 2, "parallel": "fast"}, "must be 'best' or ways by name"),
        ({"devices": 0}, "devices=0: must be a whole number from 1"),
        ({"batch": 100_000}, "has room for 205 sequences of 2,049 tokens beside its weights"),
        ({"context": 200_000}, "200,001 tokens; it was made for at most 131,072"),
        ({"sequence": 200}, "phase='decode' takes context"),
        ({"precision": "fp4"}, "has a peak for fp32"),
        ({"draft_accepted": 1.5}, "draft_accepted=1.5: must be a finite number"),
        ({"prefix_cached": 0.5}, "phase='decode' reads none"),
        ({"phase": "train"}, "phase='train'"),
        ({"input_shape": (5,)}, "comes with its own input"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(hs.HpmlError, match=message) as error:
        hs.estimate("llama-3-8b", "h100", **{"phase": "decode", **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("what", "target", "options", "message"),
    [
        ("llama-3-70b", "h100", {"phase": "decode", "devices": 1}, "weights of 141.1 GB.*devices=2 holds it"),
        ("llama-3.1-405b", "rtx-4090", {"phase": "decode", "devices": 2}, "says nothing of links between GPUs"),
        ("llama-3-70b", "rtx-4090", {"phase": "decode"}, "weights of 141.1 GB.*take a card with more memory"),
        ("bert-large", "h100", {"phase": "decode"}, "needs a network that generates text"),
        ("llama-9", "h100", {}, "unknown network 'llama-9'"),
        ("resnet50", "h200", {"devices": 2, "batch": 3}, "take a multiple of 2"),
        ("resnet50", "h200", {"devices": 2, "batch": 2, "parallel": {"tensor": 2}}, "each device has a copy"),
        ("resnet50", "h200", {"context": 5}, "takes no sequence of tokens|is for phase='decode'"),
        ("llama-3-8b", "pcm-hermes", {"phase": "serve"}, "is for language models on GPUs"),
        ("llama-3-8b", "h100", {"chips": 2}, "chips: not for card 'h100'"),
    ],
)
def test_what_a_machine_cannot_do(what: str, target: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(hs.HpmlError, match=message) as error:
        hs.estimate(what, target, **options)
    assert "\n" not in str(error.value)


def test_a_network_as_an_object_says_how_many_tokens() -> None:
    with pytest.raises(hs.HpmlError, match="phase='decode': is for language models by name"):
        hs.estimate(hs.models.mlp(4, 4, 2), "h200", input_shape=(4,), phase="decode")


def test_without_parallel_every_matrix_is_shared() -> None:
    assert chosen(LANGUAGE_MODELS["llama-3-8b"], 8, None) == Split(tensor=8)
    assert chosen(LANGUAGE_MODELS["gemma-3-1b"], 8, None) == Split(tensor=4, data=2)  # four heads


def test_a_serving_engine_takes_no_other_engine() -> None:
    with pytest.raises(hs.HpmlError, match="engine='torch': phase='serve' is run by a serving engine"):
        hs.estimate("llama-3-8b", "h100", phase="serve", engine="torch")


@pytest.mark.parametrize("batch", [0, -3, 1.5, "many"])
def test_a_batch_is_a_whole_number(batch: Any) -> None:
    with pytest.raises(hs.HpmlError, match="batch="):
        estimate_language(LANGUAGE_MODELS["llama-3-8b"], _h100(), Request("decode", batch=batch))


def _h100() -> DigitalCard:
    card = load_card("h100")
    assert isinstance(card, DigitalCard)
    return card
