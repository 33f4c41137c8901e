"""NIR, the exchange format of spiking networks: an export that proves itself."""

from __future__ import annotations

import operator
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from hpml_sim.conversion.cloning import clone
from hpml_sim.errors import ConversionError, HpmlError
from hpml_sim.spiking.folding import fold_batch_norms
from hpml_sim.spiking.fusion import FusedNetwork, FusedNeurons, prepare
from hpml_sim.spiking.interop.nir_import import from_nir
from hpml_sim.spiking.interop.nir_nodes import does_nothing, nir, node_of
from hpml_sim.spiking.model import SpikingModel
from hpml_sim.spiking.multistep_neurons import RecurrentNeurons
from hpml_sim.spiking.neurons import LeakyNeurons
from hpml_sim.spiking.time_folding import TimeFolded

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass(frozen=True)
class NirReport:
    """What an export is worth.

    Attributes:
        graph: the `nir.NIRGraph`. mismatch: share of output spikes that differ after export and import, in [0, 1].
        spikes: output spikes of the example. steps: its time steps. notes: what the graph does not hold.
    """

    graph: Any
    mismatch: float
    spikes: int
    steps: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        head = f"NIR: {100 * self.mismatch:.3g} % of output spikes differ after import ({self.spikes} spikes)"
        return "\n".join([head, *(f"  {note}" for note in self.notes)])


@torch.no_grad()
def to_nir(
    network: nn.Module,
    example: Tensor,
    path: str | Path | None = None,
    *,
    dt: float = 1e-4,
    allowed_mismatch: float = 0.0,
) -> NirReport:
    """Export a network, import it again, run both on an example and compare the spikes.

    Layers with a node in NIR, sums (residual connections), recurrent neurons and batch norms behind a layer, which are
    folded into it, can be exported; `nir_nodes.py` says which neurons. Everything else is refused by name.

    Args:
        network: a `SpikingModel`, a `FusedNetwork`, or a module of layers and neurons whose forward() can be traced
            (`torch.fx`); time is folded into its batch.
        example: (steps, batch, ...): what enters the first layer at each step. An encoder is no part of the graph: for
            a `SpikingModel` give `model.encoder(x).unflatten(0, (steps, -1))`.
        path: also write this file (.nir).
        dt: seconds of a step, > 0; snnTorch's importer takes 1e-4 whatever the file says.
        allowed_mismatch: largest share of spikes that may differ.

    Raises:
        ConversionError: a layer, a reset or an option that NIR cannot hold, or too many spikes differ; then no file is
            written. HpmlError: dt, or the example's shape.
    """
    package = nir()
    if not dt > 0:
        raise HpmlError(f"to_nir: dt={dt!r} must be > 0 seconds")
    if example.dim() < 3 or 0 in example.shape[:2]:
        raise HpmlError(f"to_nir: example of shape {tuple(example.shape)}; expected (steps, batch, ...)")
    notes = [f"dt = {dt:g} s, in the metadata: NIR has no time step"]
    if isinstance(network, SpikingModel):
        notes.append(f"encoder {type(network.encoder).__name__} is not in the graph")
    original = clone(_root(network)).eval()
    x = example.flatten(0, 1)
    prepare(original, example.shape[0])
    folded, pairs = fold_batch_norms(original, x)
    notes += [f"layer {norm!r}: batch norm, folded into {layer!r}" for layer, norm in pairs.items()]
    drawing = _Drawing(folded, example, dt)
    metadata = {"producer": "hpml_sim", "dt": dt, "reset": "zero", "neurons": "; ".join(drawing.settings)}
    # nir takes the channels of a grouped convolution for those of one group
    grouped = any(getattr(module, "groups", 1) > 1 for module in folded.modules())
    graph = package.NIRGraph(drawing.nodes, drawing.edges, metadata=metadata, type_check=not grouped)
    again = from_nir(graph)
    want, got = _spikes(FusedNetwork(original)(example)), again(example)
    mismatch = float((want != got).double().mean())
    if mismatch > allowed_mismatch:
        raise ConversionError(
            f"to_nir: {100 * mismatch:.3g} % of the output spikes differ after export and import; nothing was written "
            "(allowed_mismatch= lets it pass)"
        )
    if path is not None:
        package.write(str(path), graph)
    notes += drawing.notes
    return NirReport(graph, mismatch, int(torch.count_nonzero(want)), example.shape[0], tuple(notes))


def _spikes(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def _root(network: nn.Module) -> nn.Module:
    """What to trace: a module with the layers below it."""
    if isinstance(network, SpikingModel):
        if network.chips != 1:
            raise ConversionError(f"to_nir: a model with {network.chips} chips; export one")
        return nn.Sequential(OrderedDict(network=network.network, spikes=network.output))
    if isinstance(network, FusedNetwork):
        return _root(network.network)
    if _is_layer(network):
        return nn.Sequential(OrderedDict(layer=network))
    return network


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, (TimeFolded, FusedNeurons)) or not any(True for _ in module.children())


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_layer(m)


class _Shapes(fx.Interpreter):
    """Runs a network and notes the shape of one sample behind every operation."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.after: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        if isinstance(_spikes(out), Tensor):
            self.after[n.name] = tuple(_spikes(out).shape[1:])
        return out


class _Drawing:
    """Nodes and edges of NIR from a network's traced forward().

    Attributes:
        nodes, edges: of the graph. settings: what NIR cannot say about each neuron. notes: layers left out.
    """

    def __init__(self, root: nn.Module, example: Tensor, dt: float):
        self.dt = dt
        self.root = root
        self.settings: list[str] = []
        self.notes: list[str] = []
        self.edges: list[tuple[str, str]] = []
        try:
            traced = _Tracer().trace(root)
        except Exception as error:  # whatever tracing a user's forward() raises is the reason to give
            raise ConversionError(
                f"to_nir: forward() of {type(root).__name__} cannot be traced ({type(error).__name__}: {error}); what "
                "it does must not depend on values: write it with layers and sums"
            ) from error
        prepare(root, example.shape[0])
        shapes = _Shapes(fx.GraphModule(root, traced))
        shapes.run(example.flatten(0, 1))
        self.after = shapes.after
        self.nodes: dict[str, Any] = {"input": nir().Input({"input": np.array(example.shape[2:])})}
        self.sources: dict[str, list[str]] = {}
        for operation in traced.nodes:
            self._draw(operation)

    def _draw(self, operation: fx.Node) -> None:
        """Put one operation into the graph; `sources` says which nodes its value comes from."""
        where = f"to_nir: operation {operation.name!r} in forward()"
        if operation.op == "placeholder":
            if self.sources:
                raise ConversionError("to_nir: forward() takes more than one input")
            self.sources[operation.name] = ["input"]
        elif operation.op == "output":
            value = operation.args[0]
            if not isinstance(value, fx.Node):
                raise ConversionError("to_nir: forward() gives more than one output; give the spikes alone")
            self.nodes["output"] = nir().Output({"output": np.array(self.after[value.name])})
            self._connect(value, "output")
        elif operation.op == "call_module":
            self._draw_layer(operation, str(operation.target), self.root.get_submodule(str(operation.target)))
        elif operation.target in _ADDITIONS:
            terms = operation.args
            shapes = {self.after[term.name] for term in terms if isinstance(term, fx.Node)}
            if operation.kwargs or not all(isinstance(term, fx.Node) for term in terms) or len(shapes) != 1:
                raise ConversionError(f"{where}: only sums of two values of one shape can be exported")
            self.sources[operation.name] = [name for term in terms for name in self.sources[term.name]]  # type: ignore[union-attr]
        elif operation.target in (torch.flatten, "flatten"):
            dims = (*operation.args[1:], *operation.kwargs.values())
            self._draw_layer(operation, operation.name, nn.Flatten(*(dims or (0,))))  # type: ignore[arg-type]
        elif operation.target is operator.getitem and operation.args[1] == 0:
            self.sources[operation.name] = self.sources[operation.args[0].name]  # type: ignore[union-attr]
        else:
            raise ConversionError(f"{where}: no NIR node computes the same; only layers and sums can be exported")

    def _draw_layer(self, operation: fx.Node, name: str, layer: nn.Module) -> None:
        above = operation.args[0]
        if not isinstance(above, fx.Node) or (operation.op == "call_module" and len(operation.args) != 1):
            raise ConversionError(f"to_nir: layer {name!r}: called with more than the value of one layer")
        if does_nothing(layer):
            self.notes.append(f"layer {name!r}: {type(layer).__name__} does nothing in evaluation and is left out")
            self.sources[operation.name] = self.sources[above.name]
            return
        key = name.replace(".", "_")
        while key in self.nodes:
            key += "_again"  # the same module at another place: there it has a state of its own
        neurons = layer.neurons if isinstance(layer, FusedNeurons) else layer
        if (
            isinstance(neurons, RecurrentNeurons)
            and neurons.recurrent is not None
            and neurons.recurrent.bias is not None
        ):
            layer = self._without_recurrent_bias(name, neurons, above)
        where = f"to_nir: layer {name!r}"
        self.nodes[key] = node_of(where, layer, self.after[above.name], self.after[operation.name], self.dt)
        self._connect(above, key)
        self.sources[operation.name] = [key]
        if isinstance(neurons, LeakyNeurons):
            self.settings.append(f"{name} reset_delay={neurons.reset_delay} surrogate={neurons.surrogate}")

    def _without_recurrent_bias(self, name: str, neurons: RecurrentNeurons, above: fx.Node) -> RecurrentNeurons:
        """The same neurons, the bias of their recurrent weights moved to the layer before, which acts in every step."""
        key = self.sources[above.name][0]
        node = self.nodes[key]
        alone = above.op == "call_module" and len(above.users) == 1 and len(self.sources[above.name]) == 1
        if not alone or not isinstance(node, (nir().Linear, nir().Affine)):
            raise ConversionError(
                f"to_nir: layer {name!r}: its recurrent weights have a bias, which other systems leave out of the "
                "first step, and no Linear of its own stands before it to take the bias; build them with bias=False"
            )
        unbiased: Any = clone(neurons)
        bias = unbiased.recurrent.bias.numpy()
        self.nodes[key] = nir().Affine(node.weight, getattr(node, "bias", 0) + bias)
        unbiased.recurrent.bias = None
        self.notes.append(f"layer {name!r}: the bias of its recurrent weights is part of {key!r}, before it")
        return unbiased

    def _connect(self, value: fx.Node, to: str) -> None:
        names = self.sources[value.name]
        if len(set(names)) != len(names):
            raise ConversionError(f"to_nir: {to!r} takes the same value twice in a sum; NIR has one edge between nodes")
        self.edges += [(name, to) for name in names]
