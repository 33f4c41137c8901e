"""Products that a forward() computes with a stack of expert weights, read as calls of the layer that holds the stack.

Experts are multiplied with in many ways: `F.linear(x, self.w[e])` in a loop, `torch.bmm(x, self.w[chosen])` or an
einsum with weights that were gathered first, `grouped_mm(x, self.w, offs=...)`, products with all experts. All of them
are vectors, each with the number of its expert.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from hpml_sim.analog.experts import AnalogExperts
from hpml_sim.counting.torch_operations import storage_of

_GROUPED_NAMES = ((torch, "_grouped_mm"), (F, "grouped_mm"))
GROUPED: frozenset[Any] = frozenset(getattr(place, name) for place, name in _GROUPED_NAMES if name in vars(place))
"""torch's products of rows with the matrices of the groups in which they lie."""
_MATMULS = frozenset(
    {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm, torch.mv, Tensor.mv}
)
_SUMS = frozenset({torch.baddbmm, Tensor.baddbmm, torch.addmm, Tensor.addmm})
_GATHERS = frozenset({Tensor.__getitem__, torch.index_select, Tensor.index_select})
_TURNS = frozenset({torch.transpose, Tensor.transpose, torch.swapaxes, Tensor.swapaxes, Tensor.mT.__get__})  # type: ignore[attr-defined]
_KEEPS = frozenset({Tensor.contiguous, Tensor.to, Tensor.float, Tensor.type_as, Tensor.clone})

MOVES = _GATHERS | _TURNS | _KEEPS
"""What moves expert weights and computes nothing."""


@dataclass(frozen=True)
class Chosen:
    """A tensor that holds the matrices of some experts in its last two dimensions.

    Attributes:
        layer: the layer of the stack.
        experts: numbers of the experts, the shape of the tensor without its last two dimensions.
        inputs_first: whether the matrices lie there as (inputs, outputs).
    """

    layer: AnalogExperts
    experts: Tensor
    inputs_first: bool


class ExpertProducts:
    """Knows, within one pass of a network, which tensors hold expert weights.

    Args:
        layers: the layers of all stacks.
    """

    def __init__(self, layers: list[AnalogExperts]):
        self._layers = {storage_of(layer.weight): layer for layer in layers}
        self._gathered: Any = WeakIdKeyDictionary()  # by tensor: what it holds

    def __bool__(self) -> bool:
        return bool(self._layers)

    def chosen(self, value: Any) -> Chosen | None:
        """The experts whose matrices a tensor holds; None for any other tensor.

        Args:
            value: anything.
        """
        if not isinstance(value, Tensor):
            return None
        return self._gathered.get(value) or self._view(value)

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any) -> None:
        """Follow expert weights that an operation gathered, turned or copied.

        Args:
            func: the operation.
            args: what it was given by position.
            kwargs: what it was given by name.
            found: what it gave.
        """
        if func not in MOVES or not args or not isinstance(found, Tensor):
            return
        before = self.chosen(args[0])
        if before is None or self._view(found) is not None:
            return
        if func in _GATHERS:
            experts = _gathered(func, args, kwargs, before)
            if experts is None or found.shape[: found.dim() - 2] != experts.shape:
                return
            self._gathered[found] = Chosen(before.layer, experts, before.inputs_first)
        elif func in _KEEPS or _exchanges_last(func, args, kwargs, found.dim()):
            self._gathered[found] = Chosen(before.layer, before.experts, before.inputs_first != (func in _TURNS))

    def product(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What an operation gives, computed by the layer that holds the weights; None where it is no such product.

        Args:
            func: the operation.
            args: what it is given by position.
            kwargs: what it is given by name.
        """
        if func is F.linear:
            given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            chosen = self.chosen(given["weight"])
            if chosen is None or chosen.inputs_first or chosen.experts.dim():
                return None
            y = _multiply(chosen, given["input"].unsqueeze(-2)).squeeze(-2)
            return y if given.get("bias") is None else y + given["bias"]
        if func in GROUPED:
            return self._grouped(*args, **kwargs)
        if func in _MATMULS and "out" not in kwargs:
            left, right = (*args, *kwargs.values())[:2]
            return self._matmul(left, right)
        if func in _SUMS and len(args) == 3 and not kwargs:
            y = self._matmul(args[1], args[2])
            return None if y is None else args[0] + y
        if func is torch.einsum and len(args) == 3 and isinstance(args[0], str):
            return self._einsum(args[0], args[1], args[2])
        return None

    def _view(self, value: Tensor) -> Chosen | None:
        """A tensor that is the stack itself, one or more of its experts, or any of these turned round."""
        layer = self._layers.get(storage_of(value))
        if layer is None or not 2 <= value.dim() <= 3:
            return None
        weight = layer.weight
        step, *strides = map(int, weight.stride())
        shape = list(weight.shape[1:])
        first, beyond = divmod(int(value.storage_offset()) - int(weight.storage_offset()), step)
        if beyond or (value.dim() == 3 and len(value) > 1 and value.stride(0) % step):
            return None
        for turned in (False, True):
            order = slice(None, None, -1 if turned else 1)
            if list(value.shape[-2:]) == shape[order] and list(value.stride()[-2:]) == strides[order]:
                experts = torch.tensor(first, device=value.device)
                if value.dim() == 3:
                    steps = value.stride(0) // step if len(value) > 1 else 1
                    experts = first + steps * torch.arange(len(value), device=value.device)
                return Chosen(layer, experts, layer.inputs_first != turned)
        return None

    def _matmul(self, left: Any, right: Any) -> Tensor | None:
        chosen = self.chosen(right)
        if chosen is not None and chosen.inputs_first and isinstance(left, Tensor):
            if left.dim() == 1:
                return _multiply(chosen, left.unsqueeze(0)).squeeze(-2)
            return _multiply(chosen, left)
        chosen = self.chosen(left)
        if chosen is not None and not chosen.inputs_first and isinstance(right, Tensor):
            if right.dim() == 1:
                return _multiply(chosen, right.unsqueeze(0)).squeeze(-2)
            return _multiply(chosen, right.mT).mT
        return None

    def _grouped(
        self,
        x: Tensor,
        weight: Tensor,
        offs: Tensor | None = None,
        bias: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
        **others: Any,
    ) -> Tensor | None:
        given = others.pop("mat_a", x), others.pop("mat_b", weight)
        x, weight = given
        chosen = self.chosen(weight)
        if chosen is None or not chosen.inputs_first or chosen.experts.dim() != 1 or others or bias is not None:
            return None
        if offs is None:
            y = _multiply(chosen, x) if x.dim() == 3 else None
        elif x.dim() == 2:
            group = (torch.arange(len(x), device=x.device).unsqueeze(-1) >= offs).sum(-1)
            beyond = group >= len(chosen.experts)
            experts = chosen.experts[group.clamp(max=len(chosen.experts) - 1)]
            y = chosen.layer(x, torch.where(beyond, chosen.layer.crossbar.tiling.groups, experts))
        else:
            y = None
        return y if y is None or out_dtype is None else y.to(out_dtype)

    def _einsum(self, equation: str, left: Any, right: Any) -> Tensor | None:
        inputs, arrow, output = equation.replace(" ", "").partition("->")
        names = inputs.split(",")
        if not arrow or len(names) != 2 or "." in equation:
            return None
        for letters, value, others, x in ((names[1], right, names[0], left), (names[0], left, names[1], right)):
            chosen = self.chosen(value)
            if chosen is None or not isinstance(x, Tensor) or len(letters) != chosen.experts.dim() + 2:
                continue
            batch, last = letters[:-2], letters[-2:]
            into, out = last if chosen.inputs_first else last[::-1]
            free = [letter for letter in others if letter not in batch and letter != into]
            wanted = [*batch, *free, out]
            if into not in others or into in output or sorted(wanted) != sorted(output) or out in others:
                return None
            sizes = dict(zip(letters, value.shape, strict=True)) | dict(zip(others, x.shape, strict=True))
            order = [letter for letter in (*batch, *free, into) if letter in others]
            x = x.permute([others.index(letter) for letter in order])
            for place, letter in enumerate(batch):
                if letter not in others:
                    x = x.unsqueeze(place)
            x = x.expand(*(sizes[letter] for letter in batch), *x.shape[len(batch) :])
            many = x.reshape(*x.shape[: len(batch)], -1, x.shape[-1])
            y = _multiply(chosen, many).reshape(*(sizes[letter] for letter in wanted))
            return y.permute([wanted.index(letter) for letter in output])
        return None


def _multiply(chosen: Chosen, x: Tensor) -> Tensor:
    """Vectors (..., n, inputs) times the matrices (..., inputs, outputs) of experts (...), broadcast as by matmul."""
    batch = torch.broadcast_shapes(x.shape[:-2], chosen.experts.shape)
    x = x.expand(*batch, *x.shape[-2:])
    experts = chosen.experts.unsqueeze(-1).expand(*batch, x.shape[-2])
    y = chosen.layer(x.reshape(-1, x.shape[-1]), experts.reshape(-1))
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _gathered(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], before: Chosen) -> Tensor | None:
    """The numbers of the experts that an indexing operation took."""
    if func is Tensor.__getitem__:
        index = args[1]
        return before.experts[index] if isinstance(index, Tensor) and before.experts.dim() else None
    given = dict(zip(("input", "dim", "index"), args, strict=False)) | kwargs
    return before.experts[given["index"]] if given.get("dim") == 0 and before.experts.dim() == 1 else None


def _exchanges_last(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], n: int) -> bool:
    """Whether a transposition exchanges the last two of n dimensions."""
    dims = [value % n for value in (*args[1:], *kwargs.values()) if isinstance(value, int)]
    return not dims or sorted(dims) == [n - 2, n - 1]
