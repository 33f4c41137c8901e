"""Known networks by name, built without weights on `torch.device("meta")`: for counting, never for running.

module, example = shape("llama-3-70b", phase="decode", context=8192)
workload(module, data=example)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hpml_sim.counting import LayerCount, register_counter
from hpml_sim.errors import HpmlError, UnknownNameError

Phase = Literal["prefill", "decode"]


class Architecture(NamedTuple):
    """A network without weights and one sample to count it with.

    Attributes:
        module: on the meta device, in evaluation mode. example: arguments of one call, batch 1, on the meta device.
    """

    module: nn.Module
    example: tuple[Tensor, ...]


@dataclass(frozen=True)
class Known:
    """What a name stands for.

    Attributes:
        build: makes the network; a language model takes the tokens that its cache holds. source: of the sizes.
        image: shape of one input, for networks without a sequence. sequence: tokens of one input, where there is one
            (the number taken if none is given, and the tokens in the cache when decoding).
        longest: most tokens the network was made for. decodes: generates token by token, with a cache.
        dtype: of weights and activations.
    """

    build: Callable[..., nn.Module]
    source: str
    image: tuple[int, ...] = ()
    sequence: int = 0
    longest: int = 0
    decodes: bool = False
    dtype: torch.dtype = field(default=torch.float32)


def shape(
    name: str, *, sequence: int | None = None, phase: Phase = "prefill", context: int | None = None
) -> Architecture:
    """A network by name, and a sample for it.

    Args:
        name: one of `ARCHITECTURES`.
        sequence: tokens of the sample (language models, prefill); None takes the usual number.
        phase: "prefill" reads `sequence` tokens at once and gives the logits of the last one; "decode" reads one new
            token against a key-value cache of `context` tokens, and attends to these and to itself.
        context: tokens in the cache (decode); None takes the usual number.

    Raises:
        UnknownNameError: no such network or phase. HpmlError: an argument that this network has no use for, or a length
            that it was not made for.

    Example:
        >>> sum(p.numel() for p in shape("resnet50").module.parameters())
        25557032
    """
    if name not in ARCHITECTURES:
        raise UnknownNameError("network", name, ARCHITECTURES)
    if phase not in ("prefill", "decode"):
        raise UnknownNameError("phase", phase, ("prefill", "decode"))
    known = ARCHITECTURES[name]
    decode = phase == "decode"
    if decode and not known.decodes:
        raise HpmlError(f"{name}: phase='decode' needs a network that generates text: {', '.join(_generating())}")
    if sequence is not None and (decode or not known.sequence):
        why = "reads one token at a time (give context=)" if known.decodes else "takes no sequence of tokens"
        raise HpmlError(f"{name}: sequence={sequence!r}: in phase {phase!r} it {why}")
    if context is not None and not decode:
        raise HpmlError(f"{name}: context={context!r} is for phase='decode'; here it is {phase!r}")
    for argument, value, least in (("sequence", sequence, 1), ("context", context, 0)):
        if value is not None and value < least:
            raise HpmlError(f"{name}: {argument}={value!r} must be >= {least}")
    given = context if decode else sequence
    length = known.sequence if given is None else given
    tokens, cached = (1, length) if decode else (length, 0)
    if known.sequence and tokens + cached > known.longest:
        raise HpmlError(f"{name}: {tokens + cached} tokens; it was made for at most {known.longest}")
    with torch.device("meta"):
        module = known.build(cached) if known.decodes else known.build()
        if known.sequence:
            example = torch.empty(1, tokens, dtype=torch.long)
        else:
            example = torch.empty(1, *known.image, dtype=known.dtype)
    return Architecture(module.to(known.dtype).eval().requires_grad_(False), (example,))


# ----------------------------------------------------------------------------------------------------- images and sound


class Residual(nn.Module):
    """ReLU(body(x) + shortcut(x))."""

    def __init__(self, body: nn.Module, shortcut: nn.Module):
        super().__init__()
        self.body, self.shortcut, self.act = body, shortcut, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width)."""
        return self.act(self.body(x) + self.shortcut(x))


def _conv_norm(ins: int, outs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(ins, outs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outs)]


def resnet(depths: tuple[int, ...], *, bottleneck: bool, classes: int = 1000) -> nn.Sequential:
    """ResNet for 224 x 224 images; the bottleneck's stride is in its 3 x 3 convolution (torchvision's, "v1.5")."""
    layers: list[nn.Module] = [*_conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    ins, expansion = 64, 4 if bottleneck else 1
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        outs = width * expansion
        for k in range(depth):
            stride = 2 if stage and not k else 1
            if bottleneck:
                body = [*_conv_norm(ins, width, 1), nn.ReLU(), *_conv_norm(width, width, 3, stride), nn.ReLU()]
                body += _conv_norm(width, outs, 1)
            else:
                body = [*_conv_norm(ins, width, 3, stride), nn.ReLU(), *_conv_norm(width, outs, 3)]
            same = stride == 1 and ins == outs
            shortcut = nn.Identity() if same else nn.Sequential(*_conv_norm(ins, outs, 1, stride))
            layers.append(Residual(nn.Sequential(*body), shortcut))
            ins = outs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(ins, classes))


def vgg8() -> nn.Sequential:
    """NeuroSim's VGG-8 for CIFAR-10: six 3 x 3 convolutions and two linear layers, no biases."""
    layers: list[nn.Module] = []
    ins = 3
    for width in (128, 256, 512):
        for _ in range(2):
            layers += [nn.Conv2d(ins, width, 3, padding=1, bias=False), nn.ReLU()]
            ins = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(8192, 1024, bias=False), nn.ReLU(), nn.Linear(1024, 10, bias=False)]
    return nn.Sequential(*layers)


def keyword_net(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers: list[nn.Module] = []
    for ins, outs in itertools.pairwise(sizes):
        layers += [nn.Linear(ins, outs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class VisionTransformer(nn.Module):
    """ViT: patches, a class token, learned positions, pre-norm blocks, a linear head on the class token."""

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


# ----------------------------------------------------------------------------------------------------------------- text


class KeyValueCache(nn.Module):
    """Keys and values of earlier tokens: (batch, heads, tokens, width) -> (batch, heads, cached + tokens, width)."""

    def __init__(self, cached: int):
        super().__init__()
        self.cached = cached

    def forward(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, those in the cache first."""
        old = torch.empty(*key.shape[:2], self.cached, key.shape[3], dtype=key.dtype, device=key.device)
        return torch.cat([old, key], dim=2), torch.cat([old, value], dim=2)


@register_counter(KeyValueCache)
def count_cache(module: KeyValueCache, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Elements in the cache after this call, and those that it adds; what attention reads is counted there."""
    key, value = inputs
    stored = float(sum(t.numel() for t in output))
    added = float(key.numel() + value.numel())
    bits = key.element_size() * 8
    return [LayerCount("", "kv_cache", state_elements=stored, output_elements=added, activation_bits=bits)]


class Attention(nn.Module):
    """Self-attention with `kv_heads` heads of keys and values, rotary positions if `rotary`, and a cache if causal.

    Args:
        packed: one matrix for queries, keys and values instead of three. cached: tokens in the cache; None: not causal.
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
    """down(SiLU(gate(x)) * up(x)): the feed-forward part of Llama."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down, self.act = nn.Linear(hidden, width, bias=False), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width)."""
        return self.down(self.act(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """A transformer block, norms before (`pre_norm`) or after the residual sums. `llama` takes RMSNorm and `Gated`."""

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
    """BERT's encoder with its pooler, no task head: (batch, tokens) -> (batch, width)."""

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
        cached: tokens in the key-value cache. learned_positions: how many; 0 where the attention has rotary ones.
        tied: the head is the embedding. blocks: settings of every block.
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


_IMAGENET = (3, 224, 224)
_LLAMA = partial(Decoder, vocabulary=128256, llama=True, bias=False, packed=False, rotary=True, kv_heads=8)
_LLAMA_SOURCE = (
    "A. Grattafiori et al., 'The Llama 3 herd of models', arXiv:2407.21783 (2024), Table 3; vocabulary of the released "
    "weights (128,256), context of Llama 3.1"
)

ARCHITECTURES: dict[str, Known] = {
    "resnet18": Known(
        partial(resnet, (2, 2, 2, 2), bottleneck=False),
        "K. He et al., 'Deep residual learning for image recognition', CVPR 2016, Table 1; torchvision's resnet18",
        image=_IMAGENET,
    ),
    "resnet50": Known(
        partial(resnet, (3, 4, 6, 3), bottleneck=True),
        "K. He et al., 'Deep residual learning for image recognition', CVPR 2016, Table 1; torchvision's resnet50",
        image=_IMAGENET,
    ),
    "vit-b16": Known(
        partial(VisionTransformer, image=224, patch=16, width=768, depth=12, heads=12, hidden=3072, classes=1000),
        "A. Dosovitskiy et al., 'An image is worth 16x16 words', ICLR 2021, Table 1; torchvision's vit_b_16",
        image=_IMAGENET,
    ),
    "bert-base": Known(
        partial(Bert, vocabulary=30522, positions=512, width=768, depth=12, heads=12, hidden=3072),
        "J. Devlin et al., 'BERT', NAACL 2019, section 3; bert-base-uncased",
        sequence=128,
        longest=512,
    ),
    "gpt2": Known(
        partial(
            Decoder,
            vocabulary=50257,
            width=768,
            depth=12,
            heads=12,
            hidden=3072,
            learned_positions=1024,
            tied=True,
        ),
        "A. Radford et al., 'Language models are unsupervised multitask learners', OpenAI 2019, Table 2 (smallest)",
        sequence=512,
        longest=1024,
        decodes=True,
    ),
    "llama-3-8b": Known(
        partial(_LLAMA, width=4096, depth=32, heads=32, hidden=14336),
        _LLAMA_SOURCE,
        sequence=2048,
        longest=131072,
        decodes=True,
        dtype=torch.bfloat16,
    ),
    "llama-3-70b": Known(
        partial(_LLAMA, width=8192, depth=80, heads=64, hidden=28672),
        _LLAMA_SOURCE,
        sequence=2048,
        longest=131072,
        decodes=True,
        dtype=torch.bfloat16,
    ),
    "vgg8-cifar10": Known(
        vgg8,
        "X. Peng et al., 'DNN+NeuroSim V2.0', IEEE TCAD 40:2306 (2021); DNN_NeuroSim_V1.3, `models/VGG.py`, vgg8",
        image=(3, 32, 32),
    ),
    "kws-390-256-256-29": Known(
        partial(keyword_net, 390, 256, 256, 29),
        "P. Blouw et al., 'Benchmarking keyword spotting efficiency on neuromorphic hardware', arXiv:1812.01739 (2019)",
        image=(390,),
    ),
}
"""Name -> network. Parameters and MACs are tested against the published figures."""


def _generating() -> list[str]:
    return [name for name, known in ARCHITECTURES.items() if known.decodes]
