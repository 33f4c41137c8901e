"""`to_digital`: the digital network again, with the weights that were trained, or with those that a chip holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.analog.activation_products import names_weights
from hpml_sim.analog.attention import AnalogMultiheadAttention
from hpml_sim.analog.carrying_over import HOOKS, Origin
from hpml_sim.analog.chips import Chips
from hpml_sim.analog.crossbar import Crossbar
from hpml_sim.analog.effective_weights import full_scale
from hpml_sim.analog.experts import is_beside, without_experts
from hpml_sim.analog.layer_names import layer_to_skip
from hpml_sim.analog.layers import crossbars
from hpml_sim.analog.linear import AnalogLinear
from hpml_sim.analog.low_rank_adapter import adapter_of
from hpml_sim.analog.programmed_layer import weights_of_cells
from hpml_sim.analog.programmed_model import NetworkPerChip, ProgrammedModel
from hpml_sim.analog.programmed_tiles import ProgrammedTiles
from hpml_sim.analog.pulsed.devices import pulsed_tiles
from hpml_sim.analog.recurrent import AnalogRecurrent
from hpml_sim.analog.recurrent_cells import AnalogCell
from hpml_sim.analog.weight_limits import forget_limit_of_loaded
from hpml_sim.analog.weight_uses import WeightUse
from hpml_sim.conversion import Converted
from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.modules import check_network
from hpml_sim.conversion.references import replace_references
from hpml_sim.conversion.torch_fast_path import allow_fast_path
from hpml_sim.errors import ConversionError, HpmlError, check_whole
from hpml_sim.targets import Spiking


def to_digital(model: nn.Module, *, bits: int | None = None) -> nn.Module:
    """The digital network again: the classes, attributes and state-dict keys that it had before `hs.convert`.

    Of a model in training it has the trained weights, clipped as they were mapped; of one programmed chip, the weights
    that the chip multiplies with at that time, its drift compensation included. Where a chip does a product in digital,
    with the weights from before programming, so does its twin: such a layer has both, `weight` and `chip_weight`.
    Adapters of `hs.lora` are added to the weights, and what they froze can be trained again. Converters and noise of
    the outputs are no weights: the network computes in full precision.

    Args:
        model: a converted model with analog layers, a network with layers of `hs.nn`, or one programmed chip at a time,
            `chips.at("1 day", only=0)`. It is not changed.
        bits: the weights of its analog layers are rounded to the nearest of 2^bits - 1 equally spaced numbers around
            zero, the largest of each output channel among them, 2 to 16: training under weight noise makes a network
            good for few bits too. None: they stay as they are.

    Returns:
        A new network, in the mode (training or evaluation) of the model. Weights that were tied are tied again; those
        of a chip are not, because each layer has devices of its own, nor is a weight that an adapter was added to.

    Raises:
        HpmlError: no network, several chips at once, no analog layers, `bits` out of range, or chips that must be
            called first because forward() multiplies with weights by itself.
        ConversionError: a network that was converted for another machine, or trained in place on devices; or one
            parameter that a chip uses in both ways outside of its layer.

    Example:
        >>> import torch, hpml_sim as hs
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4))
        >>> analog = hs.convert(net, "pcm-hermes")
        >>> list(hs.to_digital(analog).state_dict())
        ['0.weight', '0.bias']
        >>> chips = hs.program(analog, chips=2, seed=0)
        >>> hs.to_digital(chips.at("1 day", only=1))(torch.rand(5, 8)).shape
        torch.Size([5, 4])
    """
    if isinstance(model, Chips):
        raise HpmlError("to_digital: chips drift, so their weights have a time; give chips.at('1 day', only=0)")
    check_network("to_digital: model", model)
    if bits is not None:
        bits = check_whole("to_digital: bits", bits, low=2, high=16, hint="such as 4")
    if isinstance(model, ProgrammedModel):
        return _twin(model, bits)
    _check(model)
    network = _inner(clone(model))
    uses = Counter(id(parameter) for _, parameter in network.named_parameters(remove_duplicate=False))
    adapted = False
    for name, crossbar in crossbars(network).items():
        layer: Any = network.get_submodule(name)
        # others that use a tied weight do not clip it; experts share theirs with the module that owns it
        if uses[id(layer.weight)] == 1 + is_beside(name):
            _clip(layer, crossbar)
        if (adapter := adapter_of(layer)) is not None:
            # after the limit: an adapter is digital, nothing clips it. Others that use a tied weight have no part in it
            merged = layer.weight.detach() + layer.from_plain_matrix(adapter.matrix().detach()).to(layer.weight.dtype)
            layer.weight, adapted = nn.Parameter(merged), True
        if bits is not None:
            _round(layer, bits)
    # what was frozen beside adapters can be trained again
    return _replaced(network).requires_grad_(True) if adapted else _replaced(network)


def _check(model: nn.Module) -> None:
    if isinstance(model, Converted) and isinstance(model.target, Spiking) and not crossbars(model):
        raise ConversionError(
            f"to_digital: the model was converted for {model.target.card!r}: its activations are neurons now, and its "
            "weights were scaled to their thresholds; keep the network that hs.convert was given"
        )
    if pulsed_tiles(model):
        raise ConversionError(
            "to_digital: the weights of devices that are trained in place are aihwkit's; "
            "aihwkit.nn.conversion.convert_to_digital(model.network) reads them"
        )
    if not crossbars(model):
        raise HpmlError("to_digital: the model has no analog layers; give what hs.convert(model, 'pcm-hermes') made")


def _inner(network: nn.Module) -> nn.Module:
    return network.network if isinstance(network, Converted) else network


def _clip(layer: Any, crossbar: Crossbar) -> None:
    """Give a layer the weights that are mapped: clipped where training clipped them."""
    if crossbar.training and crossbar.target.weight_clip is None:
        return
    with torch.no_grad():
        own = layer.matrix()
        matrix, limit = crossbar.within_limit(own) if crossbar.training else crossbar.mapped(own)
        if matrix.numel() and float(matrix.abs().max()) > limit:
            matrix = matrix.clamp(-limit, limit)
        if matrix is not own:
            layer.weight.copy_(layer.from_matrix(matrix))


@torch.no_grad()
def _round(layer: Any, bits: int) -> None:
    """Round the weights of a layer to few bits, each output channel in units of its largest.

    Source: round-to-nearest of Analog Foundation Models, arXiv:2505.09663; `DISCRETIZE_PER_CHANNEL` of
    aihwkit-lightning.
    """
    matrix, most = layer.plain_matrix(), 2 ** (bits - 1) - 1
    largest = full_scale(matrix).unsqueeze(-1)
    # a parameter of its own: others that use a tied weight are not rounded
    layer.weight = nn.Parameter(layer.from_plain_matrix((matrix / largest * most).round() * (largest / most)))


# ---------------------------------------------------------------------------------------------------- a chip's weights


def _twin(model: ProgrammedModel, bits: int | None) -> nn.Module:
    """The digital twin of one chip."""
    if isinstance(model.network, NetworkPerChip):
        raise ConversionError(
            "to_digital: chips of engine='aihwkit' hold aihwkit's layers; program them with engine='fused'"
        )
    if model.n_chips != 1:
        raise HpmlError(
            f"to_digital: the model holds {model.n_chips} chips, which have weights each; give one of them, "
            "chips.at('1 day', only=0)"
        )
    # a layer that lies in memory for many times shares its tiles with the copy, which drops them
    tiles = {id(found): found for c in crossbars(model.network).values() if (found := c.programmed) is not None}
    uses = _checked_uses(model)
    network = clone(model.network, dict(tiles))
    nominal: dict[str, Tensor] = {}
    for name, crossbar in crossbars(network).items():
        layer: Any = network.get_submodule(name)
        assert crossbar.programmed is not None
        use = uses.get(name)
        if use is not None and use.nominal and not use.layer:  # the chip never multiplies with its tiles
            crossbar.programmed = None
            continue
        weight = layer.from_matrix(effective_matrix(crossbar, crossbar.programmed, 0))
        # a parameter of its own: what was tied lies on devices of its own
        own = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)
        if use is not None and use.nominal:
            nominal[name] = layer.weight
        layer.weight = own
        crossbar.programmed = None
        if (adapter := adapter_of(layer)) is not None:
            with torch.no_grad():
                layer.weight += layer.from_plain_matrix(adapter.matrix()).to(layer.weight.dtype)
            del layer._modules["adapter"]
        if bits is not None:
            _round(layer, bits)
    twin = _replaced(_inner(network)).requires_grad_(True)
    for name, weight in nominal.items():
        _keep_nominal(twin.get_submodule(name.removeprefix("network").removeprefix(".")), weight)
    return twin


def _checked_uses(model: ProgrammedModel) -> Mapping[str, WeightUse]:
    """What chips do with the weights of their layers beside calling the layers, as far as a network can have it."""
    if model.uses.found is None:
        if any(map(names_weights, model.network.modules())) or any(map(is_beside, crossbars(model.network))):
            raise HpmlError(
                "to_digital: forward() of this network multiplies with weights by itself, and only a call tells what "
                "of it lies on the chip: call the chips once, chips.at('1 day')(inputs), before hs.to_digital"
            )
        return {}
    network = model.network
    for name, use in model.uses.found.items():
        layer: Any = network.get_submodule(name)
        others = sorted(
            f"{owner}.{own}".strip(".")
            for owner, module in network.named_modules()
            for own, parameter in module.named_parameters(recurse=False)
            if parameter is layer.weight and module is not layer and not is_beside(name)
        )
        where = use.nominal or (f"{others[0]} as it is" if others else "")
        if use.product and where:
            raise ConversionError(
                f"to_digital: the chip multiplies with its own weights of {layer_to_skip(network, name)!r} and also "
                f"with the nominal ones ({where}): no digital network has both in one parameter. Let forward() call "
                "the layer, or give the other product a parameter of its own"
            )
    return model.uses.found


def _keep_nominal(layer: nn.Module, weight: Tensor) -> None:
    """Let a layer multiply with a chip's weight, while others find the nominal one in `layer.weight`."""
    chip: Any = layer._parameters["weight"]
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.register_parameter("chip_weight", chip)
    kind = type(layer)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        own = self._parameters
        own["weight"], nominal = own["chip_weight"], own["weight"]
        try:
            return kind.forward(self, *args, **kwargs)
        finally:
            own["weight"] = nominal

    layer.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def effective_matrix(crossbar: Crossbar, tiles: ProgrammedTiles, chip: int) -> Tensor:
    """What one chip multiplies inputs with, as one matrix: slices added up, drift compensation included.

    Args:
        crossbar: of the layer.
        tiles: its programmed tiles.
        chip: which chip, counted from 0.

    Returns:
        shape (groups * cols, rows).
    """
    own = tiles.effective_weights([chip])
    return weights_of_cells(crossbar, own.matrix[0], own.scale[0].squeeze(-2))


# ----------------------------------------------------------------------------------------------------- digital layers


def _replaced(network: nn.Module) -> nn.Module:
    """The network with digital layers in place of the analog ones; a private one, changed in place."""
    without_experts(network)
    new: dict[int, Any] = {}
    analog = []
    for module in network.modules():
        if id(module) not in new and (digital := _digital(module)) is not None:
            new[id(module)] = digital
            analog.append(module)  # an id counts as long as its object lives
    network = new.get(id(network), network)
    replace_references(network, new)
    allow_fast_path(network)
    return network


def _digital(module: Any) -> nn.Module | None:
    """The digital layer of an analog one; None for any other module."""
    if isinstance(module, AnalogMultiheadAttention):
        return _as_it_was(_attention(module), module)
    if isinstance(module, AnalogRecurrent):
        return _as_it_was(_recurrent(module), module)
    if isinstance(module, AnalogCell):
        return _as_it_was(_cell(module), module)
    if isinstance(module._modules.get("crossbar"), Crossbar):
        return _plain(module)
    return None


def _plain(layer: Any) -> nn.Module:
    """A linear or convolutional layer: all that it holds but the crossbar."""
    own = vars(layer)
    origin: Origin | None = own.get("digital_origin")
    if origin is None:  # a layer of `hs.nn`, put in by hand: the class of torch's that it stands for
        bases = [kind for kind in type(layer).__mro__ if kind.__module__.startswith("torch.nn")]
        origin = Origin(bases[0], frozenset(own) - {"digital_origin"})
    digital: Any = origin.kind.__new__(origin.kind)
    digital.__dict__.update({key: value for key, value in own.items() if key in origin.attributes})
    for kind in ("_parameters", "_buffers", "_modules"):
        digital.__dict__[kind] = {key: value for key, value in own[kind].items() if key not in ("crossbar", "adapter")}
    hooks = own["_load_state_dict_pre_hooks"]
    kept = {key: hook for key, hook in hooks.items() if getattr(hook, "hook", hook) is not forget_limit_of_loaded}
    digital.__dict__["_load_state_dict_pre_hooks"] = type(hooks)(kept)
    digital.__dict__["training"] = layer.training
    return digital  # type: ignore[no-any-return]


def _as_it_was(digital: nn.Module, layer: Any) -> nn.Module:
    """Torch's layer with the class and the attributes that a user gave it."""
    own, origin = vars(layer), vars(layer).get("digital_origin")
    digital.train(layer.training)
    if origin is None:
        return digital
    digital.__class__ = origin.kind
    mine = vars(digital)
    for key, value in own.items():
        if key in origin.attributes and (key not in mine or key.startswith(HOOKS)):
            mine[key] = value
    return digital


def _attention(layer: AnalogMultiheadAttention) -> nn.Module:
    width, parts = layer.embed_dim, (layer.query, layer.key, layer.value)
    digital: Any = nn.MultiheadAttention(
        width,
        layer.num_heads,
        layer.dropout,
        bias=layer.query.bias is not None,
        kdim=layer.key.in_features,
        vdim=layer.value.in_features,
        batch_first=layer.batch_first,
        device="meta",
    )
    learns = layer.query.weight.requires_grad
    if digital.in_proj_weight is not None:
        digital.in_proj_weight = nn.Parameter(torch.cat([part.weight.detach() for part in parts]), learns)
    else:
        digital.q_proj_weight, digital.k_proj_weight, digital.v_proj_weight = (part.weight for part in parts)
    if digital.in_proj_bias is not None:
        biases = [part.bias.detach() for part in parts]
        digital.in_proj_bias = nn.Parameter(torch.cat(biases), layer.query.bias.requires_grad)
    digital.out_proj.weight, digital.out_proj.bias = layer.output.weight, layer.output.bias
    return digital


def _recurrent(layer: AnalogRecurrent) -> nn.Module:
    options: dict[str, Any] = {"nonlinearity": "relu"} if layer.mode == "RNN_RELU" else {}
    if layer.proj_size:
        options["proj_size"] = layer.proj_size
    torch_layer: Any = layer.digital
    digital = torch_layer(
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        bias=layer.bias,
        batch_first=layer.batch_first,
        dropout=layer.dropout,
        bidirectional=layer.bidirectional,
        device="meta",
        **options,
    )
    ways = ("", "_reverse")[: 1 + layer.bidirectional]
    cells: list[Any] = list(layer.cells)
    for index, cell in enumerate(cells):
        _give(digital, cell, f"_l{index // len(ways)}{ways[index % len(ways)]}")
    return digital


def _cell(cell: AnalogCell) -> nn.Module:
    kind = {"AnalogRNNCell": nn.RNNCell, "AnalogLSTMCell": nn.LSTMCell, "AnalogGRUCell": nn.GRUCell}
    options: dict[str, Any] = {"nonlinearity": "relu"} if cell.relu else {}
    bias = cell.input.bias is not None
    digital = kind[type(cell).__name__](cell.input_size, cell.hidden_size, bias=bias, device="meta", **options)
    _give(digital, cell, "")
    return digital


def _give(digital: nn.Module, cell: AnalogCell, suffix: str) -> None:
    """Torch's names for the weights of one cell."""
    parts: tuple[tuple[str, AnalogLinear | None], ...] = (
        ("ih", cell.input),
        ("hh", cell.hidden),
        ("hr", cell.projection),
    )
    for name, part in parts:
        if part is None:
            continue
        setattr(digital, f"weight_{name}{suffix}", part.weight)
        if part.bias is not None:
            setattr(digital, f"bias_{name}{suffix}", part.bias)
