"""Multi-head attention with its projections on crossbars; scores and softmax stay digital."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hpml_sim.analog.linear import AnalogLinear
from hpml_sim.errors import HpmlError
from hpml_sim.targets import Analog


class AnalogMultiheadAttention(nn.Module):
    """`nn.MultiheadAttention` with four `AnalogLinear` layers: query, key, value and output projection.

    The call is that of `nn.MultiheadAttention`: (batch, length, width) with `batch_first`, else (length, batch, width).

    Args:
        query: projection of the queries.
        key: projection of the keys.
        value: projection of the values.
        output: projection of what the heads give together.
        heads: how many heads.

    Attributes:
        batch_first: whether the batch is the first dimension, True; `from_digital` takes that of the layer.
        dropout: share of the attention weights that are dropped in training, 0; `from_digital` takes that of the layer.
    """

    # read by nn.TransformerEncoder and its layers, whose fast path would otherwise multiply with the weights itself
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, query: AnalogLinear, key: AnalogLinear, value: AnalogLinear, output: AnalogLinear, heads: int):
        super().__init__()
        self.query, self.key, self.value, self.output = query, key, value, output
        self.num_heads = heads
        self.embed_dim = query.out_features
        self.batch_first = True
        self.dropout = 0.0

    @classmethod
    def from_digital(cls, layer: nn.MultiheadAttention, target: Analog) -> AnalogMultiheadAttention:
        """The same attention; the packed projections are cut into four layers with copies of the weights.

        Args:
            layer: the digital layer.
            target: the configuration.
        """
        width = layer.embed_dim
        if layer.in_proj_weight is not None:
            weights = layer.in_proj_weight.detach().split(width)
        else:
            weights = [w.detach() for w in (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)]
        biases = (None,) * 3 if layer.in_proj_bias is None else layer.in_proj_bias.detach().split(width)
        # copies, not views: a packed parameter cannot be the weight of three layers. Ties to it are lost
        parts = [_linear(w, b, target) for w, b in zip(weights, biases, strict=True)]
        parts.append(AnalogLinear.from_digital(layer.out_proj, target))
        new = cls(*parts, heads=layer.num_heads)
        new.batch_first, new.dropout = layer.batch_first, layer.dropout
        return new.train(layer.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,  # a hint only: torch wants the mask beside it
    ) -> tuple[Tensor, Tensor | None]:
        """Attention: the scores are computed in digital, because both of their factors change with every input.

        Args:
            query: shape (batch, length, width) with `batch_first`, else (length, batch, width).
            key: shape (batch, source length, width), or with the first two exchanged.
            value: shape (batch, source length, width), or with the first two exchanged.
            key_padding_mask: shape (batch, source length): True where a key is padding, or what is added to the scores.
            need_weights: whether the attention weights are returned as well.
            attn_mask: shape (length, source length) or (batch * heads, length, source length): True, or what is added
                to the scores, where a query must not see a key.
            average_attn_weights: whether the weights returned are a mean over the heads.
            is_causal: a hint of torch's, only beside `attn_mask`, which counts.

        Returns:
            The output, shaped as `query`, and the weights (batch, length, source length) or None.

        Raises:
            HpmlError: inputs without a batch dimension, or `is_causal` without a mask.
        """
        if is_causal and attn_mask is None:
            raise HpmlError(
                "analog attention: is_causal=True: is a hint that attn_mask= is causal, and needs it; give "
                f"attn_mask=nn.Transformer.generate_square_subsequent_mask({query.shape[1 if self.batch_first else 0]})"
            )
        if query.dim() != 3:
            raise HpmlError(f"analog attention: query must have a batch dimension (3 in all), got {tuple(query.shape)}")
        if not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])  # (batch, heads, length, source length)
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))
            scores = _masked(scores, attn_mask)
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask[:, None, None, :])
        weights = nn.functional.dropout(scores.softmax(-1), self.dropout, self.training)
        y = self.output((weights @ v).transpose(1, 2).flatten(2))
        if not self.batch_first:
            y = y.transpose(0, 1)
        if not need_weights:
            return y, None
        return y, weights.mean(1) if average_attn_weights else weights


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.to(scores.dtype)


def _linear(weight: Tensor, bias: Tensor | None, target: Analog) -> AnalogLinear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta", dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return AnalogLinear.from_digital(layer, target)
