"""Private copies of networks, whatever they keep beside their parameters."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hpml_sim.conversion.references import replace_references
from hpml_sim.conversion.snntorch_states import known_to_snntorch
from hpml_sim.errors import HpmlError

_COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)

_Network = TypeVar("_Network", bound=nn.Module)


def clone(model: _Network, memo: dict[int, Any] | None = None) -> _Network:
    """A deep copy of a network.

    What a module computed and kept with its graph (a pruned or normalized weight, the state of a spiking neuron) is
    copied as a value, which `copy.deepcopy` alone refuses. Functions that it keeps, such as a lambda over its layers,
    are made anew over the layers of the copy; `copy.deepcopy` alone leaves them with the layers of the original.

    Args:
        model: any network; not changed.
        memo: what stands for an object in the copy, by the object's id; None: nothing.

    Raises:
        HpmlError: something in it cannot be copied.
    """
    memo = {} if memo is None else memo
    views = _views_of_weights(model)
    for module in model.modules():
        for value in tree_leaves(vars(module)):
            if isinstance(value, Tensor) and (weight := views.get(id(value))) is not None:
                own = copy.deepcopy(weight, memo).detach()
                offset = int(value.storage_offset()) - int(weight.storage_offset())
                memo.setdefault(id(value), own.as_strided(value.size(), value.stride(), offset))
            # nor does `copy.deepcopy` copy sparse rows
            if isinstance(value, Tensor) and (not value.is_leaf or value.layout in _COMPRESSED):
                memo.setdefault(id(value), value.detach().clone())
    try:
        copied = copy.deepcopy(model, memo)
        originals = (*model.modules(), *model.parameters(), *model.buffers())
        replace_references(copied, {id(own): memo.get(id(own), own) for own in originals}, memo)
        known_to_snntorch(copied)
        return copied
    except Exception as error:  # whatever an attribute of a user's module raises
        raise HpmlError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); leave out what cannot, such "
            "as open files and locks, or give the module a __deepcopy__"
        ) from error


def _views_of_weights(model: nn.Module) -> dict[int, Tensor]:
    """By id, the parameter of each tensor that a module keeps and that lies in the parameter's memory."""
    weights = {
        weight.untyped_storage()._cdata: weight
        for weight in model.parameters()
        if type(weight) is nn.Parameter
        and weight.layout is torch.strided
        and weight.is_contiguous()
        and weight.untyped_storage().nbytes() == weight.numel() * weight.element_size()  # all of its memory
    }
    found = {}
    for module in model.modules():
        own = {**vars(module), "_parameters": None}
        for value in tree_leaves(own):
            if isinstance(value, Tensor) and value.layout is torch.strided and not isinstance(value, nn.Parameter):
                weight = weights.get(_storage(value))
                if weight is not None and value.dtype == weight.dtype and value.device == weight.device:
                    found[id(value)] = weight
    return found


def _storage(value: Tensor) -> int:
    try:
        return value.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a wrapper without memory
        return 0


def copied(value: Any) -> Any:
    """A deep copy of tensors in any structure, such as a state dict; also of sparse rows, which Python cannot copy.

    Args:
        value: tuples, lists and dicts with tensors in them.
    """
    sparse = [part for part in tree_leaves(value) if isinstance(part, Tensor) and part.layout in _COMPRESSED]
    return copy.deepcopy(value, {id(part): part.detach().clone() for part in sparse})
