"""Spikes that come back to the neurons of a NIR graph: which ways they take, and the one connection that these are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpml_sim.errors import ConversionError
from hpml_sim.spiking.interop.nir_package import nir

Edges = list[tuple[str, str]]
Ways = tuple[tuple[str, ...], ...]
"""Ways from neurons back to themselves, each the names of the nodes on it; an empty one is an edge to themselves."""


def ways_back(nodes: dict[str, Any], edges: Edges) -> dict[str, Ways]:
    """The neurons whose spikes come back -> the ways through weights and scales, which nothing else passes.

    Args:
        nodes: of the graph by name.
        edges: (from, to) by the names of nodes.
    """
    n = nir()
    found: dict[str, Ways] = {}
    for name, node in nodes.items():
        if isinstance(node, (n.LIF, n.CubaLIF, n.IF)):
            firsts = [b for a, b in edges if a == name]
            ways = [() if first == name else _way_back(nodes, edges, name, first) for first in firsts]
            if complete := tuple(way for way in ways if way is not None):
                found[name] = complete
    return found


def without_ways(edges: Edges, ways: dict[str, Ways]) -> Edges:
    """The edges that lie on none of the `ways` back.

    Args:
        edges: (from, to) by the names of nodes.
        ways: what `ways_back` gave.
    """
    on_way = {name for own in ways.values() for way in own for name in way}
    return [(a, b) for a, b in edges if a not in on_way and b not in on_way and not (a == b and a in ways)]


def _way_back(nodes: dict[str, Any], edges: Edges, neurons: str, first: str) -> tuple[str, ...] | None:
    n = nir()
    way = [first]
    while True:
        node = nodes[way[-1]]
        if not isinstance(node, (n.Linear, n.Affine, n.Conv2d, n.Scale)):
            return None
        into, out = [a for a, b in edges if b == way[-1]], [b for a, b in edges if a == way[-1]]
        if len(into) != 1 or len(out) != 1:
            return None
        if out[0] == neurons:
            return tuple(way)
        if out[0] in way:
            return None
        way.append(out[0])


def connection_of(
    where: str, nodes: dict[str, Any], ways: Ways, layer_of: Callable[[str, Any, float], Any]
) -> Tensor | nn.Linear | nn.Conv2d:
    """One connection that is the sum of all ways back.

    Args:
        where: begins the error message.
        nodes: of the graph by name.
        ways: from the neurons back to themselves.
        layer_of: makes the layer of a convolution, called as layer_of(where, node, 1.0).

    Returns:
        A factor for each neuron, a matrix with or without a bias, or a convolution.

    Raises:
        ConversionError: ways that are none of these.
    """
    n = nir()
    on_way = [nodes[name] for way in ways for name in way]
    if all(isinstance(node, n.Scale) for node in on_way):
        total = sum(np.prod([np.asarray(nodes[name].scale, np.float64) for name in way], axis=0) for way in ways)
        return torch.as_tensor(np.asarray(total)).float()
    if len(on_way) == len(ways) == 1 and isinstance(on_way[0], n.Conv2d):
        return layer_of(where, on_way[0], 1.0)  # type: ignore[no-any-return]
    return _matrix(where, nodes, ways)


def _matrix(where: str, nodes: dict[str, Any], ways: Ways) -> nn.Linear:
    n = nir()
    size = next(
        node.weight.shape[-1] for way in ways for node in map(nodes.__getitem__, way) if hasattr(node, "weight")
    )
    weight, bias = np.zeros((size, size)), np.zeros(size)
    for way in ways:
        matrix, offset = np.eye(size), np.zeros(size)
        for node in map(nodes.__getitem__, way):
            if isinstance(node, n.Conv2d):
                raise ConversionError(
                    f"{where}: spikes come back through a Conv2d and other nodes; one alone can be run"
                )
            own = np.asarray(node.scale if isinstance(node, n.Scale) else node.weight, np.float64)
            scale = isinstance(node, n.Scale)
            if own.ndim not in ((0, 1) if scale else (2,)) or (own.size > 1 and own.shape[-1] != matrix.shape[0]):
                raise ConversionError(f"{where}: spikes come back through a {type(node).__name__} of another size")
            matrix, offset = (own.reshape(-1, 1) * matrix, own * offset) if scale else (own @ matrix, own @ offset)
            offset = offset + np.asarray(getattr(node, "bias", 0.0), np.float64)
        if matrix.shape != weight.shape:
            raise ConversionError(f"{where}: {matrix.shape[0]} values come back to {size} neurons")
        weight, bias = weight + matrix, bias + offset
    layer = nn.Linear(size, size, bias=bool(np.any(bias != 0)))
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.as_tensor(bias))
    return layer


def scaled(where: str, connection: Any, gain: np.ndarray) -> Tensor | nn.Linear | nn.Conv2d:
    """The connection with each neuron's current times its gain.

    Args:
        where: begins the error message.
        connection: what `connection_of` gave; its weights are changed.
        gain: of each neuron; broadcasts to one sample.

    Raises:
        ConversionError: a convolution whose gains differ within a channel.
    """
    factor = torch.as_tensor(gain)
    if isinstance(connection, Tensor):
        return (connection.double() * factor).float()
    if isinstance(connection, nn.Conv2d):
        if factor.dim() == 3:
            if not bool((factor == factor[:, :1, :1]).all()):
                raise ConversionError(
                    f"{where}: neurons of one channel take their current with different weights, and their spikes come "
                    "back through a convolution, which has one for a channel"
                )
            factor = factor[:, 0, 0]
        rows = (-1, 1, 1, 1)
    else:
        rows = (-1, 1)
    factor = factor.expand(connection.weight.shape[0]) if factor.numel() == 1 else factor
    with torch.no_grad():
        connection.weight.copy_(connection.weight.double() * factor.reshape(rows))
        if connection.bias is not None:
            connection.bias.copy_(connection.bias.double() * factor)
    return connection
