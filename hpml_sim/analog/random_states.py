"""Random generators of Python, of numpy, and those that a network keeps: all chips draw alike."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from hpml_sim.conversion.named_functions import functions_of_forward, values_named


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Within the block, the global generators of Python and numpy start from a seed; after it they go on as before.

    Args:
        seed: any whole number >= 0.
    """
    numpy: Any = sys.modules.get("numpy")  # where it was never imported, nothing draws from it
    python, of_numpy = random.getstate(), None if numpy is None else numpy.random.get_state()
    random.seed(seed)
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(of_numpy)


class OwnGenerators:
    """The generators that a network keeps, or that its code names.

    Args:
        network: any network.
    """

    def __init__(self, network: nn.Module):
        self._found: list[tuple[Callable[[], Any], Callable[[Any], object]]] = []
        seen: set[int] = set()
        read: set[type] = set()
        for module in network.modules():
            kind = type(module)
            if kind.__module__.startswith(("torch.", "hpml_sim.")):
                continue
            values: list[Any] = tree_leaves(vars(module))
            if kind not in read:
                read.add(kind)
                for function in functions_of_forward(module):
                    values += [value for _, value in values_named(function)]
            for value in values:
                if id(value) not in seen and (state := _state_of(value)) is not None:
                    seen.add(id(value))
                    self._found.append(state)

    def states(self) -> list[Any]:
        """Where all of them are."""
        return [get() for get, _ in self._found]

    def put(self, states: list[Any]) -> None:
        """Put them where those of the same network, or of a copy of it, were.

        Args:
            states: what `states` gave.
        """
        for (_, put), state in zip(self._found, states, strict=True):
            put(state)


def _state_of(value: Any) -> tuple[Callable[[], Any], Callable[[Any], object]] | None:
    """How the state of a generator is read and set; None for anything else."""
    if isinstance(value, random.Random):
        return value.getstate, value.setstate
    if isinstance(value, torch.Generator):
        return value.get_state, value.set_state
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.random.RandomState):
        return value.get_state, value.set_state
    if isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        return lambda: bits.state, lambda state: setattr(bits, "state", state)
    return None
