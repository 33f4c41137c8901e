"""Operations that torch.vmap cannot carry as networks call them, computed by others that it can."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class VmapRules(TorchFunctionMode):
    """Within the block, such operations run under `torch.vmap`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(func)
        return (func if rule is None else rule)(*args, **(kwargs or {}))


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


_RULES = {F.group_norm: _group_norm}
