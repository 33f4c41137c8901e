"""`TransformerShape`: the sizes of a transformer that reads tokens, which decide what it costs; no weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hpml_sim.errors import HpmlError, check_whole

Stored = Literal["fp32", "fp16", "bf16", "fp8", "int8", "int4", "fp4"]
"""What a network's published weights are stored in."""


UNEVENNESS = 1.779
"""Standard deviation over mean of how often the experts of a layer are chosen; fitted: docs/gpu_validation.md."""


@dataclass(frozen=True)
class Experts:
    """The experts of a mixture-of-experts layer.

    Attributes:
        count: experts in each layer.
        active: experts that a token is sent to.
        hidden: width of one expert's feed-forward part.
        shared_hidden: width of the feed-forward part that every token takes as well; 0: none.
        first_dense: layers at the bottom that have a dense feed-forward part instead.
        every: a mixture in every n-th layer, counted from the top; the others are dense.
        unevenness: standard deviation over mean of how often the experts of a layer are chosen.
    """

    count: int
    active: int
    hidden: int
    shared_hidden: int = 0
    first_dense: int = 0
    every: int = 1
    unevenness: float = UNEVENNESS

    def touched(self, tokens: float) -> float:
        """Experts of a layer that get at least one of the tokens, on average.

        Were all chosen equally often, it would be count * (1 - exp(-tokens * active / count)). Some are chosen more
        often than others: with a gamma distribution of how often, of standard deviation c over mean, what an expert
        gets is negative binomial, and count * (1 - (1 + c^2 * tokens * active / count) ** (-1 / c^2)) have work.

        Args:
            tokens: tokens of a step, >= 0.

        Source: M. Greenwood, G. U. Yule, "An inquiry into the nature of frequency distributions representative of
        multiple happenings", J. Royal Statistical Society 83:255 (1920).
        """
        if self.active == self.count:
            return float(self.count) if tokens else 0.0
        spread = self.unevenness**2
        return self.count * -math.expm1(-math.log1p(spread * tokens * self.active / self.count) / spread)


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: keys and values are kept as one compressed vector a token.

    Attributes:
        kv_rank: width of the compressed keys and values.
        rotary_width: width of the part of a key that carries the position, one for all heads.
        plain_width: width of a head's query and key without the rotary part.
        value_width: width of a head's value.
        query_rank: width of the compressed query; 0: queries are not compressed.

    Source: DeepSeek-AI, "DeepSeek-V2", arXiv:2405.04434 (2024), section 2.1.
    """

    kv_rank: int
    rotary_width: int
    plain_width: int
    value_width: int
    query_rank: int = 0


@dataclass(frozen=True)
class Layer:
    """Layers of one kind.

    Attributes:
        count: how many there are.
        window: tokens that its attention looks back on; None: all.
        experts: the mixture in its feed-forward part; None: dense.
    """

    count: int
    window: int | None
    experts: Experts | None


@dataclass(frozen=True)
class TransformerShape:
    """The sizes of a transformer that reads tokens.

    Attributes:
        name: of the network.
        source: where the sizes are published.
        layers: transformer blocks.
        width: of a token.
        heads: of queries.
        kv_heads: of keys and values.
        head_width: of one head.
        hidden: width of a dense feed-forward part.
        vocabulary: tokens that there are.
        longest: most tokens that it was made for.
        tied: whether the head is the embedding.
        gated: whether the feed-forward part has a gate (three matrices) or not (two).
        bias: whether all products add one.
        qkv_bias: whether queries, keys and values add one.
        head_bias: whether the head adds one.
        norms: norms of a block.
        norm_bias: whether a norm has a bias (LayerNorm) or not (RMSNorm).
        qk_norm: whether queries and keys are normed, head by head.
        positions: learned positions; 0: rotary ones.
        segments: learned segments, as BERT has them.
        window: tokens that attention in local layers looks back on; None: all layers look at everything.
        global_every: where there is a window, one of so many layers looks at everything; 0: none does.
        experts: mixture of experts; None: dense.
        latent: multi-head latent attention; None: heads of keys and values.
        decodes: whether it generates text token by token; False: an encoder.
        pooler: whether the first token goes through a last matrix, as BERT's does.
        stored: what its published weights are stored in.
    """

    name: str
    source: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    vocabulary: int
    longest: int
    tied: bool = False
    gated: bool = True
    bias: bool = False
    qkv_bias: bool = False
    head_bias: bool = False
    norms: int = 2
    norm_bias: bool = False
    qk_norm: bool = False
    positions: int = 0
    segments: int = 0
    window: int | None = None
    global_every: int = 0
    experts: Experts | None = None
    latent: Latent | None = None
    decodes: bool = True
    pooler: bool = False
    stored: Stored = "bf16"

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "kv_heads", "head_width", "hidden", "vocabulary", "longest"):
            check_whole(f"{self.name}: {name}", getattr(self, name), low=1)
        if self.heads % self.kv_heads:
            raise HpmlError(
                f"{self.name}: kv_heads={self.kv_heads}: must divide the {self.heads} heads of queries, as groups of "
                "these share a key"
            )
        if self.experts is not None and not 1 <= self.experts.active <= self.experts.count:
            raise HpmlError(
                f"{self.name}: {self.experts.active} active experts: must be between 1 and the {self.experts.count} "
                "that there are"
            )

    def kinds(self) -> Iterator[Layer]:
        """The layers, grouped by what they do: window or not, experts or not."""
        counted: dict[tuple[int | None, Experts | None], int] = {}
        for k in range(self.layers):
            everything = self.window is None or (self.global_every > 0 and (k + 1) % self.global_every == 0)
            e = self.experts
            mixed = e is not None and k >= e.first_dense and (k + 1) % e.every == 0
            kind = (None if everything else self.window, e if mixed else None)
            counted[kind] = counted.get(kind, 0) + 1
        for (window, experts), count in counted.items():
            yield Layer(count, window, experts)

    @property
    def usual_tokens(self) -> int:
        """Tokens of one input, or in the cache, where none are given: 2,048 at most, half of what it was made for."""
        return min(2048, max(self.longest // 2, 1)) if self.decodes else min(128, self.longest)

    @property
    def kv_width(self) -> int:
        """Elements that the cache keeps of one token in one layer."""
        if self.latent is not None:
            return self.latent.kv_rank + self.latent.rotary_width
        return 2 * self.kv_heads * self.head_width

    def cached(self, context: float) -> float:
        """Elements of the key-value cache that one sequence takes, all layers; a window keeps no more than it sees.

        Args:
            context: tokens of the sequence, >= 0.
        """
        return self.kv_width * sum(y.count * min(context, y.window or context) for y in self.kinds())

    def attention_weights(self) -> list[tuple[int, int]]:
        """The matrices of attention in one layer as (inputs, outputs): into it, then out of it."""
        if self.latent is None:
            queries = self.heads * self.head_width
            return [(self.width, queries + 2 * self.kv_heads * self.head_width), (queries, self.width)]
        y = self.latent
        queries = self.heads * (y.plain_width + y.rotary_width)
        first = [(self.width, y.query_rank), (y.query_rank, queries)] if y.query_rank else [(self.width, queries)]
        down = (self.width, y.kv_rank + y.rotary_width)
        up = (y.kv_rank, self.heads * (y.plain_width + y.value_width))
        return [*first, down, up, (self.heads * y.value_width, self.width)]

    def feed_forward(self, hidden: int) -> list[tuple[int, int]]:
        """The matrices of a feed-forward part as (inputs, outputs); gate and up are one product.

        Args:
            hidden: its width.
        """
        return [(self.width, hidden * (2 if self.gated else 1)), (hidden, self.width)]

    @property
    def parameters(self) -> int:
        """All weights, the embedding included; a head that is the embedding counts once."""
        total = self.vocabulary * self.width * (1 if self.tied else 2 if self.decodes else 1)
        total += (self.positions + self.segments) * self.width
        norm = self.width * (2 if self.norm_bias else 1)
        total += norm + (self.vocabulary if self.head_bias else 0)
        total += self.width * (self.width + 1) if self.pooler else 0
        for y in self.kinds():
            total += y.count * (self._attention_parameters() + self.norms * norm + self._forward_parameters(y.experts))
        return total

    @property
    def active_parameters(self) -> int:
        """Weights that one token is multiplied with or looks up: the experts that it is sent to, not all."""
        idle = sum(
            y.count * (y.experts.count - y.experts.active) * sum(a * b for a, b in self.feed_forward(y.experts.hidden))
            for y in self.kinds()
            if y.experts is not None
        )
        return self.parameters - idle

    def _attention_parameters(self) -> int:
        matrices = self.attention_weights()
        total = sum(a * b for a, b in matrices)
        if self.latent is not None:
            return total + self.latent.kv_rank + self.latent.query_rank  # norms of the compressed vectors
        if self.bias or self.qkv_bias:
            total += matrices[0][1]
        if self.bias:
            total += matrices[1][1]
        return total + (2 * self.head_width if self.qk_norm else 0)

    def _forward_parameters(self, experts: Experts | None) -> int:
        def of(hidden: int) -> int:
            matrices = self.feed_forward(hidden)
            return sum(a * b for a, b in matrices) + (sum(b for _, b in matrices) if self.bias else 0)

        if experts is None:
            return of(self.hidden)
        router = self.width * experts.count
        return router + experts.count * of(experts.hidden) + (of(experts.shared_hidden) if experts.shared_hidden else 0)
