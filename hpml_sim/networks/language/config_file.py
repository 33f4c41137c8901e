"""A Hugging Face `config.json`: the sizes of a transformer without its weights and without its code.

Names of fields and what they are where a file leaves them out: the configuration classes of transformers 4.57,
`src/transformers/models/*/configuration_*.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpml_sim.errors import HpmlError, shown
from hpml_sim.networks.language.shape import Experts, Latent, Stored, TransformerShape

_PLAIN = {"gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "phi", "falcon", "starcoder2", "codegen", "mpt"}
"""Model types whose feed-forward part has no gate."""
_ENCODERS = {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "camembert", "mpnet", "deberta-v2"}
_LAYER_NORM = _PLAIN | _ENCODERS | {"stablelm", "cohere", "cohere2"}
_BIASED = (_PLAIN | _ENCODERS) - {"gptj", "falcon", "mpt", "codegen"} | {"gpt_oss"}
_TIED = {
    "gpt2",
    "gpt_neo",
    "opt",
    "bloom",
    "falcon",
    "mpt",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "cohere",
    "cohere2",
}
_QKV_BIASED = {"qwen", "qwen2", "qwen2_moe"}
_QK_NORMED = {"qwen3", "qwen3_moe", "gemma3", "gemma3_text", "olmo2"}
_FOUR_NORMS = {"gemma2", "gemma3", "gemma3_text", "glm4"}
_ONE_NORM = {"phi", "gptj", "falcon", "codegen", "cohere", "cohere2"}
_LEARNED = {"gpt2", "gpt_neo", "opt", *_ENCODERS} - {"deberta-v2"}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma3_text": {"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
                    "max_position_embeddings": 131072, "sliding_window": 4096, "sliding_window_pattern": 6},
    "gemma2": {"sliding_window_pattern": 2},
    "llama4_text": {"interleave_moe_layer_step": 1, "attention_chunk_size": 8192, "no_rope_layer_interval": 4},
    "distilbert": {"type_vocab_size": 0},
}  # fmt: skip
"""What a file may leave out, where it is not what other types have."""
_STORED: dict[str, Stored] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_QUANTIZED: dict[str, Stored] = {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "fp4", "awq": "int4", "gptq": "int4"}


def read_config(path: str | Path) -> TransformerShape:
    """The sizes in a `config.json` of Hugging Face.

    Args:
        path: the file, or the folder that it is in.

    Raises:
        HpmlError: no such file, no JSON, or no transformer that reads tokens and writes them itself.

    Example:
        >>> import json, tempfile, pathlib
        >>> where = pathlib.Path(tempfile.mkdtemp(), "config.json")
        >>> _ = where.write_text(json.dumps({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
        ...     "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 256}))
        >>> read_config(where).parameters
        95040
    """
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HpmlError(f"{path}: there is no such file; give a config.json of Hugging Face, or its folder") from None
    except (OSError, ValueError) as error:
        raise HpmlError(f"{path}: cannot be read as JSON: {' '.join(str(error).split())}") from None
    if not isinstance(config, Mapping):
        raise HpmlError(
            f"{path}: holds {shown(config)}; a config.json of Hugging Face holds an object with named sizes"
        )
    return _Reader(path, config).shape()


def shape_of_config(where: str, config: Mapping[str, Any]) -> TransformerShape:
    """The sizes in a configuration that is loaded already.

    Args:
        where: stands before messages.
        config: its fields by name, as `config.to_dict()` of transformers gives them.

    Raises:
        HpmlError: no transformer that reads tokens and writes them itself.
    """
    return _Reader(Path(where), config).shape()


@dataclass
class _Reader:
    """Reads one file; every message begins with its path.

    Attributes:
        path: the file.
        config: what it holds.
    """

    path: Path
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        outer = self.config
        if outer.get("is_encoder_decoder"):
            raise HpmlError(
                f"{self.path}: model_type={outer.get('model_type')!r} is an encoder and a decoder in one, which has no "
                "shape here; give a decoder (Llama, Qwen, ...) or an encoder (BERT, ...)"
            )
        inner = outer.get("text_config") or outer.get("llm_config") or {}
        self.type = str(inner.get("model_type") or outer.get("model_type") or "")
        merged = {**_DEFAULTS.get(self.type, {}), **outer, **inner}
        self.config = {name: value for name, value in merged.items() if value is not None}

    def shape(self) -> TransformerShape:
        """The sizes."""
        kind = self.type
        width, layers = self.size("hidden_size", "n_embd", "d_model", "dim"), self.size(
            "num_hidden_layers", "n_layer", "num_layers", "n_layers"
        )  # fmt: skip
        heads = self.size("num_attention_heads", "n_head", "n_heads", "num_heads")
        gated = kind not in _PLAIN | _ENCODERS
        encoder = kind in _ENCODERS
        longest = self.size(
            "max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len", "model_max_length"
        )
        window, every = self.window(layers)
        latent = self.latent()
        return TransformerShape(
            name=self.path.parent.name or str(self.path),
            source=f"{self.path}, model_type {kind!r}",
            layers=layers,
            width=width,
            heads=heads,
            kv_heads=self.kv_heads(heads),
            head_width=self.size("head_dim", "kv_channels", default=max(width // heads, 1))
            if latent is None
            else latent.value_width,
            hidden=self.size(
                "intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_dim", "hidden_dim", default=4 * width
            ),
            vocabulary=self.size("vocab_size"),
            longest=longest,
            tied=bool(self.config.get("tie_word_embeddings", kind in _TIED)) and not encoder,
            gated=gated,
            bias=(bool(self.config.get("attention_bias")) and bool(self.config.get("mlp_bias"))) or kind in _BIASED,
            qkv_bias=kind in _QKV_BIASED,
            head_bias=kind in {"phi", "gptj", "codegen"},
            norms=4 if kind in _FOUR_NORMS else 1 if kind in _ONE_NORM else 2,
            norm_bias=kind in _LAYER_NORM,
            qk_norm=kind in _QK_NORMED,
            positions=longest if kind in _LEARNED else 0,
            segments=self.size("type_vocab_size", default=2, low=0) if encoder else 0,
            window=window,
            global_every=every,
            experts=self.experts(layers),
            latent=latent,
            decodes=not encoder,
            pooler=kind in {"bert", "roberta", "xlm-roberta", "camembert"},
            stored=self.stored(),
        )

    def size(self, *names: str, default: int | None = None, low: int = 1) -> int:
        """The first of these fields that the file has."""
        for name in names:
            value = self.config.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise HpmlError(f"{self.path}: {name}={shown(value)}: must be a whole number of at least {low}")
            return value
        if default is not None:
            return default
        raise HpmlError(
            f"{self.path}: model_type={self.type!r} has no {' or '.join(names)}: not the config.json of a transformer "
            "that reads tokens (Llama, Qwen, Gemma, Mistral, DeepSeek, GPT-2, BERT, ...)"
        )

    def kv_heads(self, heads: int) -> int:
        """Heads of keys and values; where the file does not say, as many as of queries, or one (multi-query)."""
        if self.config.get("multi_query") and not self.config.get("new_decoder_architecture"):
            return 1
        return self.size("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", default=heads)

    def window(self, layers: int) -> tuple[int | None, int]:
        """Tokens that local layers look back on, and every how many layers one looks at everything (0: none)."""
        window = self.config.get("sliding_window", self.config.get("attention_chunk_size"))
        kinds = self.config.get("layer_types")
        if isinstance(kinds, list):
            whole = [k for k, kind in enumerate(kinds) if kind == "full_attention"]
            if not isinstance(window, int) or len(whole) == layers:
                return None, 0
            return window, (round(layers / len(whole)) if whole else 0)
        if not isinstance(window, int) or self.config.get("use_sliding_window") is False:
            return None, 0
        pattern = self.config.get("sliding_window_pattern", self.config.get("no_rope_layer_interval", 0))
        return window, pattern if isinstance(pattern, int) else 0

    def experts(self, layers: int) -> Experts | None:
        """The mixture of experts, under the names that its families have."""
        count = self.size("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", default=0, low=0)
        if count < 2:
            return None
        hidden = self.size("moe_intermediate_size", "intermediate_size", "ffn_dim")
        shared = self.size("n_shared_experts", default=0, low=0) * hidden
        shared = self.size("shared_expert_intermediate_size", "shared_intermediate_size", default=shared, low=0)
        if self.type == "llama4_text":
            shared = hidden
        return Experts(
            count,
            self.size("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "num_selected_experts"),
            hidden,
            shared_hidden=shared,
            first_dense=self.size("first_k_dense_replace", default=0, low=0),
            every=self.size("interleave_moe_layer_step", "decoder_sparse_step", default=1),
        )

    def latent(self) -> Latent | None:
        """Multi-head latent attention."""
        if "kv_lora_rank" not in self.config:
            return None
        return Latent(
            self.size("kv_lora_rank"),
            self.size("qk_rope_head_dim"),
            self.size("qk_nope_head_dim"),
            self.size("v_head_dim"),
            query_rank=self.size("q_lora_rank", default=0, low=0),
        )

    def stored(self) -> Stored:
        """What the weights are stored in."""
        quantized = self.config.get("quantization_config")
        if isinstance(quantized, Mapping):
            method, bits = str(quantized.get("quant_method", "")), quantized.get("bits")
            if isinstance(groups := quantized.get("config_groups"), Mapping):
                weights = next((g.get("weights") for g in groups.values() if isinstance(g, Mapping)), None) or {}
                bits = weights.get("num_bits")
                method = "fp8" if weights.get("type") == "float" and bits == 8 else method
            if method in ("fp8", "mxfp4", "fbgemm_fp8"):
                return _QUANTIZED[method]
            return "int8" if bits == 8 or quantized.get("load_in_8bit") else _QUANTIZED.get(method, "int4")
        name = str(self.config.get("dtype") or self.config.get("torch_dtype") or "float32")
        return _STORED.get(name.removeprefix("torch."), "bf16")
