"""`convert(model, target)`: one verb, a configuration as its argument, a new model as its result.

A new kind of hardware is one configuration class (`targets.py`) and one function registered here with
`register_target`; nothing else needs to change.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hpml_sim.conversion.cloning import clone
from hpml_sim.errors import ConversionError, UnknownNameError
from hpml_sim.targets import Analog, PerLayer, Target, as_target

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

LayerChoice = Iterable[str] | Callable[[str, nn.Module], bool] | None
"""Which layers: names (a name also covers what lies below it), or a predicate (name, module) -> bool."""


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer.

    Attributes:
        layer: dotted name. was: class before. became: class after, or "digital".
        tiles: crossbar tiles, and utilization: share of their cells in use; None off crossbars.
        why: the reason when the layer was left as it is.
    """

    layer: str
    was: str
    became: str
    tiles: int | None = None
    utilization: float | None = None
    why: str = ""


class Converted(nn.Module):
    """A network made ready for a target: its call is that of the network it was made from.

    Attributes:
        network: the new network. target: the configuration it was made for. layers: what became of each layer.
    """

    def __init__(self, network: nn.Module, target: Target | PerLayer, layers: tuple[LayerReport, ...]):
        super().__init__()
        self.network = network
        self.target = target
        self.layers = layers

    @property
    def report(self) -> pd.DataFrame:
        """One row a layer: what it was, what it became, tiles and utilization, or why it stayed digital."""
        import pandas as pd

        return pd.DataFrame([asdict(layer) for layer in self.layers])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Mostly (batch, ...) -> (batch, ...); whatever the network it was made from takes and gives."""
        return self.network(*args, **kwargs)


Converter = Callable[[nn.Module, Any, Callable[[str, nn.Module], bool]], Converted]
_CONVERTERS: dict[type, Converter] = {}


def register_target(config: type) -> Callable[[Converter], Converter]:
    """Bind a converter to a configuration class.

    The converter gets a private copy of the model, the configuration, and a predicate (name, module) -> bool that says
    whether the caller wants this layer converted. It returns a `Converted`.
    """

    def bind(converter: Converter) -> Converter:
        _CONVERTERS[config] = converter
        return converter

    return bind


def convert(
    model: nn.Module,
    target: Target | str | Path | Mapping[str, Analog | str | Path],
    *,
    only: LayerChoice = None,
    skip: LayerChoice = None,
) -> Converted:
    """Make a network ready for a target. The argument is never changed.

    Args:
        model: any `nn.Module` that takes (batch, ...) tensors; of a network that `torch.compile` gave back, the one in
            it.
        target: `Digital(...)`, `Analog(...)`, `Spiking(...)`, or the name or path of a card: its kind picks the class.
            Or analog targets by the names of layers, `{"features": Analog("pcm"), "head": "pcm-hermes"}`: a name covers
            what lies below it, the longest one counts, and what no name covers stays digital.
        only: convert these layers only: names (dotted, as in `model.named_modules()`; a name covers what lies below
            it), or a predicate (name, module) -> bool.
        skip: leave these layers as they are; given like `only`.

    Returns:
        A new model; its `.report` has a row for each layer.

    Raises:
        UnknownNameError: a card or a layer name that does not exist. ConversionError: nothing could be converted, or
            the network is a TorchScript one. HpmlError: it cannot be copied.
    """
    model = _written_in_python(model)
    config = _per_layer(model, target) if isinstance(target, Mapping) else as_target(target)
    if isinstance(model, Converted):
        raise ConversionError(f"model is already converted for {model.target!r}; convert the original network instead")
    chosen = _chooser(model, only, skip)
    return _CONVERTERS[type(config)](clone(model), config, chosen)


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


def _per_layer(model: nn.Module, targets: Mapping[str, Analog | str | Path]) -> PerLayer:
    names = {name for name, _ in model.named_modules()}
    layers = {}
    for name, given in targets.items():
        if name not in names:
            raise UnknownNameError("layer in target=", name, names - {""})
        target = as_target(given)
        if not isinstance(target, Analog):
            raise ConversionError(
                f"target={{{name!r}: {given!r}}}: only crossbars can be chosen layer by layer, each an hs.Analog(...) "
                "or the name of a crossbar card; convert the whole network for any other machine"
            )
        layers[name] = target
    return PerLayer(layers)


def _chooser(model: nn.Module, only: LayerChoice, skip: LayerChoice) -> Callable[[str, nn.Module], bool]:
    names = {name for name, _ in model.named_modules()}

    def predicate(argument: str, choice: LayerChoice, otherwise: bool) -> Callable[[str, nn.Module], bool]:
        if choice is None:
            return lambda _name, _module: otherwise
        if callable(choice):
            return choice
        wanted = [choice] if isinstance(choice, str) else list(choice)
        for name in wanted:
            if name not in names:
                raise UnknownNameError(f"layer in {argument}=", name, names - {""})
        return lambda name, _module: any(name == w or name.startswith(w + ".") for w in wanted)

    is_only, is_skip = predicate("only", only, True), predicate("skip", skip, False)
    return lambda name, module: is_only(name, module) and not is_skip(name, module)
