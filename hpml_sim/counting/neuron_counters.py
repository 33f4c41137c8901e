"""How spiking neurons are counted: snnTorch's, called step by step or with all steps, and ours, with time folded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hpml_sim.counting.fan_out import activity, has_values
from hpml_sim.counting.layer_counters import count_conv, count_linear, count_nothing, count_values
from hpml_sim.counting.operation_counts import LayerCount
from hpml_sim.counting.rule import Rule
from hpml_sim.counting.tensors import first_tensor


def _neurons(out: Tensor, steps: int, x: Tensor, *, fires: bool = True) -> list[LayerCount]:
    active = float(torch.count_nonzero(out)) if has_values(out) else 0.0
    elements = float(out.numel())
    return [
        LayerCount(
            "",
            "neuron",
            updates=elements,
            spikes=active if fires else 0.0,
            steps=steps,
            output_elements=elements,
            zero_outputs=elements - active,
            **activity(x),
        )
    ]


def _count_step_neurons(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Neurons called once a time step (snnTorch): calls add up."""
    return _neurons(first_tensor(output), 1, first_tensor(inputs))


def _count_sequence_neurons(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """snnTorch's neurons called with (steps, batch, ...); `StateLeaky(output=False)` gives membranes, no spikes."""
    out = first_tensor(output)
    return _neurons(out, out.shape[0], first_tensor(inputs), fires=getattr(module, "output", True))


def _count_folded_neurons(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Neurons called once with all steps folded into the batch (ours)."""
    return _neurons(first_tensor(output), module.steps, first_tensor(inputs))


def _count_recurrent_neurons(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Ours with recurrent connections: the spikes of the step before, times the recurrent weights, at every step."""
    counts = _count_folded_neurons(module, inputs, output)
    if module.recurrent is None:
        return counts  # one weight a neuron, part of its update
    out = module.unfold(first_tensor(output))
    before = torch.cat([torch.zeros_like(out[:, :1]), out[:, :-1]], dim=1).flatten(0, 2)
    counter = count_linear if isinstance(module.recurrent, nn.Linear) else count_conv
    return [*counts, *(replace(count, name="recurrent") for count in counter(module.recurrent, (before,), before))]


def _count_integrators(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Membranes without spikes, called once with all steps folded into the batch (ours)."""
    return _neurons(first_tensor(output), module.steps, first_tensor(inputs), fires=False)


def _count_axonal_delays(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """Values that are written once more, and arrive later."""
    return [replace(row, delay_steps=module.max_delay) for row in count_values("copy")(module, inputs, output)]


def _count_delayed_linear(module: Any, inputs: tuple[Any, ...], output: Any) -> list[LayerCount]:
    """A linear layer, as a chip runs it: each spike meets each of its synapses once, whatever the delays."""
    return [replace(row, delay_steps=module.max_delay) for row in count_linear(module, inputs, output)]


NEURONS: dict[type | str, Rule] = {
    "snntorch._neurons.neurons.SpikingNeuron": Rule(_count_step_neurons, sub_layers=True),
    "snntorch._neurons.stateleaky.StateLeaky": Rule(_count_sequence_neurons, sub_layers=True),
    "snntorch._neurons.associative.AssociativeLeaky": Rule(None),  # linear attention, not neurons
    "snntorch._neurons.leakyparallel.LeakyParallel": Rule(_count_sequence_neurons, sub_layers=True),
    "hpml_sim.spiking.neurons.lif.LeakyNeurons": Rule(_count_folded_neurons),
    "hpml_sim.spiking.neurons.recurrent.RecurrentNeurons": Rule(_count_recurrent_neurons),
    "hpml_sim.spiking.neurons.integrators.LeakyIntegrators": Rule(_count_integrators),
    "hpml_sim.spiking.time_folded_layers.TimeFoldedMaxPool": Rule(count_values("pool")),
    "hpml_sim.spiking.time_folded_layers.TimeFoldedDropout": Rule(count_nothing),
    "hpml_sim.spiking.time_folded_layers.TimeFoldedMean": Rule(None),
    "hpml_sim.spiking.delays.AxonalDelays": Rule(_count_axonal_delays),
    "hpml_sim.spiking.delays.DelayedLinear": Rule(_count_delayed_linear),
    "hpml_sim.spiking.encoders": Rule(count_values("encoder")),
}
"""Rules by class. Strings, so that snnTorch need not be imported to be known."""
