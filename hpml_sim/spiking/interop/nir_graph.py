"""Nodes and edges of NIR from the forward() of a network, as `torch.fx` traces it."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from hpml_sim.conversion.cloning import clone
from hpml_sim.errors import ConversionError
from hpml_sim.spiking.fused_network import FusedNeurons
from hpml_sim.spiking.interop.nir_nodes import does_nothing, node_of
from hpml_sim.spiking.interop.nir_package import nir
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.neurons.recurrent import RecurrentNeurons
from hpml_sim.spiking.time_folding import TimeFolded
from hpml_sim.spiking.time_loop import prepare_pass

_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


def spikes_of(out: Any) -> Any:
    """The spikes of what neurons gave as `out`: themselves, or the first where states come with them."""
    return out[0] if isinstance(out, tuple) else out


def is_layer(module: nn.Module) -> bool:
    """Whether a `module` is one node of the graph, and nothing inside it is."""
    return isinstance(module, (TimeFolded, FusedNeurons)) or not any(True for _ in module.children())


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return is_layer(m)


class _Shapes(fx.Interpreter):
    """Runs a network and notes the shape of one sample behind every operation."""

    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.after: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        out = super().run_node(n)
        if isinstance(spikes_of(out), Tensor):
            self.after[n.name] = tuple(spikes_of(out).shape[1:])
        return out


class NirGraph:
    """Nodes and edges of NIR from a network's traced forward().

    Args:
        root: the network, in evaluation mode, batch norms folded away.
        example: (steps, batch, ...), what enters it at each step; it gives the shapes.
        dt: seconds of a step, > 0.

    Attributes:
        dt: seconds of a step.
        root: the network.
        after: the shape of one sample behind each operation, by name.
        nodes: nodes of the graph by name.
        edges: (from, to) by the names of nodes.
        sources: the nodes whose outputs add up to the value of an operation, by its name.
        settings: what NIR cannot say about each neuron.
        notes: layers left out.

    Raises:
        ConversionError: forward() cannot be traced, or does what no node of NIR does.
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
        prepare_pass(root, example.shape[0])
        shapes = _Shapes(fx.GraphModule(root, traced))
        shapes.run(example.flatten(0, 1))
        self.after = shapes.after
        self.nodes: dict[str, Any] = {"input": nir().Input({"input": np.array(example.shape[2:])})}
        self.sources: dict[str, list[str]] = {}
        for operation in traced.nodes:
            self._add_operation(operation)

    def _add_operation(self, operation: fx.Node) -> None:
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
            self._add_layer(operation, str(operation.target), self.root.get_submodule(str(operation.target)))
        elif operation.target in _ADDITIONS:
            terms = operation.args
            shapes = {self.after[term.name] for term in terms if isinstance(term, fx.Node)}
            if operation.kwargs or not all(isinstance(term, fx.Node) for term in terms) or len(shapes) != 1:
                raise ConversionError(f"{where}: only sums of two values of one shape can be exported")
            self.sources[operation.name] = [name for term in terms for name in self.sources[term.name]]  # type: ignore[union-attr]
        elif operation.target in (torch.flatten, "flatten"):
            dims = (*operation.args[1:], *operation.kwargs.values())
            self._add_layer(operation, operation.name, nn.Flatten(*(dims or (0,))))  # type: ignore[arg-type]
        elif operation.target is operator.getitem and operation.args[1] == 0:
            self.sources[operation.name] = self.sources[operation.args[0].name]  # type: ignore[union-attr]
        else:
            raise ConversionError(f"{where}: no NIR node computes the same; only layers and sums can be exported")

    def _add_layer(self, operation: fx.Node, name: str, layer: nn.Module) -> None:
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
