"""Operations that `torch.vmap` cannot carry as networks call them, computed so that it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hpml_sim.kernels.common.vmapping import is_mapped, mapped_first


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
        rule: Any = _RULES.get(func, func)
        found = rule(*args, **(kwargs or {}))
        if self._widen and func in _MAKERS and not is_mapped(found):
            return mapped_first(found.expand(self._length, *found.shape).contiguous(), self._level)
        return found


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


_RULES: dict[Any, Callable[..., Any]] = {F.group_norm: _group_norm}
_MAKERS = frozenset(
    {
        *(torch.zeros, torch.ones, torch.empty, torch.full, torch.clone, Tensor.clone),
        *(torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like),
        *(Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full),
    }
)
