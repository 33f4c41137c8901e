"""A language model of Llama's layout that runs, with a key-value cache and generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpml_sim.errors import HpmlError, check_real, check_whole, shown


class TextTokenizer(Protocol):
    """What turns text into token ids and back."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a `text`."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token `ids`."""
        ...


@dataclass
class KeyValueCache:
    """Keys and values of the tokens that a language model has read, so that a later call reads only new ones.

    Attributes:
        keys: of each block, (batch, heads, tokens, width); empty before the first call.
        values: of each block, (batch, heads, tokens, width); empty before the first call.
    """

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many it holds."""
        return self.keys[0].shape[-2] if self.keys else 0

    def extended(self, block: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new keys and values of a block, and give all of its keys and values.

        Args:
            block: its number, from 0; blocks come in order.
            key: of the new tokens, (batch, heads, tokens, width).
            value: of the new tokens, (batch, heads, tokens, width).
        """
        if block == len(self.keys):
            self.keys.append(key)
            self.values.append(value)
        else:
            self.keys[block] = torch.cat([self.keys[block], key], dim=-2)
            self.values[block] = torch.cat([self.values[block], value], dim=-2)
        return self.keys[block], self.values[block]


@dataclass(frozen=True)
class LlamaSizes:
    """Sizes of a language model of Llama's layout.

    Attributes:
        vocabulary: tokens that there are.
        width: of a token.
        depth: blocks.
        heads: of queries in each block.
        kv_heads: of keys and values in each block; `heads` is a multiple of it.
        hidden: width of the feed-forward part.
        longest: most tokens of one text.
        rotary_base: of the angles of positions.
        eps: of the RMS norms.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    hidden: int
    longest: int
    rotary_base: float
    eps: float


class LlamaBlock(nn.Module):
    """Attention with rotary positions, then a gated feed-forward part, each behind an RMS norm and added to its input.

    Args:
        sizes: of the model.

    Source: H. Touvron et al., "LLaMA", arXiv:2302.13971 (2023), section 2.2; grouped queries: J. Ainslie et al.,
    arXiv:2305.13245 (2023).
    """

    def __init__(self, sizes: LlamaSizes):
        super().__init__()
        self.heads, self.kv_heads = sizes.heads, sizes.kv_heads
        self.head_width = sizes.width // sizes.heads
        kv = sizes.kv_heads * self.head_width
        self.norm1, self.norm2 = (nn.RMSNorm(sizes.width, eps=sizes.eps) for _ in range(2))
        self.query = nn.Linear(sizes.width, sizes.width, bias=False)
        self.key, self.value = (nn.Linear(sizes.width, kv, bias=False) for _ in range(2))
        self.out = nn.Linear(sizes.width, sizes.width, bias=False)
        self.gate, self.up = (nn.Linear(sizes.width, sizes.hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(sizes.hidden, sizes.width, bias=False)

    def forward(self, x: Tensor, turn: Tensor, cache: KeyValueCache | None = None, number: int = 0) -> Tensor:
        """The tokens after this block, (batch, tokens, width).

        Args:
            x: (batch, tokens, width).
            turn: cosine and sine of each position's angles, (2, tokens, head width / 2).
            cache: earlier tokens; the new ones are added to it.
            number: of the block, from 0: its place in the cache.
        """
        normed = self.norm1(x)
        query, key, value = (self._by_head(part) for part in (self.query(normed), self.key(normed), self.value(normed)))
        query, key = _rotated(query, turn), _rotated(key, turn)
        earlier = 0
        if cache is not None:
            key, value = cache.extended(number, key, value)
            earlier = key.shape[-2] - query.shape[-2]
        attended = _causal_attention(query, key, value, earlier, gqa=self.heads != self.kv_heads)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        normed = self.norm2(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (-1, self.head_width)).transpose(1, 2)


def _rotated(x: Tensor, turn: Tensor) -> Tensor:
    """Each pair of channels (2i, 2i + 1) turned by the angle of its position.

    Source: J. Su et al., "RoFormer", arXiv:2104.09864 (2021), equation 15.
    """
    cos, sin = turn[0], turn[1]
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def _causal_attention(query: Tensor, key: Tensor, value: Tensor, earlier: int, *, gqa: bool) -> Tensor:
    """Attention of each token to itself and to those before it; `earlier` of the keys come before all queries."""
    new = query.shape[-2]
    if earlier == 0 or new == 1:  # a single token attends to everything
        return F.scaled_dot_product_attention(query, key, value, is_causal=new > 1, enable_gqa=gqa)
    seen = torch.ones(new, earlier + new, dtype=torch.bool, device=query.device).tril(earlier)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, enable_gqa=gqa)


class LanguageModel(nn.Module):
    """A language model of Llama's layout: token ids (batch, tokens) -> logits (batch, tokens, vocabulary).

    The head shares its weight with the embedding. Every product is an `nn.Linear`, so that each can be converted.

    Args:
        sizes: of the model.
        tokenizer: turns text into token ids and back; None where there is none.

    Attributes:
        sizes: of the model.
        tokenizer: turns text into token ids and back.

    Example:
        >>> import torch
        >>> from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes
        >>> sizes = LlamaSizes(vocabulary=50, width=16, depth=2, heads=4, kv_heads=2, hidden=32, longest=64,
        ...                    rotary_base=1e4, eps=1e-5)
        >>> LanguageModel(sizes)(torch.arange(6)[None]).shape
        torch.Size([1, 6, 50])
    """

    def __init__(self, sizes: LlamaSizes, tokenizer: TextTokenizer | None = None):
        super().__init__()
        self.sizes, self.tokenizer = sizes, tokenizer
        self.words = nn.Embedding(sizes.vocabulary, sizes.width)
        self.blocks = nn.ModuleList(LlamaBlock(sizes) for _ in range(sizes.depth))
        self.norm = nn.RMSNorm(sizes.width, eps=sizes.eps)
        self.head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None, last: int | None = None) -> Tensor:
        """Logits of the token after each one, (batch, tokens, vocabulary).

        Args:
            tokens: token ids, int64 (batch, tokens).
            cache: of the tokens before these; these are added to it. None: there are none.
            last: of so many of the last tokens alone, >= 1, as making text needs; None: of all.

        Raises:
            HpmlError: no batch of whole numbers, or more tokens than the model was made for.
        """
        if tokens.dim() != 2 or tokens.is_floating_point():
            raise HpmlError(
                f"LanguageModel: tokens of shape {tuple(tokens.shape)}, {tokens.dtype}: must be whole numbers (batch, "
                "tokens); of text: torch.tensor([model.tokenizer.encode(text)])"
            )
        earlier = 0 if cache is None else cache.tokens
        if earlier + tokens.shape[1] > self.sizes.longest:
            raise HpmlError(
                f"LanguageModel: {earlier + tokens.shape[1]:,} tokens; it was made for at most {self.sizes.longest:,}"
            )
        x = self.words(tokens)
        turn = self._turn(earlier, tokens.shape[1], x)
        for number, block in enumerate(self.blocks):
            x = block(x, turn, cache, number)
        return self.head(self.norm(x if last is None else x[:, -last:]))

    def _turn(self, earlier: int, new: int, like: Tensor) -> Tensor:
        """Cosine and sine of the angles of the new positions, (2, tokens, head width / 2); angles in float32."""
        half = self.sizes.width // self.sizes.heads // 2
        speed = self.sizes.rotary_base ** -(torch.arange(half, device=like.device, dtype=torch.float32) / half)
        place = torch.arange(earlier, earlier + new, device=like.device, dtype=torch.float32)
        angle = place[:, None] * speed
        return torch.stack([angle.cos(), angle.sin()]).to(like.dtype)

    @torch.no_grad()
    def generate(
        self,
        prompt: str | Tensor,
        *,
        tokens: int = 20,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[int] | None = None,
    ) -> Tensor:
        """Token ids that continue a prompt, each read once: earlier ones lie in a key-value cache.

        Args:
            prompt: text, or token ids (batch, tokens), tokens >= 1.
            tokens: how many to make at most, >= 1.
            temperature: 0 takes the most likely token; above it, tokens are drawn from softmax(logits / temperature).
            seed: of the draws, >= 0; the caller's random state is left alone.
            stop: token ids after which a text ends; None takes the tokenizer's, where it has one. A batch goes on
                until all of its texts have ended; one that has ended is filled up with the id that ended it.

        Returns:
            The new tokens alone, int64 (batch, at most `tokens`).

        Raises:
            HpmlError: a number out of range, no tokens, a text without a tokenizer, or more tokens than the model was
                made for.

        Example:
            >>> from hpml_sim.networks.pretrained.language_model import LanguageModel, LlamaSizes
            >>> sizes = LlamaSizes(vocabulary=50, width=16, depth=2, heads=4, kv_heads=2, hidden=32, longest=64,
            ...                    rotary_base=1e4, eps=1e-5)
            >>> LanguageModel(sizes).generate(torch.arange(6)[None], tokens=3).shape
            torch.Size([1, 3])
        """
        ids = self._ids(prompt)
        tokens = check_whole("generate: tokens", tokens, low=1)
        temperature = check_real("generate: temperature", temperature, low=0)
        generator = torch.Generator(ids.device).manual_seed(check_whole("generate: seed", seed, low=0))
        if ids.shape[1] + tokens > self.sizes.longest:
            raise HpmlError(
                f"generate: {ids.shape[1]:,} tokens and {tokens:,} new ones; the model was made for at most "
                f"{self.sizes.longest:,}"
            )
        ends = torch.tensor(list(getattr(self.tokenizer, "ends", ()) if stop is None else stop), device=ids.device)
        cache, made, ended = KeyValueCache(), [], torch.zeros(len(ids), 1, dtype=torch.bool, device=ids.device)
        for _ in range(tokens):
            logits = self(ids, cache, last=1)[:, -1]
            if temperature:
                new = torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=generator)
            else:
                new = logits.argmax(dim=-1, keepdim=True)
            ids = torch.where(ended, made[-1], new) if made else new
            made.append(ids)
            ended = ended | torch.isin(ids, ends)
            if bool(ended.all()):
                break
        return torch.cat(made, dim=1)

    def _ids(self, prompt: str | Tensor) -> Tensor:
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise HpmlError("generate: this model has no tokenizer; give token ids (batch, tokens)")
            prompt = torch.tensor([self.tokenizer.encode(prompt)], device=self.words.weight.device)
        if not isinstance(prompt, Tensor) or prompt.dim() != 2 or not prompt.numel() or prompt.is_floating_point():
            given = f"{tuple(prompt.shape)}, {prompt.dtype}" if isinstance(prompt, Tensor) else shown(prompt)
            raise HpmlError(f"generate: prompt={given}: must be text, or token ids (batch, tokens), tokens >= 1")
        return prompt
