"""What a NIR graph must be before it can be run: checked here, so that no raw error comes from deep inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from hpml_sim.errors import ConversionError, HpmlError, shown
from hpml_sim.spiking.interop.nir_feedback import Edges


def check_graph(package: Any, graph: Any, prefix: str) -> None:
    """Refuse a graph with edges to nowhere, nodes that are none, or numbers that are not finite.

    Args:
        package: nir.
        graph: a `nir.NIRGraph`.
        prefix: the names of the graphs around it, each with a dot.

    Raises:
        ConversionError: such a graph.
    """
    nodes, edges = graph.nodes, graph.edges
    if not isinstance(nodes, dict) or not isinstance(edges, (list, tuple, set)):
        raise ConversionError("from_nir: the graph has no nodes by name or no list of edges; write it anew")
    for edge in edges:
        if not isinstance(edge, (tuple, list)) or len(edge) != 2:
            raise ConversionError(f"from_nir: edge {shown(edge)} is no pair (from, to) of names of nodes")
        for end in edge:
            if end not in nodes:
                raise ConversionError(f"from_nir: edge {prefix}{edge[0]} -> {prefix}{edge[1]}: no node {prefix}{end!s}")
    for name, node in nodes.items():
        if isinstance(node, package.NIRGraph):
            check_graph(package, node, f"{prefix}{name}.")
            continue
        if not isinstance(node, package.NIRNode):
            raise ConversionError(f"from_nir: node {prefix + str(name)!r} is {shown(node)}, no node of NIR")
        for part, value in vars(node).items():
            array = np.asarray(value) if isinstance(value, (np.ndarray, float, int)) else np.zeros(0)
            if array.dtype.kind in "fc" and not np.all(np.isfinite(array)):
                raise ConversionError(f"from_nir: node {prefix + str(name)!r}: {part} holds NaN or infinity")


def check_runs(network: nn.Module, entry: Any) -> None:
    """Refuse a graph whose nodes do not fit together: run it for a step on zeros.

    Args:
        network: made of the graph.
        entry: its `nir.Input`, which says the shape of a sample.

    Raises:
        ConversionError: it fails.
    """
    given = entry.input_type.get("input") if isinstance(entry.input_type, dict) else None
    if given is None:
        return
    shape = tuple(int(size) for size in np.atleast_1d(np.asarray(given)))
    try:
        with torch.no_grad():
            network(torch.zeros(1, 1, *shape))
    except HpmlError as error:
        raise ConversionError(f"from_nir: on an input of shape {shape}: {error}") from error
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ConversionError(f"from_nir: the nodes do not fit an input of shape {shape} ({said})") from error


def loop_in_words(package: Any, nodes: dict[str, Any], edges: Edges, waiting: list[str]) -> str:
    """Why the nodes of a loop cannot be run.

    Args:
        package: nir.
        nodes: of the graph by name.
        edges: (from, to) by the names of nodes, without those of ways back to one layer of neurons.
        waiting: the nodes that no order of running reaches.
    """
    place, seen = waiting[0], []
    while place not in seen:  # against the edges: what waits for something that waits ends in the loop
        seen.append(place)
        place = next(a for a, b in edges if b == place and a in waiting)
    loop = sorted(seen[seen.index(place) :])
    neurons = (package.LIF, package.IF, package.CubaLIF, package.LI, package.I)
    listed = ", ".join(map(repr, loop))
    if not any(isinstance(nodes[name], neurons) for name in loop):
        return f"from_nir: nodes {listed} are in a loop without neurons, which has no delay: no step could begin"
    return (
        f"from_nir: nodes {listed} are in a loop; only neurons whose spikes come back to themselves, through weights "
        "and scales that nothing else passes, can be run"
    )
