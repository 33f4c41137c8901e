"""SmolLM2-135M-Instruct from its GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpml_sim.errors import HpmlError
from hpml_sim.networks.pretrained.byte_pairs import Tokenizer, byte_pairs
from hpml_sim.networks.pretrained.gguf_file import read_gguf
from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes

_OF_BLOCK = {
    "attn_norm": "norm1",
    "attn_q": "query",
    "attn_k": "key",
    "attn_v": "value",
    "attn_output": "out",
    "ffn_norm": "norm2",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
"""GGUF's name of a tensor of a block -> ours."""
_ELSEWHERE = {"token_embd.weight": "words.weight", "output_norm.weight": "norm.weight"}
_CONTROL = 3
"""GGUF's number for tokens that stand for no text."""


def smollm2(files: Mapping[str, Path]) -> LanguageModel:
    """The language model, its quantized weights made float32.

    Args:
        files: path in the package -> the GGUF file, checked.

    Raises:
        HpmlError: the package `gguf` or `tokenizers` is missing, or the file is of another layout.

    Source: layout and rotary pairs (2i, 2i + 1): the GGUF specification and llama.cpp's conversion of Llama weights.
    """
    (path,) = files.values()
    values, arrays = read_gguf(path)
    with torch.device("meta"):
        model = LanguageModel(_sizes(values), _tokenizer(values))
    weights = {_ours(name): torch.from_numpy(made()) for name, made in arrays.items()}
    weights["head.weight"] = weights["words.weight"]
    _assign(model, weights, path)
    model.head.weight = model.words.weight
    return model


def smollm2_tokenizer(files: Mapping[str, Path]) -> Tokenizer:
    """The tokenizer of the language model alone, without its weights.

    Args:
        files: path in the package -> the GGUF file, checked.

    Raises:
        HpmlError: the package `gguf` or `tokenizers` is missing.
    """
    (path,) = files.values()
    return _tokenizer(read_gguf(path).values)


def _sizes(values: Mapping[str, Any]) -> LlamaSizes:
    def of(name: str) -> Any:
        return values[f"llama.{name}"]

    return LlamaSizes(
        vocabulary=of("vocab_size"),
        width=of("embedding_length"),
        depth=of("block_count"),
        heads=of("attention.head_count"),
        kv_heads=of("attention.head_count_kv"),
        hidden=of("feed_forward_length"),
        longest=of("context_length"),
        rotary_base=of("rope.freq_base"),
        eps=of("attention.layer_norm_rms_epsilon"),
    )


def _tokenizer(values: Mapping[str, Any]) -> Tokenizer:
    tokens, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    ends = (tokens.index("<|endoftext|>"), values["tokenizer.ggml.eos_token_id"])
    return byte_pairs(tokens, values["tokenizer.ggml.merges"], special, ends)


def _ours(name: str) -> str:
    """GGUF's `name` of a tensor in our words: "blk.3.ffn_down.weight" is "blocks.3.down.weight"."""
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    _, number, part, kind = name.split(".")
    return f"blocks.{number}.{_OF_BLOCK[part]}.{kind}"


def _assign(model: LanguageModel, weights: Mapping[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise HpmlError(f"{path}: not the layout that was expected: {error}") from error
