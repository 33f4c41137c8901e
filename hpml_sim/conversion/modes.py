"""Looking at a model without changing it: what counts, measures or evaluates leaves it as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Stateful(nn.Module):
    """A model that can go on, in its next call, where its last one ended.

    Attributes:
        keep_state: whether it does. False (the default): each call starts at rest, and nothing is kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keep_state = False


@contextmanager
def stateless(model: nn.Module) -> Iterator[None]:
    """Within the block, each call of `model` starts at rest; states that any module in it has kept stay as they are."""
    keeping = [module for module in model.modules() if isinstance(module, Stateful) and module.keep_state]
    for module in keeping:
        module.keep_state = False
    try:
        yield
    finally:
        for module in keeping:
            module.keep_state = True


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within the block, `model` is in evaluation mode, without gradients, and each call starts at rest.

    Afterwards every module in it is in the mode that it was in.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad(), stateless(model):
            yield
    finally:
        if modes[0][1]:
            model.train()  # modules may do more on a change of mode than note it
        for module, training in modes:
            module.training = training
