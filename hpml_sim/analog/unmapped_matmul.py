"""Products with a crossbar's weights that a forward() computes by itself: digital, and no layer shows it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hpml_sim.analog.expert_products import GROUPED
from hpml_sim.analog.layers import crossbars
from hpml_sim.conversion.idle_layers import work_of
from hpml_sim.counting.torch_operations import storage_of

PRODUCTS = frozenset(
    {
        *(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.mm, Tensor.mm),
        *(torch.bmm, Tensor.bmm, torch.mv, Tensor.mv, torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm),
        *(torch.einsum, torch.tensordot, F.linear, F.bilinear, *GROUPED),
        *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
    }
)
"""Operations of torch that multiply matrices."""
_DIGITAL = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)
"""Layers that compute products; where they stayed digital, the report says so."""


class UnmappedMatmulGuard(TorchFunctionMode):
    """Notes products inside with weights that lie on crossbars or in tables of embeddings; `warn` says what it noted.

    Crossbars hold conductances and never touch the weights, so whoever multiplies with these does it in digital.

    Args:
        network: the network that runs inside.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self._network = network
        analog = {id(network.get_submodule(name)) for name in crossbars(network)}
        names: dict[int, str] = {}
        reported: set[int] = set()
        # a weight that the network replaces, as moving averages do, must not leave its place to another tensor
        self._alive = [parameter.detach() for parameter in network.parameters()]
        for name, module in network.named_modules():
            for parameter in module.parameters(recurse=False):
                if id(module) in analog or isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                    names[storage_of(parameter)] = name
                elif isinstance(module, _DIGITAL):
                    reported.add(storage_of(parameter))
        self._names = {storage: name for storage, name in names.items() if storage not in reported}
        self._found: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS:
            # by storage: a transposed or sliced view of a weight is still that weight
            factors = (storage_of(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor))
            self._found |= {self._names[factor] for factor in factors if factor in self._names}
        return func(*args, **kwargs)

    def warn(self) -> None:
        """Warn of the products that were noted, if there were any."""
        for name, work in work_of(self._network).items():
            # named here, with the reason
            work.named_idle |= any(name == found or name.startswith(f"{found}.") for found in self._found)
        if self._found:
            warnings.warn(
                f"forward() multiplies with the weights of {', '.join(map(repr, sorted(self._found)))} outside of the "
                "layers: these products are computed in digital, without noise. Call the layers themselves, or give "
                "the products layers of their own (nn.Linear)",
                RuntimeWarning,
                stacklevel=3,
            )
