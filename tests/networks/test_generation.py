"""Reading a prompt and making a token: counts by hand, of our language model and of one of transformers."""

from __future__ import annotations

import pytest
import torch

import hpml_sim as hs
from hpml_sim.errors import HpmlError
from hpml_sim.networks.generation import phase_workload, sizes_of
from hpml_sim.networks.pretrained.language_model import KeyValueCache, LanguageModel, LlamaSizes

SIZES = LlamaSizes(
    vocabulary=50, width=16, depth=2, heads=4, kv_heads=2, hidden=24, longest=64, rotary_base=1e4, eps=1e-5
)
MATRICES = 2 * (16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 24)  # two blocks: query, key and value, out; gate, up, down
HEAD = 16 * 50


def _model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(SIZES).eval()


@pytest.mark.parametrize("convert", [False, True])
def test_a_token_costs_each_matrix_once_and_attention_to_all_before(convert: bool) -> None:
    model = hs.convert(_model(), "pcm-hermes") if convert else _model()
    counts = phase_workload(model, "decode", 10)
    weights = sum(y.macs for y in counts.layers if y.rows)
    assert weights == MATRICES + HEAD
    # scores and values: each of 4 heads of 4 attends to 11 tokens, in two blocks
    assert counts.total("macs") - weights == 2 * 2 * 16 * 11
    caches = [y for y in counts.layers if y.op == "kv_cache"]
    assert [y.state_elements for y in caches] == [2 * 8 * 11] * 2  # keys and values of two heads of 4
    assert [y.output_elements for y in caches] == [2 * 8] * 2
    assert (counts.extra["tokens"], counts.extra["context"]) == (1, 10)


def test_a_prompt_costs_each_matrix_once_a_token_and_the_head_once() -> None:
    counts = phase_workload(_model(), "prefill", 10)
    assert sum(y.macs for y in counts.layers if y.rows) == 10 * MATRICES + HEAD
    assert counts.extra["tokens"] == 10
    assert "context" not in counts.extra
    assert counts.extra["kv_cache_elements"] == 2 * 2 * 8 * 10


def test_logits_of_the_last_token_are_those_of_all() -> None:
    model, ids = _model(), torch.arange(6)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids, last=1), model(ids)[:, -1:])
        cache = KeyValueCache()
        model(ids[:, :5], cache)
        torch.testing.assert_close(model(ids[:, 5:], cache, last=1), model(ids)[:, -1:])


def test_a_causal_model_of_transformers_counts_as_ours() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24,
        vocab_size=50, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    decode, prompt = phase_workload(model, "decode", 10), phase_workload(model, "prefill", 10)
    assert sum(y.macs for y in decode.layers if y.rows) == MATRICES + HEAD
    assert decode.total("macs") - MATRICES - HEAD == 2 * 2 * 16 * 11
    assert sum(y.macs for y in prompt.layers if y.rows) == 10 * MATRICES + HEAD
    assert decode.extra["kv_cache_elements"] == 2 * 2 * 8 * 11


def test_estimates_of_a_network_take_phases() -> None:
    analog = hs.convert(_model(), "pcm-hermes")
    token = hs.estimate(analog, phase="decode", context=10, scope="system")
    assert (token.phase, token.tokens, token.mapping["context"]) == ("decode", 1, 10)
    # one sequence cannot be pipelined with itself
    assert token.throughput_hz.nominal == pytest.approx(1 / token.latency_s.nominal)
    longer = hs.estimate(analog, phase="decode", context=60, scope="system")
    assert longer.by_component()["attention"].nominal > token.by_component()["attention"].nominal
    prompt = hs.estimate(analog, phase="prefill", sequence=10)
    each = prompt.per_token()
    assert each.energy_j.nominal == pytest.approx(prompt.energy_j.nominal / 10)
    assert each.throughput_hz.nominal == pytest.approx(prompt.throughput_hz.nominal * 10)
    assert each.latency_s == prompt.latency_s


def test_a_gpu_is_estimated_from_sizes_alike_by_network_and_by_name() -> None:
    # no weights: the sizes of SmolLM2 as they are published
    with torch.device("meta"):
        model = LanguageModel(LlamaSizes(49152, 576, 30, 9, 3, 1536, 8192, 1e5, 1e-5))
    assert sizes_of(model) is not None
    card = hs.Digital("h200", precision="bf16")
    mine = hs.estimate(model, card, phase="decode", context=512)
    named = hs.estimate("smollm2-135m", card, phase="decode", context=512)
    assert mine.energy_j == named.energy_j
    assert mine.latency_s == named.latency_s


def test_networks_that_make_no_text_are_refused_in_a_line() -> None:
    net = hs.models.mlp(4, 2)
    assert sizes_of(net) is None
    with pytest.raises(HpmlError, match="makes no text token by token"):
        phase_workload(net, "decode", 3)
    with pytest.raises(HpmlError, match="as networks that generate text"):
        hs.estimate(net, "cpu", phase="decode")
    with pytest.raises(HpmlError, match="65 tokens; the network was made for at most 64"):
        phase_workload(_model(), "decode", 64)
    with pytest.raises(HpmlError, match="leave out input_shape"):
        hs.estimate(_model(), "cpu", phase="decode", input_shape=(4,))
