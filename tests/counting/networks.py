"""Networks that several of these tests count, and what they compare with."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hpml_sim.counting import LayerCount, Workload
from hpml_sim.networks import models


def flop_counter_macs(model: nn.Module, *inputs: torch.Tensor) -> float:
    """Half the FLOPs that torch's own counter sees, below the layers; on the meta device attention is decomposed."""
    model = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter:
        model(*(x.to("meta") for x in inputs))
    return counter.get_total_flops() / 2


def rows(counts: Workload) -> dict[tuple[str, str], LayerCount]:
    return {(layer.name, layer.op): layer for layer in counts.layers}


def random_snn_input(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 3


class HandWritten(nn.Module):
    """Attention, products of bare parameters, and residual sums written with functions only."""

    def __init__(self, width: int = 8, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Parameter(torch.randn(width, 3 * width))
        self.out = nn.Parameter(torch.randn(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (x @ self.qkv).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        scores = torch.softmax(q @ k.transpose(2, 3), dim=-1)
        return x + torch.einsum("bhqk,bhkd->bhqd", scores, v).transpose(1, 2).flatten(2) @ self.out


class Grouped(nn.Module):
    """Grouped-query attention, fused."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x).unflatten(2, (4, 4)).transpose(1, 2)
        k, v = (part.unflatten(2, (1, 4)).transpose(1, 2) for part in self.kv(x).chunk(2, dim=2))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


class CrossAttention(nn.Module):
    """Learned queries over keys and values of other widths, with torch's extra rows."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 6, 8))
        self.attention = nn.MultiheadAttention(
            8, 2, kdim=5, vdim=3, add_bias_kv=True, add_zero_attn=True, batch_first=True
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.queries.expand(len(x), -1, -1), x, x[..., :3], need_weights=False)[0]


class LoRA(nn.Linear):
    """A subclass that does more than its base class."""

    def __init__(self) -> None:
        super().__init__(6, 5)
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Linear(2, 5, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - nn.Linear's name
        return super().forward(input) + self.up(F.linear(input, self.down))


def encoder(**kwargs: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **kwargs)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


NETWORKS = {
    "mlp": (lambda: models.mlp(12, 7, 5), (4, 12)),
    "cnn": (lambda: models.cnn((3, 8, 8), 10), (4, 3, 8, 8)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 4, 5, 7)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, stride=2, groups=4, dilation=2), (4, 4, 9, 8)),
    "same, circular": (lambda: nn.Conv1d(4, 6, 4, padding="same", padding_mode="circular"), (4, 4, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (3, 2, 1), padding="valid"), (4, 2, 5, 6, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, dilation=2), (4, 4, 5, 6)),
    "unet": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.ConvTranspose1d(4, 2, 3)), (4, 2, 9)),
    "self-attention": (lambda: encoder(), (4, 5, 16)),
    "pre-norm": (lambda: encoder(norm_first=True), (4, 5, 16)),
    "hand-written": (HandWritten, (4, 5, 8)),
    "grouped queries": (Grouped, (4, 5, 16)),
    "cross-attention": (CrossAttention, (4, 7, 5)),
    "lora": (LoRA, (4, 6)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (4, 4)),
}
