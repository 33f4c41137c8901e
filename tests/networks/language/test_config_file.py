"""Sizes out of a `config.json` of Hugging Face: the fields of the released files give the published networks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpml_sim.errors import HpmlError
from hpml_sim.networks.architectures import find, shape
from hpml_sim.networks.language import LANGUAGE_MODELS, read_config

RELEASED: dict[str, dict[str, Any]] = {  # the fields of the released files that decide sizes
    "mixtral-8x7b": {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
        "vocab_size": 32000, "max_position_embeddings": 32768, "sliding_window": None, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
        "num_attention_heads": 32, "num_hidden_layers": 48, "num_key_value_heads": 4, "num_experts": 128,
        "num_experts_per_tok": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 40960,
        "decoder_sparse_step": 1, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    },
    "gemma-3-12b": {
        "model_type": "gemma3", "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152},
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 3840, "intermediate_size": 15360, "num_attention_heads": 16,
            "num_hidden_layers": 48, "num_key_value_heads": 8, "sliding_window": 1024,
        },
    },
    "gpt2": {
        "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257,
    },
    "bert-base": {
        "model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "max_position_embeddings": 512, "vocab_size": 30522, "type_vocab_size": 2,
    },
    "phi-2": {
        "model_type": "phi", "hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32,
        "intermediate_size": 10240, "max_position_embeddings": 2048, "vocab_size": 51200, "torch_dtype": "float16",
    },
    "deepseek-v3": {
        "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
        "num_attention_heads": 128, "num_hidden_layers": 61, "num_key_value_heads": 128, "n_routed_experts": 256,
        "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "kv_lora_rank": 512,
        "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280,
        "max_position_embeddings": 163840, "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8"},
    },
    "qwen-2.5-7b": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 32768,
        "sliding_window": 131072, "use_sliding_window": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    },
    "llama-4-scout": {
        "model_type": "llama4", "torch_dtype": "bfloat16",
        "text_config": {
            "model_type": "llama4_text", "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
            "num_attention_heads": 40, "num_hidden_layers": 48, "num_key_value_heads": 8, "head_dim": 128,
            "num_local_experts": 16, "num_experts_per_tok": 1, "vocab_size": 202048,
            "max_position_embeddings": 10485760, "attention_chunk_size": 8192,
        },
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_attention_heads": 64,
        "num_hidden_layers": 24, "num_key_value_heads": 8, "head_dim": 64, "num_local_experts": 32,
        "num_experts_per_tok": 4, "vocab_size": 201088, "max_position_embeddings": 131072, "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12, "attention_bias": True,
        "quantization_config": {"quant_method": "mxfp4"}, "tie_word_embeddings": False,
    },
}  # fmt: skip


def _write(folder: Path, config: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", RELEASED)
def test_released_files_give_the_published_sizes(name: str, tmp_path: Path) -> None:
    known = LANGUAGE_MODELS[name]
    found = read_config(_write(tmp_path, RELEASED[name]))
    assert replace(found, name=name, source=known.source) == known


def test_a_folder_and_a_path_stand_for_the_network(tmp_path: Path) -> None:
    path = _write(tmp_path, RELEASED["gpt2"])
    for name in (str(path), str(tmp_path)):
        module, _ = shape(name, phase="decode", context=5)
        assert sum(p.numel() for p in module.parameters()) == 124_439_808
    assert find("no-such-network") is None


@pytest.mark.parametrize(
    ("changes", "stored"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "int4"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "int8"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "int4"),
        ({"dtype": "float32"}, "fp32"),
    ],
)
def test_what_weights_are_stored_in(changes: dict[str, Any], stored: str, tmp_path: Path) -> None:
    assert read_config(_write(tmp_path, RELEASED["qwen-2.5-7b"] | changes)).stored == stored


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "resnet", "embedding_size": 64}, "not the config.json of a transformer that reads tokens"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder and a decoder in one"),
        ([1, 2], "holds an object with named sizes"),
        (RELEASED["gpt2"] | {"n_layer": "12"}, "n_layer='12': must be a whole number of at least 1"),
        (RELEASED["mixtral-8x7b"] | {"num_key_value_heads": 5}, "must divide the 32 heads"),
    ],
)
def test_other_files_are_refused_in_one_line(config: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(HpmlError, match=message) as error:
        read_config(_write(tmp_path, config))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HpmlError, match="there is no such file; give a config"):
        read_config(tmp_path / "other.json")
    bad = tmp_path / "config.json"
    bad.write_text("{")
    with pytest.raises(HpmlError, match="cannot be read as JSON"):
        read_config(bad)
