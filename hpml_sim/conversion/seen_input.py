"""The shapes of an input that a network was called with, without its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves, tree_map

from hpml_sim.errors import HpmlError


@dataclass(frozen=True)
class TensorShape:
    """What a tensor was like.

    Attributes:
        sizes: its shape.
        dtype: its data type.
    """

    sizes: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class OtherArgument:
    """An argument that is neither a tensor nor a plain value; it is not kept.

    Attributes:
        kind: name of its class.
    """

    kind: str


@dataclass(frozen=True)
class SeenInput:
    """The arguments of one call of a network, tensors by their shapes.

    Attributes:
        args: what the call was given by position.
        kwargs: what the call was given by name.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SeenInput:
        """The shapes of a call.

        Args:
            args: what it was given by position.
            kwargs: what it was given by name.
        """

        def shape(value: Any) -> Any:
            # the plain sizes: nothing of the tensor may stay alive, and vmap's tensors must not leave it
            if isinstance(value, Tensor):
                return TensorShape(tuple(value.shape), value.dtype)
            return value if value is None or isinstance(value, (bool, int, float, str)) else OtherArgument(_name(value))

        def whole(value: Any) -> bool:
            # looks like a tuple of tensors, but cannot be made of shapes
            return isinstance(value, PackedSequence)

        return cls(tree_map(shape, args, is_leaf=whole), tree_map(shape, kwargs, is_leaf=whole))

    def zeros(self, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of these shapes that hold zeros.

        Args:
            device: of the tensors.

        Raises:
            HpmlError: the call was given an object whose shapes are not known.
        """

        def tensor(value: Any) -> Any:
            if isinstance(value, OtherArgument):
                raise HpmlError(
                    f"the last call was given an object of class {value.kind}, which is not kept; give data= (a batch "
                    "of samples) or input_shape= (one sample, without the batch)"
                )
            if not isinstance(value, TensorShape):
                return value
            return torch.zeros(value.sizes, dtype=value.dtype, device=device)

        return tree_map(tensor, self.args), tree_map(tensor, self.kwargs)

    @property
    def samples(self) -> int:
        """Samples of the call: the first size of its first tensor; 0 where it has none."""
        first = self._first()
        return first.sizes[0] if first is not None and first.sizes else 0

    def __str__(self) -> str:
        """The shape of one sample: that of the first tensor without the batch."""
        first = self._first()
        return "of no tensor" if first is None else str(first.sizes[1:])

    def _first(self) -> TensorShape | None:
        leaves = tree_leaves((self.args, self.kwargs))
        return next((leaf for leaf in leaves if isinstance(leaf, TensorShape)), None)


def _name(value: object) -> str:
    return type(value).__name__
