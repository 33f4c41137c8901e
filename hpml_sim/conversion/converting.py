"""`convert(model, target)`: one function, a configuration as its argument, a new network as its result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hpml_sim.conversion.cloning import clone
from hpml_sim.conversion.converted import Converted
from hpml_sim.conversion.modules import check_network
from hpml_sim.conversion.registry import converter_of, is_registered
from hpml_sim.errors import ConversionError, HpmlError, UnknownNameError, shown
from hpml_sim.targets import Analog, InMemory, PerLayer, Target, as_target

if TYPE_CHECKING:
    from pathlib import Path

LayerChoice = Iterable[str] | Callable[[str, nn.Module], bool] | None
"""Which layers: names (a name also covers what lies below it), or a predicate (name, module) -> bool."""


def convert(
    model: nn.Module,
    target: Target | PerLayer | str | Path | Mapping[str, Analog | InMemory | str | Path],
    *,
    only: LayerChoice = None,
    skip: LayerChoice = None,
    **options: object,
) -> Converted:
    """Make a network ready for a target. The argument is never changed.

    Args:
        model: any `nn.Module` that takes (batch, ...) tensors; of a network that `torch.compile` gave back, the one in
            it.
        target: `Digital(...)`, `Analog(...)`, `InMemory(...)`, `Spiking(...)`, an instance of a class of your own
            (`hs.register_target`), or the name or path of a card: its kind picks the class. Or analog targets by the
            names of layers, `{"features": Analog("pcm"), "head": "pcm-hermes"}`: a name covers what lies below it, the
            longest one counts, and what no name covers stays digital.
        only: convert these layers only: names (dotted, as in `model.named_modules()`; a name covers what lies below
            it), or a predicate (name, module) -> bool; None converts all.
        skip: leave these layers as they are: names (a name covers what lies below it), or a predicate (name, module) ->
            bool; None leaves none.
        options: none are allowed: a target's options belong to the target, such as hs.Analog("pcm-hermes", adc_bits=4).

    Returns:
        A new model; its `.report` has a row for each layer.

    Raises:
        UnknownNameError: a card or a layer name that does not exist.
        ConversionError: nothing could be converted, or the network is a TorchScript one.
        HpmlError: no network or no target, an option, or a network that cannot be copied.

    Example:
        >>> import hpml_sim as hs
        >>> net = hs.models.mlp(64, 32, 10)
        >>> analog = hs.convert(net, hs.Analog("pcm-hermes", adc_bits=6), skip="1")
        >>> list(analog.report["became"])
        ['digital', 'digital', 'digital', 'AnalogLinear']
        >>> hs.convert(net, "pcm-hermes", skip="head")
        Traceback (most recent call last):
        hpml_sim.errors.UnknownNameError: unknown layer in skip= 'head'. Known: 0, 1, 2, 3.
    """
    model = _written_in_python(check_network("convert: model", model, other=target))
    if options:
        _refuse_options(target, options)
    if isinstance(model, Converted):
        raise ConversionError(f"model is already converted for {model.target!r}; convert the original network instead")
    config = _config(model, target)
    chosen = layer_chooser("convert", model, only, skip)
    return converter_of(config)(clone(model), config, chosen)


def _config(model: nn.Module, target: Any) -> Any:
    """The configuration that a target stands for."""
    if isinstance(target, PerLayer):  # its names were not held against any network yet
        return _per_layer(model, target.layers)
    if is_registered(target):
        return target
    return _per_layer(model, target) if isinstance(target, Mapping) else as_target(target)


def _refuse_options(target: object, options: Mapping[str, object]) -> None:
    """Say how the target is written with these options."""
    given = ", ".join(f"{name}={shown(value)}" for name, value in options.items())
    example = "hs.Analog('pcm-hermes', adc_bits=4)"
    if isinstance(target, str):
        kind = type(as_target(target))
        if all(name in {field.name for field in fields(kind)} for name in options):
            example = f"hs.{kind.__name__}({target!r}, {given})"
    raise HpmlError(f"convert: {given}: options belong to the target: hs.convert(model, {example})")


def _written_in_python(model: nn.Module) -> nn.Module:
    """The network itself where it was handed over as `torch.compile` gave it back."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ConversionError(
            f"{type(model).__name__}: layers of a scripted or traced network cannot be replaced; convert the network "
            "in Python that it was made from"
        )
    compiled = sys.modules.get("torch._dynamo.eval_frame")  # where it was never imported, nothing was compiled
    if compiled is not None and isinstance(model, compiled.OptimizedModule):
        return model._orig_mod  # type: ignore[return-value]
    return model


def _per_layer(model: nn.Module, targets: Mapping[str, Any]) -> PerLayer:
    names = _names(model)
    with_weights = {name for name, module in model.named_modules() if name and any(True for _ in module.parameters())}
    layers = {}
    for name, given in targets.items():
        if name not in names:
            raise UnknownNameError("layer in target=", name, with_weights)
        target = as_target(given)
        if not isinstance(target, Analog | InMemory):
            raise ConversionError(
                f"target={{{name!r}: {given!r}}}: only crossbars can be chosen layer by layer, each an hs.Analog(...), "
                "an hs.InMemory(...) or the name of a crossbar card; convert the whole network for any other machine"
            )
        layers[name] = target
    if not layers:
        raise HpmlError("target={}: must name at least one layer, such as target={'head': 'pcm-hermes'}")
    return PerLayer(layers)


def layer_chooser(
    where: str, model: nn.Module, only: LayerChoice, skip: LayerChoice
) -> Callable[[str, nn.Module], bool]:
    """What `only=` and `skip=` of a caller mean together.

    Args:
        where: the function that the caller called, which begins the message.
        model: whose layers are named.
        only: these alone; None: all.
        skip: none of these; None: none.

    Returns:
        (name, module) -> whether the caller wants this layer.

    Raises:
        UnknownNameError: a name that is no layer.
        HpmlError: neither names nor a predicate.
    """
    names = _names(model)

    def predicate(argument: str, choice: LayerChoice, otherwise: bool) -> Callable[[str, nn.Module], bool]:
        if choice is None:
            return lambda _name, _module: otherwise
        if isinstance(choice, (type, nn.Module)):  # both can be called, but not with a name and a layer
            raise HpmlError(
                f"{where}: {argument}={shown(choice)}: must be names of layers or a predicate (name, module) -> bool, "
                "such as lambda name, module: isinstance(module, nn.Linear)"
            )
        if callable(choice):
            return choice
        if not isinstance(choice, Iterable):
            known = ", ".join(map(repr, sorted(names - {""})[:3]))
            raise HpmlError(
                f"{where}: {argument}={shown(choice)}: must be names of layers, such as {known}, or a predicate "
                "(name, module) -> bool"
            )
        wanted = [choice] if isinstance(choice, str) else list(choice)
        for name in wanted:
            if name not in names:
                raise UnknownNameError(f"layer in {argument}=", name, names - {""})
        return lambda name, _module: any(name == w or name.startswith(w + ".") for w in wanted)

    is_only, is_skip = predicate("only", only, True), predicate("skip", skip, False)
    return lambda name, module: is_only(name, module) and not is_skip(name, module)


def _names(model: nn.Module) -> set[str]:
    """What can be chosen by name: layers, and parameters that a forward() may multiply with."""
    own = {
        f"{name}.{own}".strip(".")
        for name, module in model.named_modules()
        if not type(module).__module__.startswith("torch.")
        for own, weight in module.named_parameters(recurse=False)
        if not nn.parameter.is_lazy(weight) and weight.dim() in (2, 3)
    }
    return {name for name, _ in model.named_modules()} | own
