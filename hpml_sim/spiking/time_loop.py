"""A network of one time step run step by step: what the fold of time into the batch stands for, and must equal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from hpml_sim.spiking.layer_state import StepState
from hpml_sim.spiking.neurons.lif import LeakyNeurons
from hpml_sim.spiking.time_folded_layers import TimeFoldedDropout
from hpml_sim.spiking.time_folding import TimeFolded


def prepare_pass(module: nn.Module, steps: int) -> None:
    """Make all neurons inside a network ready for one pass.

    Args:
        module: the network.
        steps: time steps of the pass, >= 1.
    """
    for part in module.modules():
        if isinstance(part, TimeFolded):
            part.steps = steps
        elif isinstance(part, CalledOnce):
            part.called = False


class CalledOnce(nn.Module):
    """A module that runs once in each pass of its network.

    Attributes:
        called: whether it ran in this pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.called = False


def run_step_by_step(network: nn.Module, x: Tensor, steps: int, chips: int = 1) -> Any:
    """What a loop over the steps gives, folded as the network itself would give it.

    Every layer with a memory goes on where it ended a step before. A layer of neurons counts the spikes of all steps.
    Dropout keeps one mask for all steps, where it does so in one pass.

    Args:
        network: takes (chips x steps x batch, ...).
        x: (chips x steps x batch, ...).
        steps: time steps, >= 1.
        chips: simulated chips that lie side by side in the batch, >= 1.

    Returns:
        What the network gives, steps between chips and batch in the first dimension of each tensor.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, TimeFolded)}
    before = {name: module.layer_state for name, module in layers.items()}
    # a mask of dropout is no state: each call draws anew
    now = {
        name: StepState.first(name, None if isinstance(layers[name], TimeFoldedDropout) else state)
        for name, state in before.items()
    }
    spikes: dict[str, int] = {}
    outputs: list[Any] = []
    unfolded = x.reshape(chips, steps, x.shape[0] // (chips * steps), *x.shape[1:])
    try:
        for step in unfolded.unbind(1):
            prepare_pass(network, 1)
            for name, module in layers.items():
                module.layer_state = now[name]
            outputs.append(network(step.flatten(0, 1)))
            for name, module in layers.items():
                now[name] = now[name].next_step()
                if isinstance(module, LeakyNeurons) and not module.training and module.spike_count is not None:
                    spikes[name] = spikes.get(name, 0) + module.spike_count
    finally:
        for name, module in layers.items():
            module.layer_state = before[name]
        prepare_pass(network, steps)
    for name, module in layers.items():
        outer = before[name]
        if isinstance(module, LeakyNeurons) and name in spikes:
            module.spike_count = spikes[name]
        if outer is not None and not isinstance(module, TimeFoldedDropout):
            outer.final.update(now[name].start)
    return _folded(outputs, chips)


def _folded(outputs: list[Any], chips: int) -> Any:
    """The outputs of all steps as one pass over all of them gives them."""
    by_step = [tree_flatten(output)[0] for output in outputs]

    def join(parts: tuple[Any, ...]) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        if parts[0].dim() == 0:
            return torch.stack(parts)
        return torch.stack([part.unflatten(0, (chips, part.shape[0] // chips)) for part in parts], 1).flatten(0, 2)

    return tree_unflatten([join(parts) for parts in zip(*by_step, strict=True)], tree_flatten(outputs[0])[1])
