"""Which conversion function makes a network ready for which target.

A new kind of hardware is one configuration class and one function registered here with `register_target`; nothing else
needs to change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hpml_sim.conversion.converted import Converted
from hpml_sim.errors import ConversionError, HpmlError, shown

Converter = Callable[[nn.Module, Any, Callable[[str, nn.Module], bool]], Converted]
"""(private copy of the network, configuration, whether to convert a layer of this name) -> converted network."""
_CONVERTERS: dict[type, Converter] = {}


def register_target(config: type) -> Callable[[Converter], Converter]:
    """Bind a conversion function to a configuration class, so that `hs.convert` takes its instances.

    The function gets a private copy of the network, the configuration, and a predicate (name, module) -> bool that
    says whether the caller wants this layer converted. It returns a `Converted`.

    Args:
        config: the class of the configurations, usually a frozen dataclass.

    Returns:
        A decorator for the conversion function.

    Raises:
        HpmlError: `config` is no class or a built-in target, or the function cannot be called.

    Example:
        >>> from dataclasses import dataclass
        >>> import hpml_sim as hs
        >>> @dataclass(frozen=True)
        ... class Halved:
        ...     '''Weights at half their size.'''
        >>> @hs.register_target(Halved)
        ... def halve(network, target, wanted):
        ...     for name, layer in network.named_modules():
        ...         if isinstance(layer, torch.nn.Linear) and wanted(name, layer):
        ...             layer.weight.data /= 2
        ...     return hs.Converted(network, target, layers=())
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 2))
        >>> halved = hs.convert(net, Halved())
        >>> torch.equal(halved.network[0].weight, net[0].weight / 2)
        True
    """
    if not isinstance(config, type):
        raise HpmlError(f"register_target: config={shown(config)}: must be a class, such as a frozen dataclass")

    def bind(converter: Converter) -> Converter:
        if not callable(converter):
            raise HpmlError(
                f"register_target({config.__name__}): conversion function={shown(converter)}: must be a function "
                "(network, target, wanted) -> Converted"
            )
        if config.__module__.startswith("hpml_sim.") and not converter.__module__.startswith("hpml_sim."):
            raise HpmlError(
                f"register_target({config.__name__}): a built-in target keeps its conversion function; "
                "make a class of your own, such as a frozen dataclass"
            )
        _CONVERTERS[config] = converter
        return converter

    return bind


def is_registered(config: object) -> bool:
    """Whether a conversion function is bound to the class of a configuration.

    Args:
        config: an instance of any class.
    """
    return type(config) in _CONVERTERS


def converter_of(config: object) -> Converter:
    """The conversion function of a configuration.

    Args:
        config: an instance of a configuration class.

    Raises:
        ConversionError: no conversion function is bound to its class.
    """
    if not is_registered(config):
        raise ConversionError(
            f"target={shown(config)}: nothing converts for a {type(config).__name__}; bind a conversion "
            "function to it with hs.register_target"
        )
    return _CONVERTERS[type(config)]
