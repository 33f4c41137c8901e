"""`Case`: one small network, what it is called with, and its products by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        build: gives the network and its arguments; torch's seed is set before.
        macs: multiply-accumulates of one sample, by hand.
        together: whether all chips run in one pass.
        unseen: operations that the workload names as not counted.
        batch_dim: dimension of the samples in the first tensor.
    """

    build: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    macs: float
    together: bool = True
    batch_dim: int = 0
    unseen: int = 0

    def made(self) -> tuple[nn.Module, tuple[Any, ...]]:
        """The network in evaluation, and its arguments: the same at every call."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net, args = self.build()
        return net.eval(), args


class Calls(nn.Module):
    """Layers, and a function of them."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def named(net: nn.Module, args: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments of a network by their names."""
    function = net.function if isinstance(net, Calls) else net.forward
    names = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    return dict(zip(names[isinstance(net, Calls) :], args, strict=False))


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# ------------------------------------------------------------------------------------------------ products by hand


def attention(queries: int, keys: int, width: int) -> int:
    """Four projections, scores, and the sum over values."""
    return 2 * queries * width**2 + 2 * keys * width**2 + 2 * queries * keys * width


def encoder(length: int, width: int, hidden: int) -> int:
    return attention(length, length, width) + 2 * length * width * hidden


def decoder(length: int, memory: int, width: int, hidden: int) -> int:
    return encoder(length, width, hidden) + attention(length, memory, width)


def lstm(steps: int, inputs: int, hidden: int, gates: int = 4) -> int:
    return steps * gates * hidden * (inputs + hidden)
