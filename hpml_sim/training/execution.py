"""How the network runs in a step of training: in fewer bits, keeping less, compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as run_again

from hpml_sim.errors import HpmlError, UnknownNameError, check_switch

_TYPES = {"bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Execution:
    """How the network runs in a step of training.

    Attributes:
        autocast: type of the products; None: that of the weights.
        compile: whether `torch.compile` runs the network.
        blocks: what keeps its input alone, and runs again for the gradient.
    """

    autocast: torch.dtype | None = None
    compile: bool = False
    blocks: tuple[nn.Module, ...] = field(default=(), repr=False)

    @classmethod
    def checked(cls, model: nn.Module, autocast: object, checkpoint: object, compiled: object) -> Execution:
        """What a caller of `fit` gave.

        Args:
            model: what is trained.
            autocast: must be the name of a type, or None.
            checkpoint: must be True or False.
            compiled: must be True or False.

        Raises:
            UnknownNameError: no such type.
            HpmlError: no truth value, a network without blocks, or gradients of 16 bits that need scaling.
        """
        check_switch("fit: checkpoint", checkpoint)
        check_switch("fit: compile", compiled)
        if autocast == "float16":
            raise HpmlError(
                "fit: autocast='float16': its gradients underflow without scaling, which fit does not do; take "
                "'bfloat16'"
            )
        if autocast is not None and autocast not in _TYPES:
            raise UnknownNameError("type in autocast=", str(autocast), _TYPES)
        blocks = blocks_of(model) if checkpoint else ()
        if checkpoint and not blocks:
            raise HpmlError(
                f"fit: checkpoint=True: {type(model).__name__} has no list of blocks (nn.ModuleList); leave it out"
            )
        return cls(None if autocast is None else _TYPES[str(autocast)], bool(compiled), blocks)

    def called(self, model: nn.Module) -> Any:
        """The model as a step calls it.

        Args:
            model: what is trained, wrapped for several processes.
        """
        return torch.compile(model) if self.compile else model

    def products(self, device: torch.device) -> Any:
        """A context in which products run in the chosen type.

        Args:
            device: where the model is.
        """
        return nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast)

    @contextmanager
    def keeping_less(self) -> Iterator[None]:
        """Within the block, each block of the network keeps its input alone, and runs again for the gradient."""
        # the method of the instance, so that no name in the state dict changes
        for block in self.blocks:
            block.forward = partial(run_again, block.forward, use_reentrant=False)
        try:
            yield
        finally:
            for block in self.blocks:
                del block.forward


def blocks_of(model: nn.Module) -> tuple[nn.Module, ...]:
    """The blocks that a network repeats: what its outermost lists of modules hold.

    Args:
        model: any network. A list of a single block counts; what has no parameters does not.
    """
    found: list[nn.Module] = []
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if isinstance(module, nn.ModuleList):
            # what has a forward of its own on the instance is left alone
            own = [b for b in module if any(True for _ in b.parameters()) and "forward" not in vars(b)]
            found += [block for block in own if all(block is not other for other in found)]
        else:
            waiting += list(module.children())[::-1]
    return tuple(found)
