"""What a batch asks of a CPU or GPU, a value a layer: products, bytes, kernels; and what an engine fuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hpml_sim.counting import LayerCount, Workload
    from hpml_sim.targets import EstimatedEngine as Engine

OPS_PER_UPDATE = 4
"""Leak, add, compare, reset: operations of one update of a leaky integrate-and-fire neuron."""
NARROW = 16
"""A grouped convolution with fewer outputs a group has no matrix product that fills a tensor core."""
EAGER_NORM = 2.0
"""Passes of a layer norm that nothing is fused with: over its input for the moments, and over it again to scale it."""
INDEX_BYTES = 1 / 8
"""Of a weight with two zeros in four: an index of two bits for each of the two that are kept."""
HEAD_WIDTH = 64
"""Channels of an attention head, which the counts do not say: that of ViT, BERT and GPT-2."""
SCORE_PASSES = 8
"""Times that scores are read or written without a fused kernel: product, scale, softmax in fp32, cast, product."""
KEPT = 0.5
"""Share of the last-level cache that still holds what the layer before wrote: it also read, and no cache is perfect."""
_POINTWISE = {"norm", "activation", "elementwise", "pool", "softmax"}
_PRODUCTS = {"conv", "linear", "recurrent"}
_LAYER_NORMS = {"LayerNorm", "RMSNorm", "GroupNorm"}


@dataclass(frozen=True)
class Work:
    """The workload as arrays, a value a layer; activations and operations are for one sample.

    Attributes:
        operations: arithmetic of each layer.
        convolves: whether it is a convolution.
        products: whether it is a product with weights that fills tiles.
        depthwise: whether it is a convolution of few channels a group.
        attends: whether it multiplies activations with activations.
        shape: vectors of a sample, rows, columns and groups of each product; (4, layers).
        stored_bytes: of all weights.
        weight_bytes: of the weights that a call touches; of an embedding, the rows looked up.
        moved_bytes: of inputs and outputs, whatever is fused: what has to lie in memory.
        passed_bytes: of inputs and outputs that pass the memory with this engine.
        handed_bytes: of inputs that the layer before has just written.
        launches: kernels that start.
        state_bytes: kept between calls.
        stored_width: bytes of one weight, with its scale or its index where there is one.
        speedup: how many times the dense rate products of weights with two zeros in four are computed at; 1 of others.
    """

    operations: np.ndarray
    convolves: np.ndarray
    products: np.ndarray
    depthwise: np.ndarray
    attends: np.ndarray
    shape: np.ndarray
    stored_bytes: float
    weight_bytes: np.ndarray
    moved_bytes: np.ndarray
    passed_bytes: np.ndarray
    handed_bytes: np.ndarray
    launches: np.ndarray
    state_bytes: float
    stored_width: np.ndarray
    speedup: np.ndarray

    @classmethod
    def of(
        cls,
        workload: Workload,
        width: float,
        engine: Engine = "torch",
        weight_width: float | None = None,
        fused_attention: bool = True,
        sparse_speedup: float = 1.0,
    ) -> Work:
        """The arrays of a workload.

        Args:
            workload: what there is to do.
            width: bytes of an activation.
            engine: what runs it: "torch-compile" fuses what is elementwise, "fused" puts it into the products.
            weight_width: bytes of a weight; None: as of an activation.
            fused_attention: whether attention is one kernel; else its scores pass the memory.
            sparse_speedup: rate of products of 2:4 weights over the dense rate; 1: the machine has no use for zeros.
        """
        layers = workload.layers
        sparse = [sparse_speedup > 1 and y.zero_pattern == "2:4" for y in layers]
        speedup = np.where(sparse, sparse_speedup, 1.0)
        stored = width if weight_width is None else weight_width
        narrow = [y.op == "conv" and y.groups > 1 and y.cols < NARROW for y in layers]
        moved = np.array([(y.input_elements + y.output_elements) * width for y in layers], float)
        passed, launches = _fused(layers, width, engine)
        each = np.array([stored if y.stored_bits is None else y.stored_bits / 8 for y in layers], float)
        each = np.where(sparse, each / 2 + INDEX_BYTES, each)
        if not fused_attention:
            scores = np.array([y.macs / (2 * HEAD_WIDTH) if y.op == "attention" else 0.0 for y in layers], float)
            passed = passed + SCORE_PASSES * width * scores
        return cls(
            operations=np.array(
                [2 * y.macs if y.macs else y.output_elements + OPS_PER_UPDATE * y.updates for y in layers], float
            )
            / speedup,
            convolves=np.array([y.op == "conv" for y in layers], bool),
            products=np.array(
                [y.op in _PRODUCTS and y.macs > 0 and not n for y, n in zip(layers, narrow, strict=True)], bool
            ),
            depthwise=np.array(narrow, bool),
            attends=np.array([y.op in ("attention", "matmul") for y in layers], bool),
            shape=np.array([(y.vectors, y.rows, y.cols, y.groups) for y in layers], float).T,
            stored_bytes=float(each @ np.array([y.weight_count for y in layers], float)),
            weight_bytes=each * np.array([y.weights_read for y in layers], float),
            moved_bytes=moved,
            passed_bytes=passed,
            handed_bytes=_handed(layers, width, launches),
            launches=launches,
            state_bytes=width * workload.extra.get("kv_cache_elements", 0.0),
            stored_width=each,
            speedup=speedup,
        )

    def needed(self, batch: int) -> float:
        """Bytes of memory for all weights, the state kept between calls and the largest activations of a batch."""
        return self.stored_bytes + batch * (self.state_bytes + float(self.moved_bytes.max()))

    def touched(self, batch: int) -> np.ndarray:
        """Bytes that a batch reads and writes, wherever they are."""
        return self.weight_bytes + batch * self.passed_bytes

    def traffic(self, batch: int, cache: float) -> np.ndarray:
        """Bytes to and from DRAM for a batch; weights that stay in the cache between calls cost none.

        Args:
            batch: samples.
            cache: bytes of the last-level cache.
        """
        weights = 0.0 if self.needed(batch) <= cache else self.weight_bytes
        return weights + batch * self.passed_bytes

    def kept(self, batch: int, cache: float) -> np.ndarray:
        """Bytes that each layer still finds in a GPU's cache, because the layer before has just written them.

        Args:
            batch: samples.
            cache: bytes of the last-level cache.
        """
        return np.minimum(batch * self.handed_bytes, KEPT * cache)


def _handed(layers: tuple[LayerCount, ...], width: float, launches: np.ndarray) -> np.ndarray:
    """Bytes of a sample that each layer reads and the layer before wrote; none where both are one kernel."""
    found = np.zeros(len(layers))
    for k in range(1, len(layers)):
        if launches[k] > 0:
            found[k] = min(layers[k - 1].output_elements, layers[k].input_elements) * width
    return found


def _fused(layers: tuple[LayerCount, ...], width: float, engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    """Bytes that pass the memory and kernels that start, of each layer.

    A chain of elementwise layers, norms and pools that follow each other is one kernel where an engine compiles: it
    reads what comes from outside the chain and writes its last output. The runtime "fused" goes further: a chain that
    follows a product happens in the product's own kernel, which then writes the chain's output in place of its own.
    """
    moved = np.array([(y.input_elements + y.output_elements) * width for y in layers], float)
    launches = np.array([y.calls for y in layers], float)
    if engine in ("torch", "cuda-graph", "numba-cuda"):
        norms = np.array([y.op == "norm" and y.module in _LAYER_NORMS for y in layers], bool)
        return np.where(norms, EAGER_NORM, 1.0) * moved, launches
    owner: int | None = None
    for k, layer in enumerate(layers):
        if layer.op not in _POINTWISE:
            owner = None
            continue
        before = layers[k - 1] if k else None
        joins = owner is not None
        if owner is None:
            into_product = engine == "fused" and before is not None and before.macs > 0 and before.op in _PRODUCTS
            owner = k - 1 if into_product else k
            launches[k] = 0.0 if into_product else 1.0
            joins = into_product
        if joins and before is not None:
            passed_on = min(before.output_elements, layer.input_elements) + before.output_elements
            moved[owner] += moved[k] - width * passed_on  # neither written nor read again
            moved[k] = 0.0
            launches[k] = 0.0
    return np.maximum(moved, 0.0), launches
