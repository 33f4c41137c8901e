"""Looking at a model without changing it: what counts, measures or evaluates leaves it as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor, nn

from hpml_sim.conversion.chips_in_front import ChipsInFront
from hpml_sim.conversion.converted import Converted
from hpml_sim.conversion.snntorch_states import calls_from_rest


class Stateful(nn.Module):
    """A model that can go on, in its next call, where its last one ended.

    Attributes:
        keep_state: whether it does. False (the default): each call starts at rest, and nothing is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keep_state = False


@contextmanager
def stateless(model: nn.Module, *, steps: bool = False) -> Iterator[None]:
    """Within the block, each call of `model` starts at rest; states that any module in it has kept stay as they are.

    Args:
        model: any network.
        steps: a call is a time step of a loop outside: snnTorch's neurons go on from call to call, and whoever runs the
            loop puts them to rest.
    """
    keeping = [module for module in model.modules() if isinstance(module, Stateful) and module.keep_state]
    # chips call the converted network in them by itself; in a loop of the user's over one, a call of it is a time step
    inside = tuple(m for m in model.modules() if isinstance(m, Converted)) if isinstance(model, ChipsInFront) else ()
    for module in keeping:
        module.keep_state = False
    try:
        with nullcontext() if steps else calls_from_rest(model, inside):
            yield
    finally:
        for module in keeping:
            module.keep_state = True


@contextmanager
def statistics_of_one_sample() -> Iterator[None]:
    """Within the block, a batch norm without running statistics takes a single sample, whose values come out as 0.

    For what only looks at a network, such as a count of its operations; torch refuses it.
    """
    with mock.patch.object(torch.nn.functional, "_verify_batch_size", return_value=None):
        yield


@contextmanager
def eval_mode(model: nn.Module, *, steps: bool = False) -> Iterator[None]:
    """Within the block, `model` is in evaluation mode, without gradients, and each call starts at rest.

    Afterwards every module in it is in the mode that it was in, and the buffers of the user's modules, such as queues,
    codebooks and counters, hold what they held.

    Args:
        model: any network.
        steps: a call is a time step of a loop outside, as for `stateless`.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [_Buffer.of(module, name) for module, _ in modes if not _is_ours(module) for name in module._buffers]
    try:
        model.eval()
        with torch.no_grad(), stateless(model, steps=steps):
            yield
    finally:
        for buffer in buffers:
            buffer.put_back()
        if modes[0][1]:
            model.train()  # modules may do more on a change of mode than note it
        for module, training in modes:
            module.training = training


@dataclass(frozen=True)
class _Buffer:
    """What a buffer of a module held."""

    module: nn.Module
    name: str
    tensor: Tensor | None
    values: Tensor | None

    @classmethod
    def of(cls, module: nn.Module, name: str) -> _Buffer:
        tensor = module._buffers[name]
        # the values of sparse tensors are not written in place
        copied = None if tensor is None or tensor.layout is not torch.strided else tensor.detach().clone()
        return cls(module, name, tensor, copied)

    def put_back(self) -> None:
        self.module._buffers[self.name] = self.tensor
        if self.tensor is not None and self.values is not None and self.tensor.numel():
            same = self.tensor.shape == self.values.shape and self.tensor.device == self.values.device
            with torch.no_grad():
                if not same:
                    self.tensor.data = self.values
                elif not self.tensor.is_meta and not torch.equal(self.tensor, self.values):
                    self.tensor.copy_(self.values)


def _is_ours(module: nn.Module) -> bool:
    """Whether a module is of this library: what its layers find in a pass, such as ranges, is to stay."""
    return type(module).__module__.startswith("hpml_sim.")
