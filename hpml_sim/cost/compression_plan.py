"""Compression of a network that is named and not built: what pruning and quantizing would make of its counts.

A network by name has no weights that could be pruned. How many would be zero, in which pattern, and in how many bits
they would be stored, is all that an estimate needs. Networks with weights are compressed themselves: `hpml_sim.prune`,
`hpml_sim.quantize`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from hpml_sim.compress.quantizing import GROUP, GROUPED
from hpml_sim.conversion.compression import NumberFormat, Numbers
from hpml_sim.cost.serving.stored_weights import StoredWeights
from hpml_sim.errors import HpmlError, check_choice, shown

if TYPE_CHECKING:
    from hpml_sim.counting import LayerCount, Workload
    from hpml_sim.networks.language import TransformerShape

ZeroPattern = Literal["unstructured", "2:4"]
"""Patterns that a network without weights can be given: the others depend on which weights are least."""
_OPS = ("conv", "linear", "recurrent")


@dataclass(frozen=True)
class CompressionPlan:
    """What a network by name is to be estimated as.

    Attributes:
        prune: half of the weights zero, anywhere or two in each four; None: none.
        quantize: what weights are stored in, as `hs.quantize` takes it; None: not quantized.
    """

    prune: ZeroPattern | None = None
    quantize: Numbers | None = None

    @classmethod
    def of(cls, prune: str | None, quantize: str | None) -> CompressionPlan | None:
        """A plan; None where there is nothing to do.

        Args:
            prune: as in the class.
            quantize: as in the class.

        Raises:
            HpmlError: a pattern or a format that there is not.
        """
        known = get_args(ZeroPattern)
        if prune is not None and prune not in known:
            raise HpmlError(
                f"estimate: prune={shown(prune)}: a network by name has no weights, and takes "
                f"{' or '.join(map(repr, known))}; for other patterns give the network itself, pruned by hs.prune"
            )
        if quantize is not None:
            check_choice("estimate: quantize", quantize, get_args(Numbers))
        return None if prune is None and quantize is None else cls(prune, quantize)  # type: ignore[arg-type]

    @property
    def numbers(self) -> NumberFormat | None:
        """What weights are stored in, with the groups that `hs.quantize` takes by itself."""
        if self.quantize is None:
            return None
        return NumberFormat(self.quantize, GROUP if self.quantize in GROUPED else None)

    def sentence(self) -> str:
        """What is taken for granted, in words."""
        zeros = {"unstructured": "half of the weights zero", "2:4": "two of each four weights zero"}
        parts = [zeros[self.prune]] if self.prune else []
        parts += [f"weights quantized to {self.quantize}"] if self.quantize else []
        return f"estimated as if the network had {' and '.join(parts)}; what that does to its score is not known"

    def counts(self, counts: Workload, shape: TransformerShape | None) -> Workload:
        """The counts of the network with this compression.

        Args:
            counts: of the network as it is.
            shape: of a language model: a head that is its embedding stays as it is, as `hs.quantize` leaves it.
        """
        tied = shape.vocabulary if shape is not None and shape.tied else None
        return replace(counts, layers=tuple(y if y.cols == tied else self._layer(y) for y in counts.layers))

    def _layer(self, layer: LayerCount) -> LayerCount:
        if layer.op not in _OPS or not layer.weight_count:
            return layer
        if self.prune == "unstructured" or (self.prune == "2:4" and layer.rows % 4 == 0):
            pattern = "2:4" if self.prune == "2:4" else ""
            layer = replace(layer, zero_weights=layer.rows * layer.cols * layer.groups // 2, zero_pattern=pattern)
        if (numbers := self.numbers) is not None:
            layer = replace(layer, stored_bits=numbers.bits(layer.rows), arithmetic=numbers.arithmetic)
        return layer

    def stored(self, shape: TransformerShape) -> StoredWeights:
        """How the matrices of a language model are stored with it.

        Args:
            shape: its sizes.
        """
        numbers = self.numbers
        each = [*shape.attention_weights(), *shape.feed_forward(shape.hidden)]
        whole = sum(a * b for a, b in each)
        return StoredWeights(
            quantized=0.0 if numbers is None else 1.0,
            bits=0.0 if numbers is None else sum(a * b * numbers.bits(a) for a, b in each) / whole,
            arithmetic="" if numbers is None else numbers.arithmetic,
            two_four=float(self.prune == "2:4"),
            head_bits=None if numbers is None or shape.tied else numbers.bits(shape.width),
        )
