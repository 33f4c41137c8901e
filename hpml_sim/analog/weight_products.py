"""Products that a forward() computes with a layer's weight, as `F.linear(x, self.a.weight)`: on the layer's crossbar.

Where the call is the layer's own product, the layer computes it, with its converters, its noise and its chips. So are
products with stacks of expert weights (`expert_products.py`). Any other product with such a weight stays digital, and
is named.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from hpml_sim.analog.activation_products import names_weights
from hpml_sim.analog.expert_products import ExpertProducts
from hpml_sim.analog.experts import AnalogExperts, is_beside
from hpml_sim.analog.given_weights import GivenWeights
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.linear import AnalogConv1D
from hpml_sim.analog.low_rank_adapter import adapter_of
from hpml_sim.analog.unmapped_matmul import PRODUCTS, UnmappedMatmulGuard
from hpml_sim.counting.torch_operations import storage_of

_MATMULS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.mv, Tensor.mv})
_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)


@dataclass(frozen=True)
class LayerCall:
    """A product with a weight, as the call of the layer that holds the weight.

    Attributes:
        x: what the layer gets.
        bias: what is added to the product in place of the layer's own bias; None: nothing.
        transposed: whether `x` was, and the result has to be, transposed in its last two dimensions.
        settings: of a convolution: stride, padding and dilation of this call.
    """

    x: Tensor
    bias: Tensor | None = None
    transposed: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def as_layer_call(layer: nn.Module, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LayerCall | None:
    """Read an operation of torch as the product of a layer.

    Args:
        layer: a linear or convolutional layer, digital or on crossbars, or a `Conv1D` of Hugging Face's transformers.
        func: the operation.
        args: what it is given by position.
        kwargs: what it is given by name.

    Returns:
        None where it is not the product of the whole weight with vectors, in the direction that the layer has.
    """
    weight: Tensor = layer.weight  # pyright: ignore[reportAssignmentType]
    if isinstance(layer, nn.modules.conv._ConvNd):
        return _convolution(layer, weight, func, args, kwargs) if func in _CONVOLUTIONS else None
    matrix = weight if isinstance(layer, nn.Linear) and not isinstance(layer, AnalogConv1D) else weight.T
    if func is F.linear:
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        return LayerCall(given["input"], given.get("bias")) if _same(given["weight"], matrix) else None
    if func in _MATMULS or func is Tensor.__rmatmul__:
        left, right = (*args, *kwargs.values())[:2] if func is not Tensor.__rmatmul__ else args[1::-1]
        return _matmul(left, right, matrix)
    if func in (torch.addmm, Tensor.addmm) and len(args) == 3 and not kwargs and args[0].dim() == 1:
        call = _matmul(args[1], args[2], matrix)
        return None if call is None or call.transposed else LayerCall(call.x, args[0])
    if func is torch.einsum and len(args) == 3:
        return _einsum(args[0], args[1:], matrix)
    return None


def _matmul(left: Any, right: Any, matrix: Tensor) -> LayerCall | None:
    if _same(right, matrix.T):
        return LayerCall(left)
    if _same(left, matrix) and right.dim() >= 1:
        return LayerCall(right) if right.dim() == 1 else LayerCall(right.mT, transposed=True)
    return None


def _einsum(equation: Any, factors: tuple[Any, ...], matrix: Tensor) -> LayerCall | None:
    if not isinstance(equation, str):
        return None
    inputs, _, output = equation.replace(" ", "").partition("->")
    names = inputs.split(",")
    if len(names) != 2:
        return None
    first, second = zip(factors, names, strict=True)
    for (x, x_names), (weight, weight_names) in ((first, second), (second, first)):
        if len(weight_names) != 2:
            continue
        for view, (out, into) in ((matrix, weight_names), (matrix.T, weight_names[::-1])):
            if _same(weight, view) and x_names.endswith(into) and output == x_names[:-1] + out and out not in x_names:
                return LayerCall(x)
    return None


def _convolution(
    layer: nn.modules.conv._ConvNd, weight: Tensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> LayerCall | None:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    dims = len(layer.kernel_size)
    if func is not _CONVOLUTIONS[dims - 1] or not _same(given["weight"], weight):
        return None
    if layer.transposed or given.get("groups", 1) != layer.groups:
        return None

    def each(name: str, usual: int) -> tuple[int, ...]:
        value = given.get(name, usual)
        value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        return value * dims if len(value) == 1 else value

    padding = given.get("padding", 0)
    dilation = each("dilation", 1)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, layer.kernel_size, strict=True)]
        sides = [(half // 2, half - half // 2) for half in total]
    elif padding == "valid":
        sides = [(0, 0)] * dims
    else:
        padding = each("padding", 0)
        sides = [(side, side) for side in padding]
    settings = {
        "stride": each("stride", 1),
        "dilation": dilation,
        "padding": padding,
        "padding_mode": "zeros",
        "_reversed_padding_repeated_twice": [side for pair in reversed(sides) for side in pair],
    }
    return LayerCall(given["input"], given.get("bias"), settings=settings)


def _differentiated_alone(value: Tensor) -> bool:
    """Whether forward() made a variable of its own of a weight, as fast weights are: its gradient is asked for."""
    # a view, such as weight.T without gradients, is no variable of its own
    return value.is_leaf and value.requires_grad and value._base is None and not isinstance(value, nn.Parameter)


def _same(value: Any, weight: Tensor) -> bool:
    """Whether a tensor is this weight, or a view of all of it in the same order."""
    return (
        isinstance(value, Tensor)
        and value.shape == weight.shape
        and storage_of(value) == storage_of(weight)
        and value.storage_offset() == weight.storage_offset()
        and all(
            size < 2 or one == other
            for size, one, other in zip(value.shape, value.stride(), weight.stride(), strict=True)
        )
    )


class WeightProducts(UnmappedMatmulGuard):
    """Within the block, products with the weights of analog layers are computed by these layers.

    Products with such weights that are no product of the layer, and those with tables of embeddings, are named by
    `warn`.

    Args:
        network: the network that runs inside.

    Attributes:
        redirected: how many products the layers computed.
    """

    def __init__(self, network: nn.Module):
        super().__init__(network)
        layers: list[Any] = [network.get_submodule(name) for name in crossbars(network)]
        self._layers = {
            storage_of(layer.weight): layer
            for layer in reversed(layers)  # of layers that share a weight, the first one
            if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) and storage_of(layer.weight) in self._names
        }
        self._experts = ExpertProducts([layer for layer in layers if isinstance(layer, AnalogExperts)])
        self.redirected = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS:
            for value in tree_leaves((args, kwargs)):
                layer = self._layers.get(storage_of(value)) if isinstance(value, Tensor) else None
                if layer is not None and _differentiated_alone(value):
                    continue
                call = None if layer is None else as_layer_call(layer, func, args, kwargs)
                if layer is not None and call is not None:
                    self.redirected += 1
                    return _computed(layer, call)
            if self._experts and (y := self._experts.product(func, args, kwargs)) is not None:
                self.redirected += 1  # their layers do nothing else
                return y
        found = super().__torch_function__(func, types, args, kwargs)
        if self._experts:
            self._experts.note(func, args, kwargs, found)
        return found


class ProductWatch:
    """Lets layers compute, call after call, the products that a network does with their weights.

    To watch every operation takes time: after the first call in a mode only where there was something to find.

    Args:
        model: what `hs.convert` made, with layers on crossbars.
    """

    def __init__(self, model: nn.Module):
        self._beside = any(map(is_beside, crossbars(model)))
        self._names_weights = any(map(names_weights, model.modules()))
        self._found: dict[bool, bool] = {}  # by mode; seen in the first call in it

    def must_see(self, training: bool) -> bool:
        """Whether a call in a mode has to be watched, and cannot be compiled.

        Args:
            training: the mode.
        """
        return self._beside or self._found.get(training, self._names_weights) or any(self._found.values())

    def run(self, model: nn.Module, call: Callable[[], Any]) -> Any:
        """One call.

        Args:
            model: the model, or a copy of it.
            call: runs its network.
        """
        training = model.training
        first = training not in self._found
        products = WeightProducts(model) if first or self._found[training] else None
        # programmed chips warn, or refuse, themselves
        warns = first and all(crossbar.programmed is None for crossbar in crossbars(model).values())
        given = GivenWeights(model) if warns and not training else None
        with products or nullcontext():
            y = call()
        if first and products is not None:
            self._found[training] = self._beside or products.redirected > 0
        if warns and products is not None:
            products.warn()
        if given is not None:
            given.warn()
        return y


def _computed(layer: Any, call: LayerCall) -> Tensor:
    """The product, by the layer."""
    layer.crossbar.work.redirected = True
    # a second object with the parts of the layer: the call has a bias and settings of its own
    view: Any = object.__new__(type(layer))
    view.__dict__.update(layer.__dict__)
    view.__dict__.update(call.settings)
    view.__dict__.pop("forward", None)  # a forward of the instance's own is what calls this
    view.__dict__.pop("bias", None)  # a layer without one may hold None there, before its parameters
    view._parameters = {**layer._parameters, "bias": call.bias}
    if call.settings and (adapter := adapter_of(layer)) is not None:
        view._modules = {**layer._modules, "adapter": adapter.called_with(call.settings)}
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        view.__dict__[hooks] = _own(layer.__dict__[hooks])
    y = view(call.x)
    return y.mT if call.transposed else y


def _own(hooks: dict[int, Callable[..., Any]]) -> dict[int, Callable[..., Any]]:
    """Of the hooks of a layer those with which this library counts: the user's see no product outside the layer."""
    kept = copy.copy(hooks)
    for key, hook in hooks.items():
        if not hook.__module__.startswith("hpml_sim."):
            del kept[key]
    return kept


class _Look(TorchFunctionMode):
    """Notes whether a layer's weight is used as the layer would use it."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self._layer = layer
        self.found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in PRODUCTS and as_layer_call(self._layer, func, args, kwargs) is not None:
            self.found = True
        return func(*args, **kwargs)


def own_forward_multiplies(layer: Any) -> bool:
    """Whether a `forward` that stands on the instance computes the layer's product; seen by running it on zeros.

    Args:
        layer: a linear or convolutional layer, private.
    """
    weight: Tensor = layer.weight
    if isinstance(layer, nn.modules.conv._ConvNd):
        reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        x = weight.new_zeros(1, layer.in_channels, *reach)
    else:
        x = weight.new_zeros(1, weight.shape[1] if isinstance(layer, nn.Linear) else weight.shape[0])
    look = _Look(layer)
    devices = [weight.device] if weight.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices), look:
            layer.forward(x)
    except Exception:  # whatever a user's function raises on zeros: it cannot be read
        return False
    return look.found
