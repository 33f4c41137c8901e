"""Activations, dropout and max pools called as functions inside forward(), made into modules that can be replaced."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from hpml_sim.errors import ConversionError
from hpml_sim.spiking.module_replacement import keep_hooks

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
_POOLS: dict[Any, type[nn.Module]] = {
    F.max_pool1d: nn.MaxPool1d,
    F.max_pool2d: nn.MaxPool2d,
    F.max_pool3d: nn.MaxPool3d,
    torch.max_pool1d: nn.MaxPool1d,
    torch.max_pool2d: nn.MaxPool2d,
    torch.max_pool3d: nn.MaxPool3d,
}
_DROPOUT_ARGUMENTS = ("input", "p", "training", "inplace")
_POOL_ARGUMENTS = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
_WITHOUT_COUNTERPART = {
    *(F.celu, F.elu, F.elu_, F.gelu, F.glu, F.hardshrink, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu),
    *(F.logsigmoid, F.mish, F.prelu, F.rrelu, F.selu, F.silu, F.softplus, F.softshrink, F.softsign, F.tanhshrink),
    *(F.sigmoid, F.tanh, torch.sigmoid, torch.tanh, "sigmoid", "tanh", F.softmax, F.log_softmax, F.softmin),
    *(torch.softmax, torch.log_softmax, "softmax", "log_softmax"),
}


def with_functions_as_modules(model: nn.Module) -> nn.Module:
    """The same network with a module for each rectifier, dropout and max pool that its forward() calls as a function.

    Args:
        model: a private copy; its layers are used.

    Returns:
        The model itself where there is no such function, or where `torch.fx` cannot trace forward(); else a
        `torch.fx.GraphModule` in its place.

    Raises:
        ConversionError: a function without spiking counterpart, or a forward() that is another one in evaluation mode.
    """
    graph = None if type(model).__module__.startswith("torch.nn.") else traced(model)
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
        if node.op in ("call_function", "call_method") and node.target in (*_RECTIFIERS, *_DROPOUTS, *_POOLS)
    ]
    if not functions:
        return model
    if not _same_in_both_modes(model, graph):
        if all(node.target in _POOLS for node in functions):
            return model  # a pool may stay a function: it is the OR of each step
        raise ConversionError(
            f"{type(model).__name__}: forward() calls activations as functions and takes other ways in training than "
            "in evaluation; make them modules (self.act = nn.ReLU()) and convert again"
        )
    for node in functions:
        made = _module_for(node)
        name = node.name
        while name in dict(model.named_children()):
            name += "_"
        model.add_module(name, made)
        with graph.inserting_after(node):
            new = graph.call_module(name, (node.args[0] if node.args else node.kwargs["input"],))
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    return keep_hooks(model, fx.GraphModule(model, graph, type(model).__name__)).train(model.training)


def traced(model: nn.Module) -> fx.Graph | None:
    """What `torch.fx` makes of forward(); None where it cannot be traced.

    Args:
        model: the network.
    """
    try:
        return fx.Tracer().trace(model)
    except Exception as error:  # whatever a user's forward() raises when it is traced
        _LOG.debug("%s cannot be traced: %s", type(model).__name__, error)
        return None


def _same_in_both_modes(model: nn.Module, graph: fx.Graph) -> bool:
    """Whether training and evaluation take the same way: a trace holds the branches that were taken."""
    was_training = model.training
    other = traced(model.train(not was_training))
    model.train(was_training)
    return other is not None and [(n.op, str(n.target)) for n in other.nodes] == [
        (n.op, str(n.target)) for n in graph.nodes
    ]


def _module_for(node: fx.Node) -> nn.Module:
    if node.target in _RECTIFIERS:
        return _RECTIFIERS[node.target]()
    names = _DROPOUT_ARGUMENTS if node.target in _DROPOUTS else _POOL_ARGUMENTS
    values: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if node.target in _DROPOUTS:
        return _DROPOUTS[node.target](p=values.get("p", 0.5))
    return _POOLS[node.target](**{name: values[name] for name in _POOL_ARGUMENTS[1:] if name in values})


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
