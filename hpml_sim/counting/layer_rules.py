"""The kinds of layers that the workload knows: a table {class: how to count one call of it}."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from hpml_sim.counting.layer_counters import ANALOG_LAYERS, TORCH_LAYERS
from hpml_sim.counting.neuron_counters import NEURONS
from hpml_sim.counting.rule import Counter, Rule

_RULES: dict[type | str, Rule] = TORCH_LAYERS | ANALOG_LAYERS | NEURONS
"""All rules, those of `register_counter` among them. A string stands for a class, or for all classes of a file."""


def register_counter(cls: type[nn.Module], *, sub_layers: bool = False) -> Callable[[Counter], Counter]:
    """Teach the workload a layer (and its subclasses): a decorator for the function that counts one call of it.

    Args:
        cls: the layer's class.
        sub_layers: known layers that it calls count themselves; otherwise the function speaks for them.

    Returns:
        A decorator. The function takes (module, inputs, output) and gives a `LayerCount` for each matrix of the layer,
        for all samples of the batch together.

    Example:
        >>> import torch, hpml_sim as hs
        >>> from hpml_sim.counting import product, register_counter
        >>> class Packed(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.zeros(len(x), 3)  # by a kernel that nobody can see into
        >>> @register_counter(Packed)
        ... def count_packed(module, inputs, output):
        ...     return [product(inputs[0].reshape(1, -1, 4), 3)]
        >>> hs.workload(Packed(), input_shape=(4,)).total("macs")
        12.0
    """

    def bind(counter: Counter) -> Counter:
        _RULES[cls] = Rule(counter, sub_layers)
        return counter

    return bind


def rule_for(cls: type[nn.Module]) -> tuple[Rule, type] | None:
    """The rule of the nearest known base class, and that class; None for a class that is not known.

    Args:
        cls: class of a module.
    """
    for base in cls.__mro__:
        for key in (base, f"{base.__module__}.{base.__qualname__}", base.__module__):
            if key in _RULES:
                return _RULES[key], base
    return None
