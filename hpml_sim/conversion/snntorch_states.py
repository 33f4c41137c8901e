"""What snnTorch's neurons keep from call to call: put to rest before a call, put back after a look at the network.

A snnTorch neuron holds its membrane in itself, and `snntorch.utils.reset` knows the neurons that were built, not their
copies. A copy of a network would so go on, in each call, where its last one ended, whatever its `forward()` resets.
snnTorch need not be installed: its neurons are known by the name of their class.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NEURON = "snntorch._neurons.neurons.SpikingNeuron"


def snntorch_neurons(model: nn.Module) -> dict[str, Any]:
    """The snnTorch neurons in a network, by name.

    Args:
        model: any network.
    """
    return {name: module for name, module in model.named_modules() if is_snntorch_neuron(module)}


def is_snntorch_neuron(module: nn.Module) -> bool:
    """Whether a `module` is a neuron of snnTorch, or of a class made from one."""
    return any(f"{kind.__module__}.{kind.__qualname__}" == _NEURON for kind in type(module).__mro__)


def _kept(neuron: nn.Module) -> dict[str, Tensor | None]:
    """What a neuron holds of its last call: buffers that are no part of its state dict."""
    return {name: neuron._buffers[name] for name in neuron._non_persistent_buffers_set if name in neuron._buffers}


def put_to_rest(model: nn.Module) -> None:
    """Put all snnTorch neurons in a network to rest, as they were when they were built.

    Args:
        model: any network.
    """
    for neuron in snntorch_neurons(model).values():
        like = neuron.threshold.detach()
        for name in _kept(neuron):
            neuron._buffers[name] = torch.zeros(0, dtype=like.dtype, device=like.device)


@contextmanager
def calls_from_rest(model: nn.Module, others: tuple[nn.Module, ...] = ()) -> Iterator[None]:
    """Within the block each call of a network starts with its snnTorch neurons at rest; afterwards they are as before.

    Args:
        model: any network.
        others: networks in it that are called by themselves, such as a converted one in programmed chips.
    """
    neurons = snntorch_neurons(model)
    if not neurons:
        yield
        return
    held = [(neuron, _kept(neuron)) for neuron in neurons.values()]
    # the module that is called, which may be a copy: hooks go with copies
    handles = [module.register_forward_pre_hook(lambda called, _: put_to_rest(called)) for module in {model, *others}]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for neuron, states in held:
            neuron._buffers.update(states)


def known_to_snntorch(copied: nn.Module) -> None:
    """Let `snntorch.utils.reset` find the neurons of a copy, as long as they live.

    Args:
        copied: a copy of a network.
    """
    for neuron in snntorch_neurons(copied).values():
        neuron.instances[:] = [known for known in neuron.instances if known is not None]
        if not any(known is neuron for known in neuron.instances):
            proxy = weakref.proxy(neuron)
            neuron.instances.append(proxy)
            weakref.finalize(neuron, _forget, type(neuron), proxy)


def _forget(kind: type, proxy: Any) -> None:
    """Take a neuron that is no more off snnTorch's list, which may be another one by now.

    Its place stays until the next copy: snnTorch may be going through the list by its places at this moment, since a
    neuron goes whenever Python collects what is no longer used.
    """
    for base in kind.__mro__:
        if "instances" in vars(base):
            base.instances[:] = [None if known is proxy else known for known in base.instances]
