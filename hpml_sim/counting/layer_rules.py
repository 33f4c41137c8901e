"""The kinds of layers that the workload knows: a table {class: how to count one call of it}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from hpml_sim.counting.layer_counters import (
    Counter,
    count_attention,
    count_cell,
    count_conv,
    count_embedding,
    count_linear,
    count_nothing,
    count_recurrent,
    count_values,
    in_tiles,
)
from hpml_sim.counting.neuron_counters import (
    count_folded_neurons,
    count_integrators,
    count_recurrent_neurons,
    count_sequence_neurons,
    count_step_neurons,
)


@dataclass(frozen=True)
class Rule:
    """How a class is counted.

    Attributes:
        counter: counts one call; None looks inside instead. sub_layers: layers called inside count themselves
            (otherwise the counter speaks for all that happens inside).
    """

    counter: Counter | None
    sub_layers: bool = False


def register_counter(cls: type[nn.Module], *, sub_layers: bool = False) -> Callable[[Counter], Counter]:
    """Teach the workload a layer (and its subclasses): a decorator for the function that counts one call of it.

    Args:
        cls: the layer's class. sub_layers: known layers that it calls count themselves.

    Example:
        >>> @register_counter(MyLinear)
        ... def count_my_linear(module, inputs, output):
        ...     return [product(inputs[0].reshape(1, -1, module.fan_in), module.fan_out, module.weight.t()[None])]
    """

    def bind(counter: Counter) -> Counter:
        _RULES[cls] = Rule(counter, sub_layers)
        return counter

    return bind


def rule_for(cls: type[nn.Module]) -> tuple[Rule, type] | None:
    """The rule of the nearest known base class, and that class; None for a class that is not known."""
    for base in cls.__mro__:
        for key in (base, f"{base.__module__}.{base.__qualname__}", base.__module__):
            if key in _RULES:
                return _RULES[key], base
    return None


_TIMED = Rule(count_step_neurons, sub_layers=True)
_SEQUENCE = Rule(count_sequence_neurons, sub_layers=True)
_CONV = Rule(count_conv)
_LINEAR = Rule(count_linear)

# A string stands for a class, or for all classes of a file, that need not be imported to be known.
_RULES: dict[type | str, Rule] = {
    nn.Linear: _LINEAR,
    "torch.nn.modules.conv._ConvNd": _CONV,
    nn.RNNBase: Rule(count_recurrent),
    nn.RNNCellBase: Rule(count_cell),
    nn.MultiheadAttention: Rule(count_attention),
    nn.Embedding: Rule(count_embedding),
    nn.Softmax: Rule(count_values("softmax")),
    nn.Softmax2d: Rule(count_values("softmax")),
    nn.Softmin: Rule(count_values("softmax")),
    nn.LogSoftmax: Rule(count_values("softmax")),
    nn.Flatten: Rule(count_nothing),
    nn.Unflatten: Rule(count_nothing),
    nn.Identity: Rule(count_nothing),
    "torch.nn.modules.activation": Rule(count_values("activation", zeros=True)),
    "torch.nn.modules.batchnorm": Rule(count_values("norm")),
    "torch.nn.modules.instancenorm": Rule(count_values("norm")),
    "torch.nn.modules.normalization": Rule(count_values("norm")),
    "torch.nn.modules.pooling": Rule(count_values("pool")),
    "torch.nn.modules.dropout": Rule(count_nothing),
    "torch.nn.modules.padding": Rule(count_values("copy")),
    "torch.nn.modules.pixelshuffle": Rule(count_values("copy")),
    "torch.nn.modules.channelshuffle": Rule(count_values("copy")),
    "torch.nn.modules.upsampling": Rule(count_values("copy")),
    "torch.nn.modules.fold": Rule(count_values("copy")),
    "snntorch._neurons.neurons.SpikingNeuron": _TIMED,
    "snntorch._neurons.stateleaky.StateLeaky": _SEQUENCE,
    "snntorch._neurons.associative.AssociativeLeaky": Rule(None),  # linear attention, not neurons
    "snntorch._neurons.leakyparallel.LeakyParallel": _SEQUENCE,
    "hpml_sim.spiking.neurons.LeakyNeurons": Rule(count_folded_neurons),
    "hpml_sim.spiking.multistep_neurons.RecurrentNeurons": Rule(count_recurrent_neurons),
    "hpml_sim.spiking.neurons.LeakyIntegrators": Rule(count_integrators),
    "hpml_sim.spiking.time_folding.TimeFoldedMaxPool": Rule(count_values("pool")),
    "hpml_sim.spiking.time_folding.TimeFoldedDropout": Rule(count_nothing),
    "hpml_sim.spiking.encoders": Rule(count_values("encoder")),
    "hpml_sim.analog.linear.AnalogLinear": _LINEAR,
    "hpml_sim.analog.convolution._AnalogConv": _CONV,
    "aihwkit.nn.modules.linear": Rule(in_tiles(count_linear)),
    "aihwkit.nn.modules.linear_mapped": Rule(in_tiles(count_linear)),
    "aihwkit.nn.modules.conv": Rule(in_tiles(count_conv)),
    "aihwkit.nn.modules.conv_mapped": Rule(in_tiles(count_conv)),
}
