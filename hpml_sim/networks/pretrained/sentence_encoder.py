"""MiniLM: a small BERT that makes one vector of a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpml_sim.errors import HpmlError, shown
from hpml_sim.networks.pretrained.byte_pairs import Tokenizer, from_json

_PAD = 0
"""The id that fills sentences up; nothing attends to it."""
_LONGEST = 256
"""Tokens that its authors cut sentences at (sentence_bert_config.json)."""


class EncoderBlock(nn.Module):
    """Attention, then a feed-forward part, each added to its input and normalized.

    Args:
        width: of a token.
        heads: of attention; `width` is a multiple of it.
        hidden: width of the feed-forward part.
        eps: of the norms.

    Source: J. Devlin et al., "BERT", NAACL 2019; A. Vaswani et al., arXiv:1706.03762 (2017).
    """

    def __init__(self, width: int, heads: int, hidden: int, eps: float):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=eps) for _ in range(2))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """The tokens after this block, (batch, tokens, width).

        Args:
            x: (batch, tokens, width).
            seen: which tokens may be attended to, bool (batch, 1, 1, tokens).
        """
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query(x), self.key(x), self.value(x))
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = self.norm1(x + self.out(attended.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class SentenceEncoder(nn.Module):
    """Token ids (batch, tokens), filled up with 0, -> a vector of length 1 for each sentence, (batch, width).

    Args:
        vocabulary: tokens that there are.
        positions: most tokens of a sentence.
        width: of a token and of the vector.
        depth: blocks.
        heads: of attention in each block.
        hidden: width of the feed-forward parts.
        eps: of the norms.
        tokenizer: text to token ids and back; None where there is none.

    Attributes:
        tokenizer: text to token ids and back.

    Example:
        >>> import torch
        >>> from hpml_sim.networks.pretrained.sentence_encoder import SentenceEncoder
        >>> net = SentenceEncoder(vocabulary=50, positions=16, width=8, depth=2, heads=2, hidden=16)
        >>> net(torch.tensor([[3, 4, 0], [3, 4, 5]])).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        positions: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        eps: float = 1e-12,
        tokenizer: Tokenizer | None = None,
    ):
        super().__init__()
        self.tokenizer = tokenizer
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, hidden, eps) for _ in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean of a sentence's tokens after the last block, of length 1.

        Args:
            tokens: token ids, int64 (batch, tokens); sentences are filled up with 0.
        """
        there = tokens != _PAD
        where = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.positions(where) + self.segments(torch.zeros_like(tokens)))
        for block in self.blocks:
            x = block(x, there[:, None, None])
        share = there.to(x.dtype)[..., None]
        return F.normalize((x * share).sum(1) / share.sum(1).clamp(min=1), dim=1)

    def token_ids(self, sentences: Sequence[str]) -> Tensor:
        """Sentences as one batch of token ids, filled up with 0 and cut at 256 tokens.

        Args:
            sentences: a list of texts.

        Raises:
            HpmlError: there are none, one is no text, or the model has no tokenizer.
        """
        if self.tokenizer is None:
            raise HpmlError("token_ids: this model has no tokenizer")
        if isinstance(sentences, str) or not len(sentences):
            raise HpmlError(f"token_ids: sentences={shown(sentences)}: must be a list of texts, at least one")
        ids = [torch.tensor(self.tokenizer.encode(sentence)[:_LONGEST]) for sentence in sentences]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=_PAD)


_OF_BLOCK = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm2",
}
"""BERT's name of a part of a block -> ours."""
_OF_EMBEDDINGS = {
    "word_embeddings": "words",
    "position_embeddings": "positions",
    "token_type_embeddings": "segments",
    "LayerNorm": "norm",
}


def minilm(files: Mapping[str, Path]) -> SentenceEncoder:
    """MiniLM-L6 of sentence-transformers.

    Args:
        files: path in the package -> file, checked: model.safetensors, config.json, tokenizer.json.

    Raises:
        HpmlError: the package `tokenizers` is missing, or the file is of another layout.

    Source: W. Wang et al., "MiniLM", arXiv:2002.10957 (2020); mean of the tokens, length 1: sentence-transformers'
    modules.json of all-MiniLM-L6-v2.
    """
    found = {path.name: path for path in files.values()}
    from safetensors.torch import load_file

    config = json.loads(found["config.json"].read_text(encoding="utf-8"))
    tokenizer = from_json(found["tokenizer.json"].read_text(encoding="utf-8"), framed=True)
    with torch.device("meta"):
        model = SentenceEncoder(
            vocabulary=config["vocab_size"],
            positions=config["max_position_embeddings"],
            width=config["hidden_size"],
            depth=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            hidden=config["intermediate_size"],
            eps=config["layer_norm_eps"],
            tokenizer=tokenizer,
        )
    weights = {ours: w for name, w in load_file(found["model.safetensors"]).items() if (ours := _ours(name))}
    model.load_state_dict(weights, assign=True)
    return model


def _ours(name: str) -> str | None:
    """BERT's `name` of a weight in our words; None of what a sentence's vector does not need (the pooler)."""
    part, _, kind = name.rpartition(".")
    place, _, rest = part.partition(".")
    if place == "embeddings" and rest:
        return f"{_OF_EMBEDDINGS[rest]}.{kind}"
    if place != "encoder":
        return None
    _, number, inner = rest.split(".", 2)
    return f"blocks.{number}.{_OF_BLOCK[inner]}.{kind}"
