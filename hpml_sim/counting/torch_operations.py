"""What is known of torch's operations below its layers: which hold products, which do not, which only move."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Operations of torch without products of their own, beside those that torch tags as pointwise or as reductions.
NO_PRODUCTS = (
    "_adaptive_avg_pool",
    "_assert",
    "_fused_rms_norm",
    "_index_put",
    "_log_softmax",
    "_native_batch_norm",
    "_pack_padded_sequence",
    "_prelu_kernel",
    "_safe_softmax",
    "_softmax",
    "_to_copy",
    "_unique",
    "_weight_norm",
    "adaptive_",
    "argsort",
    "avg_pool",
    "bernoulli",
    "bincount",
    "bucketize",
    "cat",
    "col2im",
    "constant_pad",
    "copy",
    "cum",
    "diag",
    "exponential",
    "fill",
    "flip",
    "floor_divide",
    "fractional_max_pool",
    "full",
    "gather",
    "geometric",
    "glu",
    "histc",
    "im2col",
    "index",
    "linspace",
    "log_sigmoid",
    "log_normal",
    "logcumsumexp",
    "masked_",
    "max_pool",
    "multinomial",
    "native_",
    "new_",
    "nonzero",
    "normal",
    "ones",
    "pixel_",
    "poisson",
    "prelu",
    "rand",
    "reflection_pad",
    "renorm",
    "repeat",
    "replication_pad",
    "rms_norm",
    "roll",
    "rot90",
    "rrelu",
    "scatter",
    "searchsorted",
    "select_",
    "slice_",
    "sort",
    "split",
    "stack",
    "topk",
    "tril",
    "triu",
    "unfold",
    "uniform",
    "unique",
    "upsample",
    "zero",
)
# Views under another name, and allocations: nothing is computed or moved.
NO_WORK = (
    "_coalesced",
    "_validate_sparse",
    "_sparse_coo_tensor",
    "_sparse_compressed_tensor",
    "_unsafe_view",
    "unsafe_split",
    "empty",
    "new_empty",
    "is_pinned",
    "lift_fresh",
    "_local_scalar_dense",
    "resize_",
    "set_",
)
FACTORS = {  # operation -> positions of its two factors
    "mm": (0, 1),
    "bmm": (0, 1),
    "mv": (0, 1),
    "dot": (0, 1),
    "vdot": (0, 1),
    "addmm": (1, 2),
    "addmv": (1, 2),
    "addbmm": (1, 2),
    "baddbmm": (1, 2),
    "_int_mm": (0, 1),
    "_scaled_mm": (0, 1),
    "_sparse_mm": (0, 1),
    "_sparse_addmm": (1, 2),
}
GROUPED = "_grouped_mm"
DISTANCES = "_cdist_forward"
SCALED_DOT_PRODUCT = "_scaled_dot_product"


def storage_of(x: Tensor) -> int:
    """Which memory a tensor lies in; views share it. Sparse tensors and wrappers have none and stand for themselves."""
    try:
        return x.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return id(x)


def is_sparse(x: Tensor) -> bool:
    """Whether only the values that are not zero are stored."""
    return x.layout is not torch.strided


def sparse_macs(left: Tensor, right: Tensor) -> float:
    """MACs of a product with a sparse factor: each stored value meets a row or a column of the other.

    Args:
        left: shape (m, k).
        right: shape (k, n), or (k,).
    """
    stored, other = (left, right.shape[1] if right.dim() > 1 else 1) if is_sparse(left) else (right, left.shape[0])
    return float(len(stored.values() if stored.layout is not torch.sparse_coo else stored._values()) * other)


def distinct(x: Tensor) -> int:
    """Elements in memory: an expanded tensor is read once."""
    if is_sparse(x):
        return x.numel()
    return math.prod(size for size, stride in zip(x.shape, x.stride(), strict=True) if stride != 0 or size == 0)


def is_wide(x: Tensor) -> bool:
    """A matrix, not a vector or a token with dimensions of size 1."""
    return sum(size > 1 for size in x.shape) >= 2


def as_batch(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Factors as (batch, m, k) and (batch, k, n)."""
    left = left[None, None] if left.dim() == 1 else left if left.dim() == 3 else left[None]
    right = right[None, :, None] if right.dim() == 1 else right if right.dim() == 3 else right[None]
    return left, right


def macs_of(name: str, args: tuple[Any, ...], out: Any) -> float:
    """MACs of one operation; 0 for one without products; of complex numbers four for each."""
    if name in FACTORS:
        left, right = (args[k] for k in FACTORS[name])
        if is_sparse(left) or is_sparse(right):
            return sparse_macs(left, right)
        left, right = as_batch(left, right)
        return float(left.numel() * right.shape[2]) * (4 if left.is_complex() else 1)
    if name == GROUPED:
        left, right = args[:2]
        return float(left.numel() * (right.shape[-1]))
    if name == DISTANCES:
        left, right = args[:2]
        return float(left.numel() * right.shape[-2])
    if name == "convolution":
        places = args[0] if args[6] else out
        return float(args[1].numel() * places.shape[0] * math.prod(places.shape[2:]))
    if name.startswith(SCALED_DOT_PRODUCT):
        query, key, value = args[:3]
        return float(math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))
    return 0.0
