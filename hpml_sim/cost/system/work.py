"""Digital work of a layer by kind, and what it moves to and from a memory beside the chips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpml_sim.counting import LayerCount, Workload

ACTIVATION_BITS = 16
"""Bits of an activation in digital layers and in the cache; fewer where the network's data type has fewer."""
SMALL_WEIGHTS = 2**20
"""Bytes of weights of a digital layer that stay on the chip; larger ones are read from the memory beside it."""
_OPERATIONS = {"mac_fp16": 2.0, "exp_fp16": 10.0, "norm_fp16": 8.0}
"""Operations of a digital unit that one of these takes; 1 of all others."""
_SIMPLE = ("ReLU", "ReLU6", "LeakyReLU", "Hardtanh", "Identity", "Dropout", "Flatten")


def operations_of(layer: LayerCount, row_blocks: int = 0) -> dict[str, float]:
    """Digital operations of one inference by the name of the component's figure.

    Args:
        layer: its counts.
        row_blocks: tiles whose outputs are added up for one output; 0 for a layer that lies on no tile.
    """
    if row_blocks:
        outputs = max(layer.output_elements, layer.vectors * layer.cols * layer.groups)
        return {"add_int32": outputs * row_blocks}
    if layer.macs:
        return {"mac_fp16": layer.macs}
    match layer.op:
        case "embedding" | "copy" | "kv_cache" | "encoder":
            return {}
        case "norm":
            return {"norm_fp16": layer.output_elements}
        case "softmax":
            return {"exp_fp16": layer.output_elements, "add_fp16": layer.output_elements}
        case "pool":
            return {"add_int8": layer.input_elements}
        case "neuron":
            return {"add_int32": 4 * layer.updates}
        case "activation" if layer.module not in _SIMPLE:
            return {"exp_fp16": layer.output_elements}
        case _:
            return {"add_fp16": layer.output_elements}


def bits_of(layer: LayerCount) -> int:
    """Bits of an activation in a digital layer.

    Args:
        layer: its counts.
    """
    return min(layer.activation_bits, ACTIVATION_BITS)


def outside(layer: LayerCount) -> bool:
    """Whether a digital layer's weights lie in the memory beside the chips.

    Args:
        layer: its counts.
    """
    return bool(layer.weight_count) and layer.weight_count * bits_of(layer) / 8 > SMALL_WEIGHTS


def memory_bits(layer: LayerCount) -> float:
    """Bits to and from the memory beside the chips in one inference.

    Args:
        layer: of no tile: the cache is read once, and what a call adds to it is written instead; weights that are too
            many for the chip are read once.
    """
    if layer.op == "kv_cache":
        return layer.state_elements * bits_of(layer)
    return layer.weights_read * bits_of(layer) if outside(layer) else 0.0


def weighted(operations: Mapping[str, float]) -> float:
    """Operations of a digital unit.

    Args:
        operations: by name, as `operations_of` gives them.
    """
    return sum(_OPERATIONS.get(name, 1.0) * count for name, count in operations.items())


def cached_bytes(layers: Iterable[LayerCount]) -> float:
    """Bytes of keys and values that are kept for one sequence.

    Args:
        layers: of the network.
    """
    return sum(y.state_elements * bits_of(y) / 8 for y in layers if y.op == "kv_cache")


def generates(workload: Workload) -> bool:
    """Whether an inference is one token, which cannot be started before the one before it is known.

    Args:
        workload: counts of the network: one with a key-value cache, in which every matrix meets one vector at most.
    """
    matrices = [layer.vectors for layer in workload.layers if layer.rows]
    return any(layer.op == "kv_cache" for layer in workload.layers) and max(matrices, default=0.0) <= 1
