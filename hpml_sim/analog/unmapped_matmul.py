"""Products that no layer shows: with a crossbar's weights, or with weights that are no part of the network."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hpml_sim.analog.expert_products import GROUPED, MOVES
from hpml_sim.analog.experts import BESIDE, AnalogExperts
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.outside_weights import outside_weights
from hpml_sim.conversion.idle_layers import work_of
from hpml_sim.conversion.inputs import numeric_parameters
from hpml_sim.conversion.modules import place_that_runs
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

    Attributes:
        nominal: layers on programmed chips whose weights went into digital operations, and where.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self._network = network
        analog = {id(network.get_submodule(name)) for name in crossbars(network)}
        names: dict[int, str] = {}
        reported: set[int] = set()
        # a weight that the network replaces, as moving averages do, must not leave its place to another tensor
        own = numeric_parameters(network).values()  # those of aihwkit's tiles hold no numbers
        self._alive = [p.untyped_storage() for p in own if p.layout is torch.strided]
        for name, module in network.named_modules():
            for parameter in module.parameters(recurse=False):
                if id(module) in analog or isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
                    names[storage_of(parameter)] = name
                elif isinstance(module, _DIGITAL):
                    reported.add(storage_of(parameter))
        self._names = {storage: name for storage, name in names.items() if storage not in reported}
        self._found: set[str] = set()
        self._alone = self._weights_of_their_own(analog)
        self.nominal: dict[str, str] = {}
        self._own = {storage_of(parameter) for parameter in network.parameters()}
        self._strangers: dict[int, str] = {}
        self._constants = {storage_of(t): one.name for one in outside_weights(network) for t in one.tensors()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS:
            # by storage: a transposed or sliced view of a weight is still that weight
            for value in tree_leaves((args, kwargs)):
                factor = storage_of(value) if isinstance(value, Tensor) else None
                if factor in self._names:
                    self._found.add(self._names[factor])
                elif isinstance(value, Tensor) and value.dim() > 1 and self._is_stranger(value, factor):
                    self._note_stranger(value)
        y = func(*args, **kwargs)
        if self._alone and isinstance(y, Tensor) and y.is_floating_point():
            for value in tree_leaves((args, kwargs)):
                name = self._alone.get(storage_of(value)) if isinstance(value, Tensor) else None
                if name is None or name in self.nominal or storage_of(y) == storage_of(value):
                    continue
                # the weights of experts are gathered first; what is multiplied with them then lies on their tiles
                if not (func in MOVES and isinstance(self._network.get_submodule(name), AnalogExperts)):
                    self.nominal[name] = place_that_runs(self._network)
        return y

    def _weights_of_their_own(self, analog: set[int]) -> dict[int, str]:
        """By storage, the layers on programmed chips whose weight no digital layer shares."""
        # a layer that is not programmed computes with its weight itself
        own: dict[int, str] = {}
        for name, crossbar in crossbars(self._network).items():
            if crossbar.programmed is not None:
                layer: Any = self._network.get_submodule(name)
                own[storage_of(layer.weight)] = name
        for module in self._network.modules():
            if id(module) not in analog and isinstance(module, (*_DIGITAL, nn.Embedding, nn.EmbeddingBag)):
                for parameter in module.parameters(recurse=False):
                    own.pop(storage_of(parameter), None)
        return own

    def _is_stranger(self, value: Tensor, storage: int | None) -> bool:
        return storage not in self._own and (isinstance(value, nn.Parameter) or storage in self._constants)

    def _note_stranger(self, weight: Tensor) -> None:
        storage = storage_of(weight)
        if storage not in self._strangers:
            name = self._constants.get(storage, "").removeprefix("network.")
            name = f"{name} " if name else ""
            self._strangers[storage] = f"{name}{tuple(weight.shape)} in {place_that_runs(self._network)}"

    def warn(self) -> None:
        """Warn of the products that were noted, if there were any."""
        for name, work in work_of(self._network).items():
            # named here, with the reason
            work.named_idle |= any(name == found or name.startswith(f"{found}.") for found in self._found)
        if self._found:
            # as the report names them
            names = sorted(name.removeprefix("network.").removesuffix(BESIDE) for name in self._found)
            warnings.warn(
                f"forward() multiplies with the weights of {', '.join(map(repr, names))} outside of the "
                "layers: these products are computed in digital, without noise. Call the layers themselves, or give "
                "the products layers of their own (nn.Linear)",
                RuntimeWarning,
                stacklevel=3,
            )
        if self._strangers:
            warnings.warn(
                "forward() multiplies with weights or other tensors that are no part of the network: "
                f"{'; '.join(self._strangers.values())}. These products are computed in digital, and nothing trains, "
                "moves or saves the weights with the network: make the layer an attribute of its module, a list of "
                "layers an nn.ModuleList, a tensor an nn.Parameter",
                RuntimeWarning,
                stacklevel=3,
            )
