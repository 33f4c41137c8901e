"""The module of a `TransformerShape`, to be built on `torch.device("meta")` and counted, never run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpml_sim.counting import LayerCount, register_counter
from hpml_sim.networks.language.shape import Experts, Latent, TransformerShape


def build(shape: TransformerShape, cached: int = 0) -> nn.Module:
    """The network without weights: token numbers (batch, tokens) -> logits of the last one, or BERT's pooled first one.

    Args:
        shape: its sizes.
        cached: tokens in the key-value cache, >= 0.

    Example:
        >>> from hpml_sim.networks.language.known import LANGUAGE_MODELS
        >>> with torch.device("meta"):
        ...     module = build(LANGUAGE_MODELS["gpt2"])
        >>> sum(p.numel() for p in module.parameters()) == LANGUAGE_MODELS["gpt2"].parameters
        True
    """
    return _Network(shape, cached)


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
        return self._joined(key), self._joined(value)

    def _joined(self, new: Tensor) -> Tensor:
        old = torch.empty(*new.shape[:2], self.cached, new.shape[3], dtype=new.dtype, device=new.device)
        return torch.cat([old, new], dim=2)


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


class _Network(nn.Module):
    """Embedding, blocks, norm, and head or pooler."""

    def __init__(self, shape: TransformerShape, cached: int):
        super().__init__()
        self.cached = cached
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.positions, shape.width) if shape.positions else None
        self.segments = nn.Embedding(shape.segments, shape.width) if shape.segments else None
        plan = [_kind(shape, k) for k in range(shape.layers)]
        self.blocks = nn.Sequential(*(_Block(shape, cached, window, experts) for window, experts in plan))
        self.norm = _norm(shape)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=shape.head_bias) if shape.decodes else None
        self.pooler = nn.Linear(shape.width, shape.width) if shape.pooler else None
        if shape.tied and self.head is not None:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """A serving system needs the logits of the last token only, so the head runs once."""
        x = self.words(tokens)
        if self.positions is not None:
            x = x + self.positions(self.cached + torch.arange(tokens.shape[1], device=tokens.device))
        if self.segments is not None:
            x = x + self.segments(torch.zeros_like(tokens))
        if self.head is None:
            x = self.blocks(self.norm(x))
            return x if self.pooler is None else torch.tanh(self.pooler(x[:, 0]))
        return self.head(self.norm(self.blocks(x))[:, -1])


def _kind(shape: TransformerShape, k: int) -> tuple[int | None, Experts | None]:
    whole = shape.window is None or (shape.global_every > 0 and (k + 1) % shape.global_every == 0)
    e = shape.experts
    mixed = e is not None and k >= e.first_dense and (k + 1) % e.every == 0
    return None if whole else shape.window, e if mixed else None


def _norm(shape: TransformerShape, width: int | None = None) -> nn.Module:
    return (nn.LayerNorm if shape.norm_bias else nn.RMSNorm)(width or shape.width)


class _Block(nn.Module):
    """Attention and a feed-forward part: one after the other, or side by side behind one norm."""

    def __init__(self, shape: TransformerShape, cached: int, window: int | None, experts: Experts | None):
        super().__init__()
        self.norms = nn.ModuleList(_norm(shape) for _ in range(shape.norms))
        self.first = not (shape.segments and not shape.decodes)  # BERT norms after the sums
        attention = _Attention if shape.latent is None else _LatentAttention
        self.attention = attention(shape, cached if shape.decodes else None, window)
        self.feed_forward: nn.Module
        if experts is not None:
            self.feed_forward = _Mixture(shape, experts)
        elif shape.gated:
            self.feed_forward = Gated(shape.width, shape.hidden)
        else:
            wide = nn.Linear(shape.width, shape.hidden, bias=shape.bias)
            self.feed_forward = nn.Sequential(wide, nn.GELU(), nn.Linear(shape.hidden, shape.width, bias=shape.bias))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width)."""
        norms = self.norms
        if len(norms) == 1:
            y = norms[0](x)
            return x + self.attention(y) + self.feed_forward(y)
        if len(norms) == 4:
            x = x + norms[1](self.attention(norms[0](x)))
            return x + norms[3](self.feed_forward(norms[2](x)))
        if self.first:
            x = x + self.attention(norms[0](x))
            return x + self.feed_forward(norms[1](x))
        x = norms[0](x + self.attention(x))
        return norms[1](x + self.feed_forward(x))


def _reach(cached: int, window: int | None) -> int:
    """Tokens in the cache that a new one attends to: a window counts the new one as well."""
    return cached if window is None else min(cached, window - 1)


class _Attention(nn.Module):
    """Attention with grouped keys and values, and a cache."""

    def __init__(self, shape: TransformerShape, cached: int | None, window: int | None):
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        bias = shape.bias or shape.qkv_bias
        self.q, self.k, self.v = (nn.Linear(shape.width, outs, bias=bias) for outs in (queries, keys, keys))
        self.out = nn.Linear(queries, shape.width, bias=shape.bias)
        self.q_norm, self.k_norm = (
            (nn.RMSNorm(shape.head_width), nn.RMSNorm(shape.head_width)) if shape.qk_norm else (None, None)
        )
        self.cache = None if cached is None else KeyValueCache(_reach(cached, window))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width)."""
        shape = self.shape
        q, k, v = (y(x).unflatten(2, (-1, shape.head_width)).transpose(1, 2) for y in (self.q, self.k, self.v))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if not shape.positions:
            q, k = _rotated(q), _rotated(k)
        if self.cache is not None:
            k, v = self.cache(k, v)
        causal = self.cache is not None and q.shape[2] > 1
        grouped = shape.kv_heads != shape.heads
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)
        return self.out(y.transpose(1, 2).flatten(2))


def _rotated(x: Tensor) -> Tensor:
    """Pairs of channels turned by an angle that depends on the position."""
    angles = torch.empty(x.shape[2], x.shape[3], dtype=x.dtype, device=x.device)
    half = x.shape[3] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=3)
    return x * angles + turned * angles


class _LatentAttention(nn.Module):
    """Multi-head latent attention with the compressed vector as key and value of all heads, as a decode computes it."""

    def __init__(self, shape: TransformerShape, cached: int | None, window: int | None):
        super().__init__()
        assert shape.latent is not None
        self.latent: Latent = shape.latent
        self.heads = shape.heads
        y = shape.latent
        queries = shape.heads * (y.plain_width + y.rotary_width)
        self.q_down = nn.Linear(shape.width, y.query_rank, bias=False) if y.query_rank else None
        self.q_norm = nn.RMSNorm(y.query_rank) if y.query_rank else None
        self.q_up = nn.Linear(y.query_rank or shape.width, queries, bias=False)
        self.kv_down = nn.Linear(shape.width, y.kv_rank + y.rotary_width, bias=False)
        self.kv_norm = nn.RMSNorm(y.kv_rank)
        self.key_up = nn.Parameter(torch.empty(shape.heads, y.plain_width, y.kv_rank))
        self.value_up = nn.Parameter(torch.empty(shape.heads, y.kv_rank, y.value_width))
        self.out = nn.Linear(shape.heads * y.value_width, shape.width, bias=False)
        self.cache = KeyValueCache(_reach(cached or 0, window))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width)."""
        y = self.latent
        query = x if self.q_down is None or self.q_norm is None else self.q_norm(self.q_down(x))
        q = self.q_up(query).unflatten(2, (self.heads, -1)).transpose(1, 2)
        plain, rotary = q.split((y.plain_width, y.rotary_width), dim=3)
        down = self.kv_down(x)
        kept, turned = self.kv_norm(down[..., : y.kv_rank]), down[..., y.kv_rank :]
        key, value = self.cache(torch.cat([kept, turned], dim=2)[:, None], kept[:, None, :, :0])
        q = torch.cat([plain @ self.key_up, _rotated(rotary)], dim=3)
        scores = torch.softmax(q @ key.transpose(2, 3), dim=3)
        del value  # the cache keeps one vector a token, which is both
        heads = (scores @ key[..., : y.kv_rank]) @ self.value_up
        return self.out(heads.transpose(1, 2).flatten(2))


class _ExpertProducts(nn.Module):
    """The feed-forward parts of all experts, as two stacks of matrices.

    Args:
        shape: the network.
        experts: the mixture.
    """

    def __init__(self, shape: TransformerShape, experts: Experts):
        super().__init__()
        self.experts = experts
        (width, wide), (hidden, _) = shape.feed_forward(experts.hidden)
        self.up = nn.Parameter(torch.empty(experts.count, width, wide))
        self.down = nn.Parameter(torch.empty(experts.count, hidden, width))
        if shape.bias:
            self.up_bias = nn.Parameter(torch.empty(experts.count, wide))
            self.down_bias = nn.Parameter(torch.empty(experts.count, width))

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, width); where each token goes would need weights, so that nothing is computed."""
        return torch.empty_like(x)


@register_counter(_ExpertProducts)
def _count_experts(module: _ExpertProducts, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Products with the experts that tokens are sent to; weights of those that are touched, on average."""
    tokens = inputs[0].numel() // inputs[0].shape[-1]
    experts = module.experts
    touched = max(round(experts.touched(tokens)), 1)
    vectors = tokens * experts.active / touched
    bits = 8 * module.up.element_size()
    found = []
    for name, weight in (("up", module.up), ("down", module.down)):
        rows, cols = weight.shape[1:]
        extra = sum(p.numel() for n, p in module.named_parameters() if n == f"{name}_bias")
        found.append(
            LayerCount(
                name,
                "linear",
                rows=rows,
                cols=cols,
                groups=touched,
                vectors=vectors,
                macs=rows * cols * tokens * float(experts.active),
                weight_count=weight.numel() + extra,
                input_elements=float(rows * tokens * experts.active),
                output_elements=float(cols * tokens * experts.active),
                weight_bits=bits,
                activation_bits=bits,
            )
        )
    return found


class _Mixture(nn.Module):
    """A router, its experts, and an expert that every token takes."""

    def __init__(self, shape: TransformerShape, experts: Experts):
        super().__init__()
        self.router = nn.Linear(shape.width, experts.count, bias=False)
        self.experts = _ExpertProducts(shape, experts)
        self.shared = Gated(shape.width, experts.shared_hidden) if experts.shared_hidden else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width)."""
        torch.softmax(self.router(x), dim=2)
        y = self.experts(x)
        return y if self.shared is None else y + self.shared(x)
