"""Operations that `torch.vmap` cannot carry as networks call them, computed so that it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hpml_sim.counting.torch_operations import is_sparse
from hpml_sim.kernels.common.vmapping import is_mapped, level_of, mapped_first, unmapped_first

_TORCH: Any = torch
_OPERATIONS: Any = torch._C._nn  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs


class VmapRules(TorchFunctionMode):
    """Within the block, such operations run under `torch.vmap`.

    Args:
        widen: whether tensors that the network makes itself, such as `torch.zeros(...)`, get the axis as well: then
            values that differ from chip to chip can be written into them.
        level: which vmap.
        length: of its axis.
    """

    def __init__(self, *, widen: bool, level: int, length: int):
        super().__init__()
        self._widen = widen
        self._level = level
        self._length = length

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule: Any = self._batch_norm if func is F.batch_norm else _RULES.get(func, func)
        if func in _PRODUCTS and len(args) == 2 and is_sparse(args[0]) and is_mapped(args[1]):
            return self._of_sparse(*args)
        found = rule(*args, **(kwargs or {}))
        if self._widen and func in _MAKERS and not is_mapped(found):
            return mapped_first(found.expand(self._length, *found.shape).contiguous(), self._level)
        return found

    def _batch_norm(
        self,
        input: Tensor,  # noqa: A002 - the name in torch
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """With the same statistics for all, chips are more samples; torch's own rule writes all values four times."""
        statistics = (running_mean, running_var, weight, bias)
        if training or any(map(is_mapped, statistics)) or not is_mapped(input) or level_of(input) != self._level:
            return F.batch_norm(input, *statistics, training, momentum, eps)
        x = unmapped_first(input, self._level, self._length)  # (chips, samples, channels, ...)
        y = F.batch_norm(x.flatten(0, 1), *statistics, training, momentum, eps)
        return mapped_first(y.unflatten(0, x.shape[:2]), self._level)

    def _of_sparse(self, left: Tensor, right: Tensor) -> Tensor:
        """A sparse matrix, the same for all, times matrices: all of them are the columns of one."""
        x = unmapped_first(right, self._level, self._length)  # (chips, k, n) or (chips, k)
        wide = x.unsqueeze(-1) if right.dim() == 1 else x
        y = (left @ wide.transpose(0, 1).flatten(1)).unflatten(1, (self._length, -1)).transpose(0, 1)
        return mapped_first(y.squeeze(-1) if right.dim() == 1 else y, self._level)


def cannot_write(error: Exception) -> bool:
    """Whether vmap failed because values of all chips were written into a tensor that has room for one.

    Args:
        error: what it raised.
    """
    return isinstance(error, RuntimeError) and "is not possible because there exists a Tensor" in str(error)


def _group_norm(
    input: Tensor,  # noqa: A002 - the name in torch
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    # torch's own asks for the memory format, which a tensor under vmap does not tell
    samples, channels = input.shape[:2]
    values = input.numel() // max(1, samples * channels)
    return torch.native_group_norm(input.contiguous(), weight, bias, samples, channels, values, num_groups, eps)[0]


def _pack_padded_sequence(padded: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    # torch's own says how many sequences each step has as if this differed from chip to chip
    if not is_mapped(padded) or is_mapped(lengths):
        return _TORCH._pack_padded_sequence(padded, lengths, batch_first)
    x = padded.transpose(0, 1) if batch_first else padded
    sizes = (torch.arange(int(lengths.max())).unsqueeze(1) < lengths).sum(1)  # longest first
    places = torch.cat([step * x.shape[1] + torch.arange(int(size)) for step, size in enumerate(sizes)])
    return x.flatten(0, 1)[places.to(x.device)], sizes


def _pad_packed_sequence(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int
) -> tuple[Tensor, Tensor]:
    if not is_mapped(data) or is_mapped(batch_sizes):
        return _TORCH._pad_packed_sequence(data, batch_sizes, batch_first, padding_value, total_length)
    inside = torch.arange(int(batch_sizes[0])) < batch_sizes.unsqueeze(1)  # (steps, batch)
    index = torch.full((max(total_length, len(batch_sizes)), inside.shape[1]), len(data))
    index[: len(inside)][inside] = torch.arange(len(data))
    x = torch.cat([data, torch.full_like(data[:1], padding_value)])[index.to(data.device)]
    return x.transpose(0, 1) if batch_first else x, inside.sum(0)


def _pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    # torch's own writes the sequences into a tensor that has room for one chip
    if not any(map(is_mapped, sequences)):
        return _OPERATIONS.pad_sequence(sequences, batch_first, padding_value, padding_side)
    longest = max(len(x) for x in sequences)
    sides = [(0, longest - len(x)) if padding_side == "right" else (longest - len(x), 0) for x in sequences]
    padded = [
        F.pad(x, (*(0, 0) * (x.dim() - 1), *side), value=padding_value)
        for x, side in zip(sequences, sides, strict=True)
    ]
    return torch.stack(padded, 0 if batch_first else 1)


_RULES: dict[Any, Callable[..., Any]] = {
    F.group_norm: _group_norm,
    _TORCH._pack_padded_sequence: _pack_padded_sequence,
    _TORCH._pad_packed_sequence: _pad_packed_sequence,
    _OPERATIONS.pad_sequence: _pad_sequence,
}
_PRODUCTS = frozenset({torch.sparse.mm, torch.mm, Tensor.mm, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mv})
_MAKERS = frozenset(
    {
        *(torch.zeros, torch.ones, torch.empty, torch.full, torch.clone, Tensor.clone),
        *(torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like),
        *(Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full),
    }
)
