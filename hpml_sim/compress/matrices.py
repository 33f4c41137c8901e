"""The weights of a network as matrices (outputs, inputs), whatever layer they are in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.conversion.converting import LayerChoice, layer_chooser
from hpml_sim.errors import HpmlError

_RECURRENT = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)


@dataclass(frozen=True)
class Matrix:
    """One weight of a layer.

    Attributes:
        layer: dotted name of the layer.
        module: the layer.
        parameter: name of the weight in it.
        inputs_first: whether the weight is (inputs, outputs), as in GPT-2's `Conv1D`.
    """

    layer: str
    module: nn.Module
    parameter: str
    inputs_first: bool = False

    @property
    def weight(self) -> nn.Parameter:
        """The parameter."""
        found = self.module._parameters[self.parameter]
        assert found is not None
        return found

    @property
    def name(self) -> str:
        """The layer's name, and that of the weight where the layer has several."""
        return self.layer if self.parameter == "weight" else f"{self.layer}.{self.parameter}".strip(".")

    def read(self) -> Tensor:
        """The weight as (outputs, inputs); of a convolution, inputs are channels x kernel."""
        weight = self.weight.detach()
        return weight.t() if self.inputs_first else weight.flatten(1)

    def read_by_channel(self) -> Tensor:
        """The weight as (outputs, inputs) with the channels of a convolution innermost, as tensor cores multiply."""
        weight = self.weight.detach()
        if self.inputs_first or weight.dim() == 2:
            return self.read()
        return weight.movedim(1, -1).flatten(1)

    def write(self, matrix: Tensor) -> None:
        """Give the parameter other values, in place.

        Args:
            matrix: (outputs, inputs), as `read` gives it.
        """
        weight = self.weight
        new = matrix.t() if self.inputs_first else matrix.reshape(weight.shape)
        weight.data.copy_(new.to(weight.dtype))

    def write_by_channel(self, matrix: Tensor) -> None:
        """Give the parameter other values, in place.

        Args:
            matrix: (outputs, inputs), as `read_by_channel` gives it.
        """
        weight = self.weight
        if self.inputs_first or weight.dim() == 2:
            self.write(matrix)
            return
        outputs, channels, *kernel = weight.shape
        self.write(matrix.reshape(outputs, *kernel, channels).movedim(-1, 1).reshape(outputs, -1))


def matrices(where: str, model: nn.Module, only: LayerChoice, skip: LayerChoice) -> list[Matrix]:
    """The weights of all chosen layers that multiply by a matrix; a weight that two layers share stands once.

    A weight that is also an embedding's stays out: its rows are looked up, not multiplied.

    Args:
        where: the function that the caller called, which begins a message.
        model: the network.
        only: layers by name, or a predicate; None: all.
        skip: layers that are left out; None: none.

    Raises:
        UnknownNameError: a name that is no layer.
        HpmlError: no layer is left, or a weight that is computed from other parameters.
    """
    chosen = layer_chooser(where, model, only, skip)
    tables = {id(p) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for p in m.parameters()}
    found: dict[int, Matrix] = {}
    for name, module in model.named_modules():
        if not chosen(name, module):
            continue
        for own in _matrices_of(name, module):
            weight = module._parameters.get(own.parameter)
            if weight is None:
                if own.parameter == "weight" and "parametrizations" in module._modules:
                    raise HpmlError(
                        f"{where}: layer {name!r}: its weight is computed from other parameters (a parametrization); "
                        "remove it with torch.nn.utils.parametrize.remove_parametrizations"
                    )
                continue
            if id(weight) not in tables and weight.dim() > 1 and weight.is_floating_point():
                found.setdefault(id(weight), own)
    if not found:
        raise HpmlError(
            f"{where}: the network has no layer with a weight matrix that only= and skip= leave; give one with linear "
            "or convolutional layers"
        )
    return list(found.values())


def _matrices_of(name: str, module: nn.Module) -> list[Matrix]:
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return [Matrix(name, module, "weight")]
    if isinstance(module, nn.MultiheadAttention):
        return [
            Matrix(name, module, own) for own in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        ]
    if isinstance(module, _RECURRENT):
        return [Matrix(name, module, own) for own in module._parameters if own.startswith("weight_")]
    weight = module._parameters.get("weight")
    if weight is not None and type(module).__name__ == "Conv1D" and module.__dict__.get("nf") == weight.shape[-1]:
        return [Matrix(name, module, "weight", inputs_first=True)]
    return []


def groups_of(module: nn.Module) -> int:
    """Groups of a convolution; 1 of every other layer.

    Args:
        module: any layer.
    """
    return module.groups if isinstance(module, nn.modules.conv._ConvNd) else 1


Collector = Callable[[Matrix, Tensor], None]
"""Takes a matrix and the vectors that it was multiplied with, (vectors, inputs)."""


def watch_inputs(found: list[Matrix], take: Collector) -> list[torch.utils.hooks.RemovableHandle]:
    """Hooks that hand over what each layer is multiplied with; of layers whose inputs cannot be seen, nothing.

    Args:
        found: the matrices.
        take: gets a matrix and its input vectors, (vectors, inputs).
    """
    handles = []
    for own in found:

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any, own: Matrix = own) -> None:
            vectors = _multiplied(own, module, args, output)
            if vectors is not None:
                take(own, vectors.detach())

        handles.append(own.module.register_forward_hook(hook))
    return handles


def _multiplied(own: Matrix, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
    """What a weight was multiplied with in one call, (vectors, inputs); None where it cannot be seen from outside."""
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) or own.inputs_first:
        return _vectors(module, args[0]) if groups_of(module) == 1 else None
    if isinstance(module, nn.RNNCellBase):
        if own.parameter == "weight_ih":
            return args[0].reshape(-1, module.input_size)
        state = args[1] if len(args) > 1 else None
        state = state[0] if isinstance(state, tuple) else state
        return None if state is None else state.reshape(-1, module.hidden_size)
    if isinstance(module, nn.RNNBase) and isinstance(args[0], Tensor):
        if own.parameter.startswith("weight_ih_l0"):
            return args[0].reshape(-1, module.input_size)
        simple = module.num_layers == 1 and not module.bidirectional and not module.proj_size and args[0].dim() == 3
        if simple and own.parameter == "weight_hh_l0":  # all states but the last
            states = output[0] if module.batch_first else output[0].transpose(0, 1)
            return states[:, :-1].reshape(-1, module.hidden_size)
    return None


def _vectors(module: nn.Module, x: Tensor) -> Tensor:
    """Input vectors of a layer, (vectors, inputs), as the rows of `Matrix.read` meet them."""
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return x.reshape(-1, x.shape[-1])
    if isinstance(module, nn.Conv1d):
        x = x.unsqueeze(-2)
    kernel, stride, dilation, padding = (
        ((1, *value) if isinstance(module, nn.Conv1d) else tuple(value))
        for value in (module.kernel_size, module.stride, module.dilation, _pads(module))
    )
    if isinstance(module, nn.Conv1d):
        padding = (0, *padding[1:])
    x = nn.functional.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)  # type: ignore[arg-type]
    return x.transpose(1, 2).flatten(0, 1)


def _pads(module: nn.Conv1d | nn.Conv2d) -> tuple[int, ...]:
    if isinstance(module.padding, str):
        same = module.padding == "same"
        return tuple(d * (k - 1) // 2 * same for d, k in zip(module.dilation, module.kernel_size, strict=True))
    return tuple(module.padding)  # type: ignore[arg-type]
