"""A graph of NIR as a network over all time steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hpml_sim.errors import ConversionError, HpmlError, check_real, shown
from hpml_sim.spiking.fused_network import FusedNetwork
from hpml_sim.spiking.interop.nir_checks import check_graph, check_runs, loop_in_words
from hpml_sim.spiking.interop.nir_feedback import Edges, Ways, connection_of, ways_back, without_ways
from hpml_sim.spiking.interop.nir_layers import layer_of
from hpml_sim.spiking.interop.nir_package import nir


class NirNetwork(nn.Module):
    """Layers and the edges between them; a layer that several edges reach takes their sum.

    Args:
        layers: by the names of the nodes, in an order in which they can run.
        sources: the names of those whose outputs each layer takes; "" is the input.
        output: the names of those whose outputs the network gives.

    Attributes:
        layers: by the names of the nodes, in the order in which they run.
        sources: the names of those whose outputs each layer takes; "" is the input.
        output: the names of those whose outputs the network gives.
    """

    def __init__(self, layers: dict[str, nn.Module], sources: dict[str, tuple[str, ...]], output: tuple[str, ...]):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.sources = sources
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (chips x steps x batch, ...) of inputs `x` (chips x steps x batch, ...)."""
        values = {"": x}
        for name, layer in self.layers.items():
            values[name] = layer(_total(values, self.sources[name]))
        return _total(values, self.output)


def _total(values: dict[str, Tensor], names: tuple[str, ...]) -> Tensor:
    total = values[names[0]]
    for name in names[1:]:
        total = total + values[name]
    return total


def from_nir(graph: Any, *, dt: float | None = None) -> FusedNetwork:
    """A NIR graph as a network over all steps: (steps, batch, ...) -> spikes (or values) of its output.

    Source: J. E. Pedersen et al., Nat. Commun. 15:8122 (2024) (NIR).

    Args:
        graph: a `nir.NIRGraph`, or the path of a file; one input, one output, any edges between, neurons whose spikes
            come back through weights and scales, graphs inside graphs.
        dt: seconds of a step, > 0; None: what the metadata say.

    Returns:
        The network, in evaluation mode.

    Raises:
        ConversionError: a node, a loop or a value that would be run otherwise than it means.
        HpmlError: no graph and no file, no dt or another than the metadata's, or the package nir is missing.

    Example:
        >>> import nir, numpy as np, torch, hpml_sim as hs
        >>> nodes = {
        ...     "input": nir.Input({"input": np.array([3])}),
        ...     "weights": nir.Linear(np.ones((2, 3), np.float32)),
        ...     "spikes": nir.IF(r=np.full(2, 1e4), v_threshold=np.ones(2), v_reset=np.zeros(2)),
        ...     "output": nir.Output({"output": np.array([2])}),
        ... }
        >>> edges = [("input", "weights"), ("weights", "spikes"), ("spikes", "output")]
        >>> network = hs.spiking.from_nir(nir.NIRGraph(nodes, edges), dt=1e-4)
        >>> network(torch.full((4, 1, 3), 0.25)).sum(dim=0).tolist()  # 0.75 a step, threshold 1: every second step
        [[2.0, 2.0]]
    """
    package = nir()
    if not isinstance(graph, package.NIRGraph):
        if not isinstance(graph, (str, Path)):
            raise HpmlError(f"from_nir: graph={shown(graph)}: must be a nir.NIRGraph or the path of a file")
        if not Path(graph).is_file():
            raise HpmlError(f"from_nir: no file {str(graph)!r}")
        try:
            graph = package.read(str(graph))
        except Exception as error:  # whatever HDF5 or nir say of a file that is none of theirs
            said = " ".join(str(error).split())[:200]
            raise HpmlError(f"from_nir: file {str(graph)!r} cannot be read as NIR ({said}); write it anew") from error
    check_graph(package, graph, "")
    dt = _step(graph, dt)
    nodes, edges = _flat(package, graph, "")
    inputs = [name for name, node in nodes.items() if isinstance(node, package.Input)]
    outputs = [name for name, node in nodes.items() if isinstance(node, package.Output)]
    if len(inputs) != 1 or len(outputs) != 1:
        raise ConversionError(f"from_nir: {len(inputs)} inputs and {len(outputs)} outputs; one of each can be run")
    back = ways_back(nodes, edges)
    edges = without_ways(edges, back)
    on_way = {name for ways in back.values() for way in ways for name in way}
    names = {name: _key(name) for name in nodes}
    names[inputs[0]] = ""
    layers: dict[str, nn.Module] = {}
    sources: dict[str, tuple[str, ...]] = {}
    # layers in an order in which they can run: each as soon as all it takes is there
    waiting = [name for name in nodes if name != inputs[0] and name not in on_way]
    done = {inputs[0]}
    while waiting:
        ready = next((n for n in waiting if all(a in done for a, b in edges if b == n)), None)
        if ready is None:
            raise ConversionError(loop_in_words(package, nodes, edges, waiting))
        waiting.remove(ready)
        done.add(ready)
        above = tuple(names[a] for a, b in edges if b == ready)
        if not above:
            raise ConversionError(f"from_nir: nothing reaches node {ready!r}")
        sources[names[ready]] = above
        if ready not in outputs:
            layers[names[ready]] = _layer(ready, nodes, dt, back.get(ready))
    network = FusedNetwork(NirNetwork(layers, sources, sources.pop(names[outputs[0]]))).eval()
    check_runs(network, nodes[inputs[0]])
    return network


def _layer(name: str, nodes: dict[str, Any], dt: float, ways: Ways | None) -> nn.Module:
    where = f"from_nir: node {name!r}"
    try:
        back = None if ways is None else connection_of(where, nodes, ways, layer_of)
        return layer_of(where, nodes[name], dt, back)
    except HpmlError:
        raise
    except Exception as error:  # a node whose parts do not fit together
        said = " ".join(str(error).split())[:200]
        raise ConversionError(f"{where}: {type(nodes[name]).__name__} is not as NIR defines it ({said})") from error


def _step(graph: Any, dt: float | None) -> float:
    said = graph.metadata.get("dt") if graph.metadata else None
    if dt is None:
        if said is None:
            raise HpmlError("from_nir: the graph does not say how long a step is; give dt= in seconds")
        try:
            dt = float(said)
        except (TypeError, ValueError):
            raise HpmlError(f"from_nir: the graph's metadata say dt={shown(said)}; give dt= in seconds") from None
    step = check_real("from_nir: dt", dt, above=0, hint="it is in seconds")
    if said is not None and abs(step - float(said)) > 1e-9 * step:
        raise HpmlError(f"from_nir: dt={dt!r}, but the graph was made for steps of {float(said):g} s; leave dt out")
    return step


def _flat(package: Any, graph: Any, prefix: str) -> tuple[dict[str, Any], Edges]:
    """Nodes and edges with the graphs inside it laid open, their inputs and outputs passed over."""
    nodes: dict[str, Any] = {}
    edges: Edges = [(prefix + a, prefix + b) for a, b in dict.fromkeys(map(tuple, graph.edges))]
    for name, node in graph.nodes.items():
        if not isinstance(node, package.NIRGraph):
            nodes[prefix + name] = node
            continue
        inner, inside = _flat(package, node, f"{prefix}{name}.")
        doors = {key: part for key, part in inner.items() if isinstance(part, (package.Input, package.Output))}
        entries = [key for key, part in doors.items() if isinstance(part, package.Input)]
        exits = [key for key, part in doors.items() if isinstance(part, package.Output)]
        edges = [(a, door) for a, b in edges if b == prefix + name for door in entries] + [
            edge for edge in edges if edge[1] != prefix + name
        ]
        edges = [(door, b) for a, b in edges if a == prefix + name for door in exits] + [
            edge for edge in edges if edge[0] != prefix + name
        ]
        edges += inside
        for door in doors:
            through = [(a, b) for a, d in edges if d == door for e, b in edges if e == door]
            edges = [edge for edge in edges if door not in edge] + through
        nodes |= {key: part for key, part in inner.items() if key not in doors}
    return nodes, edges


def _key(name: str) -> str:
    """A name that `nn.ModuleDict` takes."""
    key = name.replace(".", "_")
    return f"{key}_" if key in dir(nn.ModuleDict) or not key else key
