"""How torch's layers are counted: one function for each kind, which counts one call.

Each takes (module, inputs, output) and gives what this call did, for all samples of the batch together.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hpml_sim.counting.fan_out import Convolution, activity, has_values, product
from hpml_sim.counting.operation_counts import LayerCount
from hpml_sim.counting.rule import Counter, Rule
from hpml_sim.counting.tensors import first_tensor


def weight_of(module: nn.Module) -> Tensor | None:
    """The layer's weight where it is a dense tensor; some layers keep theirs elsewhere."""
    weight = getattr(module, "weight", None)
    if type(weight).__module__.startswith("torchao."):  # integers and scales in one, which knows few operations
        return None
    return weight if isinstance(weight, Tensor) and weight.layout is torch.strided else None


def count_linear(module: nn.Linear, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Every last-dimension vector of the input times one matrix.

    Args:
        module: the layer.
        inputs: its arguments.
        output: what it gave.
    """
    weight = weight_of(module)
    x = inputs[0].reshape(1, math.prod(inputs[0].shape[:-1]), module.in_features)
    return [product(x, module.out_features, None if weight is None else weight.t()[None])]


def count_conv(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """All of torch's convolutions: 1 to 3 dimensions, grouped, dilated, transposed, every padding mode.

    Args:
        module: the layer.
        inputs: its arguments.
        output: what it gave.
    """
    n = len(module.kernel_size)
    x = inputs[0] if inputs[0].dim() == n + 2 else inputs[0][None]
    if isinstance(module.padding, str):  # "same" puts the odd one behind, as torch does
        totals = [
            d * (k - 1) * (module.padding == "same") for d, k in zip(module.dilation, module.kernel_size, strict=True)
        ]
        padding = tuple((t // 2, t - t // 2) for t in totals)
    else:
        padding = tuple((p, p) for p in module.padding)
    shape = Convolution(
        module.in_channels,
        module.out_channels,
        tuple(module.kernel_size),
        tuple(module.stride),
        padding,
        tuple(module.dilation),
        module.groups,
        module.transposed,
        module.padding_mode,
    )
    return [shape.count(x, output.shape[-n:], weight_of(module))]


def _in_tiles(counter: Counter) -> Counter:
    """The same count for a layer of aihwkit, whose parameters show its weights never, once, or twice."""

    def count(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
        bias = sum(p.numel() for name, p in module.named_parameters() if name.endswith("bias"))
        counts = counter(module, inputs, output)
        return [replace(c, weight_count=c.rows * c.cols * c.groups + bias) for c in counts]

    return count


def _unmeasured(like: Tensor, groups: int, vectors: int, rows: int) -> Tensor:
    """A stand-in of the right shape for an input that is not seen from outside; it counts as active everywhere."""
    return torch.empty(groups, vectors, rows, dtype=like.dtype, device="meta")


def _matrix(module: nn.Module, name: str) -> Tensor | None:
    weight = getattr(module, name, None)
    return weight.t()[None] if isinstance(weight, Tensor) else None


def _count_recurrent(module: nn.RNNBase, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """RNN, LSTM, GRU: two matrices a layer and direction (and an LSTM's projection), at every step.

    MACs of one step and direction = gates x hidden x (inputs + state) + hidden x projection; 1, 3 or 4 gates.
    The state is inside torch's kernel: it counts as active everywhere.
    """
    x = inputs[0].data if isinstance(inputs[0], PackedSequence) else inputs[0]
    x = x.reshape(1, -1, module.input_size)
    vectors, hidden = x.shape[1], module.hidden_size
    state = module.proj_size or hidden
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    counts = []
    for layer in range(module.num_layers):
        for suffix in ("", "_reverse")[: 2 if module.bidirectional else 1]:
            part = f"l{layer}{suffix}"
            fan_in = module.input_size if layer == 0 else state * (2 if module.bidirectional else 1)
            source = x if layer == 0 else _unmeasured(x, 1, vectors, fan_in)
            for name, values, cols in (
                (f"ih_{part}", source, gates * hidden),
                (f"hh_{part}", _unmeasured(x, 1, vectors, state), gates * hidden),
                *([(f"hr_{part}", _unmeasured(x, 1, vectors, hidden), state)] if module.proj_size else []),
            ):
                counts.append(product(values, cols, _matrix(module, f"weight_{name}"), op="recurrent", name=name))
    return counts


def _count_cell(module: nn.RNNCellBase, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """One step of an RNN, LSTM or GRU; a state that was not given is zero."""
    x = inputs[0].reshape(1, -1, module.input_size)
    state = inputs[1] if len(inputs) > 1 else None
    if isinstance(state, tuple):
        state = state[0]
    state = (
        x.new_zeros(1, x.shape[1], module.hidden_size) if state is None else state.reshape(1, -1, module.hidden_size)
    )
    cols = module.weight_ih.shape[0]
    return [
        product(values, cols, _matrix(module, f"weight_{part}"), op="recurrent", name=part)
        for part, values in (("ih", x), ("hh", state))
    ]


def _count_analog_recurrent(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """RNN, LSTM, GRU on crossbars: the layers inside each cell, at every step; as the layer that it replaces."""
    x = inputs[0].data if isinstance(inputs[0], PackedSequence) else inputs[0]
    x = x.reshape(1, -1, module.input_size)
    ways = 1 + module.bidirectional
    counts = []
    for number, cell in enumerate(module.cells):
        source = x if number < ways else _unmeasured(x, 1, x.shape[1], cell.input.in_features)
        counts += _cell_products(cell, source, None, f"cells.{number}.")
    return counts


def _count_analog_cell(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """One step of a cell on crossbars; a state that was not given is zero."""
    x = inputs[0].reshape(1, -1, module.input_size)
    state = inputs[1] if len(inputs) > 1 else None
    state = state[0] if isinstance(state, tuple) else state
    width = module.hidden.in_features
    return _cell_products(module, x, x.new_zeros(1, x.shape[1], width) if state is None else state[None], "")


def _cell_products(cell: Any, source: Tensor, state: Tensor | None, place: str) -> list[LayerCount]:
    """The products of a cell's layers with the inputs and, at every one of them, with the state."""
    vectors = source.shape[1]
    counts = []
    for name, values in (("input", source), ("hidden", state), ("projection", None)):
        layer = getattr(cell, name)
        if layer is not None:
            x = _unmeasured(source, 1, vectors, layer.in_features) if values is None else values
            counts.append(product(x, layer.out_features, layer.matrix().t()[None], op="recurrent", name=place + name))
            if (adapter := layer._modules.get("adapter")) is not None:
                for part, thin, given in (
                    ("down", adapter.down, x),
                    ("up", adapter.up, _unmeasured(source, 1, vectors, adapter.rank)),
                ):
                    where = f"{place}{name}.adapter.{part}"
                    counts.append(product(given, thin.out_features, thin.weight.t()[None], op="recurrent", name=where))
    return counts


def _count_experts(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Experts on crossbars: each vector times the matrix of its expert."""
    t = module.crossbar.tiling
    return [of_experts(product(inputs[0].unsqueeze(0), t.cols), t.groups)]


def of_experts(count: LayerCount, experts: int) -> LayerCount:
    """The count of a product in which each vector meets one of several matrices.

    Args:
        count: as if all vectors met one matrix.
        experts: how many matrices there are.
    """
    return replace(count, groups=experts, vectors=count.vectors / experts)


def _count_attention(module: nn.MultiheadAttention, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Projections of query, key and value, scaled dot-product attention, and the output projection."""
    query, key, value = inputs[:3]
    batch_dim = None if query.dim() == 2 else (0 if module.batch_first else 1)
    batch = 1 if batch_dim is None else query.shape[batch_dim]
    q, k, v = (x.reshape(1, -1, x.shape[-1]) for x in (query, key, value))
    width, added = module.embed_dim, int(module.bias_k is not None) + int(module.add_zero_attn)
    if query is key and key is value and module.in_proj_weight is not None:
        counts = [product(q, 3 * width, module.in_proj_weight.t()[None], name="in_proj")]
    else:
        packed = module.in_proj_weight
        parts = (
            (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight) if packed is None else packed.chunk(3)
        )
        counts = [
            product(x, width, weight.t()[None], name=f"{letter}_proj")
            for letter, x, weight in zip("qkv", (q, k, v), parts, strict=True)
        ]
    queries, keys = q.shape[1] // batch, k.shape[1] // batch + added
    counts.append(dot_product_attention(batch * module.num_heads, queries, keys, width // module.num_heads, like=q))
    out = _unmeasured(q, 1, q.shape[1], width)
    return [*counts, product(out, width, module.out_proj.weight.t()[None], name="out_proj")]


def dot_product_attention(
    heads: int, queries: int, keys: int, width: int, *, like: Tensor, value_width: int | None = None, kv_heads: int = 0
) -> LayerCount:
    """softmax(Q K^T) V of `heads` heads (batch included): heads x queries x keys x (width + value width) MACs.

    A causal mask saves nothing here: the full square is counted, as in `torch.utils.flop_counter`. Keys and values are
    read once for each of the `kv_heads` (grouped-query attention); scores stay on the chip, as in a fused kernel.

    Args:
        heads: heads of the query, the batch included.
        queries: of one head.
        keys: of one head.
        width: of a query and a key.
        like: a tensor of the activations' data type.
        value_width: of a value; None: as wide as a key.
        kv_heads: heads of keys and values, the batch included; 0: as many as those of the query.
    """
    values = width if value_width is None else value_width
    macs = float(heads * queries * keys * (width + values))
    read = heads * queries * width + (kv_heads or heads) * keys * (width + values)
    return LayerCount(
        "",
        "attention",
        macs=macs,
        input_elements=float(read),
        output_elements=float(heads * queries * values),
        activation_bits=like.element_size() * 8,
    )


def _count_embedding(module: nn.Embedding | nn.EmbeddingBag, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """One row of the table for each index."""
    bits = {"weight_bits": module.weight.element_size() * 8, "activation_bits": output.element_size() * 8}
    return [
        LayerCount(
            "", "embedding", input_elements=float(inputs[0].numel()), output_elements=float(output.numel()), **bits
        )
    ]


def count_values(op: str, *, zeros: bool = False) -> Counter:
    """The counter of a layer without products: values in and out.

    Args:
        op: its kind, as in `LayerCount`.
        zeros: also count how many outputs are zero.
    """

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
        out = first_tensor(output)
        silent = out.numel() - int(torch.count_nonzero(out)) if zeros and has_values(out) else 0
        return [
            LayerCount(
                "", op, output_elements=float(out.numel()), zero_outputs=float(silent), **activity(first_tensor(inputs))
            )
        ]

    return count


def count_nothing(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Layers without work in inference.

    Args:
        module: the layer.
        inputs: its arguments.
        output: what it gave.
    """
    return []


TORCH_LAYERS: dict[type | str, Rule] = {
    nn.Linear: Rule(count_linear),
    "torch.nn.modules.conv._ConvNd": Rule(count_conv),
    nn.RNNBase: Rule(_count_recurrent),
    nn.RNNCellBase: Rule(_count_cell),
    nn.MultiheadAttention: Rule(_count_attention),
    nn.Embedding: Rule(_count_embedding),
    nn.EmbeddingBag: Rule(_count_embedding),
    nn.Softmax: Rule(count_values("softmax")),
    nn.Softmax2d: Rule(count_values("softmax")),
    nn.Softmin: Rule(count_values("softmax")),
    nn.LogSoftmax: Rule(count_values("softmax")),
    nn.Flatten: Rule(count_nothing),
    nn.Unflatten: Rule(count_nothing),
    nn.Identity: Rule(count_nothing),
    "torch.nn.modules.activation": Rule(count_values("activation", zeros=True)),
    "torch.nn.modules.batchnorm": Rule(count_values("norm")),
    "torch.nn.modules.instancenorm": Rule(count_values("norm")),
    "torch.nn.modules.normalization": Rule(count_values("norm")),
    "torch.nn.modules.pooling": Rule(count_values("pool")),
    "torch.nn.modules.dropout": Rule(count_nothing),
    "torch.nn.modules.padding": Rule(count_values("copy")),
    "torch.nn.modules.pixelshuffle": Rule(count_values("copy")),
    "torch.nn.modules.channelshuffle": Rule(count_values("copy")),
    "torch.nn.modules.upsampling": Rule(count_values("copy")),
    "torch.nn.modules.fold": Rule(count_values("copy")),
}
"""Rules by class; a string stands for a class, or for all classes of a file."""
ANALOG_LAYERS: dict[type | str, Rule] = {
    # their adapters count themselves
    "hpml_sim.analog.linear.AnalogLinear": Rule(count_linear, sub_layers=True),
    "hpml_sim.analog.convolution._AnalogConv": Rule(count_conv, sub_layers=True),
    "hpml_sim.analog.transposed_convolution._AnalogConvTranspose": Rule(count_conv, sub_layers=True),
    "hpml_sim.analog.recurrent.AnalogRecurrent": Rule(_count_analog_recurrent),
    "hpml_sim.analog.recurrent_cells.AnalogCell": Rule(_count_analog_cell),
    "hpml_sim.analog.experts.AnalogExperts": Rule(_count_experts),
    "aihwkit.nn.modules.linear": Rule(_in_tiles(count_linear)),
    "aihwkit.nn.modules.linear_mapped": Rule(_in_tiles(count_linear)),
    "aihwkit.nn.modules.conv": Rule(_in_tiles(count_conv)),
    "aihwkit.nn.modules.conv_mapped": Rule(_in_tiles(count_conv)),
}
"""Layers on crossbars count as the layers that they replace. Strings, so that neither ours nor aihwkit is imported."""
