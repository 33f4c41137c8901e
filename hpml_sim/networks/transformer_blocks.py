"""Transformers of the literature, to be built without weights: Vision Transformer, BERT, GPT-2, Llama."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpml_sim.counting import LayerCount, register_counter


class KeyValueCache(nn.Module):
    """Keys and values of earlier tokens: (batch, heads, tokens, width) -> (batch, heads, cached + tokens, width).

    Args:
        cached: tokens in the cache, >= 0.
    """

    def __init__(self, cached: int):
        super().__init__()
        self.cached = cached

    def forward(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, those in the cache first.

        Args:
            key: of the new tokens, (batch, heads, tokens, width).
            value: of the new tokens, (batch, heads, tokens, width).
        """
        old = torch.empty(*key.shape[:2], self.cached, key.shape[3], dtype=key.dtype, device=key.device)
        return torch.cat([old, key], dim=2), torch.cat([old, value], dim=2)


@register_counter(KeyValueCache)
def count_cache(module: KeyValueCache, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Elements in the cache after this call, and those that it adds; what attention reads is counted there.

    Args:
        module: the cache.
        inputs: new keys and values.
        output: all keys and values.
    """
    key, value = inputs
    stored = float(sum(t.numel() for t in output))
    added = float(key.numel() + value.numel())
    bits = key.element_size() * 8
    return [LayerCount("", "kv_cache", state_elements=stored, output_elements=added, activation_bits=bits)]


class Attention(nn.Module):
    """Self-attention.

    Args:
        width: of a token.
        heads: of queries; `width` must be a multiple of it.
        kv_heads: heads of keys and values; None: as many as of queries.
        bias: whether the products add one.
        packed: one matrix for queries, keys and values instead of three.
        rotary: whether positions turn queries and keys.
        cached: tokens in the key-value cache; None: no cache, and attention is not causal.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        bias: bool = True,
        packed: bool = True,
        rotary: bool = False,
        cached: int | None = None,
    ):
        super().__init__()
        self.head_width = width // heads
        self.heads, self.kv_heads, self.rotary = heads, kv_heads or heads, rotary
        kv = self.kv_heads * self.head_width
        if packed:
            self.qkv = nn.Linear(width, width + 2 * kv, bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(width, outs, bias=bias) for outs in (width, kv, kv))
        self.packed = packed
        self.cache = None if cached is None else KeyValueCache(cached)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width)."""
        kv = self.kv_heads * self.head_width
        parts = self.qkv(x).split((x.shape[2], kv, kv), dim=2) if self.packed else (self.q(x), self.k(x), self.v(x))
        query, key, value = (part.unflatten(2, (-1, self.head_width)).transpose(1, 2) for part in parts)
        if self.rotary:
            query, key = self._rotate(query), self._rotate(key)
        if self.cache is not None:
            key, value = self.cache(key, value)
        causal = self.cache is not None and query.shape[2] > 1
        y = F.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=self.kv_heads != self.heads)
        return self.out(y.transpose(1, 2).flatten(2))

    def _rotate(self, x: Tensor) -> Tensor:
        """Rotary positions: pairs of channels turned by an angle that depends on the position."""
        angles = torch.empty(x.shape[2], x.shape[3], dtype=x.dtype, device=x.device)
        half = x.shape[3] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=3)
        return x * angles + turned * angles


class Gated(nn.Module):
    """down(SiLU(gate(x)) * up(x)): the feed-forward part of Llama.

    Args:
        width: of a token.
        hidden: of the product in between.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down, self.act = nn.Linear(hidden, width, bias=False), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width)."""
        return self.down(self.act(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """A transformer block: attention, then a feed-forward part, each with a norm and a residual sum.

    Args:
        width: of a token.
        heads: of queries.
        hidden: width of the feed-forward part.
        pre_norm: norms before the residual sums; False: after them.
        llama: RMSNorm and a gated feed-forward part in place of LayerNorm and GELU.
        attention: further arguments of `Attention`.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, *, pre_norm: bool = True, llama: bool = False, **attention: Any
    ):
        super().__init__()
        self.pre_norm = pre_norm
        self.norm1, self.norm2 = ((nn.RMSNorm if llama else nn.LayerNorm)(width) for _ in range(2))
        self.attention = Attention(width, heads, **attention)
        plain = (nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) if not llama else ()
        self.feed_forward = Gated(width, hidden) if llama else nn.Sequential(*plain)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width)."""
        if self.pre_norm:
            x = x + self.attention(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


class Bert(nn.Module):
    """BERT's encoder with its pooler, no task head: (batch, tokens) -> (batch, width).

    Args:
        vocabulary: tokens that there are.
        positions: most tokens of one input.
        width: of a token.
        depth: blocks.
        heads: of attention in each block.
        hidden: width of the feed-forward parts.

    Source: J. Devlin et al., "BERT", NAACL 2019, section 3.
    """

    def __init__(self, *, vocabulary: int, positions: int, width: int, depth: int, heads: int, hidden: int):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions, self.segments = nn.Embedding(positions, width), nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        blocks = (Block(width, heads, hidden, pre_norm=False, packed=False) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.pooler, self.act = nn.Linear(width, width), nn.Tanh()

    def forward(self, tokens: Tensor) -> Tensor:
        """Token numbers (batch, tokens) -> the pooled first token (batch, width)."""
        where = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.words(tokens) + self.positions(where) + self.segments(torch.zeros_like(tokens))
        return self.act(self.pooler(self.blocks(self.norm(x))[:, 0]))


class Decoder(nn.Module):
    """A language model: token numbers (batch, tokens) -> logits of the token after the last one (batch, vocabulary).

    Args:
        cached: tokens in the key-value cache, >= 0.
        vocabulary: tokens that there are.
        width: of a token.
        depth: blocks.
        heads: of queries in each block.
        hidden: width of the feed-forward parts.
        learned_positions: how many; 0 where the attention has rotary ones.
        tied: whether the head is the embedding.
        blocks: further arguments of every `Block`.
    """

    def __init__(
        self,
        cached: int,
        *,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        learned_positions: int = 0,
        tied: bool = False,
        **blocks: Any,
    ):
        super().__init__()
        self.cached = cached
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(learned_positions, width) if learned_positions else None
        self.blocks = nn.Sequential(*(Block(width, heads, hidden, cached=cached, **blocks) for _ in range(depth)))
        self.norm = nn.RMSNorm(width) if blocks.get("llama") else nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """A serving system needs the logits of the last token only, so the head runs once."""
        x = self.words(tokens)
        if self.positions is not None:
            x = x + self.positions(self.cached + torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x))[:, -1])


class VisionTransformer(nn.Module):
    """ViT: patches, a class token, learned positions, pre-norm blocks, a linear head on the class token.

    Args:
        image: side of the image, in pixels.
        patch: side of a patch, in pixels.
        width: of a token.
        depth: blocks.
        heads: of attention in each block.
        hidden: width of the feed-forward parts.
        classes: outputs.

    Source: A. Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, Table 1.
    """

    def __init__(self, *, image: int, patch: int, width: int, depth: int, heads: int, hidden: int, classes: int):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, image, image) -> (batch, classes)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])
