"""Compiled passes under `torch.vmap`: the mapped axis becomes an axis of the tensors that the pass takes anyway.

A compiled pass reads memory, which a tensor under vmap does not show. Programmed chips run their network under vmap, so
what lies between the layers meets such tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
Axes = tuple[int | None, ...]


def is_mapped(x: object) -> bool:
    """Whether a value is a tensor under vmap, of which Python sees one slice.

    Args:
        x: anything.
    """
    return isinstance(x, Tensor) and _functorch.is_batchedtensor(x)


def level_of(x: Tensor) -> int:
    """Which vmap a tensor lies under, of several that lie in one another.

    Args:
        x: a tensor under vmap.
    """
    return int(_functorch.maybe_get_level(x))


def mapped_first(x: Tensor, level: int) -> Tensor:
    """A tensor whose first dimension becomes the axis of a vmap that is running.

    Args:
        x: shape (length of the axis, ...).
        level: which vmap.
    """
    return _functorch._add_batch_dim(x, 0, level)  # type: ignore[no-any-return]


def unmapped_first(x: Tensor, level: int, length: int) -> Tensor:
    """An ordinary tensor with the axis of a vmap in front; a tensor that does not lie under it stays as it is.

    Args:
        x: any tensor.
        level: which vmap.
        length: of its axis.
    """
    if not is_mapped(x) or level_of(x) != level:
        return x
    return _functorch._remove_batch_dim(x, level, length, 0)  # type: ignore[no-any-return]


@contextmanager
def no_fallback_warning() -> Iterator[None]:
    """Without torch's warning where vmap works slice by slice: that is right, only slower."""
    if _QUIET.get():  # inside another one, which ends later
        yield
        return
    token = _QUIET.set(True)
    _functorch._set_vmap_fallback_warning_enabled(False)
    try:
        yield
    finally:
        _functorch._set_vmap_fallback_warning_enabled(True)
        _QUIET.reset(token)


def with_mapped_axis(
    function: Callable[..., Any], axes: Axes, out_axes: tuple[int, ...], *tensors: Tensor | None, merge: bool
) -> Any:
    """Call a function of tensors that may lie under vmap; without gradients where they do.

    Args:
        function: tensors -> a tuple of tensors, or of tensors and None.
        axes: by tensor, where the mapped axis goes; None: a tensor that is the same for all.
        out_axes: by result, where the function leaves it.
        tensors: what it takes; None where it takes none.
        merge: whether the axis is merged into the one that stands there; else it is a new one.

    Returns:
        What the function gives.
    """
    if torch.compiler.is_compiling() or not any(map(is_mapped, tensors)):
        return function(*tensors)
    return _Mapped.apply(function, axes, out_axes, merge, *tensors)


class _Mapped(torch.autograd.Function):
    @staticmethod
    def forward(function: Callable[..., Any], axes: Axes, out_axes: tuple[int, ...], merge: bool, *tensors: Any) -> Any:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept: there is no way back."""

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any,
        in_dims: tuple[Any, ...],
        function: Callable[..., Any],
        axes: Axes,
        out_axes: tuple[int, ...],
        merge: bool,
        *tensors: Tensor | None,
    ) -> tuple[Any, Any]:
        given: list[Tensor | None] = []
        for tensor, dim, axis in zip(tensors, in_dims[4:], axes, strict=True):
            if tensor is None or axis is None:
                if dim is not None:
                    raise NotImplementedError("parameters of neurons that differ from chip to chip")
                given.append(tensor)
                continue
            mapped = (
                tensor.unsqueeze(0).expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            )
            mapped = mapped.movedim(0, axis)
            given.append(mapped.flatten(axis, axis + 1) if merge else mapped)
        results = with_mapped_axis(function, axes, out_axes, *given, merge=merge)
        if merge:
            results = tuple(
                None if result is None else result.unflatten(axis, (info.batch_size, -1))
                for result, axis in zip(results, out_axes, strict=True)
            )
        return results, tuple(None if result is None else axis for result, axis in zip(results, out_axes, strict=True))


def all_values(x: Tensor) -> Tensor:
    """The values of a tensor, of all chips where it lies under vmap; their order and shape are not defined.

    Args:
        x: any tensor.
    """
    while not torch.compiler.is_compiling() and is_mapped(x):
        x = _functorch.get_unwrapped(x)
    return x
