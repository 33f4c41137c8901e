"""Tensor operations outside known layers: what each of them counts as, for the module in which it happens."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hpml_sim.counting.fan_out import Convolution, product
from hpml_sim.counting.layer_counters import dot_product_attention, of_experts
from hpml_sim.counting.operation_counts import LayerCount
from hpml_sim.counting.tally import Tallies
from hpml_sim.counting.tensor_origins import Constant, Origins
from hpml_sim.counting.tensors import first_tensor, tensors_in
from hpml_sim.counting.torch_operations import (
    DISTANCES,
    FACTORS,
    GROUPED,
    NO_PRODUCTS,
    NO_WORK,
    SCALED_DOT_PRODUCT,
    as_batch,
    distinct,
    is_sparse,
    is_wide,
    macs_of,
    sparse_macs,
    storage_of,
)

_LINEAR = ("add", "sub", "rsub", "neg", "mul", "div", "clone", "_to_copy", "where", "cat", "stack")
"""Operations after which a sum is still the sum of products that were spread out before them."""
_SUMS = ("sum", "mean")
_GATHERS = ("index", "index_select", "gather", "clone", "_to_copy")
"""Operations that take parts of a weight, or copy what was taken."""


class OperationCounter:
    """Counts one operation of torch at a time."""

    def __init__(self, origins: Origins, tallies: Tallies):
        self._origins, self._tallies = origins, tallies

    def count(
        self, module: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any, samples: int
    ) -> bool:
        """Count an operation that has just run.

        Args:
            module: name of the module in which it ran.
            func: the operation, as torch's dispatcher hands it over.
            args: what it was given by position.
            kwargs: what it was given by name.
            out: what it gave.
            samples: in the pass that is running.

        Returns:
            False where the operation may hold products that nobody here knows how to count.
        """
        name = operation_name(func)
        inputs, outputs = list(tensors_in((args, kwargs))), list(tensors_in(out))
        if name.startswith(("empty", "new_empty")):  # whoever fills it may be out of sight
            return True
        self._origins.follow(inputs, outputs, samples, name)
        if not inputs or func.is_view or name.startswith(NO_WORK) or torch.Tag.inplace_view in func.tags:
            return True
        arrived = {storage_of(t) for t in inputs}
        self._origins.used |= arrived
        self._origins.saw([t for t in outputs if storage_of(t) not in arrived])
        if name in _GATHERS and outputs:
            self._origins.gather(inputs[0], outputs[0])
        if name == "clone":  # to change the layout in memory; whether it is needed depends on the batch
            return True
        scale = self._origins.share(inputs, outputs, samples)
        if name == GROUPED:
            self._grouped(module, args, kwargs, scale)
        elif name == DISTANCES:
            self._distances(module, args, scale)
        elif name in FACTORS:
            self._factors(module, name, args, scale)
        elif name == "convolution":
            self._convolution(module, args, out, scale)
        elif name.startswith(SCALED_DOT_PRODUCT):
            self.attention(module, *args[:3])
        elif name in ("embedding", "_embedding_bag", "_embedding_bag_forward_only"):
            self._embedding(module, args, out, inputs, scale)
        elif func.namespace in ("aten", "prim", "prims") and _harmless(func, name):
            self._elementwise(module, name, inputs, outputs, scale)
            self._spread(module, name, inputs, outputs, scale)
        else:
            return False
        return True

    def attention(self, module: str, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Count one call of scaled dot-product attention.

        Args:
            module: name of the module in which it ran.
            query: (..., heads, queries, width).
            key: (..., key-value heads, keys, width).
            value: (..., key-value heads, keys, width of a value).
        """
        count = dot_product_attention(
            math.prod(query.shape[:-2]),
            query.shape[-2],
            key.shape[-2],
            query.shape[-1],
            like=query,
            value_width=value.shape[-1],
            kv_heads=math.prod(key.shape[:-2]),
        )
        self._tallies.add(replace(count, name=module), 0, 1.0, leading_sizes([query]))

    def _embedding(self, module: str, args: tuple[Any, ...], out: Any, inputs: list[Tensor], scale: float) -> None:
        table = self._origins.constant(args[0])
        count = LayerCount(
            _layer_of(table.name) if table else module,
            "embedding",
            input_elements=float(args[1].numel()),
            output_elements=float(first_tensor(out).numel()),
            weight_bits=args[0].element_size() * 8,
            activation_bits=first_tensor(out).element_size() * 8,
        )
        self._tallies.add(count, self._origins.claim(inputs), scale, leading_sizes(inputs[1:]))

    def _elementwise(self, module: str, name: str, inputs: list[Tensor], outputs: list[Tensor], scale: float) -> None:
        if "softmax" in name:
            self._tallies.softmax_in.add(module)
        read, claimed = float(sum(map(distinct, inputs))), inputs
        if name in _GATHERS and self._origins.gathered(outputs[0]) is not None:
            if self._origins.on_tiles(outputs[0]):  # there nothing is gathered: vectors go where the weights are
                return
            read, claimed = float(outputs[0].numel()), inputs[1:]  # the product claims the weights
        count = LayerCount(
            module,
            "elementwise",
            input_elements=read,
            output_elements=float(sum(t.numel() for t in outputs)),
            activation_bits=inputs[0].element_size() * 8,
        )
        self._tallies.add(count, self._origins.claim(claimed), scale, leading_sizes(outputs))

    def _spread(self, module: str, name: str, inputs: list[Tensor], outputs: list[Tensor], scale: float) -> None:
        """Count `(x[:, :, None] * w).sum(1)`, a product in disguise: a matrix spread over an input, then summed."""
        origins = self._origins
        if name in _SUMS and outputs and origins.is_spread(inputs[0]) and outputs[0].numel() < inputs[0].numel():
            count = LayerCount(module, "matmul", macs=float(inputs[0].numel()))
            self._tallies.add(count, 0, scale, leading_sizes(inputs))
        elif name.removesuffix("_") in _LINEAR and outputs:
            moving = [t for t in inputs if origins.constant(t) is None]
            over = any(1 < t.numel() < outputs[0].numel() for t in moving)
            weights = name.startswith("mul") and any(is_wide(t) and origins.is_weight(t) for t in inputs)
            if (over and weights) or any(map(origins.is_spread, inputs)):
                origins.spread(outputs)

    def _factors(self, module: str, name: str, args: tuple[Any, ...], scale: float) -> None:
        left, right = (args[k] for k in FACTORS[name])
        if is_sparse(left) or is_sparse(right):  # the adjacency of a graph
            count = LayerCount(module, "matmul", macs=sparse_macs(left, right))
            count = replace(count, activation_bits=left.element_size() * 8, input_elements=float(distinct(right)))
            self._tallies.add(count, self._origins.claim([left, right]), scale, leading_sizes([right]))
            return
        left3, right3 = as_batch(left, right)
        if self._is_matrix(right, left):
            x, matrix, constant = left3, right3, self._weight(right)
        elif constant := self._weight(left):
            x, matrix = right3.transpose(1, 2), left3.transpose(1, 2)
        else:
            count = replace(product(left3, right3.shape[2]), name=module, op="matmul", rows=0, cols=0, groups=1)
            moved = float(distinct(left) + distinct(right))
            count = replace(count, vectors=0.0, input_elements=moved, dense_sops=0.0, sops=0.0, binary_input=False)
            self._tallies.add(replace(count, effective_macs=0.0, effective_acs=0.0), 0, scale, leading_sizes([left]))
            return
        weights = self._origins.claim([t for t in args if isinstance(t, Tensor)], buffers=True)
        named = _layer_of(constant.name) if constant and constant.name else module
        stack = _stack(constant, matrix)
        if stack and stack[1:] != matrix.shape[1:]:  # several matrices in one
            x = x.unsqueeze(-2).expand(*x.shape[:-1], matrix.shape[2] // stack[2], x.shape[2])
        if stack and (stack[0] != matrix.shape[0] or stack[1:] != matrix.shape[1:]):
            # of a stack of matrices one, or some that the input chose
            count = product(x.reshape(1, -1, stack[1]), stack[2])
            count = replace(of_experts(count, stack[0]), name=named, weight_bits=matrix.element_size() * 8)
            weights += self._origins.claim([] if constant is None or constant.root is None else [constant.root])
            self._tallies.add(count, weights, scale, leading_sizes([left]))
            return
        if matrix.shape[0] > 1 and matrix.stride(0) == 0:  # one matrix, expanded over the batch
            x, matrix = x.reshape(1, -1, x.shape[2]), matrix[:1]
        self._tallies.add(product(x, matrix.shape[2], matrix, name=named), weights, scale, leading_sizes([left]))

    def _weight(self, x: Tensor) -> Constant | None:
        """What a factor was made of that does not depend on the input, but perhaps for which part it is."""
        return self._origins.constant(x) or self._origins.gathered(x)

    def _distances(self, module: str, args: tuple[Any, ...], scale: float) -> None:
        """Distances of all pairs of vectors: a multiplication and an addition a pair and dimension."""
        left, right = args[:2]
        moved = float(distinct(left) + distinct(right))
        macs = macs_of(DISTANCES, args, None)
        count = LayerCount(module, "matmul", macs=macs, input_elements=moved, activation_bits=left.element_size() * 8)
        self._tallies.add(count, self._origins.claim([left, right]), scale, leading_sizes([left]))

    def _grouped(self, module: str, args: tuple[Any, ...], kwargs: dict[str, Any], scale: float) -> None:
        """Rows times the matrix of the group in which they lie."""
        x, matrix = args[:2]
        constant, macs = self._weight(matrix), macs_of(GROUPED, args, None)
        if constant is None or matrix.dim() != 3:
            moved = float(distinct(x) + distinct(matrix))
            count = LayerCount(module, "matmul", macs=macs, input_elements=moved, activation_bits=x.element_size() * 8)
            self._tallies.add(count, 0, scale, leading_sizes([x]))
            return
        weights = self._origins.claim([matrix], buffers=True)
        count = of_experts(product(x.reshape(1, -1, x.shape[-1]), matrix.shape[2]), len(matrix))
        count = replace(count, name=_layer_of(constant.name) or module, weight_bits=matrix.element_size() * 8)
        self._tallies.add(count, weights, scale, leading_sizes([x]))

    def _is_matrix(self, right: Tensor, left: Tensor) -> bool:
        """Whether the right factor is the weight: if neither depends on the input, the one made of parameters is."""
        constant, other = self._weight(right), self._weight(left)
        return constant is not None and not (other is not None and other.weight and not constant.weight)

    def _convolution(self, module: str, args: tuple[Any, ...], out: Tensor, scale: float) -> None:
        x, weight, _, stride, padding, dilation, transposed, _, groups = args[:9]
        n = x.dim() - 2
        stride, padding, dilation = (tuple(v) * n if len(v) == 1 else tuple(v) for v in (stride, padding, dilation))
        channels = weight.shape[0] if transposed else weight.shape[1] * groups
        outs = weight.shape[1] * groups if transposed else weight.shape[0]
        pairs = tuple((p, p) for p in padding)
        shape = Convolution(channels, outs, tuple(weight.shape[2:]), stride, pairs, dilation, groups, transposed)
        count = shape.count(x, out.shape[2:], weight)
        constant = self._origins.constant(weight)
        if constant is None:  # filters that depend on the input
            count = replace(count, op="matmul", rows=0, cols=0, groups=1, vectors=0.0, dense_sops=0.0, sops=0.0)
            count = replace(count, effective_macs=0.0, effective_acs=0.0, zero_weights=0, weight_mean_abs=None)
            count = replace(count, binary_input=False)
        name = _layer_of(constant.name) if constant and constant.name else module
        weights = self._origins.claim(list(tensors_in(args)), buffers=True) if constant else 0
        self._tallies.add(replace(count, name=name), weights, scale, leading_sizes([x]))


def _harmless(func: Any, name: str) -> bool:
    """Whether an operation by itself certainly holds no products of inputs and weights."""
    return torch.Tag.pointwise in func.tags or torch.Tag.reduction in func.tags or name.startswith(NO_PRODUCTS)


def operation_name(func: Any) -> str:
    """Name of an operation without its namespace and overload: "addmm" of `aten::addmm.default`.

    Args:
        func: the operation, as torch's dispatcher hands it over.
    """
    return func._schema.name.split("::")[-1]


def leading_sizes(tensors: list[Tensor]) -> tuple[int, int]:
    """The first size of an input, and the product of the first two: time steps stand in one of them.

    Args:
        tensors: the inputs; the first one decides.
    """
    shape = tensors[0].shape if tensors else torch.Size()
    return math.prod(shape[:1]), math.prod(shape[:2])


def _stack(constant: Constant | None, matrix: Tensor) -> tuple[int, int, int] | None:
    """Matrices, rows and columns of the stack that a factor (batch, rows, cols) was taken out of; None for no stack."""
    root = None if constant is None else constant.root
    if root is None or root.dim() < 3 or min(root.shape[-2:]) < 2:
        return None
    rows, cols = matrix.shape[1:]
    for into, out in ((-2, -1), (-1, -2)):
        fits = rows == root.shape[into] and cols % root.shape[out] == 0
        # of a kernel (outputs, inputs, positions), one position is no matrix of its own
        moved = storage_of(matrix) == storage_of(root) and matrix.stride(2) != root.stride(out) and cols > 1
        if fits and not moved:
            return root.numel() // (root.shape[into] * root.shape[out]), root.shape[into], root.shape[out]
    return None


def _layer_of(parameter: str) -> str:
    return parameter.removesuffix(".weight").removesuffix("_weight")
