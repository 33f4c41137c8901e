"""The converter for `Analog`: which layers go onto crossbars, and why the others stay digital."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from hpml_sim.analog.activation_products import activation_product
from hpml_sim.analog.attention import AnalogMultiheadAttention
from hpml_sim.analog.carrying_over import carry_over
from hpml_sim.analog.convolution import AnalogConv1d, AnalogConv2d, AnalogConv3d
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.expert_reading import expert_stacks, own_matrices
from hpml_sim.analog.experts import BESIDE, AnalogExperts, matrix_on_tiles
from hpml_sim.analog.given_weights import layers_given_weights
from hpml_sim.analog.input_ranges import one_calibration_step
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.linear import AnalogConv1D, AnalogLinear
from hpml_sim.analog.low_rank_adapter import adapter_names
from hpml_sim.analog.outside_weights import is_weight, outside_weights
from hpml_sim.analog.pulsed.devices import pulsed_layer, why_not_pulsed
from hpml_sim.analog.recurrent import AnalogGRU, AnalogLSTM, AnalogRNN
from hpml_sim.analog.recurrent_cells import AnalogGRUCell, AnalogLSTMCell, AnalogRNNCell
from hpml_sim.analog.transposed_convolution import (
    AnalogConvTranspose1d,
    AnalogConvTranspose2d,
    AnalogConvTranspose3d,
)
from hpml_sim.analog.weight_products import ProductWatch, own_forward_multiplies
from hpml_sim.conversion import Converted, register_target
from hpml_sim.conversion.mapping import ACTIVATION_PRODUCT, MappedLayer, MappedProduct, Mapping
from hpml_sim.conversion.references import replace_references
from hpml_sim.conversion.torch_fast_path import run_every_layer
from hpml_sim.errors import ConversionError
from hpml_sim.kernels.common.vmapping import no_fallback_warning
from hpml_sim.targets import Analog, InMemory, PerLayer

Chosen = Callable[[str, nn.Module], bool]

_ANALOG: dict[type[nn.Module], Any] = {
    nn.Linear: AnalogLinear,
    nn.Conv1d: AnalogConv1d,
    nn.Conv2d: AnalogConv2d,
    nn.Conv3d: AnalogConv3d,
    nn.ConvTranspose1d: AnalogConvTranspose1d,
    nn.ConvTranspose2d: AnalogConvTranspose2d,
    nn.ConvTranspose3d: AnalogConvTranspose3d,
    nn.MultiheadAttention: AnalogMultiheadAttention,
    nn.RNN: AnalogRNN,
    nn.LSTM: AnalogLSTM,
    nn.GRU: AnalogGRU,
    nn.RNNCell: AnalogRNNCell,
    nn.LSTMCell: AnalogLSTMCell,
    nn.GRUCell: AnalogGRUCell,
}
_NOT_MAPPED = {
    nn.Bilinear: "a product of two inputs is not a matrix-vector product",
    nn.Embedding: "a table look-up is not a matrix-vector product",
    nn.EmbeddingBag: "a table look-up is not a matrix-vector product",
    nn.modules.batchnorm._NormBase: "scales value by value",
    nn.LayerNorm: "scales value by value",
    nn.GroupNorm: "scales value by value",
    nn.RMSNorm: "scales value by value",
    nn.PReLU: "scales value by value",
}


@register_target(PerLayer)
@register_target(InMemory)
@register_target(Analog)
def convert_analog(model: nn.Module, target: Analog | InMemory | PerLayer, chosen: Chosen) -> Converted:
    """Put every layer that can be mapped onto crossbars.

    Args:
        model: a private copy of the network.
        target: the configuration, or one for each layer.
        chosen: (name, module) -> whether the caller wants this layer on crossbars.

    Raises:
        ConversionError: weights that are not finite or not there yet, or no layer that can be mapped.
    """
    network, mapping = replace_layers(model, target, chosen)
    return AnalogModel(network, target, mapping)


class AnalogModel(Converted):
    """A network on crossbars.

    In training, all uses of a layer in one call are one observation to its calibration. Where the network multiplies
    with the weight of a layer by itself, as in `F.linear(x, self.a.weight)`, the layer's crossbar computes it.

    Args:
        network: the new network.
        target: the configuration that it was made for.
        mapping: where each product lies.
    """

    def __init__(self, network: nn.Module, target: Analog | InMemory | PerLayer, mapping: Mapping):
        super().__init__(network, target, mapping.reports(), mapping)
        self._watch = ProductWatch(self)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The call of the network that it was made from, with the same arguments and results."""
        self.refuse_other_than_tensors(args)
        self.note_input(args, kwargs)
        step = one_calibration_step(crossbars(self).values()) if self.training else nullcontext()
        compiling = torch.compiler.is_compiling()
        if self._watch.must_see(self.training):
            # What is compiled cannot be watched, and torch's compiler takes up the frames below one that it skipped.
            watched: Any = self._watched
            if compiling or "torch._dynamo" in sys.modules:
                watched = torch.compiler.disable(watched)
            return watched(step, args, kwargs)
        if compiling:
            if not self.training:  # torch's compiler loses a block that does nothing where it stops in the middle of it
                return self.network(*args, **kwargs)
            with step:
                return self.network(*args, **kwargs)
        return self._watched(step, args, kwargs)

    def _watched(self, step: AbstractContextManager[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call in which layers compute the products that the network does with their weights."""
        with step, no_fallback_warning():
            return self._watch.run(self, lambda: self.network(*args, **kwargs))


def replace_layers(model: nn.Module, target: Analog | InMemory | PerLayer, chosen: Chosen) -> tuple[nn.Module, Mapping]:
    """Replace layers of `model` in place; nothing is changed if it raises.

    Args:
        model: a private copy.
        target: the configuration, or one for each layer.
        chosen: (name, module) -> whether the caller wants this layer on crossbars.

    Returns:
        The model (another object if it was itself a layer), and its mapping with a row for each layer.

    Raises:
        ConversionError: weights that are not finite or not there yet, or no layer that can be mapped.
    """
    # all decisions come first: a layer that is refused in the end leaves the network as it was
    plan = _Plan(target, chosen)
    plan.visit(model, "")
    plan.name_outside(model)
    if not plan.replaced and not plan.added:
        reasons = "; ".join(
            f"{row.layer or 'model'} ({row.was}): {row.why}"
            for row in plan.rows
            if row.why not in (_NO_MATRIX, ACTIVATION_PRODUCT)
        )
        raise ConversionError(
            f"no layer can be put onto crossbars. {reasons or 'The model has no layers with weights.'}"
        )
    for owner, own, new in plan.added:
        owner.add_module(own, new)
    others = {id(layer): new for layer, new in plan.replaced.items()}
    if model in plan.replaced:
        replace_references(plan.replaced[model], others)  # in what the user put onto the layer
        return plan.replaced[model], Mapping(tuple(plan.rows))
    run_every_layer(model)
    replace_references(model, others)
    return model, Mapping(tuple(plan.rows))


_NO_MATRIX = "no weight matrix"


class _Plan:
    """What becomes of each layer of a network.

    Attributes:
        replaced: by layer, the one that takes its place.
        added: layers that stand beside a parameter, each with the module that owns it, and the layer's name in it.
        rows: what became of each.
    """

    def __init__(self, target: Analog | InMemory | PerLayer, chosen: Chosen):
        self._target = target
        self._chosen = chosen
        self.replaced: dict[nn.Module, nn.Module] = {}
        self.added: list[tuple[nn.Module, str, nn.Module]] = []
        self.rows: list[MappedLayer] = []
        self._given: set[str] = set()  # layers that a forward() gives other weights

    def visit(self, module: nn.Module, name: str) -> None:
        """Decide about a module and what lies below it."""
        if module in self.replaced or isinstance(module, Crossbar):
            return
        reason = next((why for kind, why in _NOT_MAPPED.items() if isinstance(module, kind)), None)
        base = next((kind for kind in _ANALOG if isinstance(module, kind)), None) or _hugging_face_conv1d(module)
        if reason is None and base is None:
            self._given |= {f"{name}.{own}".strip(".") for own in layers_given_weights(module)}
            self._visit_children(module, name)
            return
        if reason is None and any(f"{name}.".startswith(f"{given}." if given else "") for given in self._given):
            reason = "forward() gives it other weights (functional_call)"
        target = self._target[name] if isinstance(self._target, PerLayer) else self._target
        if reason is None and base is not None:
            reason = _why_not(module, base, name, self._chosen)
        if reason is None and target is None:
            reason = "no target for this layer"
        if reason is None and isinstance(target, InMemory):
            reason = why_not_pulsed(module)
        if reason is not None or base is None or target is None:
            self._keep(module, name, reason or "")
            return
        for part_name, part in module.named_modules():
            _check_weights(part, f"{name}.{part_name}" if part_name else name)
        self._replace(module, name, base, target)

    def name_outside(self, model: nn.Module) -> None:
        """Rows for layers and parameters that the network uses and torch does not know to be its own."""
        for one in outside_weights(model):
            if is_weight(one.value):
                why = "no part of the network for torch (a plain list, a closure, a global): make it an attribute"
                self.rows.append(MappedLayer(one.name, type(one.value).__name__, "digital", why))

    def _visit_children(self, module: nn.Module, name: str) -> None:
        children = list(module.named_children())
        stacks = self._visit_own(module, name)
        own = _own_matrices(module, name, stacks)
        if stacks or children:
            self.rows.extend(own)
        if not children and not stacks:
            has_parameters = any(True for _ in module.parameters(recurse=False))
            self._keep(module, name, "no rule for this kind of layer" if has_parameters else _NO_MATRIX)
        else:
            if what := activation_product(module):
                self._keep_activation_product(name, what)
        beside = adapter_names(module)
        for child_name, child in children:
            place = f"{name}.{child_name}" if name else child_name
            if child_name in beside and any(True for _ in child.parameters()):
                self._keep(child, place, "low-rank adapter: digital")
            else:
                self.visit(child, place)

    def _visit_own(self, module: nn.Module, name: str) -> set[str]:
        """Plan crossbars for the matrices and stacks of expert weights among a module's own parameters; their names."""
        read = {} if parametrize.is_parametrized(module) else own_matrices(module) | expert_stacks(module)
        for own, inputs_first in read.items():
            weight: Any = module._parameters[own]
            was = "matrix" if weight.dim() == 2 else f"{len(weight)} experts"
            place = f"{name}.{own}".strip(".")
            target = self._target[place] if isinstance(self._target, PerLayer) else self._target
            reason = "left out by only= or skip=" if not self._chosen(place, module) else ""
            if not reason and not isinstance(target, Analog):
                beside = "no layer of pulsed devices stands beside a parameter"
                reason = "no target for this layer" if target is None else beside
            if reason or not isinstance(target, Analog):
                self.rows.append(MappedLayer(place, was, "digital", reason))
                continue
            _check_weights(module, name)
            make = matrix_on_tiles if weight.dim() == 2 else AnalogExperts
            new = make(weight, inputs_first, target).train(module.training)
            self.added.append((module, f"{own}{BESIDE}", new))
            t = new.crossbar.tiling
            product = MappedProduct.on(target, f"{place}{BESIDE}", t.rows, t.cols, t.groups)
            self.rows.append(MappedLayer(place, was, type(new).__name__, "", (product,)))
        return set(read)

    def _keep(self, module: nn.Module, name: str, reason: str) -> None:
        self.rows.append(MappedLayer(name, type(module).__name__, "digital", reason))

    def _keep_activation_product(self, name: str, what: str) -> None:
        place = f"{name}.forward" if name else "forward"
        self.rows.append(MappedLayer(place, what, "digital", ACTIVATION_PRODUCT))

    def _replace(self, module: nn.Module, name: str, base: type[nn.Module], target: Analog | InMemory) -> None:
        if isinstance(target, InMemory):
            new, note = pulsed_layer(module, target, len(self.replaced))
            became = f"aihwkit.{type(new).__name__}"
            cols, rows = _pulsed_matrix(module)
            products: tuple[MappedProduct, ...] = (MappedProduct.on(target, name, rows, cols),)
        else:
            new = _ANALOG.get(base, AnalogConv1D).from_digital(module, target)
            became = type(new).__name__
            products = tuple(
                MappedProduct.on(target, f"{name}.{part}".strip("."), t.rows, t.cols, t.groups)
                for part, t in ((part, crossbar.tiling) for part, crossbar in crossbars(new).items())
            )
            pieces = max(product.tiling.row_tiles for product in products)
            note = f"{pieces} row tiles, each with an ADC pass; their sums are added in digital" if pieces > 1 else ""
        carry_over(module, new)
        self.replaced[module] = new
        self.rows.append(MappedLayer(name, type(module).__name__, became, note, products))
        if isinstance(module, nn.MultiheadAttention):
            self._keep_activation_product(name, "attention")


def _pulsed_matrix(layer: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of the matrix of a layer without groups."""
    weight: Any = layer.weight
    first, second = weight.shape[0], weight[0].numel()
    return (first, second) if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) else (second, first)


def _own_matrices(module: nn.Module, name: str, but: Collection[str]) -> list[MappedLayer]:
    """Parameters that a forward() may multiply with by itself, beside the layers that it calls."""
    return [
        MappedLayer(
            f"{name}.{own}" if name else own,
            type(value).__name__,
            "digital",
            why=f"used by forward() of {type(module).__name__} itself; to map a product with it, make it a layer"
            if value.is_floating_point()
            else "complex numbers: a crossbar multiplies with real ones",
        )
        for own, value in module.named_parameters(recurse=False)
        if own not in but and not nn.parameter.is_lazy(value) and sum(size > 1 for size in value.shape) > 1
    ]


def _hugging_face_conv1d(module: nn.Module) -> type[nn.Module] | None:
    """The class `Conv1D` of Hugging Face's transformers, if the module is one: known by its name, `nf` and weight."""
    weight = module._parameters.get("weight")
    if weight is None or weight.dim() != 2 or module.__dict__.get("nf") != weight.shape[1]:
        return None
    return next((kind for kind in type(module).__mro__ if kind.__name__ == "Conv1D"), None)


def _why_not(module: nn.Module, base: type[nn.Module], name: str, chosen: Chosen) -> str | None:
    """Why a layer of a known kind stays digital; None if it need not."""
    if not chosen(name, module):
        return "left out by only= or skip="
    if isinstance(module, tuple(_ANALOG.values())):
        return "is on crossbars already"
    own_forward = "forward" in vars(module)  # as adapters and offloading hooks of training libraries set it
    if own_forward and not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)) and base in _ANALOG:
        return "its forward is replaced on the instance"
    if isinstance(module, nn.MultiheadAttention):
        if module.bias_k is not None or module.add_zero_attn:
            return "add_bias_kv and add_zero_attn are not mapped"
        if parametrize.is_parametrized(module) or parametrize.is_parametrized(module.out_proj):
            return "its weights are computed from other parameters; remove the parametrization to map it"
        return None if type(module).forward is base.forward else f"overrides {base.__name__}.forward"
    weights = ["weight"]
    if isinstance(module, nn.RNNBase):
        weights = module._flat_weights_names
    elif isinstance(module, nn.RNNCellBase):
        weights = ["weight_ih", "weight_hh"]
    if parametrize.is_parametrized(module) or any(
        not isinstance(module._parameters.get(name), nn.Parameter) for name in weights
    ):
        return "its weight is computed from other parameters; remove the parametrization to map it"
    if type(module).forward is not base.forward:
        return f"overrides {base.__name__}.forward"
    if own_forward and not own_forward_multiplies(module):
        return "its forward is replaced on the instance"
    return None


def _check_weights(module: nn.Module, name: str) -> None:
    for parameter_name, value in module.named_parameters(recurse=False):
        if nn.parameter.is_lazy(value):
            raise ConversionError(f"layer {name!r}: {parameter_name} has no size yet; run one batch through the model")
        if value.device.type != "meta" and not bool(torch.isfinite(value).all()):
            raise ConversionError(
                f"layer {name!r}: {parameter_name} has NaN or infinite values; was the training stable? "
                "Load a good checkpoint first"
            )
        if not value.is_floating_point() or value.numel() == 0:
            raise ConversionError(
                f"layer {name!r}: {parameter_name} must be real numbers, at least one; got {tuple(value.shape)} "
                f"of {value.dtype}"
            )
