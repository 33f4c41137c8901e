"""What a network is called with: a tensor, several of them, or some by name; each (batch, ...)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hpml_sim.errors import HpmlError, shown

Inputs = Any
"""A tensor (batch, ...); a tuple or list of such, given by position; or a mapping of names to such, given by name."""


@dataclass(frozen=True, eq=False)
class Shared:
    """An input that is the same for all samples, such as the edges of one graph, an adjacency matrix, or a mask.

    It stands in the place of the tensor, in the items of a data set or in its batches: it is not stacked, cut or shared
    out with the samples, and the network gets the tensor itself, on the device and in the number format of the others.

    Args:
        tensor: of any shape.

    Raises:
        HpmlError: no tensor.

    Example:
        >>> import torch, hpml_sim as hs
        >>> class Graph(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = torch.nn.Linear(4, 2)
        ...     def forward(self, x, adjacency):
        ...         return self.layer(adjacency @ x).mean(1)
        >>> edges = hs.Shared(torch.eye(3))
        >>> samples = [((torch.rand(3, 4), edges), i % 2) for i in range(8)]
        >>> _ = hs.fit(Graph(), samples, epochs=1, show_progress=False)
    """

    tensor: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.tensor, Tensor):
            raise HpmlError(f"Shared: tensor={shown(self.tensor)}: must be a tensor, such as the edges of a graph")


def unshared(inputs: Any) -> Any:
    """Arguments of a network with the tensors themselves in the place of what is shared by all samples.

    Args:
        inputs: any structure of tensors in tuples, lists and dicts.
    """
    first = next(tensors_in(inputs), None)
    number = next((x for x in tensors_in(inputs) if x.is_floating_point()), None)

    def own(part: Any) -> Any:
        if not isinstance(part, Shared):
            return part
        tensor = part.tensor if first is None else part.tensor.to(first.device)
        return tensor.to(number.dtype) if number is not None and tensor.is_floating_point() else tensor

    return tree_map(own, inputs)


def call_network(model: nn.Module, inputs: Inputs) -> Any:
    """What a network makes of a batch; it gets copies, and may write into them.

    Args:
        model: any network.
        inputs: a tensor, several by position, or some by name.
    """
    args, kwargs = copied_tensors(as_arguments(inputs))
    return model(*args, **kwargs)


def copied_tensors(value: Any) -> Any:
    """The same structure with copies of its tensors; one that stands there twice stays one.

    Args:
        value: any structure of tensors in tuples, lists and dicts.
    """
    copies: dict[int, Tensor] = {}

    def once(part: Any) -> Any:
        return copies.setdefault(id(part), part.clone()) if isinstance(part, Tensor) else part

    return tree_map(once, value)


def as_arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, by position and by name.

    Args:
        inputs: a tensor, several by position, or some by name.
    """
    inputs = unshared(inputs)
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of a batch, in order.

    Args:
        value: a tensor, or tuples, lists and mappings of such; anything else is passed over.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(part)


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """The same structure with something else in the place of each tensor.

    Args:
        function: tensor -> what takes its place.
        value: a tensor, or tuples, lists and mappings of such; anything else stays as it is.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {name: map_tensors(function, part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(map_tensors(function, part) for part in value)
    return value


def samples_in(value: Any) -> int:
    """How many samples a batch has: the first size of its first tensor.

    Args:
        value: a batch of inputs or labels with at least one tensor.
    """
    return len(next(tensors_in(value)))


def shapes_of(value: Any) -> str:
    """Shapes and types of a batch for a message, never its values.

    Args:
        value: a tensor, or tuples, lists and mappings of such.
    """
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {shapes_of(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(shapes_of, value))}]"
    return type(value).__name__
