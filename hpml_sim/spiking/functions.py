"""Activations and dropout called as functions inside forward(), made into modules that a converter can replace."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from hpml_sim.errors import ConversionError

_LOG = logging.getLogger(__name__)
_RECTIFIERS: dict[Any, type[nn.Module]] = {
    F.relu: nn.ReLU,
    F.relu_: nn.ReLU,
    torch.relu: nn.ReLU,
    torch.relu_: nn.ReLU,
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    F.relu6: nn.ReLU6,
}
_DROPOUTS: dict[Any, type[nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
}
_WITHOUT_COUNTERPART = {
    *(F.celu, F.elu, F.elu_, F.gelu, F.glu, F.hardshrink, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu),
    *(F.logsigmoid, F.mish, F.prelu, F.rrelu, F.selu, F.silu, F.softplus, F.softshrink, F.softsign, F.tanhshrink),
    *(F.sigmoid, F.tanh, torch.sigmoid, torch.tanh, "sigmoid", "tanh", F.softmax, F.log_softmax, F.softmin),
    *(torch.softmax, torch.log_softmax, "softmax", "log_softmax"),
}


def with_functions_as_modules(model: nn.Module) -> nn.Module:
    """The same network with a module for each rectifier and dropout that its forward() calls as a function.

    Where there is none, or forward() cannot be traced by `torch.fx`, the model itself comes back.

    Args:
        model: a private copy; its layers are used.

    Raises:
        ConversionError: a function without spiking counterpart, or a forward() that is another one in evaluation mode.
    """
    graph = None if type(model).__module__.startswith("torch.nn.") else _traced(model)
    if graph is None:
        return model
    for node in graph.nodes:
        if node.op in ("call_function", "call_method") and node.target in _WITHOUT_COUNTERPART:
            raise ConversionError(
                f"{type(model).__name__}: forward() calls {_name(node)}, which has no spiking counterpart; take "
                "torch.relu inside the network, and no softmax behind it: the loss applies that"
            )
    functions = [
        node
        for node in graph.nodes
        if node.op in ("call_function", "call_method") and node.target in (*_RECTIFIERS, *_DROPOUTS)
    ]
    if not functions:
        return model
    _check_modes(model, graph)
    for node in functions:
        rectifier = _RECTIFIERS.get(node.target)
        made = _dropout(node) if rectifier is None else rectifier()
        name = node.name
        while name in dict(model.named_children()):
            name += "_"
        model.add_module(name, made)
        with graph.inserting_after(node):
            new = graph.call_module(name, (node.args[0] if node.args else node.kwargs["input"],))
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    return fx.GraphModule(model, graph, type(model).__name__).train(model.training)


def _traced(model: nn.Module) -> fx.Graph | None:
    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # whatever a user's forward() raises when it is traced
        _LOG.debug("%s cannot be traced: %s", type(model).__name__, error)
        return None


def _check_modes(model: nn.Module, graph: fx.Graph) -> None:
    """A trace holds the branches that were taken: they must not depend on the mode."""
    was_training = model.training
    other = _traced(model.train(not was_training))
    model.train(was_training)
    if other is None or [(n.op, str(n.target)) for n in other.nodes] != [(n.op, str(n.target)) for n in graph.nodes]:
        raise ConversionError(
            f"{type(model).__name__}: forward() calls activations as functions and takes other ways in training than "
            "in evaluation; make them modules (self.act = nn.ReLU()) and convert again"
        )


def _dropout(node: fx.Node) -> nn.Module:
    values = dict(zip(("input", "p", "training", "inplace"), node.args, strict=False)) | dict(node.kwargs)
    return _DROPOUTS[node.target](p=values.get("p", 0.5))


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
