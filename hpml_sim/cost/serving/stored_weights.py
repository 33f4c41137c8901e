"""What compression makes of a language model's matrices: how many weights are left, in how many bits, with which zeros.

A language model on GPUs is estimated from its sizes, which say nothing of single weights. What pruning and quantizing
changed is put beside them, as means over all matrices of the layers, and over the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from hpml_sim.compress.matrices import Matrix, matrices
from hpml_sim.conversion.compression import NumberFormat, notes_of
from hpml_sim.conversion.converted import Converted
from hpml_sim.cost.digital.work import INDEX_BYTES
from hpml_sim.counting.fan_out import has_values, is_two_four

if TYPE_CHECKING:
    from hpml_sim.networks.language import TransformerShape


@dataclass(frozen=True)
class StoredWeights:
    """How the matrices of a language model are stored.

    Attributes:
        kept: weights of the layers that are left, over those that the sizes say.
        quantized: share of these that are stored in few bits.
        bits: mean bits of a quantized weight, with its share of a scale.
        arithmetic: "int8" or "fp8" where inputs of all products are rounded as well; "" elsewhere.
        two_four: share of the weights in matrices with two zeros in four.
        head_bits: bits of a weight of the head; None: those of the activations.
    """

    kept: float = 1.0
    quantized: float = 0.0
    bits: float = 0.0
    arithmetic: str = ""
    two_four: float = 0.0
    head_bits: float | None = None

    @property
    def in_few_bits(self) -> bool:
        """Whether weights are quantized."""
        return self.quantized > 0 or self.head_bits is not None

    def bytes_of_layers(self, width: float, sparse_speedup: float) -> float:
        """Bytes of memory for each weight that the sizes say, on average.

        Args:
            width: bytes of a weight that is not quantized.
            sparse_speedup: of the machine; 1: it stores all zeros.
        """
        each = self.quantized * self.bits / 8 + (1 - self.quantized) * width
        if sparse_speedup > 1:
            each = self.two_four * (each / 2 + INDEX_BYTES) + (1 - self.two_four) * each
        return self.kept * each

    def work(self, sparse_speedup: float) -> float:
        """Time of products at the dense rate, over that of products of the sizes.

        Args:
            sparse_speedup: rate of products with two zeros in four over the dense rate.
        """
        return self.kept * (self.two_four / sparse_speedup + 1 - self.two_four)

    def in_words(self, sparse_speedup: float) -> list[str]:
        """What an estimate takes for granted of it, a sentence each.

        Args:
            sparse_speedup: of the machine.
        """
        found = []
        if self.kept != 1:
            found.append(f"{self.kept:.3g} of the weights that the sizes say are left in the layers")
        if self.two_four:
            found.append(
                f"{self.two_four:.0%} of the layers' weights have two zeros in four, are stored without them and "
                f"multiplied at {sparse_speedup:g} times the dense rate, which large products alone reach"
                if sparse_speedup > 1
                else "weights that are zero are stored, read and multiplied as all others"
            )
        if self.quantized:
            found.append(f"quantized weights take {self.bits:.4g} bits each, their scales included")
        return found


def stored_weights(network: nn.Module, shape: TransformerShape) -> StoredWeights | None:
    """How the matrices of a network are stored; None where it was neither pruned nor quantized.

    Args:
        network: a language model with linear layers.
        shape: its sizes.
    """
    inner = network.network if isinstance(network, Converted) else network
    found = matrices("estimate", inner, None, None)
    layers = [own for own in found if own.read().shape[0] != shape.vocabulary]
    heads = [own for own in found if own.read().shape[0] == shape.vocabulary]
    whole = sum(own.weight.numel() for own in layers)
    if not whole:
        return None
    numbers = [(own, format_of(own)) for own in layers]
    few = [(own, own_format) for own, own_format in numbers if own_format is not None]
    quantized = sum(own.weight.numel() for own, _ in few)
    bits = sum(own.weight.numel() * own_format.bits(own.read().shape[1]) for own, own_format in few)
    arithmetic = {"" if own_format is None else own_format.arithmetic for _, own_format in numbers}
    zeros = sum(own.weight.numel() for own in layers if has_values(own.weight) and is_two_four(own.read()))
    head = next((own_format for own in heads if (own_format := format_of(own)) is not None), None)
    made = StoredWeights(
        kept=1.0 if shape.experts is not None else whole / _by_sizes(shape),
        quantized=quantized / whole,
        bits=bits / quantized if quantized else 0.0,
        arithmetic=arithmetic.pop() if len(arithmetic) == 1 else "",
        two_four=zeros / whole,
        head_bits=None if head is None else head.bits(heads[0].read().shape[1]),
    )
    return None if made == StoredWeights() else made


def format_of(own: Matrix) -> NumberFormat | None:
    """What a matrix is stored in; None where it is not quantized.

    Args:
        own: a matrix of a network.
    """
    noted = notes_of(own.module).get(own.parameter)
    return None if noted is None else noted.numbers


def _by_sizes(shape: TransformerShape) -> int:
    """Weights of all matrices of the layers."""
    each = [*shape.attention_weights(), *shape.feed_forward(shape.hidden)]
    return shape.layers * sum(inputs * outputs for inputs, outputs in each)
